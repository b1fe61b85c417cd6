"""Draw docs/images/samples.png: the sample photos with what the bundled model says of them.

python tools/make_picture.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import regnet
from regnet.pixels.samples import sample_photos

WIDTH, HEIGHT, BAR, MARGIN = 300, 225, 22, 12
INK, FILL, PAPER = "#1b1f24", "#b6d4fe", "#ffffff"


def panel(photo: Path, prediction: regnet.Prediction) -> Image.Image:
    """Return one photo with its three most probable classes below, bars as long as they are."""
    image = Image.open(photo).convert("RGB")
    scale = max(WIDTH / image.width, HEIGHT / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (image.width - WIDTH) // 2, (image.height - HEIGHT) // 2
    sheet = Image.new("RGB", (WIDTH, HEIGHT + 3 * BAR + MARGIN), PAPER)
    sheet.paste(image.crop((left, top, left + WIDTH, top + HEIGHT)))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, score in enumerate(prediction.predictions):
        y = HEIGHT + 8 + row * BAR
        draw.rectangle((0, y, round(WIDTH * score.probability), y + BAR - 5), fill=FILL)
        label = score.label.split(",")[0]
        draw.text((4, y), f"{100 * score.probability:4.1f} %  {label}", fill=INK, font=font)
    return sheet


def main() -> None:
    """Classify the samples and write the picture."""
    photos = sample_photos()
    predictions = regnet.load("bundled").classify(list(photos), top_k=3)
    panels = [panel(photo, p) for photo, p in zip(photos, predictions, strict=True)]
    width = len(panels) * (WIDTH + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, panels[0].height + 2 * MARGIN), PAPER)
    for number, part in enumerate(panels):
        sheet.paste(part, (MARGIN + number * (WIDTH + MARGIN), MARGIN))
    sheet.save(Path(__file__).parent.parent / "docs" / "images" / "samples.png", optimize=True)


if __name__ == "__main__":
    main()
