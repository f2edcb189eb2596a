"""What a policy gives for a study: the map, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable

from core.decide.policy import decision
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.solve.problem import never
from core.decide.solve.solver import Solver
from core.decide.stability import resampling
from core.decide.stability.budget_stability import as_stability, budget_stability
from core.decide.stability.resampling import Stability, resampled_scores
from core.decide.study import Study


def decide(study: Study, policy: Policy, should_stop: Callable[[], bool] = never) -> PrecisionMap:
    """The map that `policy` gives; raises `PolicyError` for what cannot be asked.

    `should_stop` is asked often while a budget is solved, which takes time: where it says so,
    `StoppedError` is raised.
    """
    if policy.strategy == "budget":
        return study.derived(Solver).decide(policy, should_stop)
    return decision.decide(study.layers, study.scores, policy, study.precisions, study.unknown)


def stability(study: Study, policy: Policy) -> Stability:
    """How often `policy` gives each layer each precision when the samples are drawn again."""
    if policy.strategy == "budget":
        return as_stability(
            budget_stability(study, policy),
            len(study.layers),
            study.derived(resampled_scores).samples,
        )
    return resampling.stability(
        study.layers,
        study.scores,
        study.derived(resampled_scores),
        policy,
        study.precisions,
        study.unknown,
    )
