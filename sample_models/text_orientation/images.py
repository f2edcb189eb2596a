"""The shipped photographs, and what the network is given of them: just what rapidocr makes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from sample_models.arrays import DATA_NAME, read_arrays, write_arrays

SHIPPED = Path(__file__).parent / DATA_NAME
NEXT_STEP = (
    "Restore the shipped file (git checkout), or draw it again with "
    "`python -m sample_models.text_orientation.draw`."
)
SPLIT_SIZES = {"calibration": 256, "selection": 3000, "holdout": 3000}
CLASS_NAMES = ("upright", "turned")
HEIGHT, MAX_WIDTH = 24, 144
"""Pixels of a photograph; one that is narrower is filled up with 0 on its right."""
INPUT_HEIGHT, INPUT_WIDTH = 48, 192
"""What the network reads, as rapidocr 3.10.0 sets it (`ch_ppocr_cls/main.py`)."""

FRACTION_BITS = 11
"""Of the weights in OpenCV's linear interpolation of bytes; the rest is said in `enlarge`."""


@dataclass(frozen=True, slots=True)
class Photographs:
    """Grey photographs of lines, uint8 [N, HEIGHT, MAX_WIDTH].

    `widths` int64 [N] are their own, in pixels; `labels` int64 [N] index `CLASS_NAMES`; `texts`
    [N] is what stands on them.
    """

    pixels: NDArray[np.uint8]
    widths: NDArray[np.int64]
    labels: NDArray[np.int64]
    texts: NDArray[np.str_]

    def inputs(self) -> NDArray[np.float32]:
        """What the network is given, [N, 3, 48, 192], its three equal channels as a view of one.

        As rapidocr's `TextClassifier.resize_norm_img`: enlarged to a height of 48, squeezed
        where that is wider than 192, pixels / 255 less 0.5, divided by 0.5, filled up with 0.
        """
        grey = np.zeros((len(self.pixels), 1, INPUT_HEIGHT, INPUT_WIDTH), np.float32)
        for width in np.unique(self.widths):
            rows = np.flatnonzero(self.widths == width)
            wide = min(INPUT_WIDTH, -(-INPUT_HEIGHT * int(width) // HEIGHT))
            enlarged = enlarge(self.pixels[rows, :, :width], INPUT_HEIGHT, wide)
            value = enlarged.astype(np.float32) / np.float32(255)
            grey[rows, 0, :, :wide] = (value - np.float32(0.5)) / np.float32(0.5)
        return np.broadcast_to(grey, (len(grey), 3, INPUT_HEIGHT, INPUT_WIDTH))


def _taps(size: int, wanted: int) -> tuple[NDArray[np.int64], ...]:
    """The two pixels that each of `wanted` lies between, along an axis of `size`, with weights."""
    place = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).astype(np.float32)
    below = np.floor(place)
    weight = np.rint((place - below) * np.float32(1 << FRACTION_BITS)).astype(np.int64)
    first = below.astype(np.int64)
    ends = np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1)
    return *ends, (1 << FRACTION_BITS) - weight, weight


def enlarge(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Images [..., H, W] as [..., height, width], bit for bit as OpenCV's `resize` does it.

    That is `INTER_LINEAR` on bytes: weights of 11 bits, the sums of a row cut by 4 bits, each of
    the two rows by 16 more, and the sum rounded by 2. So it needs no OpenCV where a model runs.
    """
    left, right, a, b = _taps(pixels.shape[-1], width)
    whole = pixels.astype(np.int64)
    rows = (whole[..., left] * a + whole[..., right] * b) >> 4
    upper, lower, a, b = _taps(pixels.shape[-2], height)
    sums = (rows[..., upper, :] * a[:, None] >> 16) + (rows[..., lower, :] * b[:, None] >> 16)
    return ((sums + 2) >> 2).astype(np.uint8)


def save_splits(path: Path, splits: dict[str, Photographs]) -> None:
    """Write the three splits to a compressed .npz."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for split in SPLIT_SIZES:
        photographs = splits[split]
        arrays[f"{split}_pixels"] = photographs.pixels
        arrays[f"{split}_widths"] = photographs.widths
        arrays[f"{split}_labels"] = photographs.labels
        arrays[f"{split}_texts"] = photographs.texts
    write_arrays(path, arrays)


def load_splits(path: Path = SHIPPED) -> dict[str, Photographs]:
    """Read the three splits.

    Raises:
        DataError: The file is missing, damaged, or holds what cannot be such photographs.
    """
    parts = ("pixels", "widths", "labels", "texts")
    names = tuple(f"{split}_{part}" for split in SPLIT_SIZES for part in parts)
    arrays = read_arrays(path, names, NEXT_STEP)
    splits: dict[str, Photographs] = {}
    for split in SPLIT_SIZES:
        pixels, widths, labels, texts = (arrays[f"{split}_{part}"] for part in parts)
        count = len(pixels) if pixels.ndim else 0
        fits = (
            count > 0
            and pixels.shape == (count, HEIGHT, MAX_WIDTH)
            and pixels.dtype == np.uint8
            and widths.shape == labels.shape == texts.shape == (count,)
            and widths.dtype == labels.dtype == np.int64
            and texts.dtype.kind == "U"
        )
        if not fits:
            raise DataError(f"The {split} arrays in {path} have other shapes or types.", NEXT_STEP)
        if widths.min() < 1 or widths.max() > MAX_WIDTH:
            raise DataError(
                f"The {split} widths in {path} are not from 1 to {MAX_WIDTH}.", NEXT_STEP
            )
        if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise DataError(f"The {split} labels in {path} are not among the classes.", NEXT_STEP)
        splits[split] = Photographs(pixels, widths, labels, texts)
    return splits
