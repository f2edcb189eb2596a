"""Budgets of a policy, solved: limits in bytes, milliseconds and loss, and the map that keeps them.

Tables that depend on the evidence, the device and the rules are made once and kept, so that a
moved budget costs a search alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.budget import AXES, Axis, Budget
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.scoring import levels, total_scores
from core.decide.solve.choices import choices
from core.decide.solve.infeasible import infeasible
from core.decide.solve.problem import Limits, Task, never
from core.decide.solve.search import SearchResult, search
from core.decide.solve.search_tables import SearchTables
from core.errors import InfeasibleError, PolicyError
from core.estimate.loss_function import Target
from core.estimate.map_objective import MapObjective
from core.estimate.projection import Projection
from core.estimate.values import ValueProjector
from core.lru import LRU
from core.numerics import precision as registry

if TYPE_CHECKING:
    from core.decide.policy.policy import Policy
    from core.decide.study import Study

Codes = NDArray[np.int8]
HEDGE = 0.5
"""Weight of the sum of the layers' own losses in a loss that is minimised: interactions count by
half. Those measured on some samples are noisy, and a search finds the noise that favours it."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The map that was found for a policy's budgets.

    `used` and `limits` by axis are in bytes, ms, and the unit of the loss budget. `binding` are
    the axes whose budgets keep a flip away that would pay.
    """

    found: SearchResult
    limits: dict[Axis, float]
    used: dict[Axis, float]
    binding: tuple[Axis, ...]


class Solver:
    """Solves budgets of one study. Safe to share between threads: nothing else changes it than
    what it keeps, tables for the rules and answers for the budgets asked for last.
    """

    def __init__(self, study: Study, hedge: float = HEDGE) -> None:
        self._study, self._hedge = study, hedge
        self._search_tables: LRU[Hashable, SearchTables] = LRU(6)
        self._least: LRU[Hashable, SearchResult] = LRU(24)
        self._objectives: LRU[Target, MapObjective] = LRU(4)
        self._solutions: LRU[Hashable, Solution | InfeasibleError] = LRU(256)

    # ---- what is asked

    def decide(self, policy: Policy, should_stop: Callable[[], bool] = never) -> PrecisionMap:
        """The map that `policy` gives; raises `InfeasibleError` where none was found."""
        study = self._study
        codes = self.solve(policy, should_stop).found.codes
        open_to = self.tables(policy).choices
        scores = total_scores(study.scores, policy, len(study.layers))
        return PrecisionMap(
            study.layers, study.precisions, codes, scores, levels(scores, policy), open_to.origin,
            policy, open_to.ignored,
        )  # fmt: skip

    def solve(self, policy: Policy, should_stop: Callable[[], bool] = never) -> Solution:
        """The best map found for the budgets of `policy`.

        Where `should_stop` says so it is given up with `StoppedError`, and nothing is kept.
        Raises `InfeasibleError` with the least that exists and what causes it.
        """
        asked = (self._rules(policy), policy.budgets, policy.minimise)
        kept = self._solutions.get(asked, lambda: self._tried(policy, should_stop))
        if isinstance(kept, InfeasibleError):
            raise kept.with_traceback(None)
        return kept

    def _tried(self, policy: Policy, should_stop: Callable[[], bool]) -> Solution | InfeasibleError:
        try:
            return self._solve(replace(self.task(policy), should_stop=should_stop), policy)
        except InfeasibleError as error:  # kept like an answer: finding out takes as long
            return error

    def least(self, policy: Policy, goal: Axis) -> SearchResult:
        """The map with the least `goal` that was found under the rules of `policy`, whatever else
        it takes.
        """
        task = Task(self.tables(policy), goal, Limits())
        return self._least.get((self._rules(policy), goal), lambda: search(task))

    def taken(self, policy: Policy, budget: Budget, found: SearchResult) -> float:
        """What a map takes of what `budget` limits, in bytes, ms or the loss's unit."""
        if budget.axis == "loss":
            return self.loss(self._study.project(found.codes), budget.unit)
        return found.size if budget.axis == "size" else found.ms

    def tables(self, policy: Policy) -> SearchTables:
        """The tables that a search under the rules of `policy` needs."""
        return self._search_tables.get(self._rules(policy), lambda: self._tables(policy))

    # ---- limits

    def limit(self, budget: Budget, hardware: str) -> float:
        """`budget` in bytes, ms, or as it is for a loss."""
        study = self._study
        if budget.unit != "fraction":
            return budget.amount
        if budget.axis == "size":
            return budget.amount * (int(study.size_bytes[0].sum()) + study.glue_bytes)
        return budget.amount * study.uniform_ms(hardware)[registry.REFERENCE]

    def loss(self, projection: Projection | None, unit: str) -> float:
        """A projected loss in the unit of a budget; raises `PolicyError` where there is none."""
        study = self._study
        if projection is None or self._study.projector is None:
            raise self._unmeasured()
        by_value = isinstance(study.projector, ValueProjector)
        if unit == "divergence":
            value = (projection.relative_mse if by_value else projection.kl).value
        elif not by_value:
            if unit == "percent":
                raise PolicyError(
                    "A classifier's loss is counted in points of accuracy, not in percent.",
                    "Write for instance --budget loss=0.5.",
                )
            value = projection.accuracy_drop_pts.value
        elif unit == "metric":
            value = _worse_by(study, projection)
        else:
            value = projection.metric_loss_pct.value
            if value is None and projection.metric.value is not None:
                raise PolicyError(
                    "The reference's metric is too near 0 for a loss in percent of it.",
                    "Budget the metric in its own unit, for instance --budget loss=0.01, or the "
                    "change of the outputs.",
                )
        if value is None:
            raise PolicyError(
                "The loss of this model is not known: there are no labels.",
                "Budget the change of the outputs, for instance --budget loss=0.001nats.",
            )
        return value

    # ---- how

    def _rules(self, policy: Policy) -> Hashable:
        return (policy.hardware, policy.pins, policy.overrides, policy.groups, policy.target)

    def _unmeasured(self) -> PolicyError:
        return PolicyError(
            "Nothing of this model was measured, so no loss can be projected.",
            "Measure it with `analyze`; thresholds work without.",
        )

    def _tables(self, policy: Policy) -> SearchTables:
        study = self._study
        evidence, projector = study.analysis.evidence, study.projector
        if evidence is None or projector is None:
            raise self._unmeasured()
        open_to = choices(study.layers, evidence, policy, study.precisions)
        objective = self._objectives.get(
            policy.target, lambda: MapObjective(evidence, projector.form, policy.target)
        )
        return SearchTables(
            open_to, objective, study.size_bytes, study.glue_bytes, study.latency(policy.hardware)
        )

    def _judged(self, unit: str, codes: Codes) -> float:
        return self.loss(self._study.project(codes), unit)

    def task(self, policy: Policy) -> Task:
        """What is to be searched for under `policy`."""
        tables = self.tables(policy)
        given = {b.axis: b for b in policy.budgets}
        limits = Limits()
        judge: Callable[[Codes], float] | None = None
        for axis, budget in given.items():
            most = self.limit(budget, policy.hardware)
            if axis == "size":
                limits = replace(limits, size=most)
            elif axis == "latency":
                limits = replace(limits, ms=most)
            elif budget.unit == "divergence" and policy.target == "divergence":
                limits = replace(limits, loss=most)
            else:
                limits = replace(limits, judged=most)
                judge = partial(self._judged, budget.unit)
        if judge is not None:
            judge(np.where(self._study.layers.computes, 0, -1).astype(np.int8))
        return Task(tables, policy.minimise, limits, judge, self._hedge)

    def _solve(self, task: Task, policy: Policy) -> Solution:
        found = search(task)
        if not found.feasible:
            found = self._rescued(task, policy)
        limits = {b.axis: self.limit(b, policy.hardware) for b in policy.budgets}
        used = {axis: _figure(found, task, axis) for axis in AXES}
        binding = tuple(axis for axis in limits if axis in found.binding)
        return Solution(found, limits, used, binding)

    def _rescued(self, task: Task, policy: Policy) -> SearchResult:
        """A map that keeps all budgets after all, found from the least of each; else raises."""
        study = self._study
        nearest: dict[Axis, SearchResult] = {}
        for budget in policy.budgets:
            axis = budget.axis
            least = search(replace(task, minimise=axis, limits=task.limits.without(axis)))
            if not least.feasible:
                continue
            again = search(task, least.codes)
            if again.feasible:
                return again
            nearest[axis] = least
        raise infeasible(study, self, policy, nearest)


def projector_reference(study: Study) -> float:
    """The metric of the reference outputs of a model whose outputs are values."""
    projector = study.projector
    assert isinstance(projector, ValueProjector)
    return projector.reference_metric or 0.0


def _worse_by(study: Study, projection: Projection) -> float | None:
    """What is lost of the metric in its own unit, positive = worse; None where it is unknown."""
    metric, value = study.analysis.metric, projection.metric.value
    if metric is None or value is None:
        return None
    change = value - projector_reference(study)
    return -change if metric.higher_is_better else change


def _figure(found: SearchResult, task: Task, axis: Axis) -> float:
    if axis == "loss":
        return found.loss if task.judge is None else task.judge(found.codes)
    return found.size if axis == "size" else found.ms
