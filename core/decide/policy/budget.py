"""Budgets: what a map may cost at most, and how a person writes that."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from core.errors import PolicyError
from core.quantity import written

Axis = Literal["size", "latency", "loss"]
AXES: tuple[Axis, ...] = get_args(Axis)

By = Literal["upper", "point"]
BYS: tuple[By, ...] = get_args(By)
"""What of a projected loss keeps a budget; the first is what is asked for unless a person says so."""
BY_IN_WORDS: Mapping[By, str] = {"upper": "upper end of the 90 % range", "point": "point"}

Unit = Literal["fraction", "bytes", "ms", "metric", "percent", "divergence"]

_SUFFIXES: Mapping[Axis, Mapping[str, tuple[Unit, float]]] = {
    "size": {
        "": ("fraction", 1.0),
        "b": ("bytes", 1.0),
        "kb": ("bytes", 1e3),
        "mb": ("bytes", 1e6),
        "gb": ("bytes", 1e9),
    },
    "latency": {"": ("fraction", 1.0), "us": ("ms", 1e-3), "ms": ("ms", 1.0), "s": ("ms", 1e3)},
    "loss": {
        "": ("metric", 1.0),
        "pts": ("metric", 1.0),
        "%": ("percent", 1.0),
        "nats": ("divergence", 1.0),
        "var": ("divergence", 1.0),
    },
}
_WRITTEN: Mapping[tuple[Axis, Unit], str] = {
    ("size", "bytes"): "B",
    ("latency", "ms"): "ms",
    ("loss", "percent"): "%",
    ("loss", "divergence"): "nats",
}
_FORM = re.compile(r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-z%]*)", re.IGNORECASE)
EXAMPLES = "size=0.5, size=4.8MB, latency=0.8, latency=0.8ms, loss=0.5"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `amount` of `axis`.

    `unit`: *fraction* of the reference precision's size or latency; *bytes*; *ms* per sample;
    for a loss *metric* (points of accuracy, or the metric's own unit, towards worse), *percent*
    of the reference's metric, or *divergence* (KL in nats, or squared change over variance).
    `by` says what of a projected loss has to stay within the amount: the *upper* end of its 90 %
    range, or the *point*, which is what files that do not say were made with. Sizes and latencies
    are held as they are.
    """

    axis: Axis
    amount: float
    unit: Unit
    by: By = "point"

    def __post_init__(self) -> None:
        if self.axis not in AXES or self.unit not in {u for u, _ in _SUFFIXES[self.axis].values()}:
            raise PolicyError(
                f"A budget of {self.unit!r} on {self.axis!r} means nothing.",
                f"Write for instance {EXAMPLES}.",
            )
        if self.by not in BYS:
            raise PolicyError(f"No loss is kept by {self.by!r}.", f"Use {' or '.join(BYS)}.")
        if not math.isfinite(self.amount) or self.amount < 0:
            raise PolicyError(
                f"The {self.axis} budget is {self.amount}.", "Budgets are finite and not negative."
            )


def parse_budget(text: str, by: By = BYS[0]) -> Budget:
    """`size=4.8MB` as a budget, a loss to be kept `by`; raises `PolicyError` naming the part that
    means nothing.
    """
    axis, separator, rest = text.partition("=")
    name = axis.strip().lower()
    found = next((known for known in AXES if known == name), None)
    form = _FORM.fullmatch(rest.strip())
    try:
        amount = math.nan if form is None else float(form.group(1))
    except ValueError:
        amount = math.nan
    if not separator or found is None or form is None or not math.isfinite(amount):
        raise PolicyError(
            f"The budget {text!r} is not AXIS=AMOUNT.", f"Write for instance {EXAMPLES}."
        )
    suffix = form.group(2).lower()
    if suffix not in _SUFFIXES[found]:
        known = ", ".join(s or "none" for s in _SUFFIXES[found])
        raise PolicyError(
            f"The budget {text!r} has the unknown unit {form.group(2)!r}.",
            f"Units of {found}: {known}; write for instance {EXAMPLES}.",
        )
    unit, factor = _SUFFIXES[found][suffix]
    return Budget(found, amount * factor, unit, by if found == "loss" else "point")


def parse_budgets(text: str, by: By = BYS[0]) -> tuple[Budget, ...]:
    """`size=0.5, loss=1` as budgets, one for each axis at most; raises `PolicyError`."""
    return checked(parse_budget(part, by) for part in text.split(",") if part.strip())


def checked(given: Iterable[Budget]) -> tuple[Budget, ...]:
    """Budgets in the order of the axes; raises `PolicyError` if an axis has two."""
    budgets = list(given)
    for axis in AXES:
        if sum(b.axis == axis for b in budgets) > 1:
            raise PolicyError(f"There are two budgets on {axis}.", "Give each axis one budget.")
    return tuple(sorted(budgets, key=lambda b: AXES.index(b.axis)))


def format_budget(budget: Budget) -> str:
    """The text that `parse_budget` reads back as `budget`, told what keeps it."""
    return f"{budget.axis}={budget.amount!r}{_WRITTEN.get((budget.axis, budget.unit), '')}"


def format_budgets(budgets: Iterable[Budget]) -> str:
    """The text that `parse_budgets` reads back as `budgets`, told what keeps a loss."""
    return ", ".join(format_budget(budget) for budget in budgets)


def in_words(budget: Budget) -> str:
    """As "size at most 4.800 MB", "latency at most 80 % of FP32's" or "loss at most 0.5 (point)"."""
    amount = budget.amount
    by = f" ({BY_IN_WORDS[budget.by]})" if budget.axis == "loss" else ""
    return (
        f"{budget.axis} at most "
        + {
            "fraction": f"{amount * 100:g} % of FP32's",
            "bytes": written(amount, "bytes"),
            "ms": written(amount, "ms"),
            "metric": f"{amount:g}",
            "percent": f"{amount:g} % of the metric",
            "divergence": f"{amount:.3g} of divergence",
        }[budget.unit]
        + by
    )


def loss_budget(budgets: Iterable[Budget]) -> Budget | None:
    """The one among `budgets` that limits the loss."""
    return next((budget for budget in budgets if budget.axis == "loss"), None)


def loss_by(budgets: Iterable[Budget]) -> By:
    """What keeps the loss among `budgets`; the safer one where none limits it."""
    found = loss_budget(budgets)
    return BYS[0] if found is None else found.by


def bounds_in_words(budgets: Iterable[Budget]) -> str:
    """As "size at most 50 % of FP32's and loss at most 0.5 (upper end of the 90 % range)"."""
    return " and ".join(in_words(budget) for budget in budgets) or "no budget"
