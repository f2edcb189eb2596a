"""A person's graph made ready to be measured: of an opset that integers need, constants in sight,
and what every runtime folds folded.

Names of tensors and nodes stay as they are; a node without a name is called as what it gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, version_converter

from core.errors import ModelError, told
from core.onnx_graph.read_model import (
    OWN_DOMAINS,
    GivenModel,
    free_names,
    nodes_of,
    readers_of,
    reads_of,
    subgraphs,
)
from core.onnx_graph.session import open_session
from core.onnx_graph.surgery import copied, drop_unread, rename_inputs, replace_nodes

LEAST_OPSET = 13
"""The first in which Q and DQ have an axis, which scales per channel need."""
LEAST_IR = 8
LAID_OUT = frozenset(
    ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Flatten", "Slice", "Concat",
     "Shape", "Gather", "Mul", "Div", "Sqrt", "Add", "Sub", "Neg")
)  # fmt: skip
"""Operators that are computed once where they read constants alone: none makes much of little."""
MOST_FOLDED = 2**28
"""Bytes that folding may make."""


@dataclass(eq=False)
class Prepared:
    """A graph ready to be measured. `given` are the nodes of the file, each with a name; `folded` are
    nodes that are part of another now, by that node's name, `made_of` the constants that a constant
    was computed of, `parameters` how many the file has for a node that others were folded into.
    """

    model: ModelProto
    given: tuple[NodeProto, ...]
    folded: dict[str, list[str]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    made_of: dict[str, tuple[str, ...]] = field(default_factory=dict)


def prepared(given: GivenModel) -> Prepared:
    """A copy of `given` ready to be measured. Raises `ModelError` where its opset cannot be raised."""
    named = copied(given.model)
    _name_nodes(named)
    model = _raised(named, given.origin)
    model.ir_version = max(model.ir_version, LEAST_IR)
    constants = {c.name for c in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _name_nodes(model)  # those that the raising added
    _constants_in_sight(model)
    made_of = _fold_constants(model)
    _drop_identities(model)
    found = Prepared(model, tuple(named.graph.node), made_of=made_of)
    _Folder(found).fold()
    del model.graph.value_info[:]
    return found


def _raised(given: ModelProto, origin: str) -> ModelProto:
    opset = next((o for o in given.opset_import if o.domain in OWN_DOMAINS), None)
    if opset is None or opset.version >= LEAST_OPSET:
        return given
    try:
        model: ModelProto = version_converter.convert_version(given, LEAST_OPSET)
    except Exception as error:
        raise ModelError(
            f"{origin} is of opset {opset.version}, which cannot be raised to "
            f"{LEAST_OPSET}: {told(error)}.",
            f"Export the model again with opset {LEAST_OPSET} or higher.",
        ) from error
    return model


def _name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own: as the file says, or as what it gives."""
    taken: set[str] = set()
    for node in model.graph.node:
        stem = node.name or next((name for name in node.output if name), node.op_type)
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        node.name = name
        taken.add(name)


def _constants_in_sight(model: ModelProto) -> None:
    """Constants that are nodes become initializers."""
    kept = []
    for node in model.graph.node:
        value = _constant(node)
        if value is None:
            kept.append(node)
            continue
        model.graph.initializer.append(value)
    replace_nodes(model, kept)


def _constant(node: NodeProto) -> TensorProto | None:
    """What a Constant node gives, as a tensor of that name; None where it is none."""
    if node.op_type != "Constant" or node.domain not in OWN_DOMAINS or not node.attribute:
        return None
    attribute = node.attribute[0]
    value: Any = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        found = TensorProto()
        found.CopyFrom(value)
        found.name = node.output[0]
        return found
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}  # fmt: skip
    if attribute.name not in kinds:
        return None
    return onnx.numpy_helper.from_array(np.array(value, kinds[attribute.name]), node.output[0])


