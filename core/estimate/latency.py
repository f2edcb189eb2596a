"""Estimated latency of a map for one sample: a roofline per layer, and a price per boundary.

A layer takes the longer of computing and moving its bytes (roofline; Williams, Waterman and
Patterson 2009, doi:10.1145/1498765.1498785), plus the overhead of its launch. Where the form in
which a layer leaves its output differs from the form the next one takes it in, the values are
converted: they are read and written once more, and one more kernel is launched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.estimate.hardware import Hardware
from core.layers import Layer, LayerTable
from core.numerics import precision as registry
from core.numerics.precision import Precision
from core.numerics.states import state_in
from core.numerics.storage import FLOAT_BYTES
from core.quantity import Quantity

INT_BYTES = 1
US_PER_S = 1e6
MS_PER_S = 1e3
CACHED_CODES = 250_000
"""Layers of maps that are timed together: what a processor keeps close by."""

QUANTIZED = "q8"
"""The form of a tensor of unsigned 8-bit integers with a scale and zero point."""


@dataclass(frozen=True, slots=True)
class LatencyEstimate:
    """Total with its range, and where it goes. `boundaries` counts converted tensors."""

    total: Quantity
    layers_ms: NDArray[np.float64]  # (L,)
    boundaries_ms: float
    boundaries: int


@dataclass(frozen=True, eq=False)
class Crossings:
    """Edges [E] of the data flow with the price of a conversion on each, and the form, a number
    from 0 (the reference), in which each layer leaves and takes values [P, L].

    Nodes from L on are joins, `into_joins` their sources; a join runs in the form that all of
    them leave, or in form 0 where they differ or are `quantized`. Of each pair of `kernels` the
    second layer costs nothing and has the form of the first where both are in one precision, or
    the first in one of those that `integer` [P] marks.
    """

    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    ms: NDArray[np.float64]
    leaves: NDArray[np.int8]
    takes: NDArray[np.int8]
    into_joins: tuple[tuple[int, ...], ...]
    quantized: int
    kernels: tuple[tuple[int, int], ...]
    integer: NDArray[np.bool_]


def _runs_as(precision: Precision, hardware: Hardware) -> str:
    if hardware.has_kernels_for(precision.name):
        return precision.name
    in_integers = precision.is_calibrated or precision.is_dynamic
    if in_integers and hardware.has_kernels_for("INT8"):
        return "INT8"
    return registry.REFERENCE


def _forms(layer: Layer, precision: Precision, hardware: Hardware) -> tuple[str, str]:
    """The form a layer takes its input in, and the form it leaves its output in."""
    if precision.is_cast:
        native = hardware.has_kernels_for(precision.name)
        form = precision.name if native else registry.REFERENCE
        return form, form
    if precision.is_scaled:
        native = hardware.has_kernels_for(precision.name)
        computes = native and state_in(layer, precision) == "computes"
        return precision.name if computes else registry.REFERENCE, registry.REFERENCE
    if not precision.is_calibrated:
        return registry.REFERENCE, registry.REFERENCE
    rounds_input = layer.state in {"computes", "rounds input"} and not layer.dynamic
    takes = QUANTIZED if rounds_input else registry.REFERENCE
    leaves = QUANTIZED if layer.quantizes_output else registry.REFERENCE
    return takes, leaves


class LatencyModel:
    """Latency of any map of one model on one device; built once, evaluated per map."""

    def __init__(
        self, layers: LayerTable, sizes: NDArray[np.int64], precisions: tuple[str, ...],
        hardware: Hardware,
    ) -> None:  # fmt: skip
        chosen = [registry.get(name) for name in precisions]
        shape = (len(chosen), len(layers))
        bandwidth = hardware.bandwidth_gb_per_s * 1e9
        self._work_s = {level: np.zeros(shape) for level in ("low", "typical", "high")}
        self._fixed_s = np.zeros(shape)
        takes = np.zeros(shape, dtype=np.int8)
        leaves = np.zeros(shape, dtype=np.int8)
        forms = {registry.REFERENCE: 0}
        for p, precision in enumerate(chosen):
            for i, layer in enumerate(layers):
                taken, left = _forms(layer, precision, hardware)
                takes[p, i] = forms.setdefault(taken, len(forms))
                leaves[p, i] = forms.setdefault(left, len(forms))
                if layer.state == "nothing":
                    continue
                moved, fixed = _traffic(layer, precision, hardware, int(sizes[p, i]))
                has_kernel = state_in(layer, precision) == "computes"
                runs_as = _runs_as(precision, hardware) if has_kernel else registry.REFERENCE
                peak = hardware.peak_gmac_per_s[runs_as] * 1e9
                for level, work in self._work_s.items():
                    share = getattr(hardware.efficiency, level)
                    work[p, i] = max(layer.macs / (peak * share), moved / (bandwidth * share))
                self._fixed_s[p, i] = fixed
        self._own_s = self._work_s["typical"] + self._fixed_s
        self._takes, self._leaves = takes, leaves
        self._integer = np.array([precision.is_calibrated for precision in chosen])
        pairs = layers.kernels
        self._before = np.array([a for a, _ in pairs], dtype=np.int64)
        self._behind = np.array([b for _, b in pairs], dtype=np.int64)
        self._quantized = forms.get(QUANTIZED, -1)
        first_join = len(layers)
        self._into_joins = [
            [e.source for e in layers.edges if e.target == first_join + k]
            for k in range(layers.joins)
        ]
        self._sources = np.array([e.source for e in layers.edges], dtype=np.int64)
        self._targets = np.array([e.target for e in layers.edges], dtype=np.int64)
        elements = np.array([e.elements for e in layers.edges], dtype=np.float64)
        per_edge = elements * (FLOAT_BYTES + INT_BYTES) / bandwidth
        self._boundary_s = per_edge / hardware.efficiency.typical
        self._boundary_s += hardware.boundary_us / US_PER_S

    def estimate(self, codes: NDArray[np.int8]) -> LatencyEstimate:
        """Latency with layer i in precision `codes[i]`; -1 (no computation) costs nothing."""
        active = codes >= 0
        row = np.where(active, codes, 0)
        column = np.arange(len(codes))
        fixed = np.where(active, self._fixed_s[row, column], 0.0)
        layers_s = {
            level: np.where(active, work[row, column], 0.0) + fixed
            for level, work in self._work_s.items()
        }
        crossing, silent = self.changes(codes)
        for part in layers_s.values():
            part[silent] = 0.0
        boundaries_s = float(self._boundary_s[crossing].sum())
        total = {level: (float(s.sum()) + boundaries_s) * MS_PER_S for level, s in layers_s.items()}
        return LatencyEstimate(
            total=Quantity(total["typical"], "ms", "estimated", total["high"], total["low"]),
            layers_ms=layers_s["typical"] * MS_PER_S,
            boundaries_ms=boundaries_s * MS_PER_S,
            boundaries=int(crossing.sum()),
        )

    def changes(self, codes: NDArray[np.int8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Edges [E] on which a tensor is converted, and layers [L] that run in another's kernel."""
        active = codes >= 0
        row, column = np.where(active, codes, 0), np.arange(len(codes))
        leaves, takes = self._leaves[row, column], self._takes[row, column]
        merged = self._merged(codes)
        left = leaves[self._before[merged]]
        leaves[self._behind[merged]] = takes[self._behind[merged]] = left
        joined = self._join_forms(leaves)
        leaves = np.concatenate([leaves, joined])[self._sources]
        takes = np.concatenate([takes, joined])[self._targets]
        running = np.concatenate([active, np.ones(len(joined), np.bool_)])
        crossing = (leaves != takes) & running[self._sources] & running[self._targets]
        silent = np.zeros(len(codes), np.bool_)
        silent[self._behind[merged]] = True
        return crossing, silent

    def times_ms(self, codes: NDArray[np.int8]) -> NDArray[np.float64]:
        """Typical latency of many maps at once: codes (C, L) -> milliseconds (C,).

        The same figures as `estimate(...).total.value`, for searches that try many maps.
        """
        together = max(1, CACHED_CODES // max(codes.shape[1], 1))
        starts = range(0, max(len(codes), 1), together)
        found = [self._times_s(codes[start : start + together]) for start in starts]
        return np.asarray(np.concatenate(found) * MS_PER_S)

    def _times_s(self, codes: NDArray[np.int8]) -> NDArray[np.float64]:
        """Seconds of maps (C,). Precisions are added up as small integers, which takes a fraction
        of the time of looking up each layer's.
        """
        at = np.ascontiguousarray(codes.T)  # [L, C]
        layers, maps = at.shape
        leaves = np.zeros((layers + len(self._into_joins), maps), np.int8)
        takes = np.zeros_like(leaves)
        total, spared = np.zeros(maps), np.zeros((len(self._behind), maps))
        for p, own in enumerate(self._own_s):
            here = (at == p).view(np.int8)
            leaves[:layers] += self._leaves[p, :, None] * here
            takes[:layers] += self._takes[p, :, None] * here
            total += own @ here.astype(np.float64)
            spared += own[self._behind, None] * here[self._behind]
        merged = self._merged(at)
        total -= (spared * merged).sum(axis=0)
        before = leaves[self._before]
        leaves[self._behind] = np.where(merged, before, leaves[self._behind])
        takes[self._behind] = np.where(merged, before, takes[self._behind])
        for join, sources in enumerate(self._into_joins, layers):
            if sources:
                first = leaves[sources[0]]
                agreed = (leaves[sources] == first).all(axis=0) & (first != self._quantized)
                leaves[join] = first * agreed
        takes[layers:] = leaves[layers:]
        running = np.ones(leaves.shape, np.bool_)
        running[:layers] = at >= 0
        crossing = leaves[self._sources] != takes[self._targets]
        crossing &= running[self._sources] & running[self._targets]
        return np.asarray(total + self._boundary_s @ crossing.astype(np.float64))

    def crossings(self) -> Crossings:
        """What the boundaries between layers cost, as data for programmes that search."""
        return Crossings(
            self._sources, self._targets, self._boundary_s * MS_PER_S, self._leaves, self._takes,
            tuple(tuple(sources) for sources in self._into_joins), self._quantized,
            tuple(zip(self._before.tolist(), self._behind.tolist(), strict=True)), self._integer,
        )  # fmt: skip

    def own_ms(self) -> NDArray[np.float64]:
        """Typical milliseconds of every layer in every precision, boundaries left out (P, L)."""
        return np.asarray(self._own_s * MS_PER_S)

    def _merged(self, codes: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Which activations run in the kernel of the convolution before them: those in the same
        precision, and all behind an integer kernel, which rounds what the activation lets through.
        """
        before, behind = codes[self._before], codes[self._behind]
        found: NDArray[np.bool_] = (before == behind) | self._integer[before]
        return found

    def _join_forms(self, leaves: NDArray[np.int8]) -> NDArray[np.int8]:
        """The form in which each join runs: that of its producers if they agree on a float
        format, else the reference (form 0), in which a runtime adds what differs.
        """
        nodes = leaves.tolist()
        for sources in self._into_joins:
            found = {nodes[source] for source in sources}
            form = found.pop() if len(found) == 1 else 0
            nodes.append(0 if form == self._quantized else form)
        return np.array(nodes[len(leaves) :], dtype=np.int8)


def _traffic(
    layer: Layer, precision: Precision, hardware: Hardware, stored_bytes: int
) -> tuple[float, float]:
    """Bytes moved by a layer and its fixed cost in seconds."""
    values = layer.input_elements + layer.output_elements
    fixed = hardware.overhead_us / US_PER_S
    if precision.is_calibrated:
        read = INT_BYTES if layer.state == "computes" else FLOAT_BYTES
        moved = layer.input_elements * read + layer.output_elements * FLOAT_BYTES + stored_bytes
        if layer.dynamic:  # it takes floats and quantizes them itself
            moved += layer.input_elements * (FLOAT_BYTES + INT_BYTES)
            fixed += hardware.boundary_us / US_PER_S
        if layer.quantizes_output:  # the float result is written once more, as integers
            moved += layer.output_elements * INT_BYTES
            fixed += 0.0 if layer.state == "computes" else hardware.boundary_us / US_PER_S
        return moved, fixed
    state = state_in(layer, precision)
    if precision.is_dynamic and state == "computes":  # it quantizes what it takes in
        moved = layer.input_elements * (INT_BYTES + FLOAT_BYTES + INT_BYTES)
        moved += layer.output_elements * FLOAT_BYTES + stored_bytes
        return moved, fixed + hardware.boundary_us / US_PER_S
    if precision.is_scaled and state == "computes" and hardware.has_kernels_for(precision.name):
        taken = layer.input_elements * INT_BYTES
        return taken + layer.output_elements * FLOAT_BYTES + stored_bytes, fixed
    if not precision.is_cast and (state == "float" or not precision.is_scaled):
        # In a format of weights alone its product unpacks what it reads.
        return values * FLOAT_BYTES + stored_bytes, fixed
    if hardware.has_kernels_for(precision.name):
        return values * precision.bytes_per_weight + stored_bytes, fixed
    # No kernels: everything is cast up on the way in and down on the way out, and what is stored
    # is read in the width that the kernel computes in.
    casts = values * (FLOAT_BYTES + precision.bytes_per_weight)
    held = stored_bytes * FLOAT_BYTES / precision.bytes_per_weight
    return values * FLOAT_BYTES + held + casts, fixed + 2 * hardware.boundary_us / US_PER_S
