"""The analysis folder: `analysis.json` beside `arrays/*.npy`, self-contained and safe to open.

Reading never unpickles, checks shapes before it uses them, and maps arrays from disk. Writing
goes to a folder beside the target and is renamed into place, so that a folder is whole or
absent.
"""

from __future__ import annotations

import errno
import os
import shutil
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from core import files
from core.analysis import arrays, swap
from core.analysis.analysis import Analysis
from core.analysis.arrays import read_array
from core.analysis.schema import FILE, SCHEMA_VERSION, AnalysisFile, decode, partial_of
from core.errors import AnalysisError
from core.evidence.evidence import Evidence, Outputs
from core.evidence.shared_rounding import shared_rounding
from core.onnx_graph.node_table import TABLES
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
        held = arrays.evidence_arrays(analysis.evidence) | arrays.weight_arrays(analysis.weights)
        for name, array in held.items():
            np.save(fresh / ARRAYS / f"{name}.npy", array, allow_pickle=False)
        (fresh / FILE).write_bytes(_encode(analysis))
        for kept in KEPT:
            if (folder / kept).is_dir():
                shutil.copytree(folder / kept, fresh / kept, ignore=_no_records)
            elif not _no_records(str(folder), [kept]):
                shutil.copy2(folder / kept, fresh / kept)
        swap.put(fresh, folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise _unwritable(folder, error) from error


def _no_records(folder: str, names: list[str]) -> list[str]:
    """What can be no record or node table: a device would be copied without end."""
    most = TABLES.most_bytes
    paths = {name: Path(folder) / name for name in names}
    return [n for n, path in paths.items() if not path.is_file() or path.stat().st_size > most]


def check_target(folder: Path) -> None:
    """Raise `AnalysisError` if writing an analysis to `folder` would overwrite something else, or
    cannot be done.
    """
    try:
        if folder.exists() and (not folder.is_dir() or _is_foreign(folder)):
            raise AnalysisError(
                f"{folder} exists and is not an analysis folder.", "Name a new or an empty folder."
            )
        beside = next(place for place in folder.absolute().parents if place.exists())
        if not os.access(
            beside, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(beside))
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> AnalysisError:
    return AnalysisError(
        f"The analysis cannot be written to {folder}: {files.reason(error)}.",
        files.what_to_do(error),
    )


def _is_foreign(folder: Path) -> bool:
    return any(folder.iterdir()) and not (folder / FILE).is_file()


def _encode(analysis: Analysis) -> bytes:
    evidence = analysis.evidence
    data = AnalysisFile(
        schema_version=SCHEMA_VERSION,
        measured_precisions=None if evidence is None else evidence.precisions,
        weights=arrays.described(analysis.weights),
        outputs=Outputs() if evidence is None else evidence.outputs,
        **analysis.shared,
    )
    return msgspec.json.format(msgspec.json.encode(data), indent=1)


def load(folder: Path) -> Analysis:
    """Read an analysis folder; raises `AnalysisError` naming what is missing or damaged.

    A folder that is exchanged while it is read, as partial results are, is read again.
    """
    try:
        return _load_whole(folder)
    except OSError as error:
        raise AnalysisError(
            f"The analysis folder {folder} cannot be read: {files.reason(error)}.",
            "Make it readable, or name another.",
        ) from error


def _load_whole(folder: Path) -> Analysis:
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
    if not files.is_there(path):
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
    kept, names = record_files.home_of(folder), data.layers.names
    verifications, bad = verification.load(kept, data.identity, data.scheme, data.quantizer)
    profile, also_bad = machine_profile.latest(kept, data.identity, data.scheme, names)
    return Analysis(
        evidence=evidence,
        weights=arrays.weight_profiles(folder / ARRAYS, data.weights),
        verifications=verifications,
        profile=profile,
        left_out=(*bad, *also_bad),
        **data.shared,
    )


def _evidence(folder: Path, data: AnalysisFile) -> Evidence:
    precisions = data.measured_precisions or ()
    n_layers, n_precisions = len(data.layers), len(precisions)
    baseline = read_array(folder, "baseline", np.float32, (data.splits.selection, None))
    samples, outputs = baseline.shape
    probes = read_array(folder, "probes", np.float32, (None, samples, outputs))
    arrays.check_outputs(data.outputs, baseline, folder)
    read = partial(read_array, folder)
    measured = arrays.measured_pairs(folder, (n_precisions, n_layers))
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
        targets=arrays.read_targets(read, data.task, data.outputs, baseline, folder),
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
        metrics=arrays.read_metrics(read, n_precisions, n_layers, len(probes), folder),
        local=arrays.read_local(read, folder, n_precisions, n_layers),
        measured=measured,
        shared=shared_rounding(data.ranges, data.layers.index),
        entries=arrays.read_entries(read, data.outputs, baseline, folder),
        of_samples=0 if data.partial is None else data.partial.of_samples,
    )
