"""How often the 90 % ranges of projected divergence hold what a run gives, and how wide they are.

    python -m tests.benchmarks.coverage [--only NAME] [--maps 50]

A row is a model under one set of precisions: bundled samples, models of docs/examples, and small ones
of the tests. Each is measured once; then whole maps are simulated on the same samples and projected:
up to half of them the answers to size budgets, the others random, with rising shares in the narrowest
precision. Printed per row, of the divergence (KL, or relative MSE where outputs are values): the share
of maps inside their 90 % range, and the interval score of the ranges in the logarithm (width plus 20
times what a value lies outside; Gneiting and Raftery 2007, doi:10.1198/016214506000001437), lower =
better; both beside those of a range with one width, around the one form that the probes choose; and the
mean |log error| of the projection, of that form, of the first order, and of the form that is best in
hindsight.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.analysis import store
from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.policy.budget import Budget
from core.decide.policy.decision import NO_PRECISION
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import InfeasibleError
from core.estimate.combine_perturbations import FIRST_ORDER, FORMS
from core.estimate.trials import FLOOR, MIN_LOG_SPREAD, Z90, spread_of
from core.evidence.measure.keeper import keep
from core.evidence.measure.measure import assignment_of, make_simulator, measure, probe_codes
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from core.onnx_graph.read_model import from_bytes
from core.source import samples, sources
from core.source.batches import take
from core.source.contract import ModelSource, Split, model_source
from core.source.onnx_model import OnnxModel
from tests.benchmarks.projection import zoo
from tests.zoo.graphs import Arrays, residual, u_net

EXAMPLES = Path("docs/examples")
TWO = (("INT8",), registry.FIRST_VISIT)
THREE = (*TWO, ("INT8", "INT4-g32"))
SEED = 4711  # not the probes' own
SLACK = 1e-9
MISSES = 20
"""2 / α of the interval score of a 90 % range."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A model, how many of its selection samples are looked at, and the sets of precisions."""

    load: Callable[[], ModelSource]
    samples: int
    sets: tuple[tuple[str, ...], ...]


def _sample(name: str) -> Callable[[], ModelSource]:
    return lambda: samples.load(name)


def _example(reference: str) -> Callable[[], ModelSource]:
    return lambda: sources.load(f"{EXAMPLES}/{reference}")


def _zoo(name: str) -> Callable[[], ModelSource]:
    return lambda: zoo()[name]


def _graph(made: tuple[Any, Arrays], name: str) -> Callable[[], ModelSource]:
    def load() -> ModelSource:
        proto, arrays = made
        given = {n: torch.from_numpy(a) for n, a in arrays.items()}
        return model_source(
            {"model": OnnxModel(from_bytes(proto.SerializeToString(), name)), "calibration": given,
             "evaluation": (given, None), "holdout": None, "task": "regression", "name": name}
        )  # fmt: skip

    return load


MODELS = {
    "transformer": Model(_zoo("transformer"), 200, THREE),
    "convolutions": Model(_zoo("convolutions"), 200, TWO),
    "residual.onnx": Model(_graph(residual(), "residual"), 40, TWO),
    "u_net.onnx": Model(_graph(u_net(), "u_net"), 40, TWO),
    "denoiser": Model(_example("denoiser.py:load"), 200, TWO),
    "letters": Model(_example("letters.py:load"), 100, TWO[1:]),
    "digits_vit": Model(_sample("digits_vit"), 450, (*THREE, ("INT8", "INT2-g32"))),
    "digits_resnet": Model(_sample("digits_resnet"), 450, TWO),
    "text_orientation": Model(_sample("text_orientation"), 64, TWO[:1]),
    "informer": Model(_sample("informer"), 48, TWO),
}


