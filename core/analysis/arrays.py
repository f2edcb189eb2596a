"""Arrays of an analysis folder: read with their shapes checked, mapped from disk, never unpickled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core import files
from core.errors import AnalysisError
from core.evidence.diagnose.weight_profile import BINS, GridKind, WeightProfile
from core.evidence.evidence import Evidence, MetricRuns, Outputs
from core.evidence.layer_alone import AXES, MAY_BE_UNKNOWN, LocalStatistics
from core.files import Count

Read = Callable[..., NDArray[Any]]
"""(name, type, shape with None for any length) -> a checked array."""
METRIC_RUNS = ("baseline", "alone", "whole", "probes")
LOCAL = "local_"
"""Prefix of arrays that speak of each layer on its own; every one is optional."""
AGAIN = "Restore the file, or analyze the model again."
MAX_ARRAY_BYTES = 64 * 10**9
LOOKED_AT = 2**22
"""Values that are checked at a time."""


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
    ends = list(itertools.accumulate(w.channels for w in stored))
    ranges = read_array(folder, "weight_ranges", np.float32, (ends[-1], 2))
    return tuple(
        WeightProfile(
            w.layer, w.tensor, w.kind, counts[i],
            ranges[end - w.channels : end, 0], ranges[end - w.channels : end, 1],
        )
        for i, (w, end) in enumerate(zip(stored, ends, strict=True))
    )  # fmt: skip


def measured_pairs(folder: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Which pairs of precision and layer a partial analysis knows; None where it knows all."""
    if not files.is_there(folder / "measured.npy"):
        return None
    return read_array(folder, "measured", np.bool_, shape)


def evidence_arrays(evidence: Evidence | None) -> dict[str, NDArray[Any]]:
    """The arrays of evidence by file name; only what was measured."""
    if evidence is None:
        return {}
    found: dict[str, NDArray[Any] | None] = {
        "baseline": evidence.baseline,
        "perturbations": evidence.perturbations,
        "whole": evidence.whole,
        "probe_codes": evidence.probe_codes,
        "probes": evidence.probes,
        "weight_sqnr_db": evidence.weight_sqnr_db,
        "allowed": evidence.allowed,
        "measured": evidence.measured,
        "targets": evidence.targets,
        "entries": evidence.entries,
    }
    if evidence.metrics is not None:
        found |= {f"metric_{name}": getattr(evidence.metrics, name) for name in METRIC_RUNS}
    if evidence.local is not None:
        found |= {LOCAL + name: getattr(evidence.local, name) for name in AXES}
    return {name: array for name, array in found.items() if array is not None}


def check_outputs(outputs: Outputs, baseline: NDArray[Any], folder: Path) -> None:
    """Raise `AnalysisError` where the outputs' reading does not fit the arrays."""
    if outputs.positions < 1 or baseline.shape[1] % outputs.positions:
        raise AnalysisError(
            f"{folder} holds {baseline.shape[1]} outputs, which are not {outputs.positions} equal "
            "steps.",
            AGAIN,
        )
    if outputs.classes and not (
        outputs.kind == "logits" and 2 <= baseline.shape[1] // outputs.positions <= outputs.classes
    ):
        raise AnalysisError(
            f"{folder} holds {baseline.shape[1] // outputs.positions} logits of an answer, which "
            f"cannot be some of {outputs.classes} classes and the rest.",
            AGAIN,
        )


