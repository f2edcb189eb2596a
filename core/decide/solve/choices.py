"""What a search may choose: layers that move together, and the precisions open to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.allowed import check_allowed, homes, served
from core.decide.policy.decision import BY_LACK, BY_OVERRIDE, BY_PIN, NO_PRECISION, pattern_hits
from core.decide.policy.grouping import groups_of
from core.decide.policy.kernels import without_kernel
from core.decide.policy.policy import Policy
from core.decide.policy.unmeasured import unmeasured
from core.errors import PolicyError
from core.evidence.evidence import Evidence
from core.layers import LayerTable


@dataclass(frozen=True, eq=False)
class Choices:
    """Units of layers that move together.

    `members` are the layers of each unit [U], `options` [P, U] the precisions open to it,
    `fixed` [L] the codes of layers that rules decided (-1 where a layer does nothing, 0 where
    the search decides), `origin` [L] and `ignored` as in a `PrecisionMap`. `lacking` [P, L] are
    pairs for which the target has nothing: there a layer of a unit waits in its `home` [L], the
    reference where that is allowed.
    """

    members: tuple[NDArray[np.int64], ...]
    options: NDArray[np.bool_]
    fixed: NDArray[np.int8]
    origin: NDArray[np.int8]
    ignored: tuple[str, ...]
    unit_of: NDArray[np.int64]  # [L]; -1 where rules decided
    lacking: NDArray[np.bool_]
    home: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.members)

    def codes(self, picked: NDArray[np.int64]) -> NDArray[np.int8]:
        """Codes (L,) of the map that gives unit u the precision `picked[u]`."""
        return np.asarray(self.codes_of(picked[None])[0])

    def codes_of(self, picked: NDArray[np.int64]) -> NDArray[np.int8]:
        """Codes (M, L) of maps, from the precision of each unit (M, U)."""
        free = np.flatnonzero(self.unit_of >= 0)
        codes = np.repeat(self.fixed[None], len(picked), axis=0)
        codes[:, free] = self.got(picked[:, self.unit_of[free]], free)
        return codes

    def got(self, codes: NDArray[np.int64], layers: NDArray[np.int64]) -> NDArray[np.int64]:
        """What `layers` [...] of units that go to `codes` [...] get: what serves them."""
        return np.where(self.lacking[codes, layers], self.home[layers], codes)

    def picked(self, codes: NDArray[np.int8]) -> NDArray[np.int64]:
        """The precision of each unit (U,) under `codes`."""
        return codes[self._first].astype(np.int64)

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """The first layer of each unit that integers mean something for, else its first."""
        behind = np.asarray(self.lacking.any(axis=0))
        return np.array([u[int(behind[u].argmin())] for u in self.members], dtype=np.int64)

    def summed(self, by_layer: NDArray[np.floating]) -> NDArray[np.float64]:
        """Figures by precision and layer (P, L) added up over units, (P, U)."""
        free = np.flatnonzero(self.unit_of >= 0)
        found = np.zeros((len(by_layer), len(self.members)))
        every = np.arange(by_layer.shape[1])
        waiting = by_layer[self.home, every]
        for row, figures in zip(found, np.where(self.lacking, waiting, by_layer), strict=True):
            row[:] = np.bincount(self.unit_of[free], figures[free], len(self.members))
        return found


def choices(
    layers: LayerTable, evidence: Evidence, policy: Policy, precisions: tuple[str, ...]
) -> Choices:
    """What `policy` leaves open. A pin or override takes its layers out of their groups.

    A pair that was not measured yet is not open, nor integers for which the target has nothing, nor
    what is not allowed; the reference is open to what nothing else is.
    Raises `PolicyError` for a precision without evidence, and for rules that leave a layer only pairs
    that are not known or not finite.
    """
    count = len(layers)
    code = {name: i for i, name in enumerate(precisions)}
    fixed = np.zeros(count, dtype=np.int8)
    origin = np.zeros(count, dtype=np.int8)
    ignored: list[str] = []
    for hits, name, pattern in pattern_hits(policy.pins, layers.names):
        fixed[hits], origin[hits] = _code(code, name), BY_PIN
        if not len(hits):
            ignored.append(pattern)
    for layer, name in policy.overrides:
        position = layers.index.get(layer)
        if position is None:
            ignored.append(layer)
            continue
        fixed[position], origin[position] = _code(code, name), BY_OVERRIDE
    fixed[~layers.computes] = NO_PRECISION
    finite = np.concatenate([np.ones((1, count), np.bool_), evidence.allowed])
    ruled = np.flatnonzero((origin > 0) & (fixed >= 0))
    bad = ruled[~finite[fixed[ruled], ruled]]
    if len(bad):
        i = int(bad[0])
        raise PolicyError(
            f"A rule sets {layers.names[i]} to {precisions[fixed[i]]}, where the outputs are not "
            "finite: no loss can be projected.",
            "Take the rule away, or give the layer another precision.",
        )
    free = layers.computes & (origin == 0)
    groups, strangers = groups_of(layers, policy.groups)
    units = _units(np.flatnonzero(free), groups)
    unit_of = np.full(count, -1, dtype=np.int64)
    for number, unit in enumerate(units):
        unit_of[unit] = number
    unknown = unmeasured(layers, evidence)
    lacking = without_kernel(layers, precisions)
    may = check_allowed(policy.allowed, precisions)
    open_to = served(may, ~finite, unknown)
    if unknown is not None:
        _refuse_unknown(unknown, fixed, ruled, layers, precisions)
        held = free & ~open_to[1:].any(axis=0) & unknown[may].any(axis=0)
        origin[held] = BY_LACK
    options = np.ones((len(precisions), len(units)), np.bool_)
    for number, unit in enumerate(units):
        behind = lacking[:, unit] & may[:, None]
        options[:, number] = (open_to[:, unit] | behind).all(axis=1) & ~behind.all(axis=1)
    options[0, ~options.any(axis=0)] = True
    home = homes(layers, precisions, open_to & ~lacking, ())
    return Choices(
        tuple(units), options, fixed, origin, (*strangers, *ignored), unit_of, lacking, home
    )


def _refuse_unknown(
    unknown: NDArray[np.bool_], fixed: NDArray[np.int8], ruled: NDArray[np.int64],
    layers: LayerTable, precisions: tuple[str, ...],
) -> None:  # fmt: skip
    """Raise `PolicyError` where a rule names a pair that was not measured yet."""
    bad = ruled[unknown[fixed[ruled], ruled]]
    if len(bad):
        i = int(bad[0])
        raise PolicyError(
            f"A rule sets {layers.names[i]} to {precisions[fixed[i]]}, which was not measured yet: "
            "no loss can be projected.",
            "Take the rule away, or wait until the layer is measured.",
        )


def _code(code: dict[str, int], name: str) -> int:
    if name not in code:
        raise PolicyError(
            f"This analysis holds no evidence for {name}.",
            f"Use one of {', '.join(code)}, or analyze the model with {name}.",
        )
    return code[name]


def _units(free: NDArray[np.int64], groups: Iterable[tuple[int, ...]]) -> list[NDArray[np.int64]]:
    """Free layers in units, in the order of their first layer."""
    alone = {int(i): [int(i)] for i in free}
    for group in groups:
        members = sorted(i for i in group if i in alone)
        for other in members[1:]:
            alone[members[0]] += alone.pop(other)
    return [np.array(unit, dtype=np.int64) for _, unit in sorted(alone.items())]
