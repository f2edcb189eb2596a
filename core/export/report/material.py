"""Everything a report speaks of, computed once."""

from __future__ import annotations

from dataclasses import dataclass

from core.decide import answer
from core.decide.advise.advice import Recommendation, Verdict, feasibility, recommendations
from core.decide.assess.compare import Comparison, Strategy, compare, strategy
from core.decide.assess.outcome import Outcome
from core.decide.assess.strategies import named_strategies
from core.decide.assess.verified import verification_of
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.evidence import scorers
from core.records.verification import Verification

THIS_MAP = "This map"


@dataclass(frozen=True, eq=False)
class Material:
    """A map with its figures, the uniform maps and the named strategies on the same device.

    `strategies` begins with the map itself, which is the reference of `comparison`. `verified`
    is the latest run of this very map, where there is one.
    """

    study: Study
    chosen: PrecisionMap
    found: Outcome
    verdict: Verdict
    recommended: tuple[Recommendation, ...]
    strategies: tuple[Strategy, ...]
    comparison: Comparison
    uniform: dict[str, Strategy]
    verified: Verification | None = None

    @property
    def policy(self) -> Policy:
        """The policy behind the map."""
        return self.chosen.policy

    @property
    def score_kind(self) -> str:
        """The kinds of figures that the weighted score is made of, as "prior and measured"."""
        kinds = {
            "measured" if (kind := scorers.get(name).kind) == "weights" else kind
            for name in self.policy.normalised_weights()
        }
        return " and ".join(sorted(kinds, reverse=True))


def gather(study: Study, chosen: PrecisionMap) -> Material:
    """Price `chosen` and all that it is held against."""
    own = strategy(study, THIS_MAP, chosen)
    named = [
        strategy(study, title, answer.decide(study, policy))
        for title, policy in named_strategies(study, chosen.policy).items()
    ]
    everyone = (own, *named)
    titles = {s.name: s for s in named}
    return Material(
        study=study,
        chosen=chosen,
        found=own.outcome,
        verdict=feasibility(study, chosen, own.outcome),
        recommended=recommendations(study, chosen.policy),
        strategies=everyone,
        comparison=compare(everyone, THIS_MAP),
        uniform={n: titles[f"All {n}"] for n in study.precisions if f"All {n}" in titles},
        verified=verification_of(study, chosen),
    )
