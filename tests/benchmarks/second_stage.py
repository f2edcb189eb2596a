"""What the search's second stage gains, where it runs and where it doesn't, and what it takes.

    python -m tests.benchmarks.second_stage [--sample digits_vit] [--repeat 3]

Budgets of every kind are solved for the bundled analyses three times: with the second stage
where the budget is tight, as shipped, with it always, and never. Printed by kind of budget: how
many are tight, how many answers the shipped search has worse than the one that always looks
further and the worst of them, the mean of what the second stage takes off what is minimised
where it runs, and the mean time of an answer.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from core.analysis import store
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.solve import search as searching
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.source import samples

SHARES = (0.0, 0.01, 0.02, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
"""Budgets of one cost: this share of the way from the least cost to that of no loss."""
SIZES, TIMES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7), (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Budgets of both: every pair of these shares."""
LOSSES = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
"""Budgets of the loss: this share of the largest among the search's own starts."""
STAGES = {"tight": None, "always": True, "never": False}
SAME = 1e-6
Row = dict[str, tuple[float, float, bool]]
"""By stage what is minimised, the seconds it took, and whether the budget is tight."""


def budgets(study: Study) -> Iterator[tuple[str, Policy]]:
    """Kind and policy of every budget."""
    base = Policy(hardware=study.default_hardware)
    pool = study.derived(Solver).tables(base).pool
    kept = int(np.argmin(pool.cost))
    size, ms = (
        [float(x.min()), float(x[kept] - x.min())] for x in (pool.size, pool.ms)
    )  # fmt: skip

    def sized(share: float) -> Budget:
        return Budget("size", float(round(size[0] + share * size[1])), "bytes")

    def timed(share: float) -> Budget:
        return Budget("latency", ms[0] + share * ms[1], "ms")

    def asking(*given: Budget, **changes: str) -> Policy:
        return replace(base, strategy="budget", budgets=given, **changes)

    for share in SHARES:
        yield "size", asking(sized(share))
        yield "latency", asking(timed(share))
    for small, fast in ((a, b) for a in SIZES for b in TIMES):
        yield "size and latency", asking(sized(small), timed(fast))
    for share in LOSSES:
        most = Budget("loss", share * float(pool.cost.max()), "divergence")
        yield "loss, least size", asking(most, minimise="size")
        yield "loss, least latency", asking(most, minimise="latency")


def solved(study: Study, policy: Policy, repeat: int) -> Row | None:
    """The answers to one budget; None where no map keeps it."""
    task = study.derived(Solver).task(policy)
    shipped = searching._Search._is_tight
    asked: list[bool] = []

    def watched(self: searching._Search, here: searching.Here) -> bool:
        asked.append(shipped(self, here))
        return asked[-1]

    row: Row = {}
    for name, forced in STAGES.items():
        taken = []
        for _ in range(repeat):
            asked.clear()
            way = watched if forced is None else lambda _self, _here, forced=forced: forced
            with patch.object(searching._Search, "_is_tight", way):
                start = time.perf_counter()
                found = searching.search(task)
                taken.append(time.perf_counter() - start)
        if not found.feasible and name != "never":
            return None
        added = float(task.tables.added(found.codes[None])[0])
        loss = float(np.asarray(task.weighed(found.loss, added)))
        goal = {"loss": loss, "size": found.size, "latency": found.ms}[task.minimise]
        row[name] = (goal if found.feasible else np.inf, min(taken), bool(asked and asked[0]))
    return row


def line(rows: list[Row]) -> list[str]:
    """The figures of one kind of budget."""
    goals = {name: np.array([row[name][0] for row in rows]) for name in STAGES}
    tight = np.array([row["tight"][2] for row in rows])
    scale = np.maximum(np.abs(goals["always"]), 1e-15)
    worse = (goals["tight"] - goals["always"]) / scale
    known = tight & np.isfinite(goals["never"])
    gained = (goals["never"] - goals["tight"])[known] / np.maximum(
        np.abs(goals["never"][known]), 1e-15
    )
    times = [f"{1e3 * np.mean([row[name][1] for row in rows]):.0f}" for name in STAGES]
    return [
        str(len(rows)), str(int(tight.sum())), str(int((worse > SAME).sum())),
        f"{max(worse.max(), 0):.2%}",
        f"{gained.mean():.1%}, {gained.max():.0%}" if len(gained) else "-", *times,
    ]  # fmt: skip


def main() -> None:
    """Print the table of each sample, and of all."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", choices=samples.names(), action="append", help="all")
    options.add_argument("--repeat", type=int, default=2, help="times are the least of so many")
    chosen = options.parse_args()
    table = Table(title="The second stage: where the budget is tight, always, never")
    for column in ("sample", "budget", "feasible", "tight", "worse than always", "at worst",
                   "gained where tight: mean, most", "ms", "ms always", "ms never"):  # fmt: skip
        table.add_column(column, justify="right")
    every: dict[str, list[Row]] = defaultdict(list)
    for name in chosen.sample or samples.names():
        study = Study(store.load(samples.get(name).analysis))
        rows: dict[str, list[Row]] = defaultdict(list)
        for kind, policy in budgets(study):
            row = solved(study, policy, chosen.repeat)
            if row is not None:
                rows[kind].append(row)
        for kind, found in rows.items():
            table.add_row(name, kind, *line(found))
            every[kind] += found
    for kind, found in every.items():
        table.add_row("all", kind, *line(found))
    table.add_row("all", "all", *line([row for found in every.values() for row in found]))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
