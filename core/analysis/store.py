"""The analysis folder: `analysis.json` beside `arrays/*.npy`, self-contained and safe to open.

Reading never unpickles, checks shapes before it uses them, and maps arrays from disk. Writing
goes to a folder beside the target and is renamed into place, so that a folder is whole or
absent.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.analysis import arrays as store_arrays
from core.analysis import arrays_alone, arrays_task, swap
from core.analysis.analysis import Analysis
from core.analysis.arrays import read_array
from core.analysis.schema import FILE, SCHEMA_VERSION, AnalysisFile, decode, partial_of
from core.errors import AnalysisError
from core.evidence.evidence import Evidence, Outputs
from core.records import machine_profile, record_files, verification

__all__ = [
    "ARRAYS",
    "FILE",
    "SCHEMA_VERSION",
    "check_target",
    "load",
    "partial_of",
    "save",
    "stamp",
]

ARRAYS = "arrays"
KEPT = ("verifications", "profiles", "onnx_nodes.json")
"""What running or exporting the model has shown; it outlives an analysis."""
TRIES = 5
"""How often a folder is read that changes under the reader's hands."""


def save(analysis: Analysis, folder: Path) -> None:
    """Write `analysis` to `folder`, replacing an analysis that is there.

    Raises `AnalysisError` if `folder` holds something else, or cannot be written.
    """
    swap.recover(folder)
    check_target(folder)
    fresh = swap.beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        swap.sweep(folder)
        (fresh / ARRAYS).mkdir(parents=True)
        for name, array in (
            _arrays(analysis.evidence) | store_arrays.weight_arrays(analysis.weights)
        ).items():
            np.save(fresh / ARRAYS / f"{name}.npy", array, allow_pickle=False)
        (fresh / FILE).write_bytes(_encode(analysis))
        for kept in KEPT:
            if (folder / kept).is_dir():
                shutil.copytree(folder / kept, fresh / kept)
            elif (folder / kept).is_file():
                shutil.copy2(folder / kept, fresh / kept)
        swap.put(fresh, folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise AnalysisError(
            f"The analysis cannot be written to {folder}: {error.strerror or error}.",
            "Choose a folder that can be written and has room.",
        ) from error


def check_target(folder: Path) -> None:
    """Raise `AnalysisError` if writing an analysis to `folder` would overwrite something else."""
    if folder.exists() and (not folder.is_dir() or _is_foreign(folder)):
        raise AnalysisError(
            f"{folder} exists and is not an analysis folder.", "Name a new or an empty folder."
        )


def _is_foreign(folder: Path) -> bool:
    return any(folder.iterdir()) and not (folder / FILE).is_file()


def _encode(analysis: Analysis) -> bytes:
    evidence = analysis.evidence
    data = AnalysisFile(
        schema_version=SCHEMA_VERSION,
        tool_version=analysis.tool_version,
        created=analysis.created,
        identity=analysis.identity,
        title=analysis.title,
        description=analysis.description,
        data_description=analysis.data_description,
        source=analysis.source,
        task=analysis.task,
        class_names=analysis.class_names,
        scheme=analysis.scheme,
        splits=analysis.splits,
        expanded_units=analysis.expanded_units,
        holdout_accuracy=analysis.holdout_accuracy,
        majority_accuracy=analysis.majority_accuracy,
        seconds=analysis.seconds,
        notes=analysis.notes,
        measured_precisions=None if evidence is None else evidence.precisions,
        ranges=analysis.ranges,
        layers=analysis.layers,
        weights=store_arrays.described(analysis.weights),
        metric=analysis.metric,
        outputs=Outputs() if evidence is None else evidence.outputs,
        optimistic=analysis.optimistic,
        scheme_facts=analysis.scheme_facts,
        calibrator=analysis.calibrator,
        device=analysis.device,
        partial=analysis.partial,
    )
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def _arrays(evidence: Evidence | None) -> dict[str, NDArray[Any]]:
    if evidence is None:
        return {}
    arrays: dict[str, NDArray[Any]] = {
        "baseline": evidence.baseline,
        "perturbations": evidence.perturbations,
        "whole": evidence.whole,
        "probe_codes": evidence.probe_codes,
        "probes": evidence.probes,
        "weight_sqnr_db": evidence.weight_sqnr_db,
        "allowed": evidence.allowed,
    }
    if evidence.measured is not None:
        arrays["measured"] = evidence.measured
    return arrays | arrays_task.arrays(evidence) | arrays_alone.arrays(evidence.local)


def load(folder: Path) -> Analysis:
    """Read an analysis folder; raises `AnalysisError` naming what is missing or damaged.

    A folder that is exchanged while it is read, as partial results are, is read again.
    """
    swap.recover(folder)
    for tries_left in range(TRIES, 0, -1):
        before = stamp(folder)
        try:
            found = _load(folder)
        except AnalysisError:
            if tries_left == 1 or stamp(folder) == before:
                raise
            continue
        if stamp(folder) == before:
            break
    return found


def stamp(folder: Path) -> tuple[int, int]:
    """What tells the analysis in `folder`, with its records, from a later one; (0, 0) where there
    is none.
    """
    try:
        seen = (folder / FILE).stat()
    except OSError:
        return 0, 0
    home = record_files.home_of(folder)
    changed = [(home / kept).stat().st_mtime_ns for kept in KEPT if (home / kept).is_dir()]
    return seen.st_ino, seen.st_mtime_ns + sum(changed)


def _load(folder: Path) -> Analysis:
    path = folder / FILE
    if not path.is_file():
        what = "is empty" if folder.is_dir() and not any(folder.iterdir()) else f"holds no {FILE}"
        if not folder.exists():
            what = "does not exist"
        raise AnalysisError(
            f"The analysis folder {folder} {what}.",
            "Write one with: python -m core analyze sample:informer --out DIR",
        )
    data = decode(path)
    evidence = None
    if data.measured_precisions is not None:
        evidence = _evidence(folder / ARRAYS, data)
    kept = record_files.home_of(folder)
    return Analysis(
        identity=data.identity,
        title=data.title,
        description=data.description,
        task=data.task,
        class_names=data.class_names,
        layers=data.layers,
        scheme=data.scheme,
        splits=data.splits,
        evidence=evidence,
        ranges=data.ranges,
        weights=store_arrays.weight_profiles(folder / ARRAYS, data.weights),
        expanded_units=data.expanded_units,
        holdout_accuracy=data.holdout_accuracy,
        majority_accuracy=data.majority_accuracy,
        data_description=data.data_description,
        source=data.source,
        tool_version=data.tool_version,
        created=data.created,
        seconds=data.seconds,
        notes=data.notes,
        metric=data.metric,
        optimistic=data.optimistic,
        scheme_facts=data.scheme_facts,
        calibrator=data.calibrator,
        device=data.device,
        partial=data.partial,
        verifications=verification.load(kept, data.identity, data.scheme),
        profile=machine_profile.latest(kept, data.identity, data.scheme, data.layers.names),
    )


def _evidence(folder: Path, data: AnalysisFile) -> Evidence:
    precisions = data.measured_precisions or ()
    n_layers, n_precisions = len(data.layers), len(precisions)
    baseline = read_array(folder, "baseline", np.float32, (data.splits.selection, None))
    samples, outputs = baseline.shape
    probes = read_array(folder, "probes", np.float32, (None, samples, outputs))
    arrays_task.check(data.outputs, data.layers, baseline, folder)
    read = partial(read_array, folder)
    measured = store_arrays.measured_pairs(folder, (n_precisions, n_layers))
    probe_codes = read_array(folder, "probe_codes", np.int8, (len(probes), n_layers))
    if probe_codes.size and not (
        -1 <= int(probe_codes.min()) <= int(probe_codes.max()) < n_precisions
    ):
        raise AnalysisError(
            f"{folder / 'probe_codes.npy'} names a precision that was not measured.",
            "Analyze the model again.",
        )  # fmt: skip
    return Evidence(
        precisions=precisions,
        scheme=data.scheme,
        baseline=baseline,
        targets=arrays_task.read_targets(read, data.task, data.outputs, baseline, folder),
        perturbations=read_array(
            folder, "perturbations", np.float32, (n_precisions, n_layers, samples, outputs)
        ),
        whole=read_array(
            folder,
            "whole",
            np.float32,
            (0 if measured is not None else n_precisions, samples, outputs),
        ),
        probe_codes=probe_codes,
        probes=probes,
        weight_sqnr_db=read_array(
            folder, "weight_sqnr_db", np.float64, (n_precisions, n_layers), finite=False
        ),
        allowed=read_array(folder, "allowed", np.bool_, (n_precisions, n_layers), finite=False),
        outputs=data.outputs,
        metrics=arrays_task.read_metrics(read, n_precisions, n_layers, len(probes), folder),
        local=arrays_alone.read_local(read, folder, n_precisions, n_layers),
        measured=measured,
    )
