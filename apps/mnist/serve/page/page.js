"use strict";

const SIDE = 200; // the drawing is sent as so many pixels a side, as the server's reader of pictures works with
const PEN = 0.075; // of the pad's side
const at = (selector) => document.querySelector(selector);

const pad = at("#pad"), guess = at("#guess"), select = at("#model");
const READ = { willReadFrequently: true };
const visible = pad.getContext("2d", READ);
const sheet = document.createElement("canvas"); // what is sent: white ink on nothing
sheet.width = sheet.height = SIDE;
const ink = sheet.getContext("2d", READ);

let strokes = []; // each a list of points [x, y], 0 … 1; a new list for each drawing
let state = { first: "mlp", ready: false, models: {} };
let last = null; // the server's last answer about the drawing

// ---------------------------------------------------------------- drawing

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function trace(context, side, points, paint) {
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = PEN * side;
  context.strokeStyle = context.fillStyle = paint;
  context.beginPath();
  if (points.length === 1) {
    context.arc(points[0][0] * side, points[0][1] * side, PEN * side / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  points.forEach(([x, y], i) => (i ? context.lineTo(x * side, y * side) : context.moveTo(x * side, y * side)));
  context.stroke();
}

function repaint() {
  visible.clearRect(0, 0, pad.width, pad.height);
  for (const points of strokes) trace(visible, pad.width, points, colour("--ink"));
  if (!strokes.length) hint();
  if (document.activeElement === pad && pen.shown) marker();
}

function hint() {
  const side = pad.width;
  visible.fillStyle = colour("--soft");
  visible.font = `${side * 0.055}px system-ui, sans-serif`;
  visible.textAlign = "center";
  visible.fillText("draw a digit, 0 to 9", side / 2, side / 2);
}

function add(stroke, point) {
  const before = stroke[stroke.length - 1];
  if (before && Math.hypot(before[0] - point[0], before[1] - point[1]) < 0.002) return;
  if (strokes.length === 1 && strokes[0] === stroke && !stroke.length) visible.clearRect(0, 0, pad.width, pad.height);
  stroke.push(point);
  const piece = stroke.slice(-2);
  trace(visible, pad.width, piece, colour("--ink"));
  trace(ink, SIDE, piece, "#fff");
  buttons();
  ask();
}

function clear() {
  strokes = [];
  pointer = null;
  pen.stroke = null;
  last = null;
  ink.clearRect(0, 0, SIDE, SIDE);
  at("#told").textContent = "";
  repaint();
  show();
}

let pointer = null; // the finger or button that draws, and its stroke

function place(event) {
  const box = pad.getBoundingClientRect();
  const within = (value) => Math.min(1, Math.max(0, value));
  return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
}

pad.addEventListener("pointerdown", (event) => {
  if (pointer || event.button > 0) return;
  event.preventDefault();
  pad.focus({ preventScroll: true, focusVisible: false });
  try {
    pad.setPointerCapture(event.pointerId);
  } catch {
    // a pointer that a script made up cannot be captured, and need not be
  }
  pen.shown = false;
  const stroke = [];
  strokes.push(stroke);
  pointer = { id: event.pointerId, stroke };
  add(stroke, place(event));
});

pad.addEventListener("pointermove", (event) => {
  if (!pointer || event.pointerId !== pointer.id) return;
  if (event.isTrusted && event.pointerType === "mouse" && !event.buttons) {
    pointer = null;
    return;
  }
  const parts = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const part of parts.length ? parts : [event]) add(pointer.stroke, place(part));
});

for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
  pad.addEventListener(name, (event) => {
    if (pointer && event.pointerId === pointer.id) pointer = null;
  });
}

// The pen that the arrow keys move.
const pen = { x: 0.5, y: 0.25, stroke: null, shown: false };

function marker() {
  const side = pad.width;
  visible.strokeStyle = colour("--accent");
  visible.lineWidth = pen.stroke ? side * 0.02 : side * 0.008;
  visible.beginPath();
  visible.arc(pen.x * side, pen.y * side, PEN * side * 0.6, 0, 2 * Math.PI);
  visible.stroke();
}

function movePen(dx, dy) {
  pen.x = Math.min(0.95, Math.max(0.05, pen.x + dx));
  pen.y = Math.min(0.95, Math.max(0.05, pen.y + dy));
  if (pen.stroke) add(pen.stroke, [pen.x, pen.y]);
}

