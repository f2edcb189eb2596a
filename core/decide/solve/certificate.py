"""How far a found map may be from the best one: a lower bound from HiGHS.

The bound is of the second-order problem, sᵀQs and the linear term, where changes of the outputs
add up, and of the additive problem where they combine by root of squares; the true projected
loss is what the search itself uses. sᵀQs is convex, so each tangent lies below it: tangents are
added where the last answer lies until the bound stops rising or time is up (outer approximation;
Duran and Grossmann 1986, doi:10.1007/BF02592064). A diagonal part is taken out of Q first, since
s² = s makes it linear and exact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.budget import Axis
from core.decide.solve.milp import Milp, Term
from core.decide.solve.problem import Task
from core.decide.solve.search_tables import SearchTables
from core.decide.solve.solver import Solver

if TYPE_CHECKING:
    from core.decide.policy.policy import Policy
    from core.decide.study import Study

Doubles = NDArray[np.float64]

ENOUGH = 1e-3
"""A gap below this share is as good as none."""
RELAXED_ROUNDS = 40
RELAXED_SHARE = 0.3
ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Certificate:
    """A proof of quality. `value` is what the found map has of what was minimised, `bound` what
    no map within the budgets can fall below, both of the problem that `problem` names. `gap` is
    their difference as a share of `value`; None where nothing was proven. `finished` says
    whether the proof ended before its time limit.
    """

    minimised: Axis
    problem: str
    value: float
    bound: float | None
    gap: float | None
    finished: bool
    seconds: float
    tangents: int

    def in_words(self) -> str:
        """One sentence."""
        if self.gap is None:
            return f"No bound was proven of {self.problem}."
        ended = "" if self.finished else ", when time was up"
        return (
            f"Within {self.gap:.2%} of the least {self.minimised} of {self.problem}, "
            f"proven in {self.seconds:.1f} s{ended}."
        )


def certify(study: Study, policy: Policy, time_limit_s: float = 10.0) -> Certificate:
    """Bound what the budgets of `policy` allow. Deterministic but for the time limit.

    A budget on loss that is checked by projection (points of a metric) has no second-order form:
    such a limit is replaced by the found map's own second-order loss, and `problem` says so.
    """
    solution = study.derived(Solver).solve(policy)
    return _Certifier(study.derived(Solver).task(policy), solution.found.codes).run(time_limit_s)


class _Certifier:
    def __init__(self, task: Task, codes: NDArray[np.int8]) -> None:
        self.task, self.tables, self.codes = task, task.tables, codes
        self.matrix, self.linear, self.constant = _second_order(self.tables, task)
        self.diagonal = _exact_diagonal(self.matrix)
        self.rest = self.matrix - np.diag(self.diagonal)
        self.milp = Milp(self.tables)
        self.milp.limit(task.limits)

    def _loss(self, s: Doubles) -> float:
        return float(s @ self.matrix @ s + self.linear @ s) + self.constant

    def run(self, time_limit_s: float) -> Certificate:
        start = time.perf_counter()
        tables, milp = self.tables, self.milp
        here = self._indicator(self.codes)
        loss = self._loss(here)
        scale = max(abs(loss), 1e-15)
        by_loss = self.task.minimise == "loss"
        theta = milp.variable()
        milp.upper[theta] = np.inf
        base: list[Term] = [
            (v, (self.linear[v] + self.diagonal[v]) / scale) for v in range(len(here))
        ]
        whole: list[Term] = [*base, (theta, 1.0)]
        limited = np.isfinite(self.task.limits.loss) or np.isfinite(self.task.limits.judged)
        if limited:
            most = max(loss, self.task.limits.loss if np.isfinite(self.task.limits.loss) else loss)
            milp.rows.append((whole, -np.inf, (most - self.constant) / scale))
        objective, value, fixed, unit = whole, loss, self.constant, scale
        if not by_loss:
            size = self.task.minimise == "size"
            terms, fixed = (milp.size, milp.size_fixed) if size else (milp.ms, milp.ms_fixed)
            value = float(
                tables.sizes_of(self.codes[None])[0]
                if size
                else tables.latency.times_ms(self.codes[None])[0]
            )
            unit = max(value, 1e-12)
            objective = [(v, c / unit) for v, c in terms]
        cuts = [self._tangent(here, theta, scale)]
        bound, finished = -np.inf, False
        relaxed_until = start + RELAXED_SHARE * time_limit_s
        relaxed = bool(self.rest.any())
        rounds = 0
        for round_ in range(ROUNDS):
            rounds = round_
            left = start + time_limit_s - time.perf_counter()
            if left <= 0:
                break
            if relaxed and (round_ >= RELAXED_ROUNDS or time.perf_counter() > relaxed_until):
                relaxed = False
            answer = milp.solve(objective, cuts, left, relaxed=relaxed)
            dual = answer.fun if relaxed else getattr(answer, "mip_dual_bound", None)
            if answer.status == 2:  # HiGHS found the rows infeasible: rounding at a tight limit
                break
            if dual is not None and np.isfinite(dual):
                bound = max(bound, float(dual) * unit + fixed)
            if value - bound <= ENOUGH * abs(value):
                finished = True
                break
            if answer.x is None:
                break
            s = answer.x[: len(here)]
            s = s if relaxed else np.rint(s)
            reached = float(s @ self.rest @ s) / scale
            if reached - answer.x[theta] <= 1e-6 * max(1.0, abs(reached)):
                if relaxed:
                    relaxed = False
                    continue
                finished = answer.status == 0
                break
            cuts.append(self._tangent(s, theta, scale))
        proven = np.isfinite(bound)
        gap = max(value - bound, 0.0) / max(abs(value), 1e-300) if proven else None
        return Certificate(
            self.task.minimise, self._problem(), value, float(bound) if proven else None, gap,
            finished, time.perf_counter() - start, rounds + 1,
        )  # fmt: skip

    def _problem(self) -> str:
        name = "the additive problem"
        if self.rest.any():
            name = "the second-order problem"
            if self.task.minimise == "loss" and self.task.hedge:
                name += f" with interactions at {1 - self.task.hedge:.0%}"
        if np.isfinite(self.task.limits.judged):
            name += " at this map's own loss"
        return name

    def _indicator(self, codes: NDArray[np.int8]) -> Doubles:
        picked = self.tables.choices.picked(codes) if len(self.tables.choices) else np.zeros(0, int)
        s = np.zeros(self.matrix.shape[0])
        s[picked * len(self.tables.choices) + np.arange(len(picked))] = 1.0
        return s

    def _tangent(self, s: Doubles, theta: int, scale: float) -> tuple[list[Term], float, float]:
        """Theta >= g(s) + g'(s)(x - s) for g(x) = xT rest x, as a row."""
        pull = self.rest @ s
        slope = 2 * pull / scale
        row: list[Term] = [(int(v), float(slope[v])) for v in np.flatnonzero(slope)]
        return [*row, (theta, -1.0)], -np.inf, float(s @ pull) / scale


