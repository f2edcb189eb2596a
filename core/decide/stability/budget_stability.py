"""How sure a solved map is: the same budgets on samples drawn again with replacement.

For each draw the projector is made again from the drawn samples, the policy solved again, and
the map at hand projected again. Efron 1979, doi:10.1214/aos/1176344552.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.stability.resampling import Stability
from core.decide.study import Study
from core.errors import InfeasibleError, PolicyError
from core.evidence.evidence import Evidence
from core.lru import LRU
from core.quantity import Quantity

DRAWS = 30
SEED = 60_661


@dataclass(frozen=True, eq=False)
class BudgetStability:
    """`frequency` [P, L] is the share of the draws that give a layer each precision, of those
    that could keep the budgets (`solved` of `draws`). `loss` is the projected divergence of the
    map at hand with the middle 90 % over the draws.
    """

    frequency: NDArray[np.float64]
    loss: Quantity
    draws: int
    solved: int

    def of(self, chosen: PrecisionMap) -> list[float | None]:
        """Share of the draws that agree with `chosen` on each layer; None where it does nothing,
        or no draw could keep the budgets.
        """
        if not self.solved:
            return [None] * len(chosen.codes)
        return [
            float(self.frequency[code, i]) if code >= 0 else None
            for i, code in enumerate(chosen.codes)
        ]


def budget_stability(study: Study, policy: Policy, draws: int = DRAWS) -> BudgetStability:
    """Solve `policy` for `draws` resamples; kept for each policy. Raises `PolicyError` before
    anything was measured.
    """
    kept = study.derived(_kept)
    return kept.get((policy, draws), lambda: _budget_stability(study, policy, draws))


def is_kept(study: Study, policy: Policy) -> bool:
    """Whether `budget_stability` answers at once."""
    return (policy, DRAWS) in study.derived(_kept)


def _kept(study: Study) -> LRU[tuple[Policy, int], BudgetStability]:
    return LRU(12)


def as_stability(found: BudgetStability, layers: int, samples: int) -> Stability:
    """Shares in the form that other strategies give theirs: all of it rests on samples."""
    return Stability(found.frequency, np.zeros(layers), 1.0, samples)


def _budget_stability(study: Study, policy: Policy, draws: int) -> BudgetStability:
    evidence = study.analysis.evidence
    if evidence is None:
        raise PolicyError(
            "Nothing of this model was measured: there is nothing to draw again.",
            "Measure it with `analyze`.",
        )
    chosen = study.derived(Solver).decide(policy).codes
    rng = np.random.default_rng(SEED)
    counts = np.zeros((len(study.precisions), len(study.layers)))
    losses, solved = [], 0
    for _ in range(draws):
        rows = rng.integers(0, evidence.samples, evidence.samples)
        drawn = study.with_evidence(resampled(evidence, rows))
        losses.append(_divergence(drawn, chosen))
        try:
            codes = drawn.derived(Solver).decide(policy).codes
        except InfeasibleError:
            continue
        solved += 1
        for code in range(len(counts)):
            counts[code] += codes == code
    known = [loss for loss in losses if loss is not None]
    low, high = np.quantile(known, (0.05, 0.95)) if known else (None, None)
    unit = "nats" if evidence.outputs.kind == "logits" else "of variance"
    loss = Quantity(
        _divergence(study, chosen), unit, "projected",
        None if low is None else float(low), None if high is None else float(high),
    )  # fmt: skip
    return BudgetStability(counts / max(solved, 1), loss, draws, solved)


def resampled(evidence: Evidence, rows: NDArray[np.int64]) -> Evidence:
    """Evidence of the samples `rows`; figures of a custom metric stay those of all samples."""
    return replace(
        evidence,
        baseline=evidence.baseline[rows],
        targets=None if evidence.targets is None else evidence.targets[rows],
        perturbations=evidence.perturbations[:, :, rows],
        whole=evidence.whole[:, rows],
        probes=evidence.probes[:, rows],
        entries=None if evidence.entries is None else evidence.entries[rows],
    )


def _divergence(study: Study, codes: NDArray[np.int8]) -> float | None:
    projection = study.project(codes)
    if projection is None:
        return None
    moved = projection.kl if projection.kl.value is not None else projection.relative_mse
    return moved.value
