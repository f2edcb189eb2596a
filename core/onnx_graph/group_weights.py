"""Products and look-ups with a weight in few bits: ONNX Runtime's own operators.

MatMulNBits (onnxruntime, docs/ContribOperators.md) reads a packed weight [N, groups, bytes], its
float32 scales [N, groups], and as many float32 zero points where the quantizer has such. Its
attribute `accuracy_level` lets the kernel round what it multiplies: 0 leaves that in float32, 4
rounds it to 8 bits, by groups too. GatherBlockQuantized reads rows of a
packed table [N, bytes] and its float32 scales [N, groups]: in 1.32 the CPU provider has it in 2, 4
and 8 bits where codes are bytes (ONNX Runtime's quantizer packs tables in 4 bits alone).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from core.layers import Layer, LayerTable
from core.numerics import quantizers
from core.numerics.groups import grouped, grouped_rows
from core.numerics.precision import Precision, TensorFormat
from core.numerics.states import WHOLE_BYTES, state_in
from core.onnx_graph.layered_graph import LayeredGraph, attribute
from core.onnx_graph.read_model import readers_of
from core.onnx_graph.surgery import MARK, copied, drop_unread, replace_nodes
from core.onnx_graph.weights_only import MICROSOFT

NBITS, ROWS = "MatMulNBits", "GatherBlockQuantized"
FLOATS, BYTES = 0, 4
"""Accuracy levels: what the kernel multiplies is left in float32, or rounded to 8 bits."""
FEW_ROWS, LONG_INPUTS = 16, 512
"""Rows a sample and inputs of a product from which the level of bytes was the faster one
(`python -m tests.benchmarks.weight_formats`)."""
SAFE_BITS = 4
"""Up to so many bits a weight errs at least 20 dB more than what level 4 rounds; with 8 both err as
much."""


@dataclass(frozen=True, eq=False)
class Packed:
    """`model` with packed weights. `reasons` says of layers why their weights stay in float,
    `levels` at which accuracy level the products of the others run.
    """

    model: ModelProto
    reasons: Mapping[str, str]
    levels: Mapping[str, int]


def accuracy_level(bits: int, rows: int, inputs: int) -> int:
    """The level at which a product runs that meets `rows` a sample with `inputs` each: that of bytes
    where it is the faster and errs far less than the weights.
    """
    faster = rows <= FEW_ROWS or inputs >= LONG_INPUTS
    return BYTES if bits <= SAFE_BITS and faster else FLOATS


def pack_weights(
    model: ModelProto, graph: LayeredGraph, layers: LayerTable, asked: Mapping[str, Precision]
) -> Packed:
    """A copy of `model`, made of `graph`, in which the layers `asked` keep the weights of their
    products in few bits, where those are matrices that the graph holds as constants.
    """
    if not asked:
        return Packed(model, {}, {})
    model = copied(model)
    packer = Packer(
        model,
        [s.shape for x in layers for s in x.tensors if s.kind == "table" and s.group_axis >= 0],
    )
    reasons, levels = {}, {}
    for name, precision in asked.items():
        layer = layers.layers[layers.index[name]]
        if state_in(layer, precision) == "float":
            reasons[name] = f"{NBITS} takes weights of matrix products alone, {ROWS} tables"
            continue
        nodes, reason = packer.replaced(graph, name)
        if reason:
            reasons[name] = reason
            continue
        levels[name] = level_of(layer, precision)
        for node in nodes:
            if node.op_type == "Gather":
                packer.pack_rows(node, precision.weights)
            else:
                packer.pack(node, precision.weights, levels[name])
    packer.finish()
    return Packed(model, reasons, levels)


def level_of(layer: Layer, precision: Precision) -> int:
    """The level at which the products of `layer` run, whose weights are in `precision`."""
    weights = [s for s in layer.tensors if s.group_axis >= 0 and s.kind != "table"]
    if not weights:  # another layer's
        return FLOATS
    if quantizers.of_format(precision.weights).has_zeros:  # then the kernel knows floats alone
        return FLOATS
    rows = layer.macs // max(sum(spec.size for spec in weights), 1)
    inputs = min(spec.shape[spec.group_axis] for spec in weights)
    return accuracy_level(precision.bits, rows, inputs)


def packs_rows(table: TensorProto, readers: Iterable[NodeProto]) -> bool:
    """Whether formats by groups keep a table along its rows: nothing else than look-ups of rows
    reads it, and they take whole bytes.
    """
    return (
        table.data_type == TensorProto.FLOAT
        and len(table.dims) == 2
        and table.dims[1] % WHOLE_BYTES == 0
        and all(
            node.op_type == "Gather"
            and node.input[0] == table.name != node.input[1]
            and attribute(node, "axis", 0) in (0, -2)
            for node in readers
        )
    )


BESIDE = "it multiplies activations, or is no plain product: it stays as it is beside the others"


class Packer:
    """Puts MatMulNBits in the place of products of `model`, and GatherBlockQuantized in that of
    look-ups in `tables`, of such shapes.
    """

    def __init__(self, model: ModelProto, tables: Collection[tuple[int, ...]] = ()) -> None:
        self.model = model
        self.node = {node.name: node for node in model.graph.node}
        self._held = {c.name: c for c in model.graph.initializer}
        self._instead: dict[str, list[NodeProto]] = {}
        self._made: dict[tuple[str, str, TensorFormat], list[str]] = {}
        readers = readers_of(model.graph)
        self.look_ups = [
            node
            for node in model.graph.node
            if node.op_type == "Gather"
            and node.input[0] in self._held
            and tuple(self._held[node.input[0]].dims) in tables
            and packs_rows(self._held[node.input[0]], readers[node.input[0]])
        ]
        """Nodes that look rows up in a table that nothing else reads."""
        if MICROSOFT not in {one.domain for one in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))

    def replaced(self, graph: LayeredGraph, layer: str) -> tuple[list[NodeProto], str]:
        """The products and look-ups of `layer` in whose place others are put; or why none is, for all
        of them.
        """
        nodes = [self.node[n.name] for n in graph.products(layer) if n.name in self.node]
        nodes += [n for n in self.look_ups if graph.layer_of.get(n.name) == layer]
        found = [(node, why) for node in nodes if (why := self.refused(node)) != BESIDE]
        whys = [why for _, why in found if why]
        if not found:
            whys = ["the graph holds none of its weights as constants"]
        return [node for node, _ in found], whys[0] if whys else ""

    def refused(self, node: NodeProto) -> str:
        """Why the product `node` cannot be packed; "" where it can."""
        if node.op_type == "Gather":
            return ""
        constant = [name in self._held for name in node.input[:2]]
        if not any(constant):
            return BESIDE
        if node.op_type not in ("MatMul", "Gemm"):
            return BESIDE
        if not constant[1] or constant[0]:
            return f"the weight of {node.name} is on the left of its product"
        if len(self._held[node.input[1]].dims) != 2:
            return f"the weight of {node.name} is no matrix"
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
            return f"{node.name} transposes or scales what it multiplies"
        if len(node.input) > 2 and node.input[2] and attribute(node, "beta", 1.0) != 1.0:
            return f"{node.name} scales what it adds"
        return ""

    def pack(self, node: NodeProto, kept: TensorFormat, level: int) -> None:
        """Have a MatMulNBits stand for `node`, and an Add of what a Gemm adds."""
        is_rows = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        dims = self._held[node.input[1]].dims
        outputs, inputs = dims if is_rows else reversed(dims)
        packed = self._weight(node.input[1], kept, "rows" if is_rows else "")
        added = node.input[2] if len(node.input) > 2 else ""
        out = node.output[0]
        made = f"{out}{MARK}_product" if added else out
        product = onnx.helper.make_node(
            NBITS, [node.input[0], *packed], [made], node.name, domain=MICROSOFT,
            K=inputs, N=outputs, bits=kept.bits, block_size=kept.group,
        )  # fmt: skip
        if level:
            product.attribute.append(onnx.helper.make_attribute("accuracy_level", level))
        new = [product]
        if added:
            new.append(onnx.helper.make_node("Add", [made, added], [out], f"{node.name}{MARK}_add"))
        for one in new:
            one.metadata_props.extend(node.metadata_props)
        self._instead[node.name] = new

    def pack_rows(self, node: NodeProto, kept: TensorFormat) -> None:
        """Have a GatherBlockQuantized stand for `node`, which looks rows up."""
        codes, scales = self._weight(node.input[0], kept, "table")
        new = onnx.helper.make_node(
            ROWS, [codes, node.input[1], scales], node.output, node.name, domain=MICROSOFT,
            bits=kept.bits, block_size=kept.group, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        new.metadata_props.extend(node.metadata_props)
        self._instead[node.name] = [new]

    def finish(self) -> None:
        """Put what was packed in its place. Mutates the model."""
        nodes = [
            one for node in self.model.graph.node for one in self._instead.get(node.name, [node])
        ]
        replace_nodes(self.model, nodes)
        drop_unread(self.model)

    def _weight(self, name: str, kept: TensorFormat, form: str) -> list[str]:
        """Names of the packed codes, the scales and what zero points the constant `name` has: a
        matrix [inputs, outputs], its transpose as "rows", or a "table".
        """
        key = name, form, kept
        if key not in self._made:
            values = onnx.numpy_helper.to_array(self._held[name])
            weight = torch.from_numpy(np.array(values if form else values.T))
            is_table = form == "table"
            found = grouped_rows(weight, kept) if is_table else grouped(weight, kept)
            codes = found.packed_rows() if is_table else found.packed()
            stem = f"{name}{MARK}_{kept.bits}b{kept.group}" + (f"_{form}" if form else "")
            parts = {"codes": codes, "scales": found.scales, "zeros": found.zeros}
            self._made[key] = [
                self._add(f"{stem}_{part}", values.numpy())
                for part, values in parts.items()
                if values is not None
            ]
        return self._made[key]

    def _add(self, name: str, values: NDArray[Any]) -> str:
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name
