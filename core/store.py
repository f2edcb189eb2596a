"""The analysis folder: `analysis.json` beside `arrays/*.npy`, self-contained and safe to open.

Reading never unpickles, checks shapes before it uses them, and maps arrays from disk. Writing
goes to a folder beside the target and is renamed into place, so that a folder is whole or
absent.
"""

from __future__ import annotations

import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core import store_arrays, store_local, store_task
from core.analysis import Analysis
from core.errors import AnalysisError
from core.evidence.evidence import Calibration, Evidence, Identity, Outputs, SplitSizes
from core.layers import ROLES, LayerTable
from core.store_arrays import StoredWeights, read_array
from core.task import Metric

SCHEMA_VERSION = 1
FILE = "analysis.json"
ARRAYS = "arrays"
KEPT = ("verifications", "profiles")
MAX_JSON_BYTES = 64 * 10**6
MAX_LAYERS = 100_000


class _Header(msgspec.Struct, frozen=True):
    schema_version: int


class _File(msgspec.Struct, frozen=True):
    """`analysis.json`. Unknown fields are ignored, so that an older tool reads a newer patch."""

    schema_version: int
    tool_version: str
    created: str
    identity: Identity
    title: str
    description: str
    data_description: str
    source: str
    task: str
    class_names: tuple[str, ...]
    scheme: str
    splits: SplitSizes
    expanded_units: bool
    holdout_accuracy: float | None
    majority_accuracy: float | None
    seconds: float | None
    notes: tuple[str, ...]
    measured_precisions: tuple[str, ...] | None
    ranges: tuple[Calibration, ...]
    layers: LayerTable
    weights: tuple[StoredWeights, ...] = ()
    metric: Metric | None = None
    outputs: Outputs = Outputs()
    optimistic: bool = False
    device: str = "cpu"


def save(analysis: Analysis, folder: Path) -> None:
    """Write `analysis` to `folder`, replacing an analysis that is there.

    Raises `AnalysisError` if `folder` holds something else, or cannot be written.
    """
    check_target(folder)
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        (fresh / ARRAYS).mkdir(parents=True)
        for name, array in (
            _arrays(analysis.evidence) | store_arrays.weight_arrays(analysis.weights)
        ).items():
            np.save(fresh / ARRAYS / f"{name}.npy", array, allow_pickle=False)
        (fresh / FILE).write_bytes(_encode(analysis))
        _swap(fresh, folder)
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


def _swap(fresh: Path, folder: Path) -> None:
    old = fresh.with_name(fresh.name + ".old")
    for kept in KEPT:  # what running the model has shown outlives an analysis
        if (folder / kept).is_dir():
            shutil.copytree(folder / kept, fresh / kept)
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _encode(analysis: Analysis) -> bytes:
    evidence = analysis.evidence
    data = _File(
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
        device=analysis.device,
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
    return arrays | store_task.arrays(evidence) | store_local.arrays(evidence.local)


def load(folder: Path) -> Analysis:
    """Read an analysis folder; raises `AnalysisError` naming what is missing or damaged."""
    path = folder / FILE
    if not path.is_file():
        what = "is empty" if folder.is_dir() and not any(folder.iterdir()) else f"holds no {FILE}"
        if not folder.exists():
            what = "does not exist"
        raise AnalysisError(
            f"The analysis folder {folder} {what}.",
            "Write one with: python -m core analyze sample:informer --out DIR",
        )
    if path.stat().st_size > MAX_JSON_BYTES:
        raise AnalysisError(
            f"{path} is larger than {MAX_JSON_BYTES // 10**6} MB.", "This is no analysis of ours."
        )
    data = _decode(path)
    evidence = None
    if data.measured_precisions is not None:
        evidence = _evidence(folder / ARRAYS, data)
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
        device=data.device,
    )


def _decode(path: Path) -> _File:
    raw = path.read_bytes()
    try:
        version = msgspec.json.decode(raw, type=_Header).schema_version
        if version != SCHEMA_VERSION:
            newer = version > SCHEMA_VERSION
            raise AnalysisError(
                f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}.",
                "Update Quantscape." if newer else "Analyze the model again.",
            )
        data = msgspec.json.decode(raw, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnalysisError(
            f"{path} cannot be read: {error}.", "Restore the file, or analyze the model again."
        ) from error
    _check_layers(data.layers, path)
    return data


def _check_layers(layers: LayerTable, path: Path) -> None:
    def refuse(what: str) -> AnalysisError:
        return AnalysisError(f"{path}: {what}.", "Restore the file, or analyze the model again.")

    if len(layers) > MAX_LAYERS:
        raise refuse(f"{len(layers):,} layers, more than {MAX_LAYERS:,}")
    if len(layers.index) != len(layers):
        raise refuse("a layer name occurs twice")
    for layer in layers:
        if layer.role not in ROLES:
            raise refuse(f"layer {layer.name!r} has the unknown role {layer.role!r}")
        if min(layer.params, layer.macs, layer.input_elements, layer.output_elements) < 0:
            raise refuse(f"layer {layer.name!r} has a negative count")
    nodes = len(layers) + layers.joins
    if not 0 <= layers.joins <= MAX_LAYERS:
        raise refuse(f"{layers.joins:,} joins")
    for edge in layers.edges:
        if not (0 <= edge.source < nodes and 0 <= edge.target < nodes):
            raise refuse(f"an edge leads to layer {max(edge.source, edge.target)}")


def _evidence(folder: Path, data: _File) -> Evidence:
    precisions = data.measured_precisions or ()
    n_layers, n_precisions = len(data.layers), len(precisions)
    baseline = read_array(folder, "baseline", np.float32, (data.splits.selection, None))
    samples, outputs = baseline.shape
    probes = read_array(folder, "probes", np.float32, (None, samples, outputs))
    store_task.check(data.outputs, data.layers, baseline, folder)
    read = partial(read_array, folder)
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
        targets=store_task.read_targets(read, data.task, data.outputs, baseline, folder),
        perturbations=read_array(
            folder, "perturbations", np.float32, (n_precisions, n_layers, samples, outputs)
        ),
        whole=read_array(folder, "whole", np.float32, (n_precisions, samples, outputs)),
        probe_codes=probe_codes,
        probes=probes,
        weight_sqnr_db=read_array(
            folder, "weight_sqnr_db", np.float64, (n_precisions, n_layers), finite=False
        ),
        allowed=read_array(folder, "allowed", np.bool_, (n_precisions, n_layers), finite=False),
        outputs=data.outputs,
        metrics=store_task.read_metrics(read, n_precisions, n_layers, len(probes), folder),
        local=store_local.read_local(read, folder, n_precisions, n_layers),
    )
