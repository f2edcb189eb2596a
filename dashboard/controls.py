"""The controls of a policy: key in the URL, default, and how a link's text is read.

Streamlit drops a value it cannot use without a word; reading the raw text here lets the page
say which parts of a link were ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from core import precision as registry
from core.decide.policy import (
    DOCUMENT_WEIGHTS,
    STRATEGIES,
    Policy,
    format_rules,
    parse_rules,
)
from core.errors import PolicyError
from core.estimate import hardware as hardware_profiles
from core.evidence.scorers import SCORERS
from core.study import Study

Value = str | float | int
DEFAULTS = Policy()
WEIGHT_PREFIX = "w_"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Control:
    """One control. `read` turns a link's text into a value or raises `ValueError`."""

    key: str
    default: Value
    read: Callable[[str], Value]


def _choice(options: Iterable[str]) -> Callable[[str], str]:
    allowed = tuple(options)

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return read


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _count(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not 0 <= value <= most:
            raise ValueError(text)
        return value

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


def controls(study: Study) -> dict[str, Control]:
    """Every control of a policy by key, for what `study` can answer."""
    precisions = study.precisions
    weights = dict(DOCUMENT_WEIGHTS)
    listed = [
        Control("strategy", DEFAULTS.strategy, _choice(STRATEGIES)),
        Control("high_at", DEFAULTS.high_threshold, _share),
        Control("medium_at", DEFAULTS.medium_threshold, _share),
        Control("k", min(movable_layers(study) // 2, 10_000), _count(movable_layers(study))),
        *(
            Control(key, _offered(default, precisions), _choice(precisions))
            for key, default in (
                ("uniform", DEFAULTS.uniform),
                ("high", DEFAULTS.high),
                ("medium", DEFAULTS.medium),
                ("low", DEFAULTS.low),
            )
        ),
        *(Control(weight_key(name), weights.get(name, 0.0), _share) for name in SCORERS),
        Control("pins", "", _rules),
        Control("overrides", "", _rules),
        Control("hardware", study.default_hardware, _choice(hardware_profiles.names())),
    ]
    return {control.key: control for control in listed}


def _offered(default: str, precisions: tuple[str, ...]) -> str:
    return default if default in precisions else precisions[-1]


def to_values(policy: Policy, study: Study) -> dict[str, Value]:
    """The value of every control that gives `policy`.

    Sliders of weights end at 1; larger weights are scaled, since only their ratios count.
    """
    most = max(1.0, *(weight for _, weight in policy.weights))
    weights = {name: weight / most for name, weight in policy.weights}
    return {
        "strategy": policy.strategy,
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


def to_policy(values: Mapping[str, Value], last: Policy) -> tuple[Policy, dict[str, PolicyError]]:
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
    strategy = next(name for name in STRATEGIES if name == values["strategy"])
    policy = Policy(
        strategy=strategy,  # type: ignore[arg-type]  # one of the literals, looked up above
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
    )
    return policy, problems


def _last_wins(rules: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(dict(rules).items())


def precisions_offered(study: Study) -> tuple[str, ...]:
    """Precisions of `study` in the order of the registry, the widest first."""
    return tuple(name for name in registry.names() if name in study.precisions)
