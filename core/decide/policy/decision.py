"""The decision: controls and evidence in, a precision map out. Pure and fast.

Precedence: a layer's override beats a pin (the last that matches wins), which beats a group (its
layers take the widest precision that the strategy gives any of them), which beats the strategy.
Layers that do nothing at inference get no precision. A strategy gives a layer no precision in
which it was not measured yet (`core.decide.policy.unmeasured`), none of integers that the target
has nothing for (`core.decide.policy.kernels`), and none that a person left out while another serves
(`core.decide.policy.allowed`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.allowed import allowed_in_words, check_allowed, homes, served
from core.decide.policy.budget import bounds_in_words
from core.decide.policy.grouping import groups_of
from core.decide.policy.kernels import NO_KERNEL, leading, stay_behind, without_kernel
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import HIGH, LEVELS, LOW, levels, total_scores
from core.decide.policy.unmeasured import Unmeasured, hold_back
from core.errors import PolicyError
from core.evidence.scorers import priors
from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.states import state_in

NO_PRECISION = -1
BY_STRATEGY, BY_PIN, BY_OVERRIDE, BY_LACK, BY_KERNEL = range(5)


@dataclass(frozen=True, eq=False)
class PrecisionMap:
    """One precision for each layer, with why.

    `codes` index `precisions`, -1 for a layer that does nothing. `origin` says what decided:
    0 the strategy, 1 a pin, 2 an override, 3 that the layer was not measured yet in what the
    strategy would choose, 4 that the target has nothing in integers for it. `ignored` lists pins and
    overrides that matched no layer.
    """

    layers: LayerTable
    precisions: tuple[str, ...]
    codes: NDArray[np.int8]
    scores: NDArray[np.float64]
    levels: NDArray[np.int8]
    origin: NDArray[np.int8]
    policy: Policy
    ignored: tuple[str, ...] = ()

    @cached_property
    def by_layer(self) -> dict[str, str | None]:
        """Layer name -> precision name; None for a layer that does nothing."""
        return dict(zip(self.layers.names, self.assigned, strict=True))

    @cached_property
    def assigned(self) -> tuple[str | None, ...]:
        """Precision name of each layer in order; None where the layer does nothing."""
        return tuple(self.precisions[c] if c >= 0 else None for c in self.codes)

    @cached_property
    def split_groups(self) -> tuple[tuple[int, ...], ...]:
        """Layers that compute of each group that pins or overrides took apart."""
        found, _ = groups_of(self.layers, self.policy.groups)
        lacks = np.logical_or.reduce(without_kernel(self.layers, self.precisions))
        groups = (
            tuple(
                i for i in group if self.codes[i] >= 0 and not (lacks[i] and self._stays_behind(i))
            )
            for group in found
        )
        return tuple(group for group in groups if len({int(self.codes[i]) for i in group}) > 1)

    def _stays_behind(self, i: int) -> bool:
        """Whether layer `i`, which something measured means nothing for, waits: in the reference, or
        where that is not allowed, wherever no rule put it.
        """
        ruled = self.origin[i] in (BY_PIN, BY_OVERRIDE)
        waits = not ruled and not self.policy.allows(registry.REFERENCE)
        return bool(self.codes[i] == 0 or waits)

    def count(self, precision: str) -> int:
        """How many layers are in `precision`."""
        return sum(1 for name in self.assigned if name == precision)

    @cached_property
    def outside(self) -> tuple[int, ...]:
        """Layers in a precision that the policy does not allow: by a rule, or since nothing allowed
        serves them.
        """
        allows = self.policy.allows
        return tuple(i for i, p in enumerate(self.assigned) if p is not None and not allows(p))

    def document_precision(self, i: int) -> str:
        """What the reference document would write for layer `i`: FP16 for HIGH, else INT8, a
        layer that does nothing included.
        """
        return "FP16" if self.levels[i] == HIGH else "INT8"

    def reason(self, i: int) -> str:
        """Why layer `i` has its precision, in one sentence."""
        layer = self.layers.layers[i]
        if layer.folded_into:
            return f"Folded into {layer.folded_into}, whose weights and bias hold its factors."
        if self.codes[i] == NO_PRECISION:
            return f"{layer.idles} at inference, so it has no precision."
        name, level = self.assigned[i], LEVELS[self.levels[i]]
        if self.origin[i] in (BY_OVERRIDE, BY_PIN):
            set_by = (
                "Set to {} by hand" if self.origin[i] == BY_OVERRIDE else "Pinned to {} by a rule"
            )
            lacks = state_in(layer, registry.get(str(name))) == "float"
            vain = f", where it runs in {registry.REFERENCE}: {NO_KERNEL}" if lacks else ""
            return f"{set_by.format(name)}{vain}."
        if self.origin[i] == BY_KERNEL:
            return f"Stays in {name}: {NO_KERNEL}."
        if self.origin[i] == BY_LACK:
            return f"Stays in {name}: not measured yet in what the strategy would choose."
        if not self.policy.allows(str(name)):
            allowed = allowed_in_words(self.policy.allowed)
            return f"Stays in {name}: nothing of what is allowed ({allowed}) serves it."
        score = f"score {self.scores[i]:.3f}"
        if i in self.layers.group_of and self.policy.strategy != "budget":
            return f"{name}, the widest that the strategy gives a layer of its group ({score})."
        why = priors.reason(layer.role)
        if self.policy.strategy == "thresholds":
            return f"{level} ({score}): {why}."
        if self.policy.strategy == "top-k":
            place = int((self.scores < self.scores[i]).sum()) + 1
            return f"Place {place} from the least sensitive ({score}): {why}."
        if self.policy.strategy == "uniform":
            return f"Every layer is {name}."
        if self.policy.strategy == "budget":
            return f"{name} in the best map found with {bounds_in_words(self.policy.budgets)}."
        return f"{name} unless set by hand."


def pattern_hits(
    rules: tuple[tuple[str, str], ...], names: tuple[str, ...]
) -> list[tuple[NDArray[np.int64], str, str]]:
    """Positions of the layers that each wildcard matches, its precision, and the wildcard."""
    found = []
    for pattern, precision in rules:
        # fnmatchcase would translate the pattern once per name
        matches = re.compile(fnmatch.translate(pattern)).match
        hits = np.fromiter((i for i, name in enumerate(names) if matches(name)), dtype=np.int64)
        found.append((hits, precision, pattern))
    return found


def decide(
    layers: LayerTable,
    table: Mapping[str, NDArray[np.float64]],
    policy: Policy,
    precisions: tuple[str, ...],
    unknown: Unmeasured | None = None,
) -> PrecisionMap:
    """The map that `policy` gives for scores `table`.

    `precisions` are those the analysis can speak of, the reference first; `unknown` [P, L] are
    pairs of them and layers that were not measured yet. Raises `PolicyError` when the policy asks
    for another one, or for a scorer without scores.
    """
    code = {name: i for i, name in enumerate(precisions)}

    def code_of(name: str) -> int:
        if name not in code:
            raise PolicyError(
                f"This analysis holds no evidence for {name}.",
                f"Use one of {', '.join(precisions)}, or analyze the model with {name}.",
            )
        return code[name]

    scores = total_scores(table, policy, len(layers))
    level = levels(scores, policy)
    may = check_allowed(policy.allowed, precisions)
    lacking = without_kernel(layers, precisions)
    if policy.strategy == "thresholds":
        by_level = [code_of(policy.low), code_of(policy.medium), code_of(policy.high)]
        codes = np.array(by_level, dtype=np.int8)[level]
    elif policy.strategy == "top-k":
        codes = np.full(len(layers), code_of(policy.high), dtype=np.int8)
        order = np.argsort(scores, kind="stable")
        movable = order[(layers.computes & ~lacking[code_of(policy.low)])[order]]
        codes[movable[: policy.top_k]] = code_of(policy.low)
    else:
        wanted = policy.uniform if policy.strategy == "uniform" else policy.high
        codes = np.full(len(layers), code_of(wanted), dtype=np.int8)
    groups, strangers = groups_of(layers, policy.groups)
    _move_together(codes, layers, groups, precisions)
    origin = np.zeros(len(layers), dtype=np.int8)
    home = homes(layers, precisions, served(may, lacking, unknown), groups)
    origin[stay_behind(codes, lacking, home)] = BY_KERNEL
    if policy.strategy != "uniform":  # a person named the one precision that every layer gets
        origin[hold_back(codes, layers, unknown, groups, home)] = BY_LACK
    ignored = list(strangers)
    for hits, precision, pattern in pattern_hits(policy.pins, layers.names):
        codes[hits], origin[hits] = code_of(precision), BY_PIN
        if not len(hits):
            ignored.append(pattern)
    for name, precision in policy.overrides:
        position = layers.index.get(name)
        if position is None:
            ignored.append(name)
            continue
        codes[position], origin[position] = code_of(precision), BY_OVERRIDE
    codes[~layers.computes] = NO_PRECISION
    return PrecisionMap(layers, precisions, codes, scores, level, origin, policy, tuple(ignored))


def _move_together(
    codes: NDArray[np.int8], layers: LayerTable, groups: tuple[tuple[int, ...], ...],
    precisions: tuple[str, ...],
) -> None:  # fmt: skip
    """Give the layers of each group the widest precision among them. Mutates `codes`."""
    for group in groups:
        members = [i for i in group if layers.computes[i]]
        if members:
            codes[members] = max(
                (codes[i] for i in leading(group, layers)),
                key=lambda c: registry.width(precisions[c]),
            )


def sides(precision_map: PrecisionMap) -> dict[str, int]:
    """Number of layers at each level: what lies on each side of the thresholds."""
    counts = np.bincount(precision_map.levels, minlength=len(LEVELS))
    return {LEVELS[i]: int(counts[i]) for i in range(LOW, HIGH + 1)}
