"""A layer table as another scheme sees it: states, what is stored, what is rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.layers import Layer, LayerTable, State, TensorSpec
from core.numerics import kernel_table
from core.numerics.calibrate.calibration import OUTPUT, Calibration
from core.numerics.precision import FP32, INT8, Precision
from core.numerics.scheme import ONE_NORM, Scheme


def states(layers: Iterable[Layer], scheme: Scheme) -> tuple[State, ...]:
    """What INT8 means for each of `layers` under `scheme`, whichever they were measured under."""
    return tuple(kernel_table.state(scheme.name, kernel_table.runs(x), x.kind) for x in layers)


def state_in(layer: Layer, precision: Precision) -> State:
    """What `precision` means for `layer` under the scheme that its `state` speaks of."""
    if layer.state == "nothing" or precision.is_cast:
        return "nothing" if layer.state == "nothing" else "computes"
    if precision.is_calibrated:
        return layer.state
    if precision.is_scaled:
        return "computes" if layer.takes_scales else "float"
    if precision.is_dynamic:
        if not layer.takes_dynamic:
            return "float"
        return "computes" if layer.packs_products or layer.dynamic else "stores"
    return "computes" if layer.in_groups else "float"


def sets_ranges(layer: Layer, precision: Precision) -> bool:
    """Whether the kernel of `layer` in `precision` sets ranges of activations while it runs."""
    if layer.dynamic:
        return precision.is_calibrated or precision.is_dynamic
    return precision.is_dynamic and layer.packs_products


def kept_as(layer: Layer, precision: Precision) -> Precision:
    """The precision whose storage `layer` has in `precision`: where its kernel sets ranges while it
    runs in any case, INT8 is that already; and what multiplies no floats over scales keeps floats.
    """
    if precision.is_scaled and not layer.takes_scales:
        return FP32
    return INT8 if precision.is_dynamic and layer.dynamic else precision


def lacking(layers: LayerTable, precisions: Iterable[Precision]) -> NDArray[np.bool_]:
    """[P, L]: True where a precision means for a layer what the reference does: `state_in` is float,
    for all layers at once.
    """
    none = np.zeros(len(layers), np.bool_)
    by_route = {
        "cast": none,
        "calibrated": layers.in_float,
        "scaled": layers.computes & ~layers.takes_scales,
        "dynamic": layers.computes & ~layers.takes_dynamic,
        "weights": layers.computes & ~layers.takes_groups,
    }
    rows = [by_route[p.route] for p in precisions]
    return np.array(rows, np.bool_).reshape(len(rows), len(layers))


PACKS = ("linear", "matmul", "embedding")
"""What layers run, as rows of the table of kernels, whose weights formats by groups take."""
WHOLE_BYTES = 4
"""Rows of a table are packed where so many values divide them: those take whole bytes in 2, 4 and 8
bits."""


def with_groups(
    tensors: Iterable[TensorSpec], runs: str, apart: Collection[str] = ()
) -> tuple[TensorSpec, ...]:
    """The tensors of a layer that `runs` such a row of the table of kernels, with the axis along
    which formats of weights alone have groups: of matrices that products read, and of tables along
    their rows, not those `apart`.
    """

    def axis(spec: TensorSpec) -> int:
        if len(spec.shape) != 2 or spec.width or spec.name in apart or runs not in PACKS:
            return -1
        if spec.kind == "table":
            return 1 if spec.shape[1] % WHOLE_BYTES == 0 else -1
        is_matrix = spec.kind == "weight" and spec.shape[spec.channel_axis] == spec.channels
        return 1 - spec.channel_axis if is_matrix else -1

    return tuple(replace(spec, group_axis=axis(spec)) for spec in tensors)


def under(layers: LayerTable, scheme: Scheme) -> LayerTable:
    """`layers`, an inventory, with states, stored tensors and rounded outputs of `scheme`.

    The numbers of scales stay as they were: see `with_sites`.
    """
    if scheme.name == kernel_table.DEFAULT:
        return layers
    found = [
        replace(
            layer,
            state=state,
            tensors=tuple(_stored(spec, layer, state, scheme) for spec in layer.tensors),
            quantizes_output=_rounds_output(layer, state, scheme),
            dynamic=kernel_table.is_dynamic(scheme.name, kernel_table.runs(layer), layer.kind),
        )
        for layer, state in zip(layers, states(layers, scheme), strict=True)
    ]
    return replace(layers, layers=tuple(found))


def with_sites(layers: LayerTable, ranges: Iterable[Calibration]) -> LayerTable:
    """`layers` with as many scales as each has calibrated activations, and those of its products."""
    ranges = tuple(ranges)
    sites = Counter(one.layer for one in ranges)
    taken = Counter(r.layer for r in ranges if r.operation >= 0 and r.operand != OUTPUT)
    found = [
        replace(x, activation_scales=sites[x.name], product_scales=taken[x.name]) for x in layers
    ]
    return replace(layers, layers=tuple(found))


def _rounds_output(layer: Layer, state: State, scheme: Scheme) -> bool:
    if layer.role == "pooling" or state == "rounds output":
        return True
    kinds = {name for name, _ in layer.operations if name in kernel_table.PRODUCTS}
    if kernel_table.is_dynamic(scheme.name, kernel_table.runs(layer), layer.kind):
        return False  # it gives floats
    return state == "computes" and bool(kinds) and kinds <= set(scheme.rounds_outputs)


def _stored(spec: TensorSpec, layer: Layer, state: State, scheme: Scheme) -> TensorSpec:
    if spec.kind == "complex":
        return spec
    if spec.kind == "float":
        is_norm = any(name in ONE_NORM for name, _ in layer.operations)
        scale = is_norm and len(spec.shape) == 1 and spec.name.rpartition(".")[2] == "weight"
        return replace(spec, kind="weight") if scheme.norm_weights and scale else spec
    if state == "float" or (spec.kind == "bias" and scheme.bias == "float"):
        return replace(spec, kind="float", channels=1, operation=-1, channel_axis=0, grids=0)
    if spec.kind == "table" and scheme.table == "rows":
        return replace(spec, kind="weight", channels=spec.shape[0])
    if spec.kind == "weight" and not scheme.weights_per_channel:
        return replace(spec, channels=1)
    return spec
