"""How good a ranking of layers is after how much time, against the exact one of the same run.

    python -m tests.benchmarks.first_look [--sample digits_resnet …] [--samples 450] [--scheme tensorrt]

INT8 alone, units taken apart, one thread, processor time. The unit of time is the naive loop: the model run once for
each layer that computes, with that layer in INT8, over all selection samples (timed on 100 of them).
Quantscape's own rows are what one measurement had published when 1, 3, 10, 30 and 100 % of that time
were spent, preparation included: "n/a" before anything was. The other rows are rankings that need no
measurement: rules, errors of weights, and gradients of calibration samples, at what they took; and
ModelOpt's two searches, in the environment of its interop tests, where that is there, given the same
samples: under `--scheme tensorrt`, which rounds as it does.

Columns: Spearman's rank correlation with the exact divergence of each layer alone, and the *regret*
of maps that put the cheapest layers into INT8 until 50, 70 or 90 % of the bytes of weights are: (KL -
best) / (KL of all layers in INT8 - best), KL (relative MSE for values) being projected from the exact
evidence and best the least that any row reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from core.analysis import analyze as analyzing
from core.analysis.analysis import Analysis
from core.decide.study import Study
from core.engines.engines import calibrated_engine
from core.evidence.diagnose.local_measure import second_order
from core.evidence.diagnose.own_output import OwnOutputs
from core.evidence.evidence import Evidence
from core.evidence.measure import partial_results
from core.evidence.options import MeasureOptions
from core.evidence.scorers import SCORERS, kl
from core.numerics import scheme as schemes
from core.numerics.precision import INT8
from core.source.batches import count, take
from core.source.contract import ModelSource
from tests.benchmarks.pace import source_of
from tests.conftest import REPOSITORY

LISTED = ("digits_resnet", "digits_vit", "resnet20")
SHARES = (0.5, 0.7, 0.9)
POINTS = (0.01, 0.03, 0.10, 0.30, 1.00)
TIMED = 100
MODELOPT = REPOSITORY / ".venv-interop" / "modelopt" / "bin" / "python"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """Costs of the layers (higher = worse, NaN where a tool has none), and what they took."""

    name: str
    seconds: float
    costs: Doubles


def alone(evidence: Evidence) -> Doubles:
    """The divergence of each layer alone, [L]; infinite where outputs are not finite."""
    found = kl.per_sample(evidence, INT8.name)
    assert found is not None
    return np.where(found.allowed, found.figures, np.inf)


def published(source: ModelSource, options: MeasureOptions) -> tuple[Analysis, list[Row]]:
    """The exact analysis, without causes, and every ranking on the way to it."""
    rows: list[Row] = []
    start = time.process_time()

    def look(analysis: Analysis) -> None:
        evidence, partial = analysis.evidence, analysis.partial
        assert evidence is not None
        assert partial is not None
        name = f"Quantscape, {partial.samples} samples"
        if evidence.measured is None and name not in (row.name for row in rows):
            rows.append(Row(name, time.process_time() - start, alone(evidence)))

    def no_causes(source: object, layers: object, options: object, measured: object,
                  *rest: object) -> Evidence:  # fmt: skip
        found: Evidence = measured.evidence  # type: ignore[attr-defined]
        return found

    with (
        patch.object(analyzing, "with_local", no_causes),
        patch.object(partial_results, "EVERY_S", 0.01),  # told when it is there
    ):
        exact = analyzing.analyze(source, options, on_partial=look)
    assert exact.evidence is not None
    rows.append(Row("Quantscape, exact", time.process_time() - start, alone(exact.evidence)))
    return exact, rows


def loop_seconds(source: ModelSource, exact: Analysis) -> float:
    """What a naive loop over layers takes."""
    engine = calibrated_engine(source, exact.layers, exact.rounding, exact.ranges)
    inputs = take(source.selection.inputs, 0, TIMED)
    start = time.process_time()
    for layer in exact.layers:
        if layer.computes_at_inference:
            engine.run({layer.name: INT8}, inputs)
    return (time.process_time() - start) * len(source.selection) / count(inputs)


def unmeasured(source: ModelSource, exact: Analysis) -> Iterator[Row]:
    """Rankings by rules, errors of weights and gradients."""
    start = time.process_time()
    bare = SCORERS["empirical"].score(exact.layers, None, INT8.name)
    assert bare is not None
    yield Row("rules", time.process_time() - start, bare)
    evidence = exact.evidence
    assert evidence is not None
    start = time.process_time()
    weights = SCORERS["weight_error"].score(exact.layers, evidence, INT8.name)
    assert weights is not None
    yield Row("weight error", time.process_time() - start, weights)
    start = time.process_time()
    engine = calibrated_engine(source, exact.layers, exact.rounding, exact.ranges)
    own = OwnOutputs(engine, exact.layers)
    found = second_order(source, exact.layers, (INT8,), own, evidence)
    if found is not None:
        yield Row("gradient error", time.process_time() - start, found[0][0])


def modelopt(name: str, most: int, exact: Analysis) -> Iterator[Row]:
    """ModelOpt's searches, in a process of their own."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "out.json"
        words = [
            str(MODELOPT),
            "-m",
            "tests.benchmarks.first_look_modelopt",
            name,
            str(most),
            str(out),
        ]
        subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        found: dict[str, tuple[float, dict[str, float]]] = json.loads(out.read_text())
    for method, (seconds, by_layer) in found.items():
        costs = [by_layer.get(layer, np.nan) for layer in exact.layers.names]
        yield Row(f"ModelOpt, {method}", seconds, np.array(costs))