pad.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in moves || event.key === " ")) return;
  event.preventDefault();
  pen.shown = true;
  if (event.key === " ") {
    pen.stroke = pen.stroke ? null : [];
    if (pen.stroke) {
      strokes.push(pen.stroke);
      add(pen.stroke, [pen.x, pen.y]);
    }
  } else {
    const [x, y] = moves[event.key];
    const step = event.shiftKey ? 0.02 : 0.05;
    movePen(x * step, y * step);
  }
  repaint();
});

pad.addEventListener("blur", () => {
  pen.stroke = null;
  repaint();
});

// ---------------------------------------------------------------- the server

async function send(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options || {});
  } catch {
    trouble("The server does not answer. Is it still running?");
    return null;
  }
  const result = await answer.json();
  trouble(answer.ok ? "" : result.error);
  return answer.ok ? result : null;
}

function trouble(text) {
  at("#problem").textContent = text;
  at("#problem").hidden = !text;
}

function inkText() {
  const pixels = ink.getImageData(0, 0, SIDE, SIDE).data;
  let text = "";
  for (let i = 3; i < pixels.length; i += 4) text += String.fromCharCode(pixels[i]);
  return btoa(text);
}

const drawn = () => strokes.some((stroke) => stroke.length);

let asking = false, stale = false;

/** Asks what the nets make of the drawing: one question at a time, and once more if it has changed meanwhile. */
async function ask() {
  stale = true;
  if (asking) return;
  asking = true;
  while (stale) {
    stale = false;
    if (!drawn() || !state.models[select.value]) break;
    const drawing = strokes, answer = await send("/look", { model: select.value, ink: inkText() });
    if (!answer) break;
    if (drawing === strokes) {
      last = answer;
      show();
    }
  }
  asking = stale = false;
}

let turn = Promise.resolve(), waiting = 0; // lessons and undoing, in the order of the clicks

function inTurn(action) {
  waiting += 1;
  turn = turn.then(action).finally(() => {
    waiting -= 1;
  });
}

function teach(digit) {
  const model = select.value, net = state.models[model];
  if (!drawn() || !net) return;
  const body = { model, ink: inkText(), digit };
  net.undo += 1; // so that undo can be clicked at once
  buttons();
  inTurn(async () => {
    const answer = await send("/teach", body);
    if (!answer) net.undo -= 1;
    if (answer) {
      const was = percent(answer.before), is = percent(answer.after);
      const steps = answer.steps === 1 ? "1 step" : `${answer.steps} steps`;
      tell(answer.steps ? `Learnt in ${steps}: ${digit} was ${was} likely, now ${is}.`
        : `It knew that: ${digit} is ${is} likely.`);
    }
    buttons();
    await ask();
  });
}

function undo() {
  const model = select.value, net = state.models[model];
  if (!net || !net.undo) return;
  net.undo -= 1;
  buttons();
  inTurn(async () => {
    const answer = await send("/undo", { model });
    if (answer) tell(answer.undo ? `Taken back; ${lessons(answer.undo)} left.` : "Taken back: no lesson is left.");
    buttons();
    await ask();
  });
}

const lessons = (count) => (count === 1 ? "1 lesson" : `${count} lessons`);

function tell(text) {
  at("#told").textContent = text;
}

// ---------------------------------------------------------------- what is shown

const percent = (share) => (share > 0.995 ? "> 99 %" : `${Math.round(100 * share)} %`);
const best = (answer) => answer.indexOf(Math.max(...answer));

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function build() {
  const digits = [...Array(10).keys()];
  at("#bars").append(...digits.map((digit) => element("li", {},
    element("span", { textContent: digit }),
    element("span", { className: "track" }, element("span", { className: "fill" })),
    element("span", { className: "share" }))));
  at("#teach .digits").append(...digits.map((digit) => {
    const button = element("button", { type: "button", textContent: digit, onclick: () => teach(digit) });
    button.dataset.digit = digit;
    button.setAttribute("aria-label", `It is a ${digit}`);
    return button;
  }));
}

