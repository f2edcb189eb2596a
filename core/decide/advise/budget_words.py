"""What a budget found, in words."""

from __future__ import annotations

from core.decide.policy.budget import BY_IN_WORDS, Budget, loss_budget
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solution, Solver
from core.decide.study import Study
from core.estimate.values import ValueProjector
from core.quantity import digits


def found_in_words(study: Study, policy: Policy, solution: Solution) -> str:
    """As "Least loss with 9.659 of 9.670 MB of size (exact): the size budget binds."; of a loss
    both the end that keeps its budget and the point are said.
    """
    parts = [
        f"{_amount(study, b, solution.used[b.axis])} of "
        f"{_amount(study, b, solution.limits[b.axis])} {unit_of(study, b)} of {b.axis}"
        f"{_ends(study, b, solution)}"
        for b in policy.budgets
    ]
    if not solution.binding:
        decided = "no budget binds"
    else:
        noun = "budget binds" if len(solution.binding) == 1 else "budgets bind"
        decided = f"the {' and '.join(solution.binding)} {noun}"
    kinds = {"size": "exact", "latency": "estimated", "loss": "projected"}
    said = ", ".join(dict.fromkeys(kinds[b.axis] for b in policy.budgets))
    only = _reference_only(study, policy, solution)
    return f"Least {policy.minimise} with {' and '.join(parts)} ({said}): {decided}.{only}"


def _reference_only(study: Study, policy: Policy, solution: Solution) -> str:
    """Why a loss budget leaves everything as trained, where ranges and not points do."""
    budget = loss_budget(policy.budgets)
    if budget is None or budget.by != "upper" or (solution.found.codes > 0).any():
        return ""
    least = study.derived(Solver).least_upper(budget)
    if least is None or least <= budget.amount:
        return ""
    return (
        f" On these samples even a map that changes no answer has a range up to "
        f"{_amount(study, budget, least)} {unit_of(study, budget)}: ask for more, or budget the point."
    )


def _ends(study: Study, budget: Budget, solution: Solution) -> str:
    """Which end of a loss was held, and what the other is."""
    loss = solution.loss
    if budget.axis != "loss" or loss is None:
        return ""
    said, other = BY_IN_WORDS[budget.by], loss.value if budget.by == "upper" else loss.high
    beside = "point" if budget.by == "upper" else "90 % range up to"
    known = "n/a" if other is None else _amount(study, budget, other)
    return f" by the {said}, {beside} {known}"


def _amount(study: Study, budget: Budget, value: float) -> str:
    if budget.axis in {"size", "latency"}:
        return digits(value, "bytes" if budget.axis == "size" else "ms")
    return loss_amount(budget, value)


def loss_amount(budget: Budget, value: float) -> str:
    """A loss as the budget's unit is written, without the unit."""
    return f"{value:.2e}" if budget.unit == "divergence" else f"{value:.3g}"


def unit_of(study: Study, budget: Budget) -> str:
    """The unit in which the use of a budget is said."""
    if budget.axis == "size":
        return "MB"
    if budget.axis == "latency":
        return "ms"
    if budget.unit == "percent":
        return "%"
    by_value = isinstance(study.projector, ValueProjector)
    if budget.unit == "divergence":
        return "of variance" if by_value else "nats"
    return "of the metric" if by_value else "points"
