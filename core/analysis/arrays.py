"""Arrays of an analysis folder: read with their shapes checked, mapped from disk, never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import AnalysisError
from core.evidence.diagnose.weight_profile import BINS, GridKind, WeightProfile

Count = Annotated[int, msgspec.Meta(ge=0)]


class StoredWeights(msgspec.Struct, frozen=True):
    """A weight profile without its arrays; `channels` rows of `weight_ranges.npy` are its own."""

    layer: str
    tensor: str
    kind: GridKind
    channels: Count


def described(weights: tuple[WeightProfile, ...]) -> tuple[StoredWeights, ...]:
    """What `analysis.json` says of weight profiles."""
    return tuple(StoredWeights(w.layer, w.tensor, w.kind, len(w.low)) for w in weights)


def weight_arrays(weights: tuple[WeightProfile, ...]) -> dict[str, NDArray[Any]]:
    """The arrays of weight profiles by file name; none where there is no profile."""
    if not weights:
        return {}
    return {
        "weight_counts": np.stack([w.counts for w in weights]),
        "weight_ranges": np.concatenate([np.stack([w.low, w.high], axis=1) for w in weights]),
    }


def weight_profiles(folder: Path, stored: tuple[StoredWeights, ...]) -> tuple[WeightProfile, ...]:
    """Read weight profiles back; raises `AnalysisError` naming a missing or damaged file."""
    if not stored:
        return ()
    counts = read_array(folder, "weight_counts", np.int64, (len(stored), BINS))
    ends = np.cumsum([w.channels for w in stored])
    ranges = read_array(folder, "weight_ranges", np.float32, (int(ends[-1]), 2))
    return tuple(
        WeightProfile(
            w.layer, w.tensor, w.kind, counts[i],
            ranges[end - w.channels : end, 0], ranges[end - w.channels : end, 1],
        )
        for i, (w, end) in enumerate(zip(stored, ends, strict=True))
    )  # fmt: skip


def measured_pairs(folder: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Which pairs of precision and layer a partial analysis knows; None where it knows all."""
    if not (folder / "measured.npy").is_file():
        return None
    return read_array(folder, "measured", np.bool_, shape)


def read_array(
    folder: Path, name: str, dtype: type, shape: tuple[int | None, ...], *, finite: bool = True
) -> NDArray[Any]:
    """`folder/name.npy`; raises `AnalysisError` unless it has `dtype` and `shape` (None = any
    length) and, where `finite`, neither NaN nor infinity.
    """
    path = folder / f"{name}.npy"
    again = "Restore the file, or analyze the model again."
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise AnalysisError(f"{path} is missing.", again) from None
    except (ValueError, OSError, EOFError) as error:
        raise AnalysisError(f"{path} cannot be read: {error}.", again) from error
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype):
        raise AnalysisError(
            f"{path} holds {array.dtype}{list(array.shape)}, not {np.dtype(dtype)}"
            f"{[x if x is not None else '*' for x in shape]}.",
            again,
        )
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise AnalysisError(f"{path} holds NaN or infinity.", again)
    loaded: NDArray[Any] = array
    return loaded
