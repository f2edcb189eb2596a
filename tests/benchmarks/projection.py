"""Projected against simulated: random maps of a sample, at 8 bits and with 4-bit weights.

    python -m tests.benchmarks.projection [--sample informer] [--maps 50] [--samples 1500] [--again]
    python -m tests.benchmarks.projection --sample informer --only stress --bits 3
    python -m tests.benchmarks.projection --sample text_orientation --only 8-bit
    python -m tests.benchmarks.projection --zoo

Every map is simulated directly and projected from layers measured one at a time. At 8 bits the
shipped analysis is judged; for the stress the layers are measured anew with weights of 4 bits, or
of `--bits`, a precision that exists only here. `--zoo` does the same for small models of the
tests, of many kinds and not trained, which are analyzed first. Printed per row: Spearman's rank
correlation of KL; the mean absolute log error of KL for the projection, for the first order alone,
and for the sum of the layers' own KL; the mean absolute error of the accuracy drop beside that of "nothing changes";
the share of simulated values inside the projected 90 % range; how many samples carry half of a
map's KL, and how well two halves of the samples agree on the rank of the simulated maps. Where a
few samples carry the KL, which of them a map tips is chance, and halves disagree. With `--again`
every map is simulated a second time, the inputs shifted by a millionth of their mean size, and
both simulations are compared like a projection with the first: no projection can be asked to
come closer than that.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from torch import nn
from torch.utils._pytree import tree_map_only

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.estimate.combine_perturbations import FIRST_ORDER
from core.estimate.metrics import kl_per_sample
from core.estimate.projection import Figures, Projection, Projector
from core.evidence.evidence import Evidence
from core.evidence.measure.keeper import keep
from core.evidence.measure.measure import assignment_of, make_simulator, measure
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import log_softmax
from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.precision import integers
from core.numerics.scheme import SCHEMES
from core.source import samples
from core.source.batches import Inputs
from core.source.contract import ModelSource, Split
from tests.zoo import models
from tests.zoo.precisions import registered
from tests.zoo.sources import source_of

BITS = 4
SPLITS = 40
SHIFT = 1e-6
MAP_SEED = 4711  # not the probes' seed: maps that judge must not be maps that taught


@dataclass(frozen=True)
class Row:
    """One map: projected (with and without residual), the sum of scalars, and simulated; `again`
    is the KL of a second simulation, nan where there was none.
    """

    projected: Projection
    figures: Figures
    first_order: Figures
    scalar_kl: float
    simulated: Figures
    sample_kl: NDArray[np.float64]
    again: float = float("nan")


def shifted(inputs: Inputs) -> Inputs | None:
    """`inputs` with noise of a millionth of their mean size; None where none of them is a float."""
    draw = torch.Generator().manual_seed(MAP_SEED)
    found: list[torch.Tensor] = []

    def moved(given: torch.Tensor) -> torch.Tensor:
        if not given.is_floating_point():
            return given
        noise = torch.randn(given.shape, generator=draw, dtype=given.dtype)
        found.append(given + SHIFT * given.abs().mean() * noise)
        return found[-1]

    changed: Inputs = tree_map_only(torch.Tensor, moved, inputs)
    return changed if found else None


def carriers(kl: NDArray[np.float64]) -> int:
    """How many samples carry half of the KL of a map, given that of each sample."""
    falling = np.sort(kl)[::-1].cumsum()
    return int(np.searchsorted(falling, falling[-1] / 2)) + 1


def halves(kl: NDArray[np.float64]) -> float:
    """Mean rank correlation of the KL of maps on one half of the samples with that on the other
    (maps, samples): what is left of a rank when other samples are drawn.
    """
    rng = np.random.default_rng(MAP_SEED)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(kl.shape[1])
        one, other = np.array_split(order, 2)
        found.append(spearmanr(kl[:, one].mean(axis=1), kl[:, other].mean(axis=1)).statistic)
    return float(np.mean(found))


def random_codes(layers: LayerTable, precisions: int, count: int) -> NDArray[np.int8]:
    """Maps [count, L] whose share in the narrowest precision is about uniform over 5 to 100 %."""
    rng = np.random.default_rng(MAP_SEED)
    computing = np.flatnonzero(layers.computes)
    codes = np.zeros((count, len(layers)), dtype=np.int8)
    codes[:, ~layers.computes] = -1
    for row in codes:
        narrow = rng.random(len(computing)) < rng.uniform(0.05, 1.0)
        narrow[rng.integers(len(computing))] = True  # a map without any would tell nothing
        row[computing] = np.where(narrow, precisions, rng.integers(0, precisions, len(computing)))
    return codes


def judge(
    source: ModelSource, layers: LayerTable, evidence: Evidence, count: int, title: str,
    *, again: bool,
) -> list[Row]:  # fmt: skip
    """Simulate and project `count` random maps; with `again` simulate each a second time."""
    projector = Projector(evidence, registry.REFERENCE)
    simulator = make_simulator(source, layers, MeasureOptions(scheme=SCHEMES[evidence.scheme]))
    precisions = tuple(registry.get(name) for name in evidence.precisions)
    alone = [
        [projector.figures(change).kl for change in changes] for changes in evidence.perturbations
    ]
    log_p = log_softmax(evidence.baseline.astype(np.float64))
    rows = []
    inputs = source.selection.inputs
    keeper, _ = keep(read(source), source.selection, [simulator.run({}, inputs)])

    def change_of(given: Inputs) -> NDArray[np.float32]:
        ran = simulator.run(assignment, given)
        return keeper.read(keeper.hold(ran)) - evidence.baseline

    other = shifted(source.selection.inputs) if again else None
    console = Console(stderr=True)
    maps = random_codes(layers, len(precisions), count)
    for codes in track(maps, description=title, console=console):
        assignment = assignment_of((codes - 1).astype(np.int8), layers, precisions)
        with np.errstate(invalid="ignore"):
            change = change_of(inputs)
            second = float("nan")
            if other is not None:
                second = projector.figures(change_of(other)).kl
        rows.append(
            Row(
                projector.project(codes),
                projector.figures(projector.change(codes)),
                projector.figures(projector.change(codes, FIRST_ORDER)),
                sum(alone[c - 1][i] for i, c in enumerate(codes) if c > 0),
                projector.figures(change),
                kl_per_sample(log_p, evidence.baseline + change),
                second,
            )
        )
    return rows


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low - 1e-9 <= value <= high + 1e-9


def _reproduced(kl: NDArray[np.float64], again: NDArray[np.float64]) -> tuple[str, str]:
    """Rank correlation and mean log error of the second simulation against the first."""
    if np.isnan(again).any():
        return "n/a", "n/a"
    return f"{spearmanr(again, kl).statistic:.3f}", f"{np.abs(np.log(again / kl)).mean():.3f}"


def summary(rows: list[Row]) -> list[str]:
    """The printed figures of one set of maps."""
    kl = np.array([row.simulated.kl for row in rows])

    def log_error(values: list[float]) -> str:
        return f"{np.abs(np.log(np.array(values) / kl)).mean():.3f}"

    drops = np.array([row.simulated.drop_pts or 0.0 for row in rows])
    guesses = np.array([row.figures.drop_pts or 0.0 for row in rows])
    drop_inside = [
        _inside(d, r.projected.accuracy_drop_pts.low, r.projected.accuracy_drop_pts.high)
        for d, r in zip(drops, rows, strict=True)
    ]
    kl_inside = [_inside(r.simulated.kl, r.projected.kl.low, r.projected.kl.high) for r in rows]
    return [
        f"{spearmanr([r.figures.kl for r in rows], kl).statistic:.3f}",
        log_error([r.figures.kl for r in rows]),
        log_error([r.first_order.kl for r in rows]),
        log_error([r.scalar_kl for r in rows]),
        f"{np.abs(guesses - drops).mean():.3f}",
        f"{np.abs(drops).mean():.3f}",
        f"{np.mean(kl_inside):.0%}",
        f"{np.mean(drop_inside):.0%}",
        f"{np.mean([r.simulated.flips for r in rows]):.1f}",
        f"{np.mean([carriers(r.sample_kl) for r in rows]):.0f}",
        f"{halves(np.stack([r.sample_kl for r in rows])):.2f}",
        *_reproduced(kl, np.array([r.again for r in rows])),
    ]


COLUMNS = (
    "weights", "samples", "Spearman KL", "log error", "first order", "sum of scalars",
    "drop error, pts", "nothing changes, pts", "KL in range", "drop in range", "flips", "half of KL",
    "halves", "again: Spearman", "again: log error",
)  # fmt: skip
ZOO_SAMPLES = 400


def zoo() -> dict[str, ModelSource]:
    """Small models of many kinds, by name."""

    def of(name: str, model: nn.Module, shape: tuple[int, ...], ids: int = 0) -> ModelSource:
        return source_of(model, shape, name=name, ids=ids, samples=ZOO_SAMPLES)

    torch.manual_seed(0)
    return {
        source.name: source
        for source in (
            of("transformer", models.TinyTransformer(), (5, 6)),
            of("convolutions", models.ConvNet(), (1, 8, 8)),
            of("looped module", models.LoopedModule(), (5,)),
            of("tied weights", models.TiedWeights(), (5,)),
            of("tokens", models.TokenModel(), (4,), ids=20),
        )
    }


def rows_of(
    source: ModelSource,
    analysis: Analysis,
    maps: int,
    only: str | None,
    count: int | None,
    bits: int = BITS,
    *,
    again: bool = False,
) -> list[tuple[str, ...]]:
    """The printed rows of one model."""
    found: list[tuple[str, ...]] = []
    if only != "stress" and analysis.evidence is not None:
        rows = judge(source, analysis.layers, analysis.evidence, maps, "8-bit", again=again)
        found.append(("8 bit", str(analysis.evidence.samples), *summary(rows)))
    if only != "8-bit":
        n = count or len(source.selection)
        targets = source.selection.targets
        cut = replace(
            source,
            selection=Split(source.selection.inputs[:n], None if targets is None else targets[:n]),
        )
        narrow = integers(f"INT{bits}-stress", bits)
        with registered(narrow):
            console = Console(stderr=True)
            console.print(f"measuring {len(analysis.layers)} layers with {bits}-bit weights")
            scheme = SCHEMES[analysis.scheme]
            stressed = measure(
                cut, analysis.layers, MeasureOptions(scheme=scheme, precisions=(narrow,))
            ).evidence
            rows = judge(cut, analysis.layers, stressed, maps, f"{bits}-bit", again=again)
            found.append((f"{bits} bit", str(n), *summary(rows)))
    return found


def main() -> None:
    """Print the table for one sample, or for the zoo."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", default="informer")
    options.add_argument("--zoo", action="store_true", help="small models of the tests instead")
    options.add_argument("--maps", type=int, default=50)
    options.add_argument("--samples", type=int, help="selection samples of the stress; all")
    options.add_argument("--bits", type=int, default=BITS, choices=(2, 3, 4, 5, 6))
    options.add_argument("--again", action="store_true", help="simulate every map twice")
    options.add_argument("--only", choices=("8-bit", "stress"))
    chosen = options.parse_args()
    if chosen.zoo:
        given = [(source, analyze(source)) for source in zoo().values()]
    else:
        folder = samples.get(chosen.sample).analysis
        given = [(samples.load(chosen.sample), store.load(folder))]
    what = "zoo" if chosen.zoo else chosen.sample
    table = Table(title=f"{what}: projected against simulated, {chosen.maps} random maps")
    table.add_column("model")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for source, analysis in given:
        rows = rows_of(
            source, analysis, chosen.maps, chosen.only, chosen.samples, chosen.bits,
            again=chosen.again,
        )  # fmt: skip
        for row in rows:
            table.add_row(source.name, *row)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
