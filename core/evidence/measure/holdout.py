"""The reference model on held-back data: how good it is before any layer is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.engines.engines import engine_of
from core.errors import DataError
from core.evidence.evidence import mean_known
from core.evidence.measure.metric_runs import Judge
from core.evidence.measure.outputs import OutputReader, read
from core.layers import LayerTable
from core.numerics.scheme import Scheme
from core.source.contract import ModelSource
from core.source.data import Split
from core.task import RMSE, Metric


def unjudged(source: ModelSource) -> dict[str, Any]:
    """The fields of `judged` before any held-back sample was run."""
    metric = _metric(source, read(source))
    return {"metric": metric, "holdout_accuracy": None, "majority_accuracy": None}


def judged(source: ModelSource, layers: LayerTable, scheme: Scheme) -> dict[str, Any]:
    """Fields of an analysis: accuracy and majority share of a classifier (in [0, 1], over steps
    for a sequence of classes), or `metric` for values, each on the holdout split and None where
    that has no labels.
    """
    reader = read(source)
    metric = _metric(source, reader)
    split = source.holdout
    unknown = unjudged(source)
    if split is None or split.targets is None:
        return unknown
    engine = engine_of(source, layers, scheme)

    def of_all(read: Callable[[NDArray[np.float32]], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([read(values) for values in engine.run_batches({}, split.inputs)])

    if metric is None:
        return unknown | _accuracy(reader, split, of_all(reader.answers))
    if source.metric is not None:
        value = float(Judge(source.metric, reader, split).score(of_all(np.asarray))[0])
        return unknown | {"metric": _known(metric, value, None)}
    targets = reader.targets(split)
    if targets is None:
        return unknown
    naive = _rmse(mean_known(targets)[None], targets)
    return unknown | {"metric": _known(metric, _rmse(of_all(reader.keep), targets), naive)}


def _metric(source: ModelSource, reader: OutputReader) -> Metric | None:
    if source.metric is not None:
        return Metric(source.metric_name, source.higher_is_better)
    return RMSE if reader.outputs.kind == "values" else None


def _known(metric: Metric, holdout: float, naive: float | None) -> Metric:
    finite = [v if v is not None and np.isfinite(v) else None for v in (holdout, naive)]
    return Metric(metric.name, metric.higher_is_better, *finite)


def _accuracy(reader: OutputReader, split: Split, answers: NDArray[np.int64]) -> dict[str, Any]:
    targets = reader.targets(split)
    if targets is None:
        return {}
    rows = targets.ravel()
    answers = answers.ravel()
    counted = rows >= 0
    if not counted.any():
        raise DataError("No target of the holdout split is counted.", "Give labels to some.")
    majority = np.bincount(rows[counted]).max() / counted.sum()
    return {
        "holdout_accuracy": float((answers == rows)[counted].mean()),
        "majority_accuracy": float(majority),
    }


def _rmse(values: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    difference = values.astype(np.float64) - targets
    return float(np.sqrt(np.nanmean(np.square(difference))))
