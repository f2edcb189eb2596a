"""Arrays in one compressed .npz file: bounded before they are unpacked, never unpickled."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError

DATA_NAME = "data.npz"
MAX_UNPACKED_BYTES = 100_000_000


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write `arrays` to `path`, replacing it in one step. Equal arrays give equal bytes."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    partial.replace(path)


def read_arrays(path: Path, names: tuple[str, ...], next_step: str) -> dict[str, NDArray[Any]]:
    """The arrays called `names`.

    Raises:
        DataError: The file is missing, too large once unpacked, or damaged, or lacks an array.
    """
    if not path.is_file():
        raise DataError(f"The data file {path} does not exist.", next_step)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise DataError(
                f"The data file {path} unpacks to {unpacked / 1e6:.0f} MB; "
                f"at most {MAX_UNPACKED_BYTES / 1e6:.0f} MB are read.",
                next_step,
            )
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        OverflowError,
        MemoryError,
        RuntimeError,
    ) as error:
        raise DataError(f"The data file {path} is damaged ({error}).", next_step) from error
