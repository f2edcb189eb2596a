"""Everything a person chose, as one frozen value.

A `Policy` is hashable, so that it can key a cache and sit in an undo history.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from core.decide.policy.allowed import in_order, stand_in, within
from core.decide.policy.budget import AXES, Axis, Budget, checked
from core.errors import PolicyError
from core.estimate import hardware as hardware_profiles
from core.estimate.loss_function import TARGETS, Target
from core.evidence import scorers
from core.numerics import precision as registry

Strategy = Literal["thresholds", "top-k", "uniform", "manual", "budget"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

DOCUMENT_WEIGHTS = (("theory", 0.4), ("importance", 0.4), ("empirical", 0.2))
MAX_RULES = 10_000
GOES_TO = ("high", "medium", "low", "uniform")
"""Fields that name a precision to go to."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Controls of a decision; the defaults are the document's method.

    `weights` are divided by their sum. A score at or above `high_threshold` is HIGH, at or above
    `medium_threshold` MEDIUM, else LOW. HIGH goes to `high`, MEDIUM to `medium`, LOW to `low`.
    `top_k` layers with the lowest scores go to `low` under *top-k*, the rest to `high`. Under
    *uniform* every layer goes to `uniform`; under *manual* to `high`. `pins` are (wildcard,
    precision), the last that matches wins; `overrides` are (layer, precision) and beat a pin.
    `groups` are wildcards: the layers that one of them matches share a precision.

    Under *budget* the map with the least `minimise` is looked for that keeps every one of
    `budgets`. A loss that is minimised is how far the outputs move, or the loss against labels
    if `target` says so.

    `allowed` are the precisions that a strategy may choose from, the widest first; empty for all that
    the analysis holds. A level or `uniform` that names another one goes to the next wider allowed one,
    else to the widest. Pins and overrides are a person's own word and may name any.
    """

    strategy: Strategy = "thresholds"
    weights: tuple[tuple[str, float], ...] = DOCUMENT_WEIGHTS
    high_threshold: float = 0.7
    medium_threshold: float = 0.4
    high: str = "FP16"
    medium: str = "INT8"
    low: str = "INT8"
    uniform: str = "INT8"
    top_k: int = 0
    pins: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    hardware: str = hardware_profiles.DEFAULT
    groups: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()
    minimise: Axis = "loss"
    target: Target = "divergence"
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)
        if self.allowed:
            object.__setattr__(self, "allowed", in_order(self.allowed))
            for field in GOES_TO:
                object.__setattr__(self, field, within(getattr(self, field), self.allowed))

    def allows(self, precision: str) -> bool:
        """Whether a strategy may choose `precision`."""
        return not self.allowed or precision in self.allowed

    def normalised_weights(self) -> dict[str, float]:
        """Scorer -> share; shares add up to 1."""
        total = sum(weight for _, weight in self.weights)
        return {name: weight / total for name, weight in self.weights if weight > 0}

    def with_override(self, layer: str, precision: str | None) -> Policy:
        """A policy with `layer` overridden, or its override removed for None."""
        kept = tuple(item for item in self.overrides if item[0] != layer)
        if precision is None:
            return replace(self, overrides=kept)
        return replace(self, overrides=tuple(sorted((*kept, (layer, precision)))))


def default_policy(precisions: Collection[str], hardware: str) -> Policy:
    """The document's method for an analysis of `precisions`: what was not measured gives way to
    the narrowest that was and is at least as wide.
    """
    plain = Policy(hardware=hardware)
    high, medium, low, uniform = (
        stand_in(getattr(plain, field), precisions, registry.REFERENCE) for field in GOES_TO
    )
    return replace(plain, high=high, medium=medium, low=low, uniform=uniform)


def _check(policy: Policy) -> None:
    if policy.strategy not in STRATEGIES:
        raise PolicyError(
            f"Unknown strategy {policy.strategy!r}.", f"Use one of: {', '.join(STRATEGIES)}."
        )
    for name, weight in policy.weights:
        scorers.get(name)
        if not math.isfinite(weight) or weight < 0:
            raise PolicyError(
                f"The weight of {name!r} is {weight}.", "Weights are finite and not negative."
            )
    if len({name for name, _ in policy.weights}) != len(policy.weights):
        raise PolicyError("A scorer is weighed twice.", "Give each scorer one weight.")
    if sum(weight for _, weight in policy.weights) <= 0:
        raise PolicyError("All scorer weights are 0.", "Give at least one scorer a weight.")
    for label, value in (("high", policy.high_threshold), ("medium", policy.medium_threshold)):
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise PolicyError(
                f"The {label} threshold is {value}.", "Scores and thresholds lie in 0 to 1."
            )
    if policy.medium_threshold > policy.high_threshold:
        raise PolicyError(
            f"The medium threshold {policy.medium_threshold} lies above the high threshold "
            f"{policy.high_threshold}.",
            "Give the higher threshold first: --thresholds 0.7,0.4.",
        )
    if policy.top_k < 0:
        raise PolicyError(f"top-k is {policy.top_k}.", "Use 0 or more layers.")
    hardware_profiles.get(policy.hardware)
    if len(policy.pins) + len(policy.overrides) + len(policy.groups) > MAX_RULES:
        raise PolicyError(
            f"More than {MAX_RULES:,} pins, overrides and groups.",
            "Use wildcards in place of names.",
        )
    _check_budgets(policy)
    wanted = (policy.high, policy.medium, policy.low, policy.uniform)
    for precision in (*wanted, *(p for _, p in policy.pins), *(p for _, p in policy.overrides)):
        registry.get(precision)


def _check_budgets(policy: Policy) -> None:
    checked(policy.budgets)
    for label, value, known in (
        ("minimised", policy.minimise, AXES),
        ("target", policy.target, TARGETS),
    ):
        if value not in known:
            raise PolicyError(f"Nothing {label} is called {value!r}.", f"Use {', '.join(known)}.")
    if policy.strategy == "budget" and not policy.budgets:
        raise PolicyError("No budget is given.", "Write for instance --budget size=0.5.")


STEERS: Mapping[Strategy, tuple[str, ...]] = {
    "thresholds": ("high", "medium", "low"),
    "top-k": ("high", "low"),
    "uniform": ("uniform",),
    "manual": ("high",),
    "budget": (),
}
"""Which of `GOES_TO` a strategy sends layers by."""


def redirected(before: Mapping[str, str], policy: Policy) -> list[str]:
    """A sentence on each field of `before`, with where it pointed, that `policy` sends elsewhere since
    that is not allowed.
    """
    return [
        f"{'Every layer goes' if field == 'uniform' else f'{field.upper()} layers go'} to "
        f"{getattr(policy, field)}, since {before[field]} is not allowed."
        for field in STEERS[policy.strategy]
        if field in before and not policy.allows(before[field])
    ]


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """`theory=0.4,importance=0.4` as pairs; raises `PolicyError` naming the part."""
    pairs: list[tuple[str, float]] = []
    for part in _parts(text):
        name, separator, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not separator or not math.isfinite(number):
            raise PolicyError(
                f"The scorer weight {part!r} is not NAME=NUMBER.",
                f"Write for instance theory=0.4; scorers are {', '.join(scorers.SCORERS)}.",
            )
        pairs.append((name.strip(), number))
    if not pairs:
        raise PolicyError("No scorer weight is given.", "Write for instance theory=0.4.")
    return tuple(pairs)


def parse_rules(text: str) -> tuple[tuple[str, str], ...]:
    """`head*=FP16, blocks.0.*=INT8` as pairs; raises `PolicyError` naming the part."""
    rules: list[tuple[str, str]] = []
    for part in _parts(text):
        pattern, separator, precision = part.rpartition("=")
        if not separator or not pattern.strip():
            raise PolicyError(
                f"The rule {part!r} is not LAYER=PRECISION.",
                "Write for instance head*=FP16; * matches any characters.",
            )
        name = registry.as_named(precision)
        registry.get(name)
        rules.append((pattern.strip(), name))
    return tuple(rules)


def format_rules(rules: Iterable[tuple[str, str]]) -> str:
    """The text that `parse_rules` reads back as `rules`."""
    return ", ".join(f"{pattern}={precision}" for pattern, precision in rules)


def parse_groups(text: str) -> tuple[str, ...]:
    """`blocks.0.*, head*` as wildcards."""
    return tuple(_parts(text))


def parse_thresholds(text: str) -> tuple[float, float]:
    """`0.7,0.4` as (high, medium); raises `PolicyError`."""
    try:
        high, medium = (float(part) for part in text.split(","))
    except ValueError:
        raise PolicyError(
            f"The thresholds {text!r} are not two numbers.", "Write for instance 0.7,0.4."
        ) from None
    return high, medium


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
