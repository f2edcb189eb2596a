"""How the figures of one map differ from another's."""

from __future__ import annotations

from dataclasses import dataclass

from core.decide.assess.loss import CLASSES, VALUES
from core.decide.assess.outcome import Outcome
from core.quantity import Quantity

OUTPUTS = frozenset((*CLASSES.every, *VALUES.every))


@dataclass(frozen=True, slots=True)
class Gain:
    """A figure of two maps, in its own unit; None where it is unknown.

    A figure of the outputs that was measured is not taken from one that is projected, since they are
    of different samples; but a map that changes nothing loses nothing on any.
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
        if name in OUTPUTS and _of_other_samples(before.totals[name], quantity)
        else Gain(before.totals[name].value, quantity.value)
        for name, quantity in after.totals.items()
        if name in before.totals
    }


def _of_other_samples(one: Quantity, other: Quantity) -> bool:
    no_loss = any((q.value, q.low, q.high) == (0, 0, 0) for q in (one, other))
    return one.kind != other.kind and not no_loss
