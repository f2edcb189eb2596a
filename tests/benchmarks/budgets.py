"""Maps of four solvers at five budgets, each simulated directly.

    python -m tests.benchmarks.budgets [--sample digits_resnet] [--axis size] [--only stress] [--samples 450]

For each budget, between the least size and that of no loss, four maps are chosen: by *thresholds*
(the document's scores, the lowest threshold that keeps the budget), *greedy* (the narrowest step
with the least added loss per byte, one layer at a time), the *additive* integer programme (losses
of layers alone added up, HiGHS) and the *search* with interactions. Every map is then run: printed
are the KL from FP32 and the points of accuracy lost on the selection split, as simulated, and the
projected KL of the search. The stress measures the layers anew with 4-bit weights, a precision
that exists only here. "Noise" is a 90 % interval of the search's KL over the additive one's,
from resampled samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.analysis import store
from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.solve.milp import Milp
from core.decide.solve.solver import HEDGE, Solver
from core.decide.study import Study
from core.estimate.metrics import kl_per_sample
from core.estimate.projection import Projector
from core.evidence.measure.measure import assignment_of, make_simulator, measure
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import log_softmax
from core.numerics import precision as registry
from core.numerics.precision import integers
from core.numerics.scheme import SCHEMES
from core.source import samples
from core.source.contract import ModelSource, Split
from tests.zoo.precisions import registered

INT4 = integers("INT4-stress", 4)
SHARES = (0.05, 0.15, 0.3, 0.5, 0.75)
"""Budgets: this share of the way from the least size to that of no loss."""
TIGHT = (0.02, 0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.35, 0.4)
RESAMPLES, SEED = 400, 15
CUTS = 15
AXES = ("size", "latency")
Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Run:
    """A map as it was run: KL of each sample, and the points of accuracy lost."""

    kl: NDArray[np.float64]
    drop_pts: float


def bytes_of(study: Study, codes: Codes) -> int:
    """Stored bytes of a map."""
    rows = np.maximum(codes, 0)
    return int(study.size_bytes[rows, np.arange(len(codes))].sum()) + study.glue_bytes


def thresholds(study: Study, budget: float) -> Codes:
    """The document's scores: the highest threshold whose map keeps the budget."""
    narrow = study.score_precision
    scores = answer.decide(study, Policy()).scores
    for threshold in sorted({0.0, 1.0, *scores.tolist()}):
        policy = Policy(high_threshold=threshold, medium_threshold=min(threshold, 0.4),
                        medium=narrow, low=narrow, high="FP16")  # fmt: skip
        codes = answer.decide(study, policy).codes
        if bytes_of(study, codes) <= budget:
            return codes
    return answer.decide(study, Policy(strategy="uniform", uniform=narrow)).codes


def greedy(study: Study, budget: float) -> Codes:
    """From the reference, the step with the least loss alone per byte saved, until it fits."""
    tables = study.derived(Solver).tables(Policy())
    picked = np.zeros(len(tables.choices), dtype=np.int64)
    units = np.arange(len(picked))
    while bytes_of(study, tables.choices.codes(picked)) > budget:
        saved = tables.size[picked, units] - tables.size
        lost = tables.alone - tables.alone[picked, units]
        rate = np.where(saved > 0, lost / np.maximum(saved, 1e-9), np.inf)
        code, unit = np.unravel_index(int(rate.argmin()), rate.shape)
        picked[unit] = code
    return tables.choices.codes(picked)


def additive(study: Study, policy: Policy, feasible: Codes) -> Codes | None:
    """The map within the budgets whose layers' losses alone add up to the least, by HiGHS.

    What costs more than all of `feasible` is in no optimum: it is cut down, so that the solver's
    tolerances are small beside what is at stake. The programme's latency is a lower bound, so
    answers that break the budget are cut off one by one, and where that leads nowhere the budget
    is tightened. None where nothing was found.
    """
    tables, limits = (
        study.derived(Solver).tables(policy),
        study.derived(Solver).task(policy).limits,
    )
    alone = np.where(tables.choices.options, tables.alone, 0.0)
    most = max(float(tables.added(feasible[None])[0]), 1e-300)
    cost = [(v, min(float(c) / most, 2.0)) for v, c in enumerate(alone.ravel())]
    beyond, cuts = 0.0, []
    for turn in range(2 * CUTS):
        programme = Milp(tables)
        programme.limit(replace(limits, ms=limits.ms - beyond))
        answer = programme.solve(cost, cuts, 30.0)
        if answer.x is None:
            return None
        picked = answer.x[: alone.size].reshape(alone.shape).argmax(axis=0)
        codes = tables.choices.codes(picked)
        ms = float(tables.latency.times_ms(codes[None])[0])
        if float(limits.over(bytes_of(study, codes), ms, 0.0)) <= 0:
            return codes
        chosen = [(programme.pick(p, u), 1.0) for u, p in enumerate(picked)]
        cuts.append((chosen, -np.inf, len(picked) - 1.0))
        if turn >= CUTS:
            beyond += max(ms - limits.ms, 0.0)
    return None


