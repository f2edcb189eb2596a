"""The images, their split, and the file that ships three parts of it.

`data.npz` keeps images and labels of the calibration, selection and holdout parts. The training
part is not shipped: scikit-learn holds the images, and the split does not depend on chance.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError
from sample_models.arrays import DATA_NAME, read_arrays, write_arrays

SPLITS: tuple[str, ...] = ("calibration", "selection", "holdout")
SPLIT_SIZES: tuple[int, ...] = (128, 450, 450)
SPLIT_SEED = 0
"""One split for every model and every training seed, because the models share the data file."""

CLASS_NAMES: tuple[str, ...] = tuple("0123456789")
SIDE = 8
WHITE = 16
"""Largest pixel value: how many of the 16 dots of a 4x4 block were on."""

SHIPPED = Path(__file__).parent / DATA_NAME


@dataclass(frozen=True, slots=True)
class Images:
    """`pixels` are uint8 [N, 8, 8] in 0 to 16, `labels` int64 [N] in 0 to 9."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self) -> Tensor:
        """Model inputs float32 [N, 1, 8, 8] in [-1, 1]; paper is -1, ink is 1."""
        half = WHITE / 2
        return torch.from_numpy(self.pixels.astype(np.float32) / half - 1.0).unsqueeze(1)

    def targets(self) -> Tensor:
        """Class of each image, int64 [N]."""
        return torch.from_numpy(self.labels.copy())

    def part(self, rows: NDArray[np.int64]) -> "Images":
        """The images at `rows`."""
        return Images(self.pixels[rows], self.labels[rows])


def data_path(folder: Path | None) -> Path:
    """The data file in `folder`, or the one that all digits samples share."""
    return SHIPPED if folder is None else folder / DATA_NAME


def all_images() -> Images:
    """The 1,797 images that scikit-learn carries.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        # Imported by name because the shipped files do without scikit-learn.
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(
            "scikit-learn, which holds the images, is not installed.",
            "Run `pip install -r requirements-samples.txt`; only rebuilding needs it.",
        ) from error
    digits = datasets.load_digits()
    return Images(digits.images.astype(np.uint8), digits.target.astype(np.int64))


def split_rows(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Rows of the training part and of each of `SPLITS`: disjoint, together all, stratified.

    Each class is shuffled and spread evenly over one line, which is then cut: any stretch of the
    line holds every class in its share of the whole, up to one image.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    line = np.argsort(place, kind="stable")
    ends = len(labels) - np.cumsum(SPLIT_SIZES[::-1])[::-1]
    return tuple(np.split(line, ends))


def build_splits() -> tuple[Images, dict[str, Images]]:
    """The training part and the three shipped parts, from scikit-learn's images."""
    images = all_images()
    rows = split_rows(images.labels)
    parts = {name: images.part(r) for name, r in zip(SPLITS, rows[1:], strict=True)}
    return images.part(rows[0]), parts


def save_splits(path: Path, splits: dict[str, Images]) -> None:
    """Write the three parts to a compressed .npz."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in SPLITS:
        arrays[f"{name}_images"] = splits[name].pixels
        arrays[f"{name}_labels"] = splits[name].labels
    write_arrays(path, arrays)


def load_splits(path: Path, next_step: str) -> dict[str, Images]:
    """Read the three parts.

    Raises:
        DataError: The file is missing, damaged, or holds what cannot be such images.
    """
    names = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
    arrays = read_arrays(path, names, next_step)
    splits: dict[str, Images] = {}
    for split in SPLITS:
        pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        fits = (
            labels.ndim == 1
            and len(labels) > 0
            and pixels.shape == (len(labels), SIDE, SIDE)
            and pixels.dtype == np.uint8
            and labels.dtype == np.int64
        )
        if not fits:
            raise DataError(f"The {split} arrays in {path} have other shapes or types.", next_step)
        if pixels.max() > WHITE:
            raise DataError(f"The {split} images in {path} have pixels above {WHITE}.", next_step)
        if labels.min() < 0 or labels.max() >= len(CLASS_NAMES):
            raise DataError(f"The {split} labels in {path} are not among the classes.", next_step)
        splits[split] = Images(pixels, labels)
    return splits
