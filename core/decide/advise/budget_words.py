"""What a budget found, in words."""

from __future__ import annotations

from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solution
from core.decide.study import Study
from core.estimate.values import ValueProjector
from core.quantity import digits


def found_in_words(study: Study, policy: Policy, solution: Solution) -> str:
    """As "Least loss with 9.659 of 9.670 MB of size: the size budget binds."."""
    parts = [
        f"{_amount(study, b, solution.used[b.axis])} of "
        f"{_amount(study, b, solution.limits[b.axis])} {unit_of(study, b)} of {b.axis}"
        for b in policy.budgets
    ]
    if not solution.binding:
        decided = "no budget binds"
    else:
        noun = "budget binds" if len(solution.binding) == 1 else "budgets bind"
        decided = f"the {' and '.join(solution.binding)} {noun}"
    kinds = {"size": "exact", "latency": "estimated", "loss": "projected"}
    said = ", ".join(dict.fromkeys(kinds[b.axis] for b in policy.budgets))
    return f"Least {policy.minimise} with {' and '.join(parts)} ({said}): {decided}."


def _amount(study: Study, budget: Budget, value: float) -> str:
    if budget.axis in {"size", "latency"}:
        return digits(value, "bytes" if budget.axis == "size" else "ms")
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
