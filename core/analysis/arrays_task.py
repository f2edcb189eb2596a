"""Arrays of an analysis folder that depend on the task: targets, and runs of a custom metric."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import AnalysisError
from core.evidence.evidence import Evidence, MetricRuns, Outputs
from core.layers import LayerTable

Read = Callable[[str, type, tuple[int | None, ...]], NDArray[Any]]
"""(name, type, shape with None for any length) -> a checked array."""
METRIC_RUNS = ("baseline", "alone", "whole", "probes")
AGAIN = "Restore the file, or analyze the model again."


def arrays(evidence: Evidence) -> dict[str, NDArray[Any]]:
    """What to write, by name."""
    found: dict[str, NDArray[Any]] = {}
    if evidence.targets is not None:
        found["targets"] = evidence.targets
    if evidence.metrics is not None:
        found |= {f"metric_{name}": getattr(evidence.metrics, name) for name in METRIC_RUNS}
    return found


def check(outputs: Outputs, layers: LayerTable, baseline: NDArray[Any], folder: Path) -> None:
    """Raise `AnalysisError` where the outputs' reading or the groups do not fit the arrays."""
    if outputs.positions < 1 or baseline.shape[1] % outputs.positions:
        raise AnalysisError(
            f"{folder} holds {baseline.shape[1]} outputs, which are not {outputs.positions} equal "
            "steps.",
            AGAIN,
        )
    for group in layers.groups:
        if any(not 0 <= i < len(layers) for i in group):
            raise AnalysisError(f"{folder} groups a layer that it does not have.", AGAIN)


def read_targets(
    read: Read, task: str, outputs: Outputs, baseline: NDArray[Any], folder: Path
) -> NDArray[Any] | None:
    """Targets where there are any; raises `AnalysisError` for classes that are no outputs.

    In a sequence a class below 0 is a step that is not counted.
    """
    if not (folder / "targets.npy").is_file():
        return None
    if outputs.kind == "values":
        return read("targets", np.float32, baseline.shape)
    samples, positions = len(baseline), outputs.positions
    shape = (samples,) if positions == 1 else (samples, positions)
    targets = read("targets", np.int64, shape)
    classes = baseline.shape[1] // positions
    lowest = 0 if task == "classification" else np.iinfo(np.int64).min
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
    if not (folder / "metric_baseline.npy").is_file():
        return None
    baseline = read("metric_baseline", np.float64, (None,))
    runs = len(baseline)
    return MetricRuns(
        baseline=baseline,
        alone=read("metric_alone", np.float64, (precisions, layers, runs)),
        whole=read("metric_whole", np.float64, (precisions, runs)),
        probes=read("metric_probes", np.float64, (probes, runs)),
    )