def map_of(costs: Doubles, bytes_of: Doubles, share: float) -> NDArray[np.int8]:
    """Codes [L]: the cheapest layers by the byte in INT8 until `share` of the bytes are."""
    codes = np.zeros(len(costs), dtype=np.int8)
    known = np.flatnonzero(np.isfinite(costs) & (bytes_of > 0))
    for i in known[np.argsort(costs[known] / bytes_of[known], kind="stable")]:
        if bytes_of[codes > 0].sum() >= share * bytes_of[known].sum():
            break
        codes[i] = 1
    return codes


def judged(rows: list[Row], exact: Analysis, loop: float, within: NDArray[np.bool_]) -> Table:
    """The table of one model, over the layers in `within`."""
    study = Study(exact)
    bytes_of = np.array(
        [sum(np.prod(t.shape) for t in x.tensors if t.on_grid) for x in exact.layers],
        dtype=np.float64,
    )
    bytes_of[~within] = 0

    def divergence(codes: NDArray[np.int8]) -> float:
        found = study.project(codes)
        assert found is not None
        moved = found.kl if found.kl.value is not None else found.relative_mse
        assert moved.value is not None
        return moved.value

    everything = divergence(np.where(bytes_of > 0, 1, 0).astype(np.int8))
    reached = [[divergence(map_of(r.costs, bytes_of, s)) for s in SHARES] for r in rows]
    best = np.min(reached, axis=0)
    assert exact.evidence is not None
    true = alone(exact.evidence)
    here = within & exact.layers.computes
    table = Table(
        title=f"{exact.identity.name}: {here.sum()} layers, a naive loop takes {loop:.1f} s"
    )
    for column in ("ranking", "of the loop", "Spearman", *(f"regret at {s:.0%}" for s in SHARES)):
        table.add_column(column, justify="left" if column == "ranking" else "right")
    for row, kls in zip(rows, reached, strict=True):
        known = here & np.isfinite(row.costs)
        rank = spearmanr(row.costs[known], true[known]).statistic if known.sum() > 2 else np.nan
        regret = [
            (k - b) / (everything - b) if everything > b else 0.0
            for k, b in zip(kls, best, strict=True)
        ]
        table.add_row(
            row.name, f"{row.seconds / loop:.1%}", f"{rank:.2f}", *(f"{r:.2f}" for r in regret)
        )
    return table


def at_points(rows: list[Row], loop: float) -> list[Row]:
    """What was published last when each point of time had come."""
    found = []
    for point in POINTS[:-1]:
        ready = [row for row in rows if row.seconds <= point * loop]
        if ready:
            found.append(replace(ready[-1], name=f"{ready[-1].name}, at {point:.0%}"))
    return [*{row.seconds: row for row in found}.values(), rows[-1]]


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", action="append", help=f"default: {', '.join(LISTED)}")
    parser.add_argument("--samples", type=int, default=512, help="of the selection split, at most")
    parser.add_argument("--scheme", choices=schemes.names(), default="ort-cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.sample or LISTED:
        source = source_of(name, given.samples)
        options = MeasureOptions(
            precisions=(INT8,), scheme=schemes.get(given.scheme), expand_units=True
        )
        exact, rows = published(source, options)
        loop = loop_seconds(source, exact)
        rows = [*at_points(rows, loop), *unmeasured(source, exact)]
        within = np.ones(len(exact.layers), dtype=np.bool_)
        if MODELOPT.exists() and given.scheme == "tensorrt":
            try:
                theirs = list(modelopt(name, given.samples, exact))
            except subprocess.CalledProcessError as error:
                print(f"ModelOpt: n/a ({str(error.stderr).strip().splitlines()[-1]})")
            else:
                within = np.isfinite(theirs[0].costs)
                rows += theirs
        Console(width=120).print(judged(rows, exact, loop, within))


if __name__ == "__main__":
    main()