def read_entries(
    read: Read, outputs: Outputs, baseline: NDArray[Any], folder: Path
) -> NDArray[np.int32] | None:
    """Classes that are kept one by one, where only some are; raises `AnalysisError` for one that
    is none of the model's, or is there twice.
    """
    if not outputs.classes:
        return None
    steps = outputs.positions
    shape = (len(baseline), steps, baseline.shape[1] // steps - 1)
    entries = read("entries", np.int32, shape)
    for rows in entries:
        if not (rows.min() >= 0 and rows.max() < outputs.classes and (np.diff(rows) > 0).all()):
            raise AnalysisError(
                f"{folder / 'entries.npy'} does not name different classes in rising order.",
                AGAIN,
            )
    return entries


def read_targets(
    read: Read, task: str, outputs: Outputs, baseline: NDArray[Any], folder: Path
) -> NDArray[Any] | None:
    """Targets where there are any; raises `AnalysisError` for classes that are no outputs.

    Of several answers a sample, one with a class below 0 is not counted; nor is a value of NaN.
    """
    if not files.is_there(folder / "targets.npy"):
        return None
    if outputs.kind == "values":
        return read("targets", np.float32, baseline.shape, finite=False)
    samples, positions = len(baseline), outputs.positions
    shape = (samples,) if positions == 1 else (samples, positions)
    targets = read("targets", np.int64, shape)
    classes = baseline.shape[1] // positions - (1 if outputs.classes else 0)
    lowest = 0 if task == "classification" and positions == 1 else np.iinfo(np.int64).min
    if targets.size and not (lowest <= int(targets.min()) and int(targets.max()) < classes):
        raise AnalysisError(
            f"{folder / 'targets.npy'} names a class that the model does not output.",
            "Analyze the model again.",
        )
    return targets


def read_metrics(
    read: Read, precisions: int, layers: int, probes: int, folder: Path
) -> MetricRuns | None:
    """Runs of a custom metric where there are any."""
    if not files.is_there(folder / "metric_baseline.npy"):
        return None
    baseline = read("metric_baseline", np.float64, (None,))
    runs = len(baseline)
    return MetricRuns(
        baseline=baseline,
        alone=read("metric_alone", np.float64, (precisions, layers, runs)),
        whole=read("metric_whole", np.float64, (precisions, runs)),
        probes=read("metric_probes", np.float64, (probes, runs)),
    )


def read_local(read: Read, folder: Path, precisions: int, layers: int) -> LocalStatistics | None:
    """Local statistics where there are any; None in a folder of an older version.

    Raises `AnalysisError` for an array of another shape, or with NaN where that means nothing.
    """
    sizes = {"P": precisions, "L": layers}
    found: dict[str, NDArray[np.float64]] = {}
    for name, axes in AXES.items():
        path = folder / f"{LOCAL}{name}.npy"
        if not files.is_there(path):
            continue
        shape = tuple(sizes[axis] if axis in sizes else int(axis) for axis in axes)
        array = read(LOCAL + name, np.float64, shape, finite=False)
        if name not in MAY_BE_UNKNOWN and (np.isnan(array).any() or (array < 0).any()):
            raise AnalysisError(
                f"{path} holds NaN or a negative number.",
                AGAIN,
            )
        found[name] = array
    return LocalStatistics(**found) if found else None


def read_array(
    folder: Path, name: str, dtype: type, shape: tuple[int | None, ...], *, finite: bool = True
) -> NDArray[Any]:
    """`folder/name.npy`; raises `AnalysisError` unless it has `dtype` and `shape` (None = any
    length) and, where `finite`, neither NaN nor infinity.
    """
    path = folder / f"{name}.npy"
    want = np.dtype(dtype)
    try:
        array = files.mapped(path, MAX_ARRAY_BYTES)
    except FileNotFoundError:
        raise AnalysisError(f"{path} is missing.", AGAIN) from None
    except OSError as error:
        raise AnalysisError(f"{path} cannot be read: {files.reason(error)}.", AGAIN) from error
    fits = array.ndim == len(shape) and all(
        wanted in (None, held) for wanted, held in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != want:
        raise AnalysisError(
            f"{path} holds {array.dtype}{list(array.shape)}, not {want}"
            f"{[x if x is not None else '*' for x in shape]}.",
            AGAIN,
        )
    if finite and want.kind == "f" and not _is_finite(array):
        raise AnalysisError(f"{path} holds NaN or infinity.", AGAIN)
    return array


def _is_finite(array: NDArray[Any]) -> bool:
    """Whether all is finite, looked at in parts: the answer to all at once takes memory."""
    flat = array.reshape(-1, order="A")
    return all(
        bool(np.isfinite(flat[i : i + LOOKED_AT]).all()) for i in range(0, len(flat), LOOKED_AT)
    )
