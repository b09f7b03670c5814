"""The picture of the page to draw on in the README: `python tools/screenshots.py` writes docs/images/draw.png.

It needs Chromium with chromedriver, and Pillow; the nets are trained in `--out` where they are not there yet.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import strokes
from browser import Browser
from PIL import Image

ROOT = Path(__file__).parents[1]
COLOURS = 128
DISPUTED = 131  # the seed of a digit that the nets do not agree on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/mnist", help="the folder for serve (%(default)s)")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images" / "draw.png", metavar="PNG")
    args = parser.parse_args()
    command = [sys.executable, "-m", "apps.mnist", "serve", "--out", args.out, "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            with Browser(1280, 1220) as page, TemporaryDirectory() as folder:
                page.open(address)
                page.wait("document.body.dataset.ready !== undefined", 600)
                page.click('#models [data-model="lenet"]')
                page.draw("#pad", [s + (0.1, -0.1) for s in strokes.scribble(1, 1, numpy.random.default_rng(DISPUTED))])
                page.wait("!asking && document.querySelectorAll('#layers canvas').length")
                page.script("document.activeElement.blur(); scrollTo(0, 0)")
                page.screenshot(Path(folder) / "page.png", whole=True)
                picture = Image.open(Path(folder) / "page.png").convert("RGB")
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(args.to, optimize=True)
        finally:
            process.terminate()
    print(f"see {args.to}")


if __name__ == "__main__":
    main()