def runner(source: ModelSource, analysis: Analysis, study: Study) -> Callable[[Codes], Run]:
    """Simulates maps on the selection split, each once."""
    evidence, projector = analysis.evidence, study.projector
    assert evidence is not None
    assert isinstance(projector, Projector)
    simulator = make_simulator(
        source, analysis.layers, MeasureOptions(scheme=SCHEMES[evidence.scheme])
    )
    precisions = tuple(registry.get(name) for name in evidence.precisions)
    log_p = log_softmax(evidence.baseline.astype(np.float64))
    ran: dict[bytes, Run] = {}

    def run(codes: Codes) -> Run:
        key = codes.tobytes()
        if key not in ran:
            assignment = assignment_of((codes - 1).astype(np.int8), analysis.layers, precisions)
            with np.errstate(invalid="ignore"):
                change = simulator.run(assignment, source.selection.inputs) - evidence.baseline
            found = projector.figures(change)
            ran[key] = Run(kl_per_sample(log_p, evidence.baseline + change), found.drop_pts or 0.0)
        return ran[key]

    return run


def judge(
    source: ModelSource, analysis: Analysis, axis: str, title: str,
    shares: tuple[float, ...] = SHARES, hedge: float = HEDGE,
) -> Table:  # fmt: skip
    """The table of one precision set."""
    study = Study(analysis)
    study.__dict__["solver"] = Solver(study, hedge)
    run = runner(source, analysis, study)
    table = Table(title=title)
    for column in ("budget", "threshold", "greedy", "additive", "search", "projected", "search/additive",
                   "noise", "binds"):  # fmt: skip
        table.add_column(column, justify="right")
    tables = study.derived(Solver).tables(Policy())
    pool = tables.pool
    costs = pool.size if axis == "size" else pool.ms
    least, most = float(costs.min()), float(costs[int(np.argmin(pool.cost))])
    ratios = []
    for share in shares:
        amount = least + share * (most - least)
        budget = Budget(axis, amount, "bytes" if axis == "size" else "ms")  # type: ignore[arg-type]
        policy = Policy(strategy="budget", budgets=(budget,))
        solution = study.derived(Solver).solve(policy)
        maps: Mapping[str, Codes | None] = {
            **({"threshold": thresholds(study, amount), "greedy": greedy(study, amount)}
               if axis == "size" else {}),
            "additive": additive(study, policy, solution.found.codes),
            "search": solution.found.codes,
        }  # fmt: skip
        runs = {name: run(codes) for name, codes in maps.items() if codes is not None}
        ratio, noise = compared(runs["search"].kl, runs.get("additive", runs["search"]).kl)
        ratios.append(ratio)
        label = f"{amount / 1e6:.3f} MB" if axis == "size" else f"{amount:.4f} ms"
        table.add_row(
            label,
            *(figure(runs.get(name)) for name in ("threshold", "greedy", "additive", "search")),
            f"{solution.found.loss:.2e}",
            f"{ratio:.2f}",
            f"{noise[0]:.2f} to {noise[1]:.2f}",
            ", ".join(solution.binding) or "-",
        )
    mean = float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-300)))))
    table.caption = f"search/additive: geometric mean {mean:.2f}, at worst {max(ratios):.2f}"
    return table


def figure(found: Run | None) -> str:
    """KL and points lost of one run."""
    return "-" if found is None else f"{found.kl.mean():.2e}, {found.drop_pts:+.2f} pts"


def compared(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[float, tuple[float, float]]:
    """Ratio of two mean KLs, and its middle 90 % over resampled samples."""
    rng = np.random.default_rng(SEED)
    rows = rng.integers(0, len(first), (RESAMPLES, len(first)))
    if not first.any() and not second.any():
        return 1.0, (1.0, 1.0)
    floor = 1e-300
    drawn = first[rows].mean(axis=1) / np.maximum(second[rows].mean(axis=1), floor)
    low, high = np.quantile(drawn, (0.05, 0.95))
    return float(first.mean() / max(second.mean(), floor)), (float(low), float(high))


def main() -> None:
    """Print the tables of one sample."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", default="digits_resnet")
    options.add_argument("--axis", choices=AXES, action="append", help="both")
    options.add_argument("--samples", type=int, help="selection samples of the stress; all")
    options.add_argument("--only", choices=("8-bit", "stress"))
    options.add_argument("--tight", action="store_true", help="twelve budgets below 0.4")
    options.add_argument("--hedge", type=float, default=HEDGE, help="weight of losses added up")
    chosen = options.parse_args()
    shares = TIGHT if chosen.tight else SHARES
    source = samples.load(chosen.sample)
    analysis = store.load(samples.get(chosen.sample).analysis)
    axes = chosen.axis or AXES
    console = Console(width=170)
    if chosen.only != "stress":
        for axis in axes:
            title = f"{chosen.sample}, as shipped: simulated KL (nats) and points lost, by {axis}"
            console.print(judge(source, analysis, axis, title, shares, chosen.hedge))
    if chosen.only != "8-bit":
        n = chosen.samples or len(source.selection)
        targets = source.selection.targets
        cut = replace(
            source,
            selection=Split(source.selection.inputs[:n], None if targets is None else targets[:n]),
        )
        scheme = SCHEMES[analysis.scheme]
        with registered(INT4):
            wanted = (registry.get("FP16"), registry.get("INT8"), INT4)
            measured = measure(
                cut, analysis.layers, MeasureOptions(scheme=scheme, precisions=wanted)
            ).evidence
            splits = replace(analysis.splits, selection=n)
            stressed = replace(analysis, evidence=measured, splits=splits)
            for axis in axes:
                title = f"{chosen.sample}, with 4-bit weights beside: by {axis}, {n} samples"
                console.print(judge(cut, stressed, axis, title, shares, chosen.hedge))


if __name__ == "__main__":
    main()