def _second_order(tables: SearchTables, task: Task) -> tuple[Doubles, Doubles, float]:
    """Matrix, linear term and constant of the loss over (precision, unit), rules included.

    Hedging leaves the diagonal and takes its share off what lies beside it.
    """
    choices, objective = tables.choices, tables.objective
    found = objective.interactions
    count = choices.options.size
    if tables.quadratic is None or found.matrix is None:
        alone = np.where(choices.options, tables.alone, 0.0)
        ruled = np.flatnonzero((choices.unit_of < 0) & (choices.fixed > 0))
        constant = float(objective.alone[choices.fixed[ruled], ruled].sum())
        return np.zeros((count, count)), alone.ravel(), constant
    ruled = np.flatnonzero((choices.unit_of < 0) & (choices.fixed > 0))
    rows = (choices.fixed[ruled].astype(np.int64) - 1) * objective.layers + ruled
    part = 1 - (task.hedge if task.minimise == "loss" else 0.0)
    pulled = found.linear + 2 * part * found.matrix[:, rows].sum(axis=1)
    linear = choices.summed(_coded(pulled, objective.layers)).ravel()
    among = found.matrix[np.ix_(rows, rows)]
    diagonal = float(np.trace(among))
    constant = part * float(among.sum()) + (1 - part) * diagonal + float(found.linear[rows].sum())
    own = np.diag(choices.summed(_coded(found.own, objective.layers)).ravel())
    return part * tables.quadratic + (1 - part) * own, linear, constant


def _coded(rows: Doubles, layers: int) -> Doubles:
    """Figures of (precision, layer) pairs with zeros for the reference, (P, L)."""
    return np.concatenate([np.zeros((1, layers)), rows.reshape(-1, layers)])


def _exact_diagonal(matrix: Doubles) -> Doubles:
    """A diagonal that leaves `matrix` convex when taken out: the largest share of its own.

    The smallest eigenvalue of the matrix scaled to a unit diagonal says how large.
    """
    own = np.diag(matrix).copy()
    used = np.flatnonzero(own > 0)
    if not len(used):
        return np.zeros(len(matrix))
    root = np.sqrt(own[used])
    scaled = matrix[np.ix_(used, used)] / np.outer(root, root)
    share = max(float(np.linalg.eigvalsh(scaled)[0]) - 1e-6, 0.0)
    found = np.zeros(len(matrix))
    found[used] = share * own[used]
    return found
