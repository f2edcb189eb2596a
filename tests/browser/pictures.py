"""What a screenshot shows, as numbers."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = (96, 66)


def pixels(png: bytes) -> NDArray[np.uint8]:
    """A screenshot as [height, width, 3]."""
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def thumbnail(png: bytes) -> NDArray[np.float64]:
    """A screenshot in very few pixels, in which text is grey whatever the font; [h, w, 3]."""
    image = Image.open(BytesIO(png)).convert("RGB").resize(THUMBNAIL, Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64)


def save_thumbnail(png: bytes) -> bytes:
    """The thumbnail as a PNG."""
    buffer = BytesIO()
    Image.fromarray(thumbnail(png).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean absolute difference of two pictures, 0 (equal) to 255."""
    return float(np.abs(a - b).mean())


def common_colours(image: NDArray[np.uint8], count: int) -> list[tuple[int, ...]]:
    """The colours that cover most of a picture, the most frequent first."""
    flat = image.reshape(-1, 3)
    found, counts = np.unique(flat, axis=0, return_counts=True)
    return [tuple(int(c) for c in found[i]) for i in np.argsort(-counts)[:count]]