COLUMNS = (
    "model: precisions", "maps", "in range", "score", "one form: in range", "score", "log error",
    "one form", "first order", "best in hindsight",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Row:
    """A measured model with its maps [M, L], and the change of its outputs under each [M, N, K]."""

    name: str
    study: Study
    codes: NDArray[np.int8]
    changes: NDArray[np.float32]


def rows_of(name: str, model: Model, maps: int) -> Iterator[Row]:
    """Every set of precisions of one model, measured and simulated."""
    source = model.load()
    n = min(model.samples, len(source.selection))
    targets = source.selection.targets
    source = replace(
        source,
        selection=Split(
            take(source.selection.inputs, 0, n), None if targets is None else targets[:n]
        ),
    )
    plain = store.load(samples.get(name).analysis) if name in samples.names() else None
    for names in model.sets:
        options = MeasureOptions(precisions=tuple(registry.get(one) for one in names))
        if plain is None:
            study = Study(analyze(source, options))
        else:  # without a look at causes
            evidence = measure(source, plain.layers, options).evidence
            splits = replace(plain.splits, selection=n)
            study = Study(replace(plain, evidence=evidence, splits=splits))
        codes = maps_of(study, maps)
        said = ", ".join(names)
        yield Row(f"{name}: {said}", study, codes, simulated(source, study, options, codes))


def maps_of(study: Study, count: int) -> NDArray[np.int8]:
    """Different maps [M, L]: answers to size budgets, at most half of them, then random ones."""
    precisions = tuple(registry.get(name) for name in study.precisions[1:])
    drawn = probe_codes(study.layers, precisions, 4 * count, SEED) + 1
    drawn[:, ~study.layers.computes] = NO_PRECISION
    sizes = [
        study.stored_bytes(np.where(drawn[0] < 0, -1, p)) for p in range(len(study.precisions))
    ]
    solved = []
    for size in np.linspace(min(sizes), max(sizes), count)[:-1]:
        budget = Budget("size", float(size), "bytes")
        try:
            solved.append(answer.decide(study, Policy(strategy="budget", budgets=(budget,))).codes)
        except InfeasibleError:
            continue
    chosen = np.unique([c for c in solved if (c > 0).any()], axis=0)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), count // 2)).astype(int)]
    known = {c.tobytes() for c in chosen}
    others = [c for c in np.unique(drawn, axis=0) if c.tobytes() not in known]
    order = np.random.default_rng(SEED).permutation(len(others))[: count - len(chosen)]
    return np.stack([*chosen, *(others[i] for i in order)])


def simulated(
    source: ModelSource, study: Study, options: MeasureOptions, codes: NDArray[np.int8]
) -> NDArray[np.float32]:
    """Change of the outputs [M, N, K] under each map, as run."""
    engine = make_simulator(source, study.layers, options)
    inputs, evidence = source.selection.inputs, study.analysis.evidence
    assert evidence is not None
    keeper, _ = keep(read(source), source.selection, [engine.run({}, inputs)])
    return np.stack([
        keeper.read(keeper.hold(engine.run(
            assignment_of((row - 1).astype(np.int8), study.layers, options.precisions), inputs
        ))) - evidence.baseline
        for row in codes
    ])  # fmt: skip


def judged(row: Row) -> list[float]:
    """The figures of one row, as they are printed."""
    projector, evidence = row.study.projector, row.study.analysis.evidence
    assert projector is not None
    assert evidence is not None
    truth = logs([projector.figures(change).divergence for change in row.changes])
    found = [row.study.project(codes) for codes in row.codes]
    ranges = [f.kl if evidence.outputs.kind == "logits" else f.relative_mse for f in found if f]
    value, low, high = logs([(q.value, q.low, q.high) for q in ranges]).T
    forms = logs(
        [[projector.figures(projector.change(c, f)).divergence for f in FORMS] for c in row.codes]
    )
    one = forms[:, FORMS.index(projector.form)]
    probes = [
        float(np.diff(logs([guess.divergence, ran.divergence]))[0])
        for guess, ran in projector.probe_errors
    ]
    half = Z90 * spread_of(probes, MIN_LOG_SPREAD)
    errors = np.abs(forms - truth[:, None]).mean(axis=0)
    return [
        *scored(truth, low, high), *scored(truth, one - half, one + half),
        float(np.abs(value - truth).mean()), float(np.abs(one - truth).mean()),
        float(errors[FORMS.index(FIRST_ORDER)]), float(errors.min()),
    ]  # fmt: skip


def logs(divergences: Sequence[Any]) -> Floats:
    """Logarithms, of nothing too."""
    return np.log(np.maximum(np.array(divergences, np.float64), FLOOR))


def scored(truth: Floats, low: Floats, high: Floats) -> tuple[float, float]:
    """Share of values inside their ranges, and the mean interval score; all in the logarithm."""
    outside = np.maximum(np.maximum(low - truth, truth - high), 0.0)
    return float((outside < SLACK).mean()), float((high - low + MISSES * outside).mean())


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=tuple(MODELS))
    options.add_argument("--maps", type=int, default=50)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    table, console, every = Table(), Console(width=170), []
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right")

    def add(name: str, maps: str, figures: list[float]) -> None:
        shown = [f"{x:.0%}" if i in (0, 2) else f"{x:.3f}" for i, x in enumerate(figures)]
        table.add_row(name, maps, *shown)

    for name in [chosen.only] if chosen.only else MODELS:
        for row in rows_of(name, MODELS[name], chosen.maps):
            every.append(judged(row))
            add(row.name, str(len(row.codes)), every[-1])
    add("mean", "", np.mean(every, axis=0).tolist())
    console.print(table)


if __name__ == "__main__":
    main()