/** A card for each model, and an option where the server offers one more. */
function buildModels() {
  for (const name of Object.keys(state.models)) {
    if (![...select.options].some((option) => option.value === name)) select.append(new Option(name, name));
    if (at(`#models [data-model="${name}"]`)) continue;
    const card = element("button", { type: "button", className: "net", onclick: () => choose(name) },
      element("span", { className: "name", textContent: name }),
      element("span", { className: "sure" }),
      element("span", { className: "digit" }),
      element("span", { className: "mini" }, ...Array.from({ length: 10 }, () => element("span"))));
    card.dataset.model = name;
    at("#models").append(card);
  }
}

function choose(name) {
  select.value = name;
  last = last && { ...last, model: null }; // the bars are known, what goes on inside is not yet
  tell("");
  show();
  ask();
}

function buttons() {
  const net = state.models[select.value];
  at("#undo").disabled = !(net && net.undo > 0);
  at("#teach").disabled = !(net && drawn());
}

function show() {
  const name = select.value, net = state.models[name];
  const answer = last && last.answers[name];
  at("#shown").textContent = at("#kept").textContent = name;
  at("#download").href = `/weights/${name}.npz`;
  at("#reads").textContent = `${name} reads`;
  at("#about").textContent = net ? about(name, net) : `${name} is still being trained …`;
  const digit = answer ? best(answer) : null;
  const text = answer ? String(digit) : "";
  if (guess.textContent !== text) guess.textContent = text; // only then a screen reader speaks
  at("#certain").textContent = answer ? sure(answer[digit]) : net ? "draw a digit" : "one moment …";
  [...at("#bars").children].forEach((row, i) => {
    const share = answer ? answer[i] : 0;
    row.classList.toggle("top", i === digit);
    row.querySelector(".fill").style.width = `${100 * share}%`;
    row.querySelector(".share").textContent = answer ? percent(share) : "";
  });
  for (const button of at("#teach .digits").children) {
    button.classList.toggle("guessed", Number(button.dataset.digit) === digit);
  }
  for (const card of at("#models").children) showCard(card, name);
  buttons();
  if (!last || last.model === name) showInside(last);
}

function sure(share) {
  const word = share > 0.9 ? "it is sure" : share > 0.6 ? "it thinks so" : "it is guessing";
  return `${percent(share)} – ${word}`;
}

function about(name, net) {
  const count = net.parameters.toLocaleString("en");
  const kinds = {
    mlp: "Two hidden layers of 16 units",
    lenet: "Two convolutions, three dense layers",
    gru: "A recurrent net that reads row by row",
  };
  const where = net.trained_on === "mnist" ? "of MNIST's test digits" : "of the built-in test digits";
  const right = net.accuracy ? `, ${(100 * net.accuracy).toFixed(1)} % ${where} right` : "";
  return `${kinds[name] || name}: ${count} parameters${right}.`;
}

function showCard(card, shown) {
  const name = card.dataset.model, answer = last && last.answers[name];
  const digit = answer ? best(answer) : null;
  card.setAttribute("aria-pressed", String(name === shown));
  card.querySelector(".digit").textContent = answer ? digit : "";
  card.querySelector(".sure").textContent = answer ? percent(answer[digit]) : state.models[name] ? "ready" : "training …";
  card.setAttribute("aria-label", answer ? `${name} reads ${digit}, ${percent(answer[digit])} likely` : name);
  [...card.querySelector(".mini").children].forEach((bar, i) => {
    bar.style.height = `${answer ? Math.max(2, 26 * answer[i]) : 2}px`;
    bar.classList.toggle("top", i === digit);
  });
}

// ---------------------------------------------------------------- pictures

function bytes({ shape, data }) {
  const text = atob(data), values = new Int8Array(text.length);
  for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
  const [count, height, width] = shape, size = height * width;
  return Array.from({ length: count }, (_, i) => ({ height, width, values: values.subarray(i * size, (i + 1) * size) }));
}

