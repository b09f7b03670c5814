"""The page to draw digits on, in a real Chromium: what a visitor draws, sees, teaches and takes back."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import browser
import pytest
import strokes
from browser import Browser

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.missing() is not None, reason=f"the page needs a browser: {browser.missing()}"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def window():
    with Browser(1280, 900) as found:
        yield found


def served(out, *options):
    command = [sys.executable, "-m", "apps.mnist", "serve", "--out", str(out), "--no-browser", *options]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)


def stopped(process):
    process.terminate()
    process.stdout.close()
    assert process.wait(20) == 143


@pytest.fixture(scope="module")
def address(out, window):
    """The page, after its first start: it trains on the built-in digits, and shows how far it is."""
    process = served(out, "--data", "digits")
    try:
        first = process.stdout.readline().strip()
        window.open(first)
        window.wait(lambda: window.visible("#learning"))
        assert window.script("return document.body.dataset.ready") is None
        window.wait("document.querySelector('#progress').value > 0.1")
        window.wait(READY, 300)
        assert not window.visible("#learning") and window.console() == []
        yield first
    finally:
        stopped(process)


READY = "document.body.dataset.ready !== undefined"
BARS = "return [...document.querySelectorAll('#bars .share')].map((each) => each.textContent)"


@pytest.fixture
def page(window, address):
    window.resize(1280, 900)
    window.prefer(dark=False)
    window.open(address)
    window.wait(READY)
    yield window
    assert window.console() == []


def choose(page, model):
    change = "const s = document.querySelector('#model'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
    page.script(change, model)


def draw(page, digit, variant=0, size=0.6, left=0.2, top=0.2, kind="mouse"):
    page.draw("#pad", [size * stroke + (left, top) for stroke in strokes.drawn(digit, variant)], kind)
    settled(page)


def settled(page):
    """Until the last thing drawn or taught was answered."""
    page.wait("!asking && !stale && !waiting")


def guess(page):
    return page.text("#guess")


def test_the_page_starts_empty(page):
    assert guess(page) == "" and page.script("return document.querySelector('#undo').disabled")
    assert page.script("return document.querySelector('#model').value") == "mlp"
    assert page.script("return document.title").startswith("Draw a digit")
    assert page.script("return document.querySelectorAll('#teach [data-digit]').length") == 10


@pytest.mark.parametrize("model", ["mlp", "lenet", "gru"])
def test_digits_are_read_as_they_are_drawn(page, model):
    """Wherever they are, large or small. The nets learnt from few digits, so one may be wrong."""
    choose(page, model)
    right = 0
    for digit in range(10):
        page.click("#clear")
        assert guess(page) == ""
        draw(page, digit, *((0, 0.7, 0.15, 0.15) if digit % 2 else (1, 0.4, 0.5, 0.1)))
        right += guess(page) == str(digit)
        assert page.visible("#teach")
    assert right >= (8 if model == "mlp" else 9)


def test_what_goes_on_inside_is_shown(page):
    draw(page, 3)
    for model, pictures in (("lenet", 22), ("mlp", 17), ("gru", 1)):
        choose(page, model)
        settled(page)
        assert guess(page) == "3" and page.text("#shown") == model
        assert page.script("return document.querySelectorAll('#layers canvas').length") == pictures
        for canvas, least in (("#seen", 300), ("#gradient", 1000)):  # bytes: more than one colour takes
            assert page.script("return document.querySelector(arguments[0]).toDataURL().length", canvas) > least
    shares = page.script(BARS)
    assert len(shares) == 10 and re.search(r"\d", shares[3])
    cards = page.script("return [...document.querySelectorAll('.net .digit')].map((each) => each.textContent)")
    assert cards == ["3", "3", "3"]


@pytest.mark.parametrize("model", ["mlp", "lenet", "gru"])
def test_a_wrong_answer_is_corrected_with_one_click_and_taken_back(page, address, model):
    choose(page, model)
    draw(page, 7)
    before, bits = (guess(page), page.script(BARS)), weights(page, address, model)
    others = [weights(page, address, name) for name in ("mlp", "lenet", "gru") if name != model]
    page.click('#teach [data-digit="2"]')
    settled(page)
    assert guess(page) == "2" and re.match(r"(Learnt in|It knew)", page.text("#told"))
    assert [weights(page, address, name) for name in ("mlp", "lenet", "gru") if name != model] == others
    page.click("#undo")
    settled(page)
    assert (guess(page), page.script(BARS)) == before and weights(page, address, model) == bits
    assert page.script("return document.querySelector('#undo').disabled")


def weights(page, address, model):
    """The bytes of the net as it is, as the page's link gives them."""
    code = """return fetch(arguments[0]).then((answer) => answer.arrayBuffer())
        .then((bytes) => crypto.subtle.digest('SHA-256', bytes)).then((sum) => Array.from(new Uint8Array(sum)))"""
    return page.script(code, f"/weights/{model}.npz")


