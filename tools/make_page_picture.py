"""Take docs/images/serve.png: the page of `regnet serve` with an answer and its heat map.

python tools/make_page_picture.py (needs Chromium: apt-get install chromium chromium-driver)
python tools/make_page_picture.py report.html docs/images/evaluate.png: the same of a report's top
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, browsing  # noqa: E402
from serving_process import serving  # noqa: E402

WIDTH, HEIGHT, REPORT_HEIGHT = 1280, 708, 1650
SHOWN = 1000  # pixels wide in the docs
FLAT = 32
PHOTO = ROOT / "src" / "regnet" / "pixels" / "samples" / "espresso.png"


def answered(page: Browser) -> None:
    """Drop the photo and wait until its answer and its heat map are there."""
    page.drop(PHOTO)
    page.until(lambda: page.run("return !document.getElementById('heat').hidden"), "a heat map")


def take(url: str, browser: Browser) -> Image.Image:
    """Return the page with an answer; the first one, for which the model warms up, is not shown."""
    for _ in range(3):
        browser.open(url, width=WIDTH, height=HEIGHT)
        browser.until(lambda: browser.text("#model-facts"), "the models")
        answered(browser)
    return seen(browser)


def seen(browser: Browser) -> Image.Image:
    """Return what the window shows."""
    with tempfile.TemporaryDirectory() as folder:
        file = browser.save(Path(folder) / "page.png", whole=False)
        return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def palette(picture: Image.Image) -> Image.Image:
    """Return an image with 256 colours, the most frequent ones exactly: grounds stay flat."""
    counts = sorted(picture.getcolors(picture.width * picture.height), reverse=True)[:FLAT]
    flat = [value for _, colour in counts for value in colour]
    rest = picture.quantize(256 - FLAT, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    colours = Image.new("P", (1, 1))
    colours.putpalette(flat + rest[: 3 * (256 - FLAT)])
    return colours


def main(report: str = "", target: str = str(ROOT / "docs" / "images" / "serve.png")) -> None:
    """Take the picture of a report, or of a server's page, and write it with few colours."""
    with (
        tempfile.TemporaryDirectory() as folder,
        browsing(Path(folder)) as browser,
    ):
        if report:
            browser.open(Path(report).resolve().as_uri(), width=WIDTH, height=REPORT_HEIGHT)
            picture = seen(browser)
        else:
            with serving(Path(folder), "bundled", "--offline") as served:
                picture = take(served.url, browser)
    height = round(picture.height * SHOWN / picture.width)
    small = picture.resize((SHOWN, height), Image.Resampling.LANCZOS)
    few = small.quantize(palette=palette(small), dither=Image.Dither.FLOYDSTEINBERG)
    few.save(target, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
