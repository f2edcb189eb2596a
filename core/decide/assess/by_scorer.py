"""What would change if one scorer were trusted alone: the same policy with that scorer's scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.decide import answer
from core.decide.assess.difference import Change, difference
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study


@dataclass(frozen=True, slots=True)
class Trusted:
    """The layers that get another precision if `scorer` alone is weighed; in execution order."""

    scorer: str
    changes: tuple[Change, ...]

    @property
    def wider(self) -> int:
        """How many layers get more bits."""
        return sum(1 for change in self.changes if change.direction > 0)

    @property
    def narrower(self) -> int:
        """How many layers get fewer bits."""
        return sum(1 for change in self.changes if change.direction < 0)


def trusting(study: Study, chosen: PrecisionMap) -> tuple[Trusted, ...]:
    """For every scorer with scores, the difference between `chosen` and the map of its policy with
    that scorer alone. Thresholds, pins and overrides stay.
    """
    return tuple(
        Trusted(
            name,
            difference(
                chosen, answer.decide(study, replace(chosen.policy, weights=((name, 1.0),)))
            ),
        )
        for name in study.scores
    )
