"""Draws lines as a camera would see them, upright or turned by 180 degrees.

`python -m sample_models.text_orientation.draw` writes `data.npz` anew. In an environment with
`requirements-text-drawing.txt` the same seed gives the same bytes.
"""

import argparse
import io
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.console import Console
from rich.progress import track

from core.errors import QuantscapeError
from sample_models.text_orientation.fonts import FACES
from sample_models.text_orientation.images import (
    HEIGHT,
    MAX_WIDTH,
    SHIPPED,
    SPLIT_SIZES,
    Photographs,
    save_splits,
)
from sample_models.text_orientation.lines import draw_lines

SEED = 2024
FONT_PIXELS = 64
FINE = 4
"""A line is placed and blurred on a grid so many times finer than the camera's."""

LEAST_MARGIN, MOST_MARGIN = 0.02, 0.3
"""What a detector leaves around a line, in heights of it."""
ANGLE_DEGREES = 2.0
CORNER = 0.06
"""Standard deviations of the turn, and of where a corner is seen, in heights (perspective)."""
MOST_BLUR = 0.7
"""Of the lens, pixels of the photograph (the standard deviation of a Gaussian)."""
LEAST_CONTRAST, MOST_CONTRAST = 4.0, 28.0
"""Grey levels between ink and ground: pencil, worn stamps, receipts that have faded."""
DARK_INK = 0.7
"""Share of lines that are darker than their ground."""
SHADE = 0.05
"""How unevenly a line is lit, as a share of its grey from the middle to an end."""
MOST_NOISE = 1.5
"""Of the sensor, grey levels (a standard deviation)."""
QUALITIES = (90, 98)
"""Of the JPEG file that the camera writes."""

Corners = tuple[tuple[float, float], ...]


def perspective(corners: Corners, width: int, height: int) -> tuple[float, ...]:
    """The eight numbers that take a grid of `width` x `height` to four corners, clockwise.

    P. Heckbert, "Fundamentals of Texture Mapping and Image Warping" (1989), section 2.2.3, which
    needs no solver, whose last bits differ between processors.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    across = (x1 - x0 + g * x1, y1 - y0 + g * y1, g)
    down = (x3 - x0 + h * x3, y3 - y0 + h * y3, h)
    (a, d, g), (b, e, h) = (v / width for v in across), (v / height for v in down)
    return a, b, x0, d, e, y0, g, h


@cache
def face(path: Path) -> ImageFont.FreeTypeFont:
    """The face in the file `path`, laid out letter by letter as FreeType alone does it."""
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def seen(text: str, font: Path, rng: np.random.Generator, *, turned: bool) -> Image.Image:
    """How much ink the camera sees in each pixel, 0 to 255, of the crop around a line."""
    left, top, right, bottom = (round(v) for v in face(font).getbbox(text))
    width, height = right - left, bottom - top
    around = 2 * FONT_PIXELS
    ink = Image.new("L", (width + 2 * around, height + 2 * around))
    ImageDraw.Draw(ink).text((around - left, around - top), text, fill=255, font=face(font))
    if turned:
        ink = ink.transpose(Image.Transpose.ROTATE_180)
    margins = rng.uniform(LEAST_MARGIN, MOST_MARGIN, 4) * height
    x0, y0 = around - margins[0], around - margins[1]
    x1, y1 = around + width + margins[2], around + height + margins[3]
    middle_x, middle_y, tall = (x0 + x1) / 2, (y0 + y1) / 2, y1 - y0
    angle = math.radians(rng.normal() * ANGLE_DEGREES)
    cosine, sine = math.cos(angle), math.sin(angle)
    moved = rng.normal(size=(4, 2)) * CORNER * tall
    corners = tuple(
        (
            float(middle_x + cosine * (x - middle_x) - sine * (y - middle_y) + dx),
            float(middle_y + sine * (x - middle_x) + cosine * (y - middle_y) + dy),
        )
        for (x, y), (dx, dy) in zip(
            ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), moved.tolist(), strict=True
        )
    )
    wide = max(HEIGHT, min(MAX_WIDTH, round(HEIGHT * float((x1 - x0) / tall))))
    grid = (wide * FINE, HEIGHT * FINE)
    crop = ink.transform(
        grid, Image.Transform.PERSPECTIVE, perspective(corners, *grid), Image.Resampling.BICUBIC
    )
    blurred = crop.filter(ImageFilter.GaussianBlur(rng.uniform(0, MOST_BLUR) * FINE))
    return blurred.resize((wide, HEIGHT), Image.Resampling.BOX)


def photograph(
    text: str, font: Path, rng: np.random.Generator, *, turned: bool
) -> NDArray[np.uint8]:
    """A line as the camera keeps it, uint8 [HEIGHT, its width]."""
    ink = np.asarray(seen(text, font, rng, turned=turned), np.float64) / 255
    contrast = rng.uniform(LEAST_CONTRAST, MOST_CONTRAST)
    dark = rng.uniform(10, 245 - contrast)
    ground, mark = (dark + contrast, dark) if rng.uniform() < DARK_INK else (dark, dark + contrast)
    slope_x, slope_y = rng.uniform(-SHADE, SHADE, 2)
    x, y = (2 * (np.arange(n) + 0.5) / n - 1 for n in ink.shape[::-1])
    light = 1 + slope_x * x + 0.5 * slope_y * y[:, None]
    noise = rng.normal(size=ink.shape) * rng.uniform(0, MOST_NOISE)
    grey = np.rint((ground + (mark - ground) * ink) * light + noise)
    file = io.BytesIO()
    quality = int(rng.integers(*QUALITIES, endpoint=True))
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.uint8)


def split_texts(seed: int = SEED) -> dict[str, tuple[str, ...]]:
    """The lines of each split; no line is in two."""
    every = iter(draw_lines(sum(SPLIT_SIZES.values()), seed))
    return {split: tuple(next(every) for _ in range(n)) for split, n in SPLIT_SIZES.items()}


def draw_split(split: str, texts: tuple[str, ...], seed: int = SEED) -> Photographs:
    """The first photographs of a split, one of each text.

    Each is drawn from a stream of its own, so that a few come out as they do among all.

    Raises:
        DataError: A font is not installed.
    """
    fonts = [font.find() for font in FACES[split]]
    pixels = np.zeros((len(texts), HEIGHT, MAX_WIDTH), np.uint8)
    widths, labels = np.zeros((2, len(texts)), np.int64)
    for row, text in enumerate(track(texts, split, console=Console(stderr=True), transient=True)):
        rng = np.random.default_rng([seed, list(SPLIT_SIZES).index(split), row])
        labels[row] = rng.integers(2)
        font = fonts[rng.integers(len(fonts))]
        grey = photograph(text, font, rng, turned=bool(labels[row]))
        widths[row] = grey.shape[1]
        pixels[row, :, : grey.shape[1]] = grey
    return Photographs(pixels, widths, labels, np.array(texts))


def main() -> int:
    """Draw every split and write the data file."""
    parser = argparse.ArgumentParser(description="Draw the photographs of text_orientation.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    args = parser.parse_args()
    try:
        texts = split_texts(args.seed)
        save_splits(args.out, {s: draw_split(s, texts[s], args.seed) for s in SPLIT_SIZES})
    except QuantscapeError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
