"""The layers of an ONNX graph: what its nodes compute, hold and hand on to one another.

Shapes and types are those of a run (`OnnxModel.learn`), so that multiply-accumulates and the data
flow are counted from what was executed and not from what the file declares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import onnx
from onnx import NodeProto, TensorProto

from core.errors import ModelError
from core.layers import Edge, Layer, LayerTable, TensorSpec
from core.numerics import kernel_table
from core.numerics.einsum import channel_axis, products
from core.numerics.states import PACKS, with_groups
from core.onnx_graph.forms import FEW, FLOAT
from core.onnx_graph.group_weights import packs_rows
from core.onnx_graph.grouping import (
    ACTIVATIONS,
    NORMS,
    POINTWISE,
    POOLINGS,
    REDUCTIONS,
    Group,
    attention_products,
    grouped,
)
from core.onnx_graph.layered_graph import attribute
from core.onnx_graph.node_table import PRODUCTS, RECURRENT
from core.onnx_graph.read_model import readers_of, reads_of, subgraphs
from core.source.contract import ModelSource
from core.source.inventory import groups_of
from core.source.onnx_model import OnnxModel
from core.source.roles import BY_WORDS, check_roles


def take_onnx_inventory(
    source: ModelSource, model: OnnxModel, *, expand_units: bool = False
) -> LayerTable:
    """The layers of `model` in execution order, as the default scheme has them.

    With `expand_units` the units of `source` are left out. Raises `ModelError` where a unit, a role
    or a group names nothing.
    """
    check_roles(source.roles)
    inventory = _Inventory(model, () if expand_units else source.units)
    layers = _with_roles([inventory.layer(i) for i in range(len(inventory.groups))], source.roles)
    edges, joins = inventory.flow()
    held = {spec.name for layer in layers for spec in layer.tensors}
    rest = [inventory.spec(name, "float") for name in inventory.constants if name not in held]
    return LayerTable(
        tuple(layers), edges, inventory.glue(), tuple(rest), (), joins,
        groups_of(source, {layer.name: i for i, layer in enumerate(layers)}), holds_all=True,
    )  # fmt: skip


def _with_roles(layers: list[Layer], roles: Mapping[str, str]) -> list[Layer]:
    """`layers` with the roles that a person gives by wildcard; the last match wins."""
    for pattern in roles:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            raise ModelError(
                f"The role of {pattern!r} is that of no layer.",
                f"Layers are: {', '.join([layer.name for layer in layers][:8])} ...",
            )
    found = []
    for layer in layers:
        given = [role for pattern, role in roles.items() if fnmatchcase(layer.name, pattern)]
        found.append(replace(layer, role=given[-1]) if given else layer)
    return found


class _Inventory:
    def __init__(self, model: OnnxModel, units: tuple[str, ...]) -> None:
        self.model, self.graph = model, model.graph.graph
        self.constants = {c.name: c for c in self.graph.initializer}
        self.forms, self.samples = model.forms, model.batch or FEW
        self.node = {node.name: node for node in self.graph.node}
        self.attention = attention_products(model.graph)
        self.groups = [g for g in grouped(model.graph, units) if self._gives_floats(g)]
        self.inside = {name: i for i, g in enumerate(self.groups) for name in g.nodes}
        self.readers = readers_of(self.graph)
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.outputs = {v.name for v in self.graph.output}
        self.owner = self._owners()
        self.counted: set[str] = set()
        self.tables = {n.input[0] for n in self.graph.node if n.op_type == "Gather"}
        packed = {name for name in self.tables & self.constants.keys() if self._packs_rows(name)}
        self.packed_tables, self.other_tables = packed, self.tables - packed
        linear = [
            n.name for n in self.graph.node
            if n.op_type in ("Gemm", "MatMul") and self.constants.keys() & set(n.input[:2])
        ]  # fmt: skip
        self.last_product = linear[-1] if linear else ""

    def _gives_floats(self, group: Group) -> bool:
        """Whether what a group gives are values, and no sizes or places."""
        given = [name for node in group.nodes for name in self.node[node].output]
        return any(name in self.forms and self.forms[name].kind == FLOAT for name in given)

    def _owners(self) -> dict[str, int]:
        """Constant -> the layer that is the first to read it."""
        found: dict[str, int] = {}
        for node in self.graph.node:
            place = self.inside.get(node.name)
            for name in reads_of(node) if place is not None else ():
                if name in self.constants and place is not None:
                    found.setdefault(name, place)
        return found

    # ---- one layer

    def layer(self, place: int) -> Layer:
        """The layer at `place`."""
        group = self.groups[place]
        nodes = [self.node[name] for name in group.nodes]
        operations: Counter[str] = Counter()
        tensors: dict[str, TensorSpec] = {}
        macs = counted = 0
        for node in nodes:
            kinds = self._operations(node)
            operations.update(kinds)
            macs += self._macs(node)
            for spec in self._own(node, counted):
                if self.owner.get(spec.name) == place:
                    tensors.setdefault(spec.name, spec)
            counted += bool(kinds) and node.op_type in (*PRODUCTS, "Gather")
        given, made = self._entering(group), self._leaving(group)
        draft = Layer(
            name=group.name,
            role=self._role(group, operations),
            # An RNN is one node here; a module's is written step by step.
            kind="RNN node" if group.kind == "RNN" else group.kind,
            state="stores" if group.kind == "RNN" else "computes",
            params=self._parameters(group, tensors),
            macs=macs,
            input_shape=self._shape(given[:1]),
            output_shape=self._shape(made[-1:]),
            parts=group.nodes,
            operations=tuple(sorted(operations.items())),
            tensors=tuple(tensors.values()),
            input_elements=sum(self._elements(name) for name in given),
            output_elements=sum(self._elements(name) for name in made),
        )
        what = kernel_table.runs(draft), draft.kind
        state = kernel_table.state(kernel_table.DEFAULT, *what)
        in_float = state in ("stores", "float")
        return replace(
            draft,
            state=state,
            dynamic=kernel_table.is_dynamic(kernel_table.DEFAULT, *what),
            tensors=with_groups(
                (
                    replace(s, kind="float", grids=0) if s.kind == "bias" and in_float else s
                    for s in draft.tensors
                ),
                what[0],
                {name for node in nodes if node.op_type == "Einsum" for name in node.input}
                | self.other_tables,
            ),
            in_groups=what[0] in PACKS and any(self._packs(node) for node in nodes),
            quantizes_output=draft.role == "pooling" or state == "rounds output"
            or (state == "computes" and "conv" in operations and "linear" not in operations),
        )  # fmt: skip

    def _packs(self, node: NodeProto) -> bool:
        """Whether a node is a product that formats of weights alone keep the weight of by groups, or
        looks rows of a table up that they keep so.
        """
        if node.op_type == "Gather":
            return node.input[0] in self.packed_tables
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] in self.tables:
            return False
        held = self.constants.get(node.input[1])
        return held is not None and held.data_type == TensorProto.FLOAT and len(held.dims) == 2

    def _packs_rows(self, name: str) -> bool:
        """Whether formats of weights alone keep the table `name` by groups along its rows."""
        return name not in self.outputs and packs_rows(self.constants[name], self.readers[name])

    def _operations(self, node: NodeProto) -> dict[str, int]:
        """The kinds of operation that a node runs, as `Layer.operations` names them."""
        weighted = any(name in self.constants for name in node.input[:2])
        if node.op_type == "Conv":
            return {"conv": 1}
        if node.op_type == "ConvTranspose":
            return {"conv": 1, "conv_transpose": 1}
        if node.op_type in ("Gemm", "MatMul"):
            return {"linear" if weighted else "matmul": 1}
        if node.op_type == "Einsum":
            return {"linear": 1, "einsum_weight": 1} if weighted else {"matmul": 1, "einsum": 1}
        if node.op_type in RECURRENT:
            return {"linear": 2}
        if node.op_type == "Gather" and node.input[0] in self.constants:
            return {"embedding": 1}
        return {node.op_type.lower(): 1}

    def _role(self, group: Group, operations: Mapping[str, int]) -> str:
        if group.kind == "unit":
            words = group.name.lower()
            known = next((role for pattern, role in BY_WORDS if pattern.search(words)), "")
            return known or ("attention" if self.attention & set(group.nodes) else "other")
        if set(group.nodes) & self.attention or group.kind in ("Attention", "MultiHeadAttention"):
            return "attention"
        if self.last_product in group.nodes:
            return "output_projection"
        by_kind = {"Conv": "convolution", "ConvTranspose": "convolution", "Gather": "embedding",
                   "BatchNormalization": "batch_norm"}  # fmt: skip
        for kinds, role in (
            (NORMS, "layer_norm"), (POOLINGS, "pooling"), (ACTIVATIONS, "activation"),
            (RECURRENT, "recurrent"),
        ):  # fmt: skip
            by_kind |= dict.fromkeys(kinds, role)
        return by_kind.get(group.kind) or ("linear" if "linear" in operations else "other")

    def _parameters(self, group: Group, tensors: Mapping[str, TensorSpec]) -> int:
        """What the file has for it; a folded batch norm has its own."""
        found = 0
        statistics = {
            name
            for node in group.nodes
            if self.node[node].op_type == "BatchNormalization"
            for name in self.node[node].input[3:5]
        }
        for name, spec in tensors.items():
            is_number = spec.kind == "float" and spec.size == 1  # a factor of a formula
            made_of = [n for n in self.model.made_of.get(name, ()) if n in self.counted]
            if spec.width == 0 and not is_number and name not in statistics and not made_of:
                found += spec.size
                self.counted.update((name, *self.model.made_of.get(name, ())))
        for node in group.nodes:
            if node in self.model.parameters_of:
                own = [n for n in self.node[node].input[1:3] if n in self.counted & tensors.keys()]
                found += self.model.parameters_of[node] - sum(tensors[n].size for n in own)
        bodies = (g for node in group.nodes for g in subgraphs(self.node[node]))
        return found + sum(int(math.prod(c.dims)) for g in bodies for c in g.initializer)

    # ---- what it stores

    def spec(self, name: str, kind: str, **more: Any) -> TensorSpec:
        """How a constant is stored."""
        held = self.constants[name]
        shape = tuple(int(n) for n in held.dims)
        if held.data_type != TensorProto.FLOAT:
            size = max(onnx.numpy_helper.to_array(held).dtype.itemsize, 1)
            return TensorSpec(name, shape, "float", width=8 * size)
        return TensorSpec(name, shape, kind, **more)  # type: ignore[arg-type]

    def _own(self, node: NodeProto, number: int) -> list[TensorSpec]:
        """The constants that a node reads; `number` is that of its product in the layer."""
        found = []
        for slot, name in enumerate(node.input):
            if name in self.constants:
                found.append(self._read_at(node, slot, name, number))
        bodies = [name for name in reads_of(node) if name in self.constants]
        if node.op_type in kernel_table.BODIES:
            return [replace(self.spec(name, "float"), width=32) for name in bodies]
        return found

    def _read_at(self, node: NodeProto, slot: int, name: str, number: int) -> TensorSpec:
        held = self.constants[name]
        rank, op = len(held.dims), node.op_type
        if op == "Gather" and slot == 0:
            return self.spec(name, "table", operation=number)
        if op in RECURRENT and slot in (1, 2):
            return self.spec(name, "weight", channels=int(held.dims[0] * held.dims[1]),
                             operation=number, channel_axis=1)  # fmt: skip
        if op in PRODUCTS and slot < 2 and rank > 1:
            axis = self._channel_axis(node, slot, rank)
            channels = 1 if axis is None else int(held.dims[axis])
            return self.spec(name, "weight", channels=channels, operation=number,
                             channel_axis=axis or 0)  # fmt: skip
        weight = next((n for n in node.input[1:2] if n in self.constants), "")
        if op in ("Conv", "Gemm", "ConvTranspose") and slot == 2 and rank == 1 and weight:
            return self.spec(name, "bias", operation=number, weight=weight,
                             grids=math.prod(held.dims))  # fmt: skip
        if op == "Add" and rank == 1:
            (other,) = [n for n in node.input if n != name] or [""]
            before = self.maker.get(other)
            if (
                before is not None
                and before.op_type == "MatMul"
                and self.inside.get(before.name) == self.inside.get(node.name)
            ):
                weight = next((n for n in before.input[:2] if n in self.constants), "")
                if weight:
                    return self.spec(name, "bias", operation=number, weight=weight)
        return self.spec(name, "float")

    def _channel_axis(self, node: NodeProto, slot: int, rank: int) -> int | None:
        if node.op_type == "Conv":
            return 0
        if node.op_type == "ConvTranspose":
            return 1
        if node.op_type == "Gemm":
            return 0 if attribute(node, "transB", 0) else 1
        if node.op_type == "Einsum":
            operands = [_Ranked(self._whole(name)) for name in node.input]
            return channel_axis(attribute(node, "equation", b"").decode(), slot, operands)
        return rank - 1 if slot == 1 else None

    # ---- what it costs

    def _whole(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in a run of few samples, or of those that the graph takes."""
        if name in self.constants:
            return tuple(int(n) for n in self.constants[name].dims)
        return self.forms[name].shape if name in self.forms else ()

    def _macs(self, node: NodeProto) -> int:
        made = math.prod(self._whole(node.output[0])) if node.output else 0
        shapes = [self._whole(name) for name in node.input]
        found = 0
        if node.op_type == "Conv":
            found = made * math.prod(shapes[1][1:])
        elif node.op_type == "ConvTranspose":
            found = math.prod(shapes[0]) * math.prod(shapes[1][1:])
        elif node.op_type == "Gemm":
            found = made * shapes[0][0 if attribute(node, "transA", 0) else 1]
        elif node.op_type == "MatMul":
            found = made * shapes[0][-1]
        elif node.op_type == "Einsum":
            equation = attribute(node, "equation", b"").decode()
            found = int(products(equation, [_Ranked(shape) for shape in shapes]))
        elif node.op_type in RECURRENT:
            steps = math.prod(shapes[0][:2])
            found = steps * (math.prod(shapes[1]) + math.prod(shapes[2]))
        return int(-(-found // self.samples))

    def _elements(self, name: str) -> int:
        return -(-math.prod(self._whole(name)) // self.samples)

    def _shape(self, names: list[str]) -> tuple[int, ...]:
        """The shape of a tensor without the axis that counts samples: the first, where none of
        them alone has another size for another number.
        """
        if not names:
            return ()
        whole = list(self._whole(names[0]))
        axes = self.forms[names[0]].axes if names[0] in self.forms else ()
        place = axes.index(None) if axes.count(None) == 1 else 0
        return tuple(whole[:place] + whole[place + 1 :])

    def _entering(self, group: Group) -> list[str]:
        """Activations that come from outside the group."""
        made = {name for node in group.nodes for name in self.node[node].output}
        read = [name for node in group.nodes for name in reads_of(self.node[node])]
        return [n for n in dict.fromkeys(read) if n not in made and n not in self.constants]

    def _leaving(self, group: Group) -> list[str]:
        """Activations that others read, or that the model gives."""
        inside = set(group.nodes)
        return [
            name
            for node in group.nodes
            for name in self.node[node].output
            if name in self.outputs
            or any(reader.name not in inside for reader in self.readers.get(name, ()))
        ]

    # ---- how they hang together

    def flow(self) -> tuple[tuple[Edge, ...], int]:
        """The data flow between layers, and how many joins it has: glue that several flow into."""
        came: dict[str, int | None] = {}
        elements: Counter[tuple[int, int]] = Counter()
        joins, total = 0, len(self.groups)
        for node in self.graph.node:
            place = self.inside.get(node.name)
            given = [n for n in reads_of(node) if came.get(n) is not None]
            floats = [n for n in given if n in self.forms and self.forms[n].kind == FLOAT]
            if place is not None:
                for name in floats or given:
                    origin = came[name]
                    if origin is not None and origin != place:
                        elements[origin, place] += self._elements(name)
                came |= dict.fromkeys(node.output, place)
                continue
            origins = dict.fromkeys(came[n] for n in floats)
            if len(origins) > 1:
                join = total + joins
                joins += 1
                for name in floats:
                    origin = came[name]
                    if origin is not None:
                        elements[origin, join] += self._elements(name)
                came |= dict.fromkeys(node.output, join)
            else:
                came |= dict.fromkeys(node.output, next(iter(origins), None))
        return tuple(Edge(a, b, n) for (a, b), n in sorted(elements.items())), joins

    def glue(self) -> tuple[str, ...]:
        """Names of nodes that compute values and are no layer."""
        return tuple(
            node.name
            for node in self.graph.node
            if node.name not in self.inside
            and node.op_type in POINTWISE | REDUCTIONS
            and any(n in self.forms and self.forms[n].kind == FLOAT for n in node.output)
        )


class _Ranked:
    """A shape where an array is expected."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.ndim = shape, len(shape)
