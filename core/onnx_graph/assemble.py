"""A graph with its layers in the precisions that they were given, as ONNX Runtime executes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from core.errors import ModelError
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.precision import Precision
from core.numerics.scheme import Scheme
from core.onnx_graph.dynamic_products import quantize_dynamic
from core.onnx_graph.executed_kernels import Executed, executed_kernels
from core.onnx_graph.group_weights import pack_weights
from core.onnx_graph.layered_graph import LayeredGraph, float_kernels, layer_of_node
from core.onnx_graph.quantize import Integers, quantize
from core.onnx_graph.surgery import halved

MERGES_ROUNDINGS = "DoubleQDQPairsRemover"
"""Makes one rounding of two, on a grid of its own."""
TAKES_CASTS = "LayerNormFusionL1"
"""Makes one node of a norm's, with the cast in front of them: a float operand and scales in half
precision, which ONNX Runtime then refuses.
"""
SPOILERS = ("WeightBiasQuantization", "MatMulAddFusion", "GemmActivationFusion")
"""Optimisers of ONNX Runtime that may undo a map. The first quantizes float weights by itself
where input and output of a product happen to be quantized; the second makes Gemms of MatMul and
Add, the third joins a Gemm with its activation, before integers are looked for, so that some run
in float. Each is left out where that puts more products where they were asked for."""


@dataclass(frozen=True, eq=False)
class Assembled:
    """`model` with Q, DQ, packed weights and casts; sessions leave the optimisers `disabled` out, and
    then execute `executed`. `levels` are the accuracy levels of layers with packed weights.
    """

    model: onnx.ModelProto
    integers: Integers
    disabled: tuple[str, ...]
    executed: Executed
    levels: Mapping[str, int]


def assembled(
    graph: LayeredGraph, layers: LayerTable, asked: Mapping[str, Precision],
    ranges: Sequence[Calibration], scheme: Scheme,
) -> Assembled:  # fmt: skip
    """`graph` with every layer in the precision that is `asked` of it, where that can be built."""
    dynamic = {n: p for n, p in asked.items() if p.is_dynamic}
    wanted = [
        name for name, p in asked.items()
        if p.is_calibrated or (p.is_dynamic and layers.layers[layers.index[name]].dynamic)
    ]  # fmt: skip
    half = {n for n, p in asked.items() if p.float_dtype == "float16"}
    few = {n: p for n, p in asked.items() if p.is_weights_only}
    made = _assembled(graph, layers, wanted, few, dynamic, half, ranges, scheme)
    multiplied = [n for n in wanted if layers.layers[layers.index[n]].state == "computes"]
    lost = _lost(multiplied, made.integers, made.executed, float_kernels(scheme))
    if not lost:
        return made
    # Rounding for a kernel that multiplies floats all the same would cost and gain nothing.
    kept = [name for name in wanted if name not in lost]
    made = _assembled(graph, layers, kept, few, dynamic, half, ranges, scheme)
    reasons = {**made.integers.reasons, **lost}
    return replace(made, integers=replace(made.integers, reasons=reasons))


def _assembled(
    graph: LayeredGraph, layers: LayerTable, wanted: list[str], few: Mapping[str, Precision],
    dynamic: Mapping[str, Precision], half: Collection[str], ranges: Iterable[Calibration],
    scheme: Scheme,
) -> Assembled:  # fmt: skip
    tables = [
        n for n in dynamic if any(t.kind == "table" for t in layers.layers[layers.index[n]].tensors)
    ]
    integers = quantize(graph, layers, wanted, ranges, scheme, tables)
    packed = pack_weights(integers.model, graph, layers, few)
    set_there = quantize_dynamic(packed.model, graph, layers, dynamic)
    integers = replace(
        integers, reasons={**integers.reasons, **packed.reasons, **set_there.reasons}
    )
    nodes = {n.name for n in set_there.model.graph.node if layer_of_node(n) in half}
    model = halved(set_there.model, nodes)
    _trim(model)
    on_integers = {*wanted, *dynamic} - integers.reasons.keys()
    disabled, found = _faithful(model, on_integers, float_kernels(scheme))
    return Assembled(model, integers, disabled, found, packed.levels)


def _lost(
    wanted: Collection[str], integers: Integers, found: Executed, floats: frozenset[str]
) -> dict[str, str]:
    """Layers whose quantized products run in float all the same, with a reason; `floats` are those
    that were not to multiply integers.
    """
    lost = {}
    for name in wanted:
        on_integers, in_float = found.split(name, floats)
        if in_float and not on_integers and name not in integers.reasons:
            lost[name] = f"ONNX Runtime runs its {', '.join(sorted(set(in_float)))} in float there"
    return lost


def _trim(model: onnx.ModelProto) -> None:
    """Leave out what no runtime needs: types of inner tensors and notes of the tools."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.producer_name = "quantscape"
    model.producer_version = ""


def _faithful(
    model: onnx.ModelProto, integer: Collection[str], floats: frozenset[str]
) -> tuple[tuple[str, ...], Executed]:
    """The optimisers to leave out, and what is executed then."""
    disabled = (MERGES_ROUNDINGS,) if _is_rounded_twice(model) else ()
    try:
        best = executed_kernels(model, disabled)
    except ModelError:
        if not any(node.op_type == "Cast" for node in model.graph.node):
            raise
        disabled = (*disabled, TAKES_CASTS)
        best = executed_kernels(model, disabled)
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return disabled, best
    for name in SPOILERS:
        if _is_as_asked(best, integer, floats):
            break
        found = executed_kernels(model, (*disabled, name))
        if found.as_wanted(integer) > best.as_wanted(integer):
            disabled, best = (*disabled, name), found
    return disabled, best


def _is_rounded_twice(model: onnx.ModelProto) -> bool:
    """Whether a tensor is rounded on the grid of the layer that gives it and again on that of one
    that reads it, which differ where a layer is called several times.
    """
    restored = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return any(n.op_type == "QuantizeLinear" and n.input[0] in restored for n in model.graph.node)


def _is_as_asked(found: Executed, integer: Collection[str], floats: frozenset[str]) -> bool:
    """Whether every product runs on integers where it was asked to, and none elsewhere."""
    for layer in found.by_layer:
        on_integers, in_float = found.split(layer, floats)
        if in_float if layer in integer else on_integers:
            return False
    return True
