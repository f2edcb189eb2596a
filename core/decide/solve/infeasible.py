"""What is said where no map was found that keeps every budget: once, for pages and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from core.decide.policy.allowed import allowed_in_words
from core.decide.policy.budget import Axis, Budget, bounds_in_words, in_words
from core.decide.policy.decision import BY_LACK, BY_OVERRIDE, BY_PIN
from core.decide.solve.search import SearchResult
from core.decide.solve.search_tables import SearchTables
from core.errors import InfeasibleError

if TYPE_CHECKING:
    from core.decide.policy.policy import Policy
    from core.decide.study import Study

NAMED, WORTH_NAMING = 3, 0.05
"""Parts of a least value that are named, and the share of it below which none is."""
HOW = {BY_PIN: "pinned to {}", BY_OVERRIDE: "set to {}", BY_LACK: "in {}, not measured in less"}
SCALE = 1e4
"""A least fraction is rounded up to this part of one, so that it can be kept as it is written."""


class Leasts(Protocol):
    """What is asked of the solver whose budgets cannot be kept."""

    def least(self, policy: Policy, goal: Axis) -> SearchResult:
        """The map with the least `goal` under the rules of `policy`."""

    def taken(self, policy: Policy, budget: Budget, found: SearchResult) -> float:
        """What a map takes of what `budget` limits."""

    def limit(self, budget: Budget, hardware: str) -> float:
        """`budget` in bytes, ms, or as it is for a loss."""

    def tables(self, policy: Policy) -> SearchTables:
        """Prices under the rules of `policy`."""


def infeasible(
    study: Study, solver: Leasts, policy: Policy, least: Mapping[Axis, SearchResult]
) -> InfeasibleError:
    """What was asked of `policy`, the least that exists, and which budgets, rules and layers cause it.

    `least` has, by axis, the map that takes least of it within all other budgets, for each axis
    where there is one.
    """
    cause = f"No map was found with {bounds_in_words(policy.budgets)}."
    alone = {b: solver.least(policy, b.axis) for b in policy.budgets}
    if not least:  # two are out of reach even alone, or there are three
        each = ", ".join(f"{b.axis} {_amount(solver, policy, b, f)}" for b, f in alone.items())
        return InfeasibleError(
            cause, f"The least that was found of each without the others: {each}."
        )
    free = replace(policy, pins=(), overrides=(), groups=())
    every = replace(policy, allowed=())
    said, nearest = list[str](), list[Budget]()
    for budget in (b for b in policy.budgets if b.axis in least):
        axis, others = budget.axis, [b for b in policy.budgets if b.axis != budget.axis]
        nearest.append(_as_asked(solver, policy, budget, least[axis]))
        parts = _parts(study, solver.tables(policy), least[axis], axis)
        said.append(
            f"The least {axis} that was found{f' with {bounds_in_words(others)}' if others else ''} "
            f"is {_amount(solver, policy, budget, least[axis])}{f': {parts}' if parts else ''}."
        )
        if others:
            without = "that budget" if len(others) == 1 else "those budgets"
            freed, found = policy, alone[budget]
        elif free != policy:
            without = "pins, overrides and groups"
            freed, found = free, solver.least(free, axis)
        else:
            without, freed, found = "", policy, least[axis]
        now = _amount(solver, policy, budget, least[axis])
        amount = _amount(solver, freed, budget, found)
        if amount != now:
            said.append(f"Without {without} it is {amount}.")
        if policy.allowed:
            more = _amount(solver, every, budget, solver.least(every, axis))
            if more != (amount if others else now):
                allowed = allowed_in_words(policy.allowed)
                said.append(
                    f"With more than {allowed} allowed{' as well' if others else ''} it is {more}."
                )
    first = nearest[0]
    return InfeasibleError(cause, " ".join(said), first.axis, first.amount, first.unit)


def _as_asked(solver: Leasts, policy: Policy, budget: Budget, found: SearchResult) -> Budget:
    """The budget that a map just keeps, in the unit in which `budget` was given."""
    value = max(solver.taken(policy, budget, found), 0.0)
    if budget.unit == "fraction":
        whole = solver.limit(replace(budget, amount=1.0), policy.hardware)
        value = float(np.ceil(value / whole * SCALE - 1e-6)) / SCALE
    return replace(budget, amount=value)


def _amount(solver: Leasts, policy: Policy, budget: Budget, found: SearchResult) -> str:
    words = in_words(_as_asked(solver, policy, budget, found))
    return words.removeprefix(f"{budget.axis} at most ")


def _parts(study: Study, tables: SearchTables, found: SearchResult, axis: Axis) -> str:
    """What most of a map's size, latency or loss goes to: layers of one role in one precision."""
    codes = found.codes
    picked, columns = np.maximum(codes, 0), np.arange(len(codes))
    parts: dict[str, float] = {}
    if axis == "latency":
        estimate = tables.latency.estimate(codes)
        taken, parts["conversions"] = estimate.layers_ms, estimate.boundaries_ms
    else:
        table = tables.sizes if axis == "size" else tables.objective.alone
        taken = np.where(codes >= 0, table[picked, columns], 0.0)
        parts["what belongs to no layer"] = float(tables.glue) if axis == "size" else 0.0
    alike: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(codes >= 0).tolist():
        how = HOW.get(int(tables.choices.origin[i]), "in {}").format(study.precisions[codes[i]])
        alike.setdefault((study.layers.roles[i].replace("_", " "), how), []).append(i)
    for (role, how), at in alike.items():
        who = study.layers.names[at[0]] if len(at) == 1 else f"{len(at)} layers of {role}"
        parts[f"{who} {how}"] = float(taken[at].sum())
    whole = sum(parts.values())
    worth = sorted(
        (n for n in parts if parts[n] >= WORTH_NAMING * whole > 0), key=lambda n: -parts[n]
    )
    return ", ".join(f"{name} ({100 * parts[name] / whole:.0f} % of it)" for name in worth[:NAMED])