def test_undo_goes_back_twenty_clicks_that_came_as_fast_as_they_could(page, address):
    draw(page, 4)
    before, bits = page.script(BARS), weights(page, address, "mlp")
    clicks = "for (let i = 0; i < 22; i++) document.querySelector(`#teach [data-digit='${i % 3}']`).click()"
    page.script(clicks)
    settled(page)
    assert weights(page, address, "mlp") != bits
    page.open(address)  # lessons are the server's: a page that is opened again can take them back too
    page.wait(READY)
    page.script("for (let i = 0; i < 22; i++) document.querySelector('#undo').click()")
    settled(page)
    assert page.script("return document.querySelector('#undo').disabled")
    draw(page, 4)
    assert page.script(BARS) == before and weights(page, address, "mlp") == bits


def test_all_of_it_works_with_keys_alone(page):
    page.script("document.querySelector('#pad').focus()")
    right, down, left = "\ue014", "\ue015", "\ue012"
    page.type(
        left, left, left, left, " ", *[right] * 8, *[down, left, down, down, left, down, down, left, down, down, down]
    )
    settled(page)
    assert guess(page) == "7"
    page.type("9")
    settled(page)
    assert guess(page) == "9"
    page.type("u")
    settled(page)
    assert guess(page) == "7"
    page.type("m")
    settled(page)
    assert page.script("return document.querySelector('#model').value") == "lenet"
    page.type("c")
    assert guess(page) == ""
    reached = set()
    for _ in range(20):
        page.type("\ue004")
        reached.add(page.script("return document.activeElement.id || document.activeElement.dataset.model || ''"))
        style = page.script(
            "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth"
        )
        assert style == "solid3px" or page.script("return document.activeElement === document.body")
    assert reached >= {"pad", "clear", "model", "mlp", "lenet", "gru", "download"}


@pytest.mark.parametrize("kind", ["mouse", "pen", "touch"])
def test_mouse_pen_and_finger_draw(page, kind):
    draw(page, 2, kind=kind)
    assert guess(page) == "2"


def test_pointer_events_of_a_script_draw_too(page):
    """Checks by others may send them: without buttons, and with a pointer that cannot be captured."""
    code = """const pad = document.querySelector('#pad'), box = pad.getBoundingClientRect();
        const send = (type, [x, y]) => pad.dispatchEvent(new PointerEvent(type, {bubbles: true, pointerId: 7,
            clientX: box.x + x * box.width, clientY: box.y + y * box.height}));
        for (const stroke of arguments[0]) {
            send('pointerdown', stroke[0]);
            stroke.slice(1).forEach((point) => send('pointermove', point));
            send('pointerup', stroke[stroke.length - 1]);
        }"""
    page.script(code, [(0.6 * stroke + 0.2).tolist() for stroke in strokes.drawn(3)])
    settled(page)
    assert guess(page) == "3"


@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_can_be_read(page, width, dark):
    page.resize(width, 700, touch=width < 768)
    page.prefer(dark)
    draw(page, 5, kind="touch" if width < 768 else "mouse")
    assert guess(page) == "5"
    page.click('#teach [data-digit="5"]')
    settled(page)
    for model in ("mlp", "lenet", "gru"):
        choose(page, model)
        settled(page)
        assert page.script("return document.documentElement.scrollWidth") <= width
    low = page.script(CONTRAST)
    assert low == [], low
    small = """return [...document.querySelectorAll('button, select')].map((e) => e.getBoundingClientRect())
        .filter((b) => b.width && (b.height < 44 || b.width < 32)).length"""
    assert page.script(small) == 0
    choose(page, "mlp")
    page.click("#undo")
    settled(page)