def _fold_constants(model: ModelProto) -> dict[str, tuple[str, ...]]:
    """Compute once what is made of constants alone by operators that lay them out; the constants
    that each result was made of.
    """
    constants = {c.name: c for c in model.graph.initializer}
    outputs = {v.name for v in model.graph.output}
    chosen: list[NodeProto] = []
    made: dict[str, tuple[str, ...]] = {}
    for node in model.graph.node:
        own = node.op_type in LAID_OUT and node.domain in OWN_DOMAINS and bool(node.input)
        if own and all(not n or n in constants or n in made for n in node.input):
            chosen.append(node)
            roots = [root for n in node.input if n for root in made.get(n, (n,))]
            made |= dict.fromkeys(node.output, tuple(dict.fromkeys(roots)))
    if not chosen:
        return {}
    names = {node.name for node in chosen}
    read = {name for node in model.graph.node if node.name not in names for name in reads_of(node)}
    wanted = [name for node in chosen for name in node.output if name in read | outputs]
    used = {name for node in chosen for name in node.input if name in constants}
    graph = onnx.helper.make_graph(
        chosen, "constants", [], [onnx.ValueInfoProto(name=name) for name in wanted],
        [constants[name] for name in constants if name in used],
    )  # fmt: skip
    part = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    try:
        values: list[NDArray[Any]] = open_session(part).run(wanted, {})
    except Exception:  # noqa: BLE001 (the runtime then computes them in every run)
        return {}
    if sum(value.nbytes for value in values) > MOST_FOLDED:
        return {}
    replace_nodes(model, [n for n in model.graph.node if n.name not in names])
    for name, value in zip(wanted, values, strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return {name: made[name] for name in wanted}


def _drop_identities(model: ModelProto) -> None:
    """Leave out what hands values on, unless an output of the model is called so."""
    outputs = {v.name for v in model.graph.output}
    inner = {name for node in model.graph.node for g in subgraphs(node) for name in free_names(g)}
    source: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        rename_inputs(node, source)
        passes = node.op_type == "Identity" and node.domain in OWN_DOMAINS
        if passes and node.output[0] not in outputs | inner:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(model, kept)


class _Folder:
    """Folds what stands behind convolutions into them. Mutates the model of `found`."""

    def __init__(self, found: Prepared) -> None:
        self.found, self.model = found, found.model
        self.constants = {c.name: c for c in self.model.graph.initializer}
        self.readers = readers_of(self.model.graph)
        self.outputs = {v.name for v in self.model.graph.output}
        self.taken = {name for node in nodes_of(self.model.graph) for name in node.output}
        self.gone: set[str] = set()

    def fold(self) -> None:
        """Fold behind every convolution as much as there is."""
        for node in self.model.graph.node:
            while node.op_type == "Conv" and self._once(node):
                pass
        kept = [node for node in self.model.graph.node if node.name not in self.gone]
        replace_nodes(self.model, kept)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(self.constants.values())
        drop_unread(self.model)

    def _once(self, conv: NodeProto) -> bool:
        """Fold the batch norm behind `conv`, or the constant added to each channel. False where
        there is none.
        """
        behind = self.readers.get(conv.output[0], [])
        has_bias = len(conv.input) > 2 and bool(conv.input[2])
        own = conv.input[1:] if has_bias else conv.input[1:2]
        if len(behind) != 1 or conv.output[0] in self.outputs or any(
            name not in self.constants for name in own
        ):  # fmt: skip
            return False
        (node,) = behind
        weight, *biases = [onnx.numpy_helper.to_array(self.constants[name]) for name in own]
        parts = self._norm(node) or self._added(node, conv, weight)
        if parts is None or weight.dtype != np.float32:
            return False
        factor, shift, more = parts
        start = biases[0].astype(np.float64) if has_bias else np.zeros(len(weight))
        before = weight.size + (biases[0].size if has_bias else 0)
        parameters = self.found.parameters
        parameters[conv.name] = parameters.get(conv.name, before) + more
        if not (factor == 1).all():
            scaled = weight.astype(np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
            conv.input[1] = self._put(conv.input[1], conv, scaled)
        if has_bias:
            conv.input[2] = self._put(conv.input[2], conv, start * factor + shift)
        else:
            del conv.input[2:]
            conv.input.append(self._put(f"{conv.input[1]}_bias", conv, shift))
        conv.output[0] = node.output[0]
        self.found.folded.setdefault(conv.name, []).append(node.name)
        self.gone.add(node.name)
        for name in reads_of(node):
            self.readers[name] = [one for one in self.readers[name] if one is not node]
        return True

    def _put(self, name: str, conv: NodeProto, values: NDArray[np.float64]) -> str:
        """Store `values` as `name`, or beside it where others read that; the name it has."""
        others = [node for node in self.readers.get(name, ()) if node is not conv]
        while others and (name in self.constants or name in self.taken):
            name, others = f"{name}_{conv.name}", [conv]
        found = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        self.constants[name] = found
        self.readers.setdefault(name, [conv])
        return name

    def _norm(self, node: NodeProto) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
        """Factor and shift of each channel of a batch norm, and how many parameters it has."""
        own = node.input[1:5]
        if node.op_type != "BatchNormalization" or any(n not in self.constants for n in own):
            return None
        if len([name for name in node.output if name]) > 1:
            return None
        scale, shift, mean, variance = (
            onnx.numpy_helper.to_array(self.constants[n]).astype(np.float64) for n in own
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        return factor, shift - mean * factor, scale.size + shift.size

    def _added(
        self, node: NodeProto, conv: NodeProto, weight: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
        """A constant that is added to each channel of a convolution, as factor 1 and shift."""
        others = [name for name in node.input if name != conv.output[0]]
        if node.op_type != "Add" or len(others) != 1 or others[0] not in self.constants:
            return None
        value = onnx.numpy_helper.to_array(self.constants[others[0]])
        shape = (1, len(weight), *[1] * (weight.ndim - 2))
        if value.dtype != np.float32 or value.shape not in (shape, shape[1:]):
            return None
        return np.ones(len(weight)), value.ravel().astype(np.float64), value.size
