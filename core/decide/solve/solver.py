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

from core.decide.policy.budget import Axis, Budget, By, loss_budget
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.scoring import levels, total_scores
from core.decide.solve.choices import choices
from core.decide.solve.infeasible import infeasible
from core.decide.solve.problem import SLACK, TINY, Limits, Task, never
from core.decide.solve.search import FEW_UNITS, SearchResult, search
from core.decide.solve.search_tables import SearchTables
from core.errors import InfeasibleError, PolicyError
from core.estimate.loss_function import Target
from core.estimate.map_objective import MapObjective
from core.estimate.projection import Projection, Projector
from core.estimate.values import ValueProjector
from core.lru import LRU
from core.numerics import precision as registry
from core.quantity import Quantity

if TYPE_CHECKING:
    from core.decide.policy.policy import Policy
    from core.decide.study import Study

Codes = NDArray[np.int8]
HEDGE = 0.5
"""Weight of the sum of the layers' own losses in a loss that is minimised: interactions count by
half. Those measured on some samples are noisy, and a search finds the noise that favours it."""

FOLLOWED, NEAR = 4, 0.1
"""Times that a limit on the search's own objective is set anew, until what is projected comes so near to
the budget."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The map that was found for a policy's budgets.

    `used` and `limits` by axis are in bytes, ms, and the unit of the loss budget, of whose `loss`
    that end is used which keeps the budget. `loss` is None where no budget limits it. `binding` are
    the axes whose budgets keep a flip away that would pay.
    """

    found: SearchResult
    limits: dict[Axis, float]
    used: dict[Axis, float]
    binding: tuple[Axis, ...]
    loss: Quantity | None = None


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
        task = Task(self.tables(policy), goal, Limits(), hedge=self._hedge)
        return self._least.get((self._rules(policy), goal), lambda: search(task))

    def taken(self, policy: Policy, budget: Budget, found: SearchResult) -> float:
        """What a map takes of what `budget` limits, in bytes, ms or the loss's unit."""
        if budget.axis == "loss":
            return self.held(found.codes, budget)
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

    def loss(self, projection: Projection | None, unit: str) -> Quantity:
        """A projected loss in the unit of a budget; raises `PolicyError` where there is none."""
        study = self._study
        if projection is None or self._study.projector is None:
            raise self._unmeasured()
        by_value = isinstance(study.projector, ValueProjector)
        if unit == "divergence":
            found = projection.relative_mse if by_value else projection.kl
        elif not by_value:
            if unit == "percent":
                raise PolicyError(
                    "A classifier's loss is counted in points of accuracy, not in percent.",
                    "Write for instance --budget loss=0.5.",
                )
            found = projection.accuracy_drop_pts
        elif unit == "metric":
            found = worse_by(study, projection.metric)
        else:
            found = projection.metric_loss_pct
            if found.value is None and projection.metric.value is not None:
                raise PolicyError(
                    "The reference's metric is too near 0 for a loss in percent of it.",
                    "Budget the metric in its own unit, for instance --budget loss=0.01, or the "
                    "change of the outputs.",
                )
        if found.value is None:
            raise PolicyError(
                "The loss of this model is not known: there are no labels.",
                "Budget the change of the outputs, for instance --budget loss=0.001nats.",
            )
        return found

    def held(self, codes: Codes, budget: Budget) -> float:
        """What of the loss of a map has to stay within `budget`, a loss, in its unit.

        Raises `PolicyError` where that is not known.
        """
        found = self._study.project(codes, divergence=budget.unit == "divergence")
        return held_by(self.loss(found, budget.unit), budget.by)

    def least_upper(self, budget: Budget) -> float | None:
        """The upper end of the loss of a map that changes no answer, though it narrows layers; None
        where a loss is not counted in answers.
        """
        projector = self._study.projector
        if budget.unit != "metric" or not isinstance(projector, Projector):
            return None
        return projector.least_upper_pts

    # ---- how

    def _rules(self, policy: Policy) -> Hashable:
        return (
            policy.hardware, policy.pins, policy.overrides, policy.groups, policy.target,
            policy.allowed,
        )  # fmt: skip

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
            else:
                judge = partial(self.held, budget=budget)
                _refuse_unknown(judge, tables)
                by_objective = (
                    budget.unit == policy.target == "divergence" and len(tables.choices) > FEW_UNITS
                )
                if by_objective:
                    limits, judge = replace(limits, loss=most / self._reach(budget.by)), None
                else:
                    limits = replace(limits, judged=most)
        return Task(tables, policy.minimise, limits, judge, self._hedge)

    def _reach(self, by: By) -> float:
        """The end that keeps a budget over the divergence that the search sees, about."""
        projector = self._study.projector
        if projector is None:
            return 1.0
        return projector.reach(by)

    def _solve(self, task: Task, policy: Policy) -> Solution:
        found = self._found(task, policy)
        limited = loss_budget(policy.budgets)
        if limited is not None and task.judge is None:
            found, task = self._confirmed(found, task, policy, limited)
        limits = {b.axis: self.limit(b, policy.hardware) for b in policy.budgets}
        used: dict[Axis, float] = {"size": found.size, "latency": found.ms, "loss": found.loss}
        used |= {b.axis: self.taken(policy, b, found) for b in policy.budgets}
        binding = tuple(axis for axis in limits if axis in found.binding)
        loss = None
        if limited is not None:
            loss = self.loss(self._study.project(found.codes), limited.unit)
        return Solution(found, limits, used, binding, loss)

    def _found(self, task: Task, policy: Policy) -> SearchResult:
        found = search(task)
        return found if found.feasible else self._rescued(task, policy)

    def _confirmed(
        self, found: SearchResult, task: Task, policy: Policy, budget: Budget
    ) -> tuple[SearchResult, Task]:
        """A map whose projection keeps a budget that the search held on its own objective.

        The search sees one form and the projection weighs all, so that their ratio changes from map
        to map: the limit follows it, and is checked by the projection at last.
        """
        price = {"size": "size", "latency": "ms", "loss": "loss"}[policy.minimise]
        kept: tuple[SearchResult, Task] | None = None
        for _ in range(FOLLOWED):
            ratio = self.held(found.codes, budget) / max(budget.amount, TINY)
            if ratio <= 1 + SLACK:
                kept = min(
                    kept or (found, task), (found, task), key=lambda one: getattr(one[0], price)
                )
                if "loss" not in found.binding or ratio > 1 - NEAR:
                    return kept
            limit = task.limits.loss / max(ratio, TINY) * (1 - NEAR / 4)
            task = replace(task, limits=replace(task.limits, loss=limit))
            found = self._found(task, policy)
        if kept is not None:
            return kept
        judge = partial(self.held, budget=budget)
        task = replace(task, limits=replace(task.limits, judged=budget.amount), judge=judge)
        return self._found(task, policy), task

    def _rescued(self, task: Task, policy: Policy) -> SearchResult:
        """A map that keeps all budgets after all, found from the least of each; else raises."""
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
        raise infeasible(self._study, self, policy, nearest)


