"""How the figures of one map differ from another's."""

from __future__ import annotations

from dataclasses import dataclass

from core.decide.assess.outcome import Outcome

LEVELS = ("accuracy", "metric")


@dataclass(frozen=True, slots=True)
class Gain:
    """`after` less `before` in the figure's own unit, and in percent of `before`.

    None where either is unknown, and for the percentage where `before` is 0. A level of accuracy
    or of a metric that was measured stands beside none that is projected: they are of different
    samples.
    """

    change: float | None
    change_pct: float | None


def gains(before: Outcome, after: Outcome) -> dict[str, Gain]:
    """The change of every total that both outcomes have, by name."""
    return {
        name: Gain(None, None)
        if name in LEVELS and before.totals[name].kind != quantity.kind
        else _gain(before.totals[name].value, quantity.value)
        for name, quantity in after.totals.items()
        if name in before.totals
    }


def _gain(before: float | None, after: float | None) -> Gain:
    if before is None or after is None:
        return Gain(None, None)
    change = after - before
    return Gain(change, 100 * change / before if before else None)
