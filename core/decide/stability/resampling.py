"""How sure a decision is, given the samples that it was measured on: a bootstrap over samples.

Every measured score is computed again from samples drawn with replacement, the policy is decided
again for each draw, and a layer's *selection frequency* is the share of draws that give it the
same precision. Rules of thumb need no samples, so they stay as they are.
Efron 1979, doi:10.1214/aos/1176344552.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.allowed import check_allowed, homes, served
from core.decide.policy.decision import NO_PRECISION, PrecisionMap, pattern_hits
from core.decide.policy.grouping import groups_of
from core.decide.policy.kernels import leading, stay_behind, without_kernel
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import levels, total_scores
from core.decide.policy.unmeasured import Unmeasured, hold_back
from core.decide.study import Study
from core.evidence.scorers import sample_table
from core.layers import LayerTable
from core.numerics import precision as registry

Doubles = NDArray[np.float64]

DRAWS = 200
SEED = 20219
SETTLED = 0.9
"""A layer is settled where this share of the draws gives it the same precision."""
FEW_TIMES = 100
"""More times the samples than this is no advice: the score lies on the threshold."""


def draws(samples: int, count: int = DRAWS) -> Doubles:
    """How often each sample is in each draw, shape (count, samples); rows add up to `samples`."""
    if not samples:
        return np.zeros((count, 0))
    rng = np.random.default_rng(SEED)
    chances = np.full(samples, 1 / samples)
    return rng.multinomial(samples, chances, size=count).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Measured scores of every draw by name, each of shape (R, L), from `samples` samples."""

    samples: int
    scores: Mapping[str, Doubles]

    def interval(self, name: str, layer: int) -> tuple[float, float] | None:
        """The middle 90 % of a score over the draws; None for a score that needs no samples."""
        found = self.scores.get(name)
        if found is None:
            return None
        low, high = np.quantile(found[:, layer], (0.05, 0.95))
        return float(low), float(high)


def resampled_scores(study: Study) -> Resampled:
    """Measured scores of `study` on samples drawn again with replacement."""
    evidence = study.analysis.evidence
    counts = draws(0 if evidence is None else evidence.samples)
    found = sample_table(evidence if study.unknown is None else None, study.score_precision)
    scores = {name: samples.scores(counts) for name, samples in found.items()}
    return Resampled(counts.shape[1], scores)


@dataclass(frozen=True, eq=False)
class Stability:
    """How often each layer gets each precision when the samples are drawn again.

    `frequency` [P, L] adds up to 1 over precisions for a layer that computes. `deviation` [L] is
    that of the total score over the draws. `measured_share` is the share of the weights that
    belongs to scores measured on samples: 0 where nothing can vary.
    """

    frequency: Doubles
    deviation: Doubles
    measured_share: float
    samples: int

    def of(self, chosen: PrecisionMap) -> Doubles:
        """Share of the draws that agree with `chosen` on each layer, (L,); NaN where it does
        nothing.
        """
        codes = chosen.codes.astype(np.int64)
        agreed = self.frequency[np.maximum(codes, 0), np.arange(len(codes))]
        return np.where(codes == NO_PRECISION, np.nan, agreed)


def stability(
    layers: LayerTable,
    table: Mapping[str, Doubles],
    resampled: Resampled,
    policy: Policy,
    precisions: tuple[str, ...],
    unknown: Unmeasured | None = None,
) -> Stability:
    """Decide `policy` for every draw, all at once. `table` holds the scores of all samples."""
    shares = policy.normalised_weights()
    varying = {name: s for name, s in shares.items() if name in resampled.scores}
    every = {
        name: resampled.scores[name] if name in varying else table[name]
        for name in shares
        if name in table
    }
    total = np.atleast_2d(total_scores(every, policy, len(layers)))
    codes = _decided(layers, total, policy, precisions, unknown)
    frequency = np.stack([(codes == c).mean(axis=0) for c in range(len(precisions))])
    return Stability(frequency, total.std(axis=0), sum(varying.values()), resampled.samples)


def _decided(
    layers: LayerTable, total: Doubles, policy: Policy, precisions: tuple[str, ...],
    unknown: Unmeasured | None = None,
) -> NDArray[np.int8]:  # fmt: skip
    """Codes (R, L) of every draw's scores, by the rules of `decide`."""
    code = {name: i for i, name in enumerate(precisions)}
    lacking = without_kernel(layers, precisions)
    if policy.strategy == "thresholds":
        by_level = [code[policy.low], code[policy.medium], code[policy.high]]
        codes = np.array(by_level, dtype=np.int8)[levels(total, policy)]
    elif policy.strategy == "top-k":
        codes = np.full(total.shape, code[policy.high], dtype=np.int8)
        movable = np.flatnonzero(layers.computes & ~lacking[code[policy.low]])
        order = np.argsort(total[:, movable], axis=1, kind="stable")[:, : policy.top_k]
        np.put_along_axis(codes, movable[order], np.int8(code[policy.low]), axis=1)
    else:
        wanted = policy.uniform if policy.strategy == "uniform" else policy.high
        codes = np.full(total.shape, code[wanted], dtype=np.int8)
    widths = sorted(registry.width(name) for name in precisions)
    rank = np.array([widths.index(registry.width(name)) for name in precisions])
    groups, _ = groups_of(layers, policy.groups)
    for group in groups:
        members = [i for i in group if layers.computes[i]]
        if members:
            held = codes[:, leading(group, layers)]
            first = rank[held].argmax(axis=1)[:, None]
            codes[:, members] = np.take_along_axis(held, first, axis=1)
    may = check_allowed(policy.allowed, precisions)
    home = homes(layers, precisions, served(may, lacking, unknown), groups)
    stay_behind(codes, lacking, home)
    if policy.strategy != "uniform":
        hold_back(codes, layers, unknown, groups, home)
    for hits, precision, _ in pattern_hits(policy.pins, layers.names):
        codes[:, hits] = code[precision]
    for name, precision in policy.overrides:
        if name in layers.index:
            codes[:, layers.index[name]] = code[precision]
    codes[:, ~layers.computes] = NO_PRECISION
    return codes


def settling(found: Stability, chosen: PrecisionMap, layer: int) -> str:
    """Whether more samples are needed to settle the precision of `layer`, in a sentence.

    Empty for a layer that does nothing. How many is a projection: the deviation of a score falls
    with the root of the samples, and 1.645 deviations have to fit between it and the threshold.
    """
    share = float(found.of(chosen)[layer])
    if math.isnan(share):
        return ""
    name = chosen.assigned[layer]
    if not found.measured_share:
        return "The scores in use are rules and weights, which no sample can change."
    said = f"{name} in {share:.0%} of resamples"
    if share >= SETTLED:
        return f"{said}: {found.samples:,} samples are enough to settle it."
    policy = chosen.policy
    if policy.strategy == "thresholds" and found.deviation[layer] > 0:
        borders = (
            (policy.high_threshold, policy.high != policy.medium),
            (policy.medium_threshold, policy.medium != policy.low),
        )
        own = float(chosen.scores[layer])
        gap = min((abs(own - at) for at, matters in borders if matters), default=0.0)
        times = (1.645 * float(found.deviation[layer]) / gap) ** 2 if gap > 0 else math.inf
        if times <= FEW_TIMES:
            wanted = math.ceil(times * found.samples / 100) * 100
            return f"{said}: more samples are needed to settle it, roughly {wanted:,} (projected)."
        return f"{said}: its score lies on a threshold, where more samples settle little."
    return f"{said}: more samples are needed to settle it."