def projector_reference(study: Study) -> float:
    """The metric of the reference outputs of a model whose outputs are values."""
    projector = study.projector
    assert isinstance(projector, ValueProjector)
    return projector.reference_metric or 0.0


def _refuse_unknown(judge: Callable[[Codes], float], tables: SearchTables) -> None:
    """Raise `PolicyError` where a loss is not known: of the reference, or once a unit is narrower,
    since the reference alone has a range before any whole map was measured.
    """
    picked = np.zeros(len(tables.choices), dtype=np.int64)
    judge(tables.choices.codes(picked))
    narrower = np.argwhere(tables.choices.options[1:])
    if len(narrower):
        code, unit = narrower[0]
        picked[unit] = code + 1
        judge(tables.choices.codes(picked))


def held_by(loss: Quantity, by: By) -> float:
    """What of a loss has to stay within a budget; raises `PolicyError` where it has no range."""
    end = loss.high if by == "upper" else loss.value
    if end is None:
        raise PolicyError(
            "The range of the loss is not known, so no map is known to keep it by its upper end.",
            "Keep the budget by the point (--loss-by point, or beside the slider), or measure more.",
        )
    return end


def worse_by(study: Study, now: Quantity) -> Quantity:
    """What is lost of the metric in its own unit where it is `now`, as projected on the selection
    samples; positive = worse.
    """
    metric = study.analysis.metric
    if metric is None or now.value is None:
        return replace(now, value=None, low=None, high=None)
    reference = projector_reference(study)
    changes = [None if x is None else x - reference for x in (now.value, now.low, now.high)]
    if metric.higher_is_better:
        value, high, low = (None if x is None else -x for x in changes)
    else:
        value, low, high = changes
    return replace(now, value=value, low=low, high=high)
