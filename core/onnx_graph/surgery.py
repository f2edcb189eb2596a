"""What is done to a graph around ONNX Runtime's quantizer. Every function changes its model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto


def readers(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor -> the nodes that read it."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for given in node.input:
            found.setdefault(given, []).append(node)
    return found


def own_constants(model: onnx.ModelProto, quantized: Collection[str], mark: str) -> dict[str, str]:
    """A weight that others read too is copied, so that they keep their own: copy -> original."""
    chosen, read_by = set(quantized), readers(model)
    constants = {c.name: c for c in model.graph.initializer}
    fresh: dict[str, str] = {}
    for node in model.graph.node:
        if node.name not in chosen:
            continue
        for slot, given in enumerate(node.input):
            everyone = read_by.get(given, [])
            if given not in constants or all(r.name in chosen for r in everyone):
                continue
            if given not in fresh:
                fresh[given] = f"{given}{mark}"
                copy = model.graph.initializer.add()
                copy.CopyFrom(constants[given])
                copy.name = fresh[given]
            node.input[slot] = fresh[given]
    return {copy: given for given, copy in fresh.items()}


def part_weights(model: onnx.ModelProto, mark: str) -> list[str]:
    """Every node that reads a dequantized INT8 weight gets one of its own, with its zero point and
    its DequantizeLinear. Returns the weights that were shared.
    """
    constants = {c.name: c for c in model.graph.initializer if c.data_type == TensorProto.INT8}
    reading: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in model.graph.node:
        for slot, given in enumerate(node.input):
            reading.setdefault(given, []).append((node, slot))
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    taken: set[str] = set()
    shared: list[str] = []
    for first in weights:
        given, made = first.input[0], first.output[0]
        for number, (reader, slot) in enumerate(reading.get(made, ())):
            own = first
            if number:
                own = model.graph.node.add()
                own.CopyFrom(first)
                own.name, own.output[0] = f"{first.name}{mark}{number}", f"{made}{mark}{number}"
                reader.input[slot] = own.output[0]
            if own.input[0] in taken and given not in shared:
                shared.append(given)
            for place, constant in enumerate(own.input):
                if constant in taken:
                    copy = model.graph.initializer.add()
                    copy.CopyFrom(constants[constant])
                    copy.name = own.input[place] = f"{constant}{mark}{len(taken)}"
                    taken.add(copy.name)
                elif constant in constants:
                    taken.add(constant)
    return shared


def part_activations(
    model: onnx.ModelProto, nodes: Iterable[NodeProto], rounded: Collection[str], mark: str
) -> None:
    """ONNX Runtime takes no Gemm for its integer kernel whose float result goes straight into
    a Relu; max(x, 0) is the same and does not disturb it.
    """
    zero, read_by = f"zero{mark}", readers(model)
    parted = [
        reader
        for node in nodes
        for reader in read_by.get(node.output[0], [])
        if reader.op_type == "Relu" and reader.output[0] not in rounded
    ]
    for reader in parted:
        reader.op_type = "Max"
        reader.input.append(zero)
    if parted:
        constant = onnx.numpy_helper.from_array(np.zeros((), np.float32), zero)
        model.graph.initializer.append(constant)


def drop_aliases(model: onnx.ModelProto, mark: str) -> None:
    """The quantizer reads from the tensors themselves again."""
    source = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and mark in node.output[0]
    }
    for node in model.graph.node:
        for slot, given in enumerate(node.input):
            if given in source and node.op_type != "Identity":
                node.input[slot] = source[given]
    kept = [node for node in model.graph.node if not node.output or node.output[0] not in source]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def round_added_biases(model: onnx.ModelProto, quantized: Collection[str], mark: str) -> None:
    """Round the bias that follows a MatMul as the scheme rounds every bias: to multiples of
    s_x * s_w. ONNX Runtime adds it in float, and would be nearer to the trained bias than the
    evidence says.
    """
    constants = constants_of(model)
    made = {tensor: node for node in model.graph.node for tensor in node.output}
    read_by = readers(model)
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.name not in quantized:
            continue
        behind = read_by.get(node.output[0], [])
        sources = [made.get(given) for given in node.input]
        if len(behind) != 1 or behind[0].op_type != "Add" or None in sources:
            continue
        slot = 1 if behind[0].input[0] == node.output[0] else 0
        name = behind[0].input[slot]
        scales = [constants.get(source.input[1]) for source in sources if source is not None]
        weight = sources[1]
        if weight is None or weight.input[0] not in constants or name not in constants:
            continue
        if len(scales) != 2 or scales[0] is None or scales[1] is None:
            continue
        bias = constants[name]
        step = np.asarray(scales[0], np.float64) * np.asarray(scales[1], np.float64)
        if bias.ndim != 1 or step.size not in {1, bias.size}:
            continue
        rounded = (np.round(bias.astype(np.float64) / step) * step).astype(np.float32)
        fresh = onnx.numpy_helper.from_array(rounded, f"{name}{mark}")
        if len(read_by[name]) == 1:
            del model.graph.initializer[[c.name for c in model.graph.initializer].index(name)]
        model.graph.initializer.append(fresh)
        behind[0].input[slot] = fresh.name


def tensor_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all stored tensors of a model."""
    return sum(constant_bytes(constant) for constant in model.graph.initializer)


def constant_bytes(constant: TensorProto) -> int:
    """Bytes of one stored tensor."""
    return int(onnx.numpy_helper.to_array(constant).nbytes)


def constants_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Stored tensors by name, as arrays."""
    return {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
