"""How the figures of one map differ from another's."""

from __future__ import annotations

from dataclasses import dataclass

from core.decide.assess.outcome import Outcome

LEVELS = ("accuracy", "metric")


@dataclass(frozen=True, slots=True)
class Gain:
    """A figure of two maps, in its own unit; None where it is unknown.

    A level of accuracy or of a metric that was measured stands beside none that is projected:
    they are of different samples.
    """

    before: float | None
    after: float | None

    @property
    def change(self) -> float | None:
        """`after` less `before`; None where either is unknown."""
        if self.before is None or self.after is None:
            return None
        return self.after - self.before

    @property
    def change_pct(self) -> float | None:
        """`change` in percent of `before`; None where that is 0 or unknown."""
        change = self.change
        return 100 * change / self.before if change is not None and self.before else None


def gains(before: Outcome, after: Outcome) -> dict[str, Gain]:
    """The change of every total that both outcomes have, by name."""
    return {
        name: Gain(None, None)
        if name in LEVELS and before.totals[name].kind != quantity.kind
        else Gain(before.totals[name].value, quantity.value)
        for name, quantity in after.totals.items()
        if name in before.totals
    }
