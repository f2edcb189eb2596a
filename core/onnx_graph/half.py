"""FP16 by ONNX Runtime's own converter, for chosen layers alone.

The converter blocks nodes by name. Between two blocked nodes it leaves a pair of casts that
rounds a tensor that nobody asked to round, and a constant that both sides read it rounds for
both; both are put right here.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import NodeProto, TensorProto
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from core.onnx_graph.layered_graph import LAYER_KEY
from core.onnx_graph.surgery import readers

HALF = "__half"


def layer_of_node(node: NodeProto) -> str | None:
    """The layer that a node's metadata names."""
    return next((p.value for p in node.metadata_props if p.key == LAYER_KEY), None)


def to_half(model: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """A copy of `model` in which the nodes of the layers `chosen` compute in float16.

    Q and DQ keep float32. Mutates nothing.
    """
    given = onnx.ModelProto()
    given.CopyFrom(model)
    blocked = [n.name for n in given.graph.node if _is_blocked(n, chosen)]
    if len(blocked) == len(given.graph.node):
        return given
    _own_constants(given, set(blocked))
    constants = {constant.name for constant in given.graph.initializer}
    types = [value for value in given.graph.value_info if value.name not in constants]
    del given.graph.value_info[:]  # of a constant it would make a cast before every blocked reader
    given.graph.value_info.extend(types)
    converted: onnx.ModelProto = convert_float_to_float16(
        given, keep_io_types=True, node_block_list=blocked
    )
    _drop_pairs(converted)
    ONNXModel(converted).topological_sort()
    return converted


def _is_blocked(node: NodeProto, chosen: Collection[str]) -> bool:
    if node.op_type in {"QuantizeLinear", "DequantizeLinear", *DEFAULT_OP_BLOCK_LIST}:
        return True
    return layer_of_node(node) not in chosen


def _own_constants(model: onnx.ModelProto, blocked: set[str]) -> None:
    """Copies of the float constants that nodes of both kinds read, for those that are converted."""
    read_by = readers(model)
    shared = [
        constant
        for constant in model.graph.initializer
        if constant.data_type == TensorProto.FLOAT
        and len({n.name in blocked for n in read_by.get(constant.name, [])}) == 2
    ]
    for constant in shared:
        copy = model.graph.initializer.add()
        copy.CopyFrom(constant)
        copy.name = f"{constant.name}{HALF}"
        for node in read_by[constant.name]:
            if node.name not in blocked:
                for slot, given in enumerate(node.input):
                    if given == constant.name:
                        node.input[slot] = copy.name


def _casts(model: onnx.ModelProto, to: int) -> dict[str, NodeProto]:
    """Casts to a type, by what they give."""
    return {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)
    }


def _drop_pairs(model: onnx.ModelProto) -> None:
    """Undo down-and-up casts between two nodes in float32."""
    down, up = _casts(model, TensorProto.FLOAT16), _casts(model, TensorProto.FLOAT)
    before = {
        name: down[cast.input[0]].input[0] for name, cast in up.items() if cast.input[0] in down
    }
    outputs = {value.name for value in model.graph.output}
    renamed = {source: name for name, source in before.items() if name in outputs}
    for node in model.graph.node:
        for slot, given in enumerate(node.input):
            source = before.get(given, given)
            node.input[slot] = renamed.get(source, source)
        for slot, made in enumerate(node.output):
            if made in renamed and node.op_type != "Cast":
                node.output[slot] = renamed[made]
    dropped = {id(up[name]) for name in before}
    nodes = [node for node in model.graph.node if id(node) not in dropped]
    read = {given for node in nodes for given in node.input} | outputs
    kept = [n for n in nodes if n.op_type != "Cast" or n.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
