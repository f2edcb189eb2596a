"""What of a policy goes along to another model, what is put aside, and what is said about it.

Rules that only one model knows are set aside under its name and come back with it, so that looking
at another model loses no work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from core.decide.policy.policy import format_rules, parse_rules
from core.decide.study import Study
from core.errors import PolicyError
from core.evidence.scorers import SCORERS
from dashboard.session.control import Control, Value
from dashboard.session.controls import weight_key

Rules = tuple[tuple[str, str], ...]
MOST_NAMED = 3
TITLES = {"uniform": "uniform precision", "high": "HIGH to", "medium": "MEDIUM to",
          "low": "LOW to", "hardware": "hardware"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rules put aside when another model was opened."""

    pins: Rules = ()
    overrides: Rules = ()


@dataclass(slots=True)
class Switched:
    """What to write into the controls, what to set aside for the old model, and the notice."""

    writes: dict[str, Value] = field(default_factory=dict)
    set_aside: SetAside = field(default_factory=SetAside)
    notice: str = ""


def switch_model(
    values: Mapping[str, Value], known: Mapping[str, Control], study: Study, back: SetAside,
    *, old: str, new: str,
) -> Switched:  # fmt: skip
    """Fit `values`, the controls as the model `old` left them, to `study` of the model `new`.

    `back` are the rules that were set aside for the new model earlier.
    """
    found, dropped = Switched(), []
    pins, lost_pins = _split(values, "pins", study, wildcard=True)
    overrides, lost_overrides = _split(values, "overrides", study, wildcard=False)
    found.set_aside = SetAside(lost_pins, lost_overrides)
    dropped += _named("override", lost_overrides) + _named("pin", lost_pins)
    for key, kept, lost, returned in (
        ("pins", pins, lost_pins, back.pins),
        ("overrides", overrides, lost_overrides, back.overrides),
    ):
        if lost or returned:
            found.writes[key] = format_rules(dict([*returned, *(kept or ())]).items())
    dropped += _weights(values, study, found.writes)
    for key, title in TITLES.items():
        try:
            known[key].read(str(values[key]))
        except ValueError:
            found.writes[key] = known[key].default
            dropped.append(f"{title} {values[key]} (now {known[key].default})")
    said = []
    if dropped:
        said.append(f"{new} cannot take over: {'; '.join(dropped)}.")
        if lost_pins or lost_overrides:
            said.append(f"Its rules wait for {old} and come back with it.")
    if back.pins or back.overrides:
        rules = len(back.pins) + len(back.overrides)
        said.append(f"{rules} rule{'s' if rules > 1 else ''} of {new} put back.")
    found.notice = " ".join(said)
    return found


def _split(
    values: Mapping[str, Value], key: str, study: Study, *, wildcard: bool
) -> tuple[Rules | None, Rules]:
    """The rules that mean something for `study`, and those that do not. None for a text that
    cannot be read, which stays on screen as it is.
    """
    try:
        rules = parse_rules(str(values[key]))
    except PolicyError:
        return None, ()

    def fits(rule: tuple[str, str]) -> bool:
        pattern, precision = rule
        if precision not in study.precisions:
            return False
        if not wildcard:
            return pattern in study.layers.index
        return any(fnmatchcase(name, pattern) for name in study.layers.names)

    return tuple(r for r in rules if fits(r)), tuple(r for r in rules if not fits(r))


def _named(noun: str, rules: Rules) -> list[str]:
    if not rules:
        return []
    names = ", ".join(f"{pattern}={precision}" for pattern, precision in rules[:MOST_NAMED])
    more = f" and {len(rules) - MOST_NAMED} more" if len(rules) > MOST_NAMED else ""
    return [f"{len(rules)} {noun}{'s' if len(rules) > 1 else ''} ({names}{more})"]


def _weights(values: Mapping[str, Value], study: Study, writes: dict[str, Value]) -> list[str]:
    """Weights of scorers without scores here go to 0, unless nothing would be left."""
    weights = {name: float(values[weight_key(name)]) for name in SCORERS}
    missing = [name for name, weight in weights.items() if weight and name not in study.scores]
    if not missing or not any(w for name, w in weights.items() if name not in missing):
        return []
    writes.update({weight_key(name): 0.0 for name in missing})
    titles = ", ".join(SCORERS[name].title.lower() for name in missing)
    return [f"the weight of {titles} (not measured)"]
