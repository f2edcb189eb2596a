"""How well every scorer ranks layers, judged by what was measured on samples that no score saw.

    python -m tests.benchmarks.scorers [--sample informer] [--holdout 500]

The truth is the KL divergence (relative MSE of values) of each layer alone in the narrowest
precision on the holdout split. Printed per scorer: Spearman's and Kendall's rank correlation with
the truth over the layers that compute, how many of them it tells apart, and the time it took to
have what it needs and to score, in seconds of processor time: passes over the selection split for measured scorers, gradients
and own outputs of calibration samples for projected ones.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import kendalltau, spearmanr

from core.analysis import store
from core.analysis.analysis import Analysis
from core.engines.engines import calibrated_engine
from core.engines.torch.simulate.folding import stored_tensors
from core.evidence.diagnose.local_measure import second_order
from core.evidence.diagnose.own_output import OwnOutputs
from core.evidence.diagnose.weights import weight_kurtosis, weight_sqnr_db
from core.evidence.evidence import Evidence
from core.evidence.measure.measure import make_simulator
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.evidence.scorers import SCORERS, kl
from core.numerics import precision as registry
from core.numerics.scheme import SCHEMES
from core.source import samples
from core.source.batches import count, take
from core.source.contract import ModelSource

LISTED = ("digits_resnet", "digits_vit", "informer")


@dataclass(frozen=True)
class Truth:
    """Divergence of each computing layer alone on held-back samples, and seconds per sample."""

    layers: NDArray[np.int64]
    divergence: NDArray[np.float64]
    samples: int
    seconds_per_sample: float


def measure_truth(
    source: ModelSource, analysis: Analysis, evidence: Evidence, most: int, title: str
) -> Truth:
    """Run every computing layer alone in the narrowest precision on the holdout split."""
    assert source.holdout is not None
    inputs = take(source.holdout.inputs, 0, most)
    simulator = make_simulator(
        source, analysis.layers, MeasureOptions(scheme=SCHEMES[analysis.scheme])
    )
    reading = read(source)
    narrowest = min((registry.get(p) for p in evidence.precisions), key=lambda p: p.bits)
    layers = np.flatnonzero(analysis.layers.computes)
    baseline = reading.keep(simulator.run({}, inputs))
    start = time.process_time()
    changes = [
        reading.keep(simulator.run({analysis.layers.names[i]: narrowest}, inputs)) - baseline
        for i in track(layers, description=title, console=Console(stderr=True))
    ]
    seconds = (time.process_time() - start) / max(count(inputs), 1)
    held = replace(
        evidence,
        precisions=(narrowest.name,),
        baseline=baseline,
        targets=None,
        perturbations=np.stack(changes)[None],
        allowed=np.ones((1, len(layers)), np.bool_),
    )
    found = kl.per_sample(held, narrowest.name)
    assert found is not None
    divergence = found.amounts.sum(axis=1) / found.bases.sum()
    return Truth(layers, divergence, count(inputs), seconds)


def needs_seconds(source: ModelSource, analysis: Analysis, truth: Truth) -> dict[str, float]:
    """Seconds to measure what each scorer needs, by name."""
    evidence = analysis.evidence
    assert evidence is not None
    tensors = stored_tensors(analysis.layers, source.model)
    precisions = tuple(registry.get(name) for name in evidence.precisions)
    start = time.process_time()
    weight_sqnr_db(analysis.layers, tensors, precisions[-1:])
    rounded = time.process_time()
    weight_kurtosis(analysis.layers, tensors)
    counted = time.process_time()
    simulator = calibrated_engine(source, analysis.layers, analysis.rounding, analysis.ranges)
    outputs = OwnOutputs(simulator, analysis.layers)
    second_order(source, analysis.layers, precisions, outputs, evidence)
    pulled = time.process_time()
    by_kind = {"measured": truth.seconds_per_sample * evidence.samples, "prior": 0.0,
               "projected": pulled - counted}  # fmt: skip
    own = {"weight_error": rounded - start, "weight_outliers": counted - rounded}
    return {name: own.get(name, by_kind.get(s.kind, 0.0)) for name, s in SCORERS.items()}


def judged(name: str, most: int) -> Table:
    """The table of one sample."""
    source, analysis = samples.load(name), store.load(samples.get(name).analysis)
    evidence = analysis.evidence
    assert evidence is not None
    narrowest = min(evidence.precisions, key=lambda p: registry.get(p).bits)
    truth = measure_truth(source, analysis, evidence, most, name)
    needs = needs_seconds(source, analysis, truth)
    table = Table(
        title=f"{name}: scorers against the divergence of each layer alone on {truth.samples} "
        "samples of the holdout split"
    )
    for column in ("scorer", "kind"):
        table.add_column(column)
    for column in ("Spearman", "Kendall", "told apart", "seconds"):
        table.add_column(column, justify="right")
    for scorer in SCORERS.values():
        start = time.process_time()
        score = scorer.score(analysis.layers, evidence, narrowest)
        scored = time.process_time() - start
        if score is None:
            table.add_row(scorer.name, scorer.kind, "n/a", "n/a", "n/a", "n/a")
            continue
        mine = score[truth.layers]
        known = np.ptp(mine) > 0
        table.add_row(
            scorer.name,
            scorer.kind,
            f"{spearmanr(mine, truth.divergence).statistic:.2f}" if known else "n/a",
            f"{kendalltau(mine, truth.divergence).statistic:.2f}" if known else "n/a",
            f"{len(np.unique(mine.round(6)))} of {len(mine)}",
            f"{needs[scorer.name] + scored:.2g}",
        )
    return table


def main() -> None:
    """Print a table for each sample named, or for all."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", action="append", choices=LISTED)
    options.add_argument("--holdout", type=int, default=500, help="samples of the holdout split")
    chosen = options.parse_args()
    for name in chosen.sample or LISTED:
        Console(width=120).print(judged(name, chosen.holdout))


if __name__ == "__main__":
    main()
