"""A custom metric of every run, and of the reference model on held-back data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ModelError, told
from core.evidence.evidence import MetricRuns
from core.evidence.measure.outputs import OutputReader
from core.source.batches import pick
from core.source.contract import MetricFunction
from core.source.data import Split
from core.source.trees import map_tensors

RESAMPLES = 20
RESAMPLE_SEED = 20217


class Judge:
    """Calls a person's metric on the outputs of runs over one split. What it is given is its own: a
    metric that works in place changes neither outputs nor targets of a later call.
    """

    def __init__(self, metric: MetricFunction, reader: OutputReader, split: Split) -> None:
        self._metric = metric
        self._shape = reader.shape
        rng = np.random.default_rng(RESAMPLE_SEED)
        n = len(split)
        self._rows = [np.sort(rng.integers(0, n, n)) for _ in range(RESAMPLES)] if n > 1 else []
        self._targets = split.targets
        self._resampled = [pick(split.targets, rows) for rows in self._rows]

    def score(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """The metric of all outputs [N, K] and of each resample, shape [1 + RESAMPLES].

        A resample on which the metric has no value (a missing class) is NaN. Raises
        `ModelError` where it fails or has no value on the whole split.
        """
        try:
            whole = self._call(outputs, self._targets)
        except Exception as error:
            raise ModelError(
                f"The metric failed: {told(error)}.",
                "Call metric(outputs, targets) by hand on what the model returns.",
            ) from error
        if not math.isfinite(whole):
            raise ModelError(
                f"The metric is {whole}.", "Give a metric that has a value on the evaluation data."
            )
        return np.array([whole, *(self._resample(outputs, i) for i in range(len(self._rows)))])

    def _resample(self, outputs: NDArray[np.float32], i: int) -> float:
        try:
            return self._call(outputs[self._rows[i]], self._resampled[i])
        except Exception:  # noqa: BLE001 (a metric may have no value on a resample)
            return math.nan

    def _call(self, outputs: NDArray[np.float32], targets: Any) -> float:
        given = torch.from_numpy(outputs.copy()).reshape(len(outputs), *self._shape)
        return float(self._metric(given, map_tensors(targets, torch.clone)))


def metric_runs(
    baseline: NDArray[np.float64], alone: NDArray[np.float64], whole: NDArray[np.float64],
    probes: NDArray[np.float64],
) -> MetricRuns:  # fmt: skip
    """What was scored, without the resamples on which any run has no value."""
    runs = (baseline[None], alone.reshape(-1, len(baseline)), whole, probes)
    known = np.isfinite(np.concatenate(runs)).all(axis=0)
    return MetricRuns(baseline[known], alone[..., known], whole[..., known], probes[..., known])
