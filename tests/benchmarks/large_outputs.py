"""How near reduced distributions come to those of all classes: `python -m tests.benchmarks.large_outputs`.

One model is analyzed twice, with all of its outputs kept and with no more room than a large output
gets; every layer alone and random maps are held against each other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from core.analysis.analyze import analyze
from core.estimate.projection import Projector
from core.evidence import reduction
from core.evidence.evidence import Evidence, Outputs
from core.evidence.measure import outputs
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import by_step
from core.numerics.precision import FP16, INT8
from tests.benchmarks.projection import random_codes
from tests.core.recognizer import recognizer

CASES = ((200, 4, 150, 4 * (reduction.FEWEST + 1)), (2_000, 8, 60, 4_096), (20_000, 8, 36, 4_096))
"""Classes, steps, samples, and outputs of a sample that there is room for."""
OPTIONS = MeasureOptions(precisions=(FP16, INT8), probes=6)


def at_steps(evidence: Evidence, asked: NDArray[np.int64]) -> Evidence:
    """`evidence` of the steps `asked` alone."""

    def of(values: NDArray[np.float32]) -> NDArray[np.float32]:
        by = by_step(values, evidence.outputs.positions)[..., asked, :]
        return by.reshape(*values.shape[:-1], -1)

    return replace(
        evidence,
        baseline=of(evidence.baseline),
        perturbations=of(evidence.perturbations),
        whole=of(evidence.whole),
        probes=of(evidence.probes),
        targets=None if evidence.targets is None else evidence.targets[:, asked],
        outputs=Outputs("logits", len(asked)),
    )


def compared(
    classes: int, steps: int, samples: int, room: int, sharp: float, maps: int
) -> list[str]:
    """The row of one model, whose logits deviate by `sharp`."""
    source = recognizer(classes, steps, samples, sharp)
    found = []
    for outputs.MAX_OUTPUTS in (10**9, room):
        found.append(analyze(source, OPTIONS))
    asked = outputs.read(source).asked
    whole, reduced = (a.evidence for a in found)
    assert whole is not None
    assert reduced is not None
    whole = whole if asked is None else at_steps(whole, asked)
    everything, kept = (Projector(one, "FP32") for one in (whole, reduced))
    evidence = kept.evidence
    part = reduction.part_of(evidence)
    words = reduction.in_words(evidence.outputs, evidence.baseline.shape[1], part)
    ratios = []
    for p in range(len(evidence.precisions)):
        for i in np.flatnonzero(found[0].layers.computes):
            both = [x.figures(x.evidence.perturbations[p, i]).kl for x in (kept, everything)]
            ratios.append(both[0] / both[1])
    codes = random_codes(found[0].layers, len(evidence.precisions), maps)
    rows = [[x.project(row) for row in codes] for x in (kept, everything)]
    kl = np.array([[one.kl.value for one in row] for row in rows])
    apart = [
        max(abs((a.value or 0) - (b.value or 0)) for a, b in zip(*pair, strict=True))
        for pair in (
            [[one.accuracy for one in row] for row in rows],
            [[one.flips for one in row] for row in rows],
        )
    ]
    return [
        f"{classes:,}, {sharp:g}",
        words,
        "n/a" if part is None else f"{part.share:.4f}",
        f"{min(ratios):.4f} to {max(ratios):.4f}",
        f"{np.abs(np.log(kl[0] / kl[1])).mean():.4f}",
        f"{spearmanr(*kl).statistic:.4f}",
        f"{kl[1].mean():.1e}",
        f"{apart[0]:.2f}, {apart[1]:.2f}",
    ]


def main() -> None:
    """Print one row per model."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--maps", type=int, default=30)
    options.add_argument("--classes", type=int, help="only the model with so many")
    chosen = options.parse_args()
    table = Table(title="Reduced distributions against all classes")
    for column in (
        "classes, deviation of logits", "kept", "share", "KL of a layer alone ÷ true",
        "log error of maps", "Spearman of maps", "mean KL", "accuracy, flips apart (pts)",
    ):  # fmt: skip
        table.add_column(column)
    for case in CASES:
        for sharp in (4.0, 6.0):
            if chosen.classes in (None, case[0]):
                table.add_row(*compared(*case, sharp, chosen.maps))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