function rgb(name) {
  const value = parseInt(colour(name).slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** Paints values from -127 to 127: the ground at 0, one colour above and one below. */
function paint(canvas, { height, width, values }, above, below, under = null) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", READ), image = context.createImageData(width, height);
  const ground = rgb("--card"), shade = rgb("--ink"), up = rgb(above), down = rgb(below);
  values.forEach((value, i) => {
    const share = Math.abs(value) / 127, to = value < 0 ? down : up, faint = under ? 0.22 * under[i] / 127 : 0;
    for (let c = 0; c < 3; c++) {
      const base = ground[c] + faint * (shade[c] - ground[c]);
      image.data[4 * i + c] = base + Math.pow(share, 0.8) * (to[c] - base);
    }
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

const CAPTIONS = {
  weights: (n) => [`The ${n} units of its first layer.`,
    "Each picture is the weights of one unit, the bar what it answers: orange above zero, blue below."],
  maps: (n, h, w, name) => [`${n} feature maps, ${h} × ${w}.`, `${name}: orange above zero, blue below.`],
  rows: (n, h, w, name) => [`${name} reads the image row by row.`,
    `Each of these ${h} rows is its memory, ${w} numbers, after the row of the image at that height.`],
  units: (n, h, w, name) => [`${w} units.`, `${name}: orange above zero, blue below.`],
};
const PLACE = ["", "Then: "];

function showInside(answer) {
  at(".inside").classList.toggle("empty", !answer);
  const layers = at("#layers");
  if (!answer) {
    for (const id of ["#seen", "#gradient"]) {
      const canvas = at(id);
      canvas.getContext("2d", READ).clearRect(0, 0, canvas.width, canvas.height);
    }
    layers.replaceChildren("What its first layers make of the drawing will be here.");
    return;
  }
  const [seen] = bytes(answer.seen);
  paint(at("#seen"), seen, "--ink", "--ink");
  paint(at("#gradient"), bytes(answer.gradient)[0], "--for", "--against", seen.values);
  at("#size").textContent = `to ${seen.height} × ${seen.width} pixels`;
  layers.replaceChildren(...answer.layers.map(figure));
}

function figure(layer, place) {
  const [count, height, width] = layer.pictures.shape;
  const pictures = bytes(layer.pictures);
  const largest = Math.max(...(layer.answers || [0]).map(Math.abs)) || 1;
  const maps = element("div", { className: "maps" });
  pictures.forEach((picture, i) => {
    const canvas = element("canvas", { className: "map" });
    paint(canvas, picture, "--for", "--against");
    const wide = { maps: height > 20 ? 100 : 36, weights: count > 16 ? 46 : 76, units: Math.min(36 * width, 612) };
    if (layer.kind === "rows") canvas.className += " rows";
    else canvas.style.width = `${wide[layer.kind]}px`;
    if (layer.kind === "units") canvas.style.height = "22px";
    canvas.setAttribute("aria-hidden", "true");
    if (!layer.answers) {
      maps.append(canvas);
      return;
    }
    const value = layer.answers[i], fill = element("span", { className: "fill" });
    fill.style.width = `${100 * Math.abs(value) / largest}%`;
    fill.style.background = colour(value < 0 ? "--against" : "--for");
    maps.append(element("div", { className: "unit", title: value.toFixed(2) }, canvas,
      element("span", { className: "track" }, fill)));
  });
  const [title, text] = CAPTIONS[layer.kind](count, height, width, layer.name);
  const shown = element("figure", {}, maps,
    element("figcaption", {}, element("b", { textContent: PLACE[place] + title }), ` ${text}`));
  maps.setAttribute("role", "img");
  maps.setAttribute("aria-label", title);
  return shown;
}

// ---------------------------------------------------------------- the beginning, and keys

async function follow() {
  let chosen = false;
  for (;;) {
    const before = state, answer = await send("/state");
    if (!answer) return;
    state = answer;
    buildModels();
    if (!chosen) {
      select.value = state.first;
      chosen = true;
    }
    at("#learning").hidden = state.ready;
    at("#doing").textContent = `Learning before the first lesson: ${state.doing} …`;
    at("#progress").value = state.progress;
    if (state.problem) {
      at("#learning").hidden = true;
      trouble(`The nets could not be trained. ${state.problem}`);
    }
    show();
    if (!before.models[select.value] && state.models[select.value]) ask();
    if (state.ready || state.problem) break;
    await new Promise((done) => setTimeout(done, 250));
  }
  if (state.ready) document.body.dataset.ready = "";
  await ask();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === select) return;
  const key = event.key.toLowerCase();
  if (/^[0-9]$/.test(key)) teach(Number(key));
  else if (key === "c") clear();
  else if (key === "u") undo();
  else if (key === "m") choose(select.options[(select.selectedIndex + 1) % select.options.length].value);
});

at("#clear").addEventListener("click", clear);
at("#undo").addEventListener("click", undo);
select.addEventListener("change", () => choose(select.value));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  repaint();
  show();
});

build();
repaint();
show();
follow();
