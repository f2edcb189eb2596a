"""The controls of a policy: key in the URL, default, and how a link's text is read.

Streamlit drops a value it cannot use without a word; reading the raw text here lets the page
say which parts of a link were ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from core.decide.policy.policy import (
    DOCUMENT_WEIGHTS,
    Policy,
    Strategy,
    format_rules,
    parse_groups,
    parse_rules,
)
from core.decide.study import Study
from core.errors import PolicyError
from core.estimate import hardware as hardware_profiles
from core.evidence.scorers import SCORERS
from core.numerics import precision as registry
from dashboard.session import allowed_control, budget_controls
from dashboard.session.allowed_control import ALLOW
from dashboard.session.control import Control, Value, choice, number

DEFAULTS = Policy()
WEIGHT_PREFIX = "w_"
MODEL = "model"


def _count(most: int) -> Callable[[str], int]:
    """A reader of a whole number, which becomes the nearest one from 0 to `most`."""

    def read(text: str) -> int:
        return min(max(int(float(text)), 0), most)

    return read


def _rules(text: str) -> str:
    try:
        parse_rules(text)
    except PolicyError as error:
        raise ValueError(text) from error
    return text


def weight_key(scorer: str) -> str:
    """The key of a scorer's weight."""
    return WEIGHT_PREFIX + scorer


def movable_layers(study: Study) -> int:
    """How many layers top-k can move."""
    return int(study.layers.computes.sum())


def controls(study: Study, allowed: tuple[str, ...] = ()) -> dict[str, Control]:
    """Every control of a policy by key, for what `study` can answer; of its precisions `allowed` ones
    alone, or all where that is empty.
    """
    precisions = allowed or study.precisions
    usual = replace(study.default_policy, allowed=allowed)
    weights = dict(DOCUMENT_WEIGHTS)
    listed = [
        Control("strategy", DEFAULTS.strategy, choice(budget_controls.STRATEGIES)),
        Control("high_at", DEFAULTS.high_threshold, number(0, 1)),
        Control("medium_at", DEFAULTS.medium_threshold, number(0, 1)),
        Control("k", min(movable_layers(study) // 2, 10_000), _count(movable_layers(study))),
        *(
            Control(key, getattr(usual, key), choice(precisions))
            for key in ("uniform", "high", "medium", "low")
        ),
        *(Control(weight_key(name), weights.get(name, 0.0), number(0, 1)) for name in SCORERS),
        Control("pins", "", _rules),
        Control("overrides", "", _rules),
        Control("hardware", study.default_hardware, choice(hardware_profiles.names())),
        Control("groups", "", str),
        allowed_control.control(study),
        *budget_controls.listed(study),
    ]
    return {control.key: control for control in listed}


def to_values(policy: Policy, study: Study) -> dict[str, Value]:
    """The value of every control that gives `policy`.

    Sliders of weights end at 1; larger weights are scaled, since only their ratios count.
    """
    most = max(1.0, *(weight for _, weight in policy.weights))
    weights = {name: weight / most for name, weight in policy.weights}
    return {
        "strategy": policy.strategy,
        "groups": ", ".join(policy.groups),
        ALLOW: allowed_control.value_of(policy, study),
        **budget_controls.to_values(policy, study),
        "high_at": policy.high_threshold,
        "medium_at": policy.medium_threshold,
        "k": min(policy.top_k, movable_layers(study)),
        "uniform": policy.uniform,
        "high": policy.high,
        "medium": policy.medium,
        "low": policy.low,
        **{weight_key(name): weights.get(name, 0.0) for name in SCORERS},
        "pins": format_rules(policy.pins),
        "overrides": format_rules(policy.overrides),
        "hardware": policy.hardware,
    }


def to_policy(
    values: Mapping[str, Value], last: Policy, study: Study
) -> tuple[Policy, dict[str, PolicyError]]:
    """The policy of `values`, and what was wrong by key.

    A part that cannot be used is taken from `last`, so that one bad text does not lose the rest.
    """
    problems: dict[str, PolicyError] = {}

    def rules(key: str, kept: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        try:
            return parse_rules(str(values[key]))
        except PolicyError as error:
            problems[key] = error
            return kept

    weights = tuple(
        (name, float(values[weight_key(name)]))
        for name in SCORERS
        if float(values[weight_key(name)]) > 0
    )
    if not weights:
        problems["weights"] = PolicyError(
            "All scorer weights are 0.", "Give at least one scorer a weight."
        )
        weights = last.weights
    high = float(values["high_at"])
    strategy = str(values["strategy"])
    asked: dict[str, Any] = {}
    if strategy in budget_controls.AXIS_OF:
        try:
            asked = budget_controls.asked(values, study)
        except PolicyError as error:
            problems["also"] = error
            asked = budget_controls.asked({**values, "also": ""}, study)
        strategy = "budget"
    policy = Policy(
        strategy=next(name for name in get_args(Strategy) if name == strategy),
        weights=weights,
        high_threshold=high,
        medium_threshold=min(float(values["medium_at"]), high),
        high=str(values["high"]),
        medium=str(values["medium"]),
        low=str(values["low"]),
        uniform=str(values["uniform"]),
        top_k=int(values["k"]),
        pins=rules("pins", last.pins),
        overrides=_last_wins(rules("overrides", last.overrides)),
        hardware=str(values["hardware"]),
        groups=parse_groups(str(values["groups"])),
        allowed=allowed_control.allowed(values[ALLOW], study),
        **asked,
    )
    return policy, problems


def _last_wins(rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(dict(rules).items())


def precisions_offered(study: Study, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Precisions of `study` in the order of the registry, the widest first; of them `allowed` ones alone,
    or all where that is empty.
    """
    return tuple(name for name in registry.names() if name in (allowed or study.precisions))