def test_a_finger_draws_and_does_not_scroll(page):
    page.resize(320, 600, touch=True)
    page.script("scrollTo(0, 0)")
    page.script("document.querySelector('#pad').scrollIntoView({block: 'center'})")
    before = page.script("return scrollY")
    draw(page, 1, kind="touch")
    assert page.script("return scrollY") == before and guess(page) != ""


def test_colours_follow_the_system_while_the_page_is_open(page):
    draw(page, 6)
    corner = "return getComputedStyle(document.body).backgroundColor"
    light = page.script(corner)
    page.prefer(dark=True, motion=False)
    page.wait(lambda: page.script(corner) != light)
    assert page.script("return getComputedStyle(document.querySelector('.fill')).transitionDuration") == "0s"


def test_what_is_read_aloud_is_there(page):
    tree = page.chrome("Accessibility.getFullAXTree")["nodes"]
    names = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if "role" in node}
    for role, name in (
        ("combobox", "Model"),
        ("button", "It is a 7"),
        ("button", "Clear C"),
        ("button", "Undo lesson U"),
    ):
        assert (role, name) in names, (role, name)
    assert any(name and "Draw one digit" in name for _, name in names)
    nameless = {
        role
        for role, name in names
        if role in ("button", "link", "combobox", "img", "image", "progressbar") and not name
    }
    assert not nameless
    draw(page, 3)
    status = "return document.querySelector('#guess').closest('[aria-live]').textContent.replace(/\\s+/g, ' ').trim()"
    assert page.script(status) == "The net reads 3"


def test_another_page_cannot_drive_it(window, address):
    """The requests of a page elsewhere are refused, by the browser or by the server, and reach no net."""
    window.open(address)
    window.wait(READY)
    draw(window, 7)
    window.click('#teach [data-digit="7"]')
    settled(window)
    before = window.script(STATE, address)
    window.open("data:text/html,<title>elsewhere</title>")
    code = """const undo = {method: 'POST', body: '{"model": "mlp"}'}, json = {'Content-Type': 'application/json'};
        const ask = ([path, options]) => fetch(arguments[0] + path, options).then((a) => a.type, () => 'refused');
        return Promise.all([['state', {}], ['undo', undo], ['undo', {...undo, headers: json}],
            ['undo', {...undo, mode: 'no-cors'}]].map(ask))"""
    told = window.script(code, address)
    assert told[:3] == ["refused"] * 3 and told[3] in ("refused", "opaque")
    window.open(address)
    window.wait(READY)
    assert window.script(STATE, address) == before
    window.click("#undo")
    settled(window)
    window.console()


STATE = "return fetch(arguments[0] + 'state').then((answer) => answer.json())"


def test_the_next_start_is_at_once_and_begins_with_the_model_of_the_run(out, window, address):
    train = [
        sys.executable,
        "-m",
        "apps.mnist",
        "--data",
        "digits",
        "--model",
        "lenet",
        "--epochs",
        "3",
        "--out",
        str(out),
    ]
    subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
    process = served(out, "--data", "digits")
    try:
        window.open(process.stdout.readline().strip())
        window.wait(READY, 10)
        assert window.script("return document.querySelector('#model').value") == "lenet"
        draw(window, 0)
        assert guess(window) == "0" and json.dumps(window.console()) == "[]"
    finally:
        stopped(process)


CONTRAST = """
const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = channels(getComputedStyle(node).backgroundColor);
    if (colour.length === 3) return colour;
  }
  return [255, 255, 255];
};
const low = [];
for (const node of document.querySelectorAll('body *')) {
  const words = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!words || node.closest(':disabled') || !node.getClientRects().length) continue;
  const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push(node.textContent.trim() + ' ' + ((a + 0.05) / (b + 0.05)).toFixed(2));
}
return low;
"""
