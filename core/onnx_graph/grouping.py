"""Which nodes of a person's graph are one layer: a product with what runs in its kernel, a norm or
an activation with the nodes that it is made of.

What is in no group moves values, adds them up, or works on shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import ModelProto, NodeProto

from core.errors import ModelError
from core.numerics.kernel_table import BODIES
from core.onnx_graph.node_table import PRODUCTS, RECURRENT
from core.onnx_graph.read_model import readers_of
from core.onnx_graph.read_nodes import module_of
from core.onnx_graph.surgery import CLIPS

NORMS = frozenset(
    (
        "LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization", "InstanceNormalization", "GroupNormalization",
        "GroupNorm", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN",
    )
)  # fmt: skip
POOLINGS = frozenset(
    ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
)
ACTIVATIONS = frozenset(
    (
        "Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu",
        "FastGelu", "QuickGelu", "BiasGelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Mish",
        "Tanh", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Hardmax", "Erf",
    )
)  # fmt: skip
COMPUTES = frozenset(
    ("Attention", "MultiHeadAttention", "GroupQueryAttention", "DeformConv", "DFT")
)
"""Operators of another kind that are a layer each."""
SOFTMAXES = frozenset(("Softmax", "LogSoftmax", "Hardmax"))
POINTWISE = ACTIVATIONS - SOFTMAXES | {
    "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Max", "Min",
}  # fmt: skip
REDUCTIONS = frozenset(("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2"))
SEPARATOR = re.compile(r"[/.]")


@dataclass(frozen=True, slots=True)
class Group:
    """The nodes of one layer, in order; `kind` is the operator that it is there for."""

    name: str
    kind: str
    nodes: tuple[str, ...]


def grouped(model: ModelProto, units: Sequence[str] = ()) -> tuple[Group, ...]:
    """The layers of a prepared graph, in the order in which they start.

    `units` are paths with wildcards, of nodes' names or of the modules in their metadata: the nodes
    under each path that matches are one layer, but for norms, poolings, recurrent nodes and
    activations other than softmax. Raises `ModelError` where one matches nothing.
    """
    return _Grouping(model).groups(units)


class _Grouping:
    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.place = {node.name: i for i, node in enumerate(self.nodes)}
        self.constants = {c.name for c in model.graph.initializer}
        self.ranks = {c.name: len(c.dims) for c in model.graph.initializer}
        self.outputs = {v.name for v in model.graph.output}
        self.readers = readers_of(model.graph)
        self.taken: set[str] = set()
        self.found: list[Group] = []

    def groups(self, units: Sequence[str]) -> tuple[Group, ...]:
        for node in self.nodes:
            if node.op_type in PRODUCTS or node.op_type in RECURRENT:
                self._take(node.name, node.op_type, [node, *self._behind(node)])
            elif self._is_table(node) or node.op_type in (
                NORMS | POOLINGS | COMPUTES | {"BatchNormalization", *BODIES}
            ):
                self._take(node.name, node.op_type, [node])
        for cluster in self._clusters(POINTWISE | REDUCTIONS):
            self._take_norm(cluster)
        for cluster in self._clusters(POINTWISE):
            self._take_activation(cluster)
        for node in self.nodes:
            if node.op_type in ACTIVATIONS and node.name not in self.taken:
                self._take(node.name, node.op_type, [node])
        for name, members in self._matched(units).items():
            self._join(name, members)
        return tuple(sorted(self.found, key=lambda group: self.place[group.nodes[0]]))

    def _take(self, name: str, kind: str, nodes: Iterable[NodeProto]) -> None:
        names = tuple(sorted((n.name for n in nodes), key=self.place.__getitem__))
        self.taken.update(names)
        self.found.append(Group(name, kind, names))

    def _next(self, node: NodeProto) -> NodeProto | None:
        """The node that alone reads what `node` gives."""
        behind = self.readers.get(node.output[0], [])
        if len(node.output) > 1 or node.output[0] in self.outputs or len(behind) != 1:
            return None
        return behind[0]

    def _behind(self, node: NodeProto) -> list[NodeProto]:
        """What runs in the kernel of a product: a bias that is added, an activation that clips."""
        behind = self._next(node)
        if behind is None:
            return []
        if node.op_type == "MatMul" and behind.op_type == "Add":
            (other,) = [name for name in behind.input if name != node.output[0]] or [""]
            return [behind] if self.ranks.get(other) == 1 else []
        clips = behind.op_type in CLIPS and all(
            n in self.constants or not n for n in behind.input[1:]
        )
        return [behind] if node.op_type == "Conv" and clips else []

    def _is_table(self, node: NodeProto) -> bool:
        """Whether a node looks rows of a stored table up."""
        if node.op_type != "Gather" or self.ranks.get(node.input[0]) != 2:
            return False
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return axis == 0 and node.input[1] not in self.constants

    def _clusters(self, kinds: Collection[str]) -> list[list[NodeProto]]:
        """Nodes of `kinds` in no layer yet that depend on one tensor alone, by that tensor, of which
        one gives what others read.
        """
        base: dict[str, str] = {}
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            if node.name in self.taken or node.op_type not in kinds:
                continue
            given = [name for name in node.input if name and name not in self.constants]
            bases = {base.get(name, name) for name in given}
            if len(bases) == 1:
                (one,) = bases
                base[node.output[0]] = one
                found.setdefault(one, []).append(node)
        return [nodes for nodes in found.values() if len(nodes) > 1 and self._has_one_end(nodes)]

    def _has_one_end(self, nodes: list[NodeProto]) -> bool:
        inside = {node.name for node in nodes}
        ends = [
            node
            for node in nodes
            if node.output[0] in self.outputs
            or any(r.name not in inside for r in self.readers.get(node.output[0], ()))
        ]
        return len(ends) == 1

    def _take_norm(self, nodes: list[NodeProto]) -> None:
        """One layer of a norm that is made of parts."""
        kinds = {node.op_type for node in nodes}
        first = next((node for node in nodes if node.op_type in REDUCTIONS), None)
        if first is not None and kinds & {"Sqrt", "Pow", "ReduceL2"}:
            self._take(first.name, "LayerNormalization", nodes)

    def _take_activation(self, nodes: list[NodeProto]) -> None:
        """One layer of an activation that is made of parts."""
        anchor = next((node for node in nodes if node.op_type in ACTIVATIONS), None)
        if anchor is not None:
            self._take(anchor.name, anchor.op_type, nodes)

    def _matched(self, units: Sequence[str]) -> dict[str, list[str]]:
        """Unit -> the nodes under it."""
        found: dict[str, list[str]] = {}
        own = NORMS | POOLINGS | set(RECURRENT) | (ACTIVATIONS - SOFTMAXES)
        kept = {n for g in self.found if g.kind in own for n in g.nodes}
        for pattern in units:
            wanted = [part for part in SEPARATOR.split(pattern) if part]
            some = False
            for node in self.nodes:
                unit = under(node.name, wanted) or under(module_of(node), wanted)
                if unit is not None:
                    some = True
                    if node.name not in kept:
                        found.setdefault(unit, []).append(node.name)
            if not some:
                raise ModelError(
                    f"No node lies under the unit {pattern!r}.",
                    f"Nodes are: {', '.join(list(self.place)[:8])} ...",
                )
        return found

    def _join(self, unit: str, members: Collection[str]) -> None:
        """Make one layer of all nodes in `members` and of the layers that they belong to."""
        nodes = set(members)
        apart = []
        for group in self.found:
            if nodes & set(group.nodes):
                nodes.update(group.nodes)
            else:
                apart.append(group)
        names = tuple(sorted(nodes, key=self.place.__getitem__))
        self.taken.update(names)
        self.found = [*apart, Group(unit, "unit", names)]


def under(name: str, wanted: Sequence[str]) -> str | None:
    """The part of a node's name that the path `wanted` matches, if the node lies under it."""
    edges = [match.end() for match in SEPARATOR.finditer(name)]
    parts = [(a, b) for a, b in zip([0, *edges], [*(e - 1 for e in edges), len(name)], strict=True)]
    parts = [(a, b) for a, b in parts if b > a]
    if len(parts) < len(wanted):
        return None
    if not all(fnmatchcase(name[a:b], one) for (a, b), one in zip(parts, wanted, strict=False)):
        return None
    return name[: parts[len(wanted) - 1][1]]


def attention_products(model: ModelProto) -> set[str]:
    """Names of products of two activations with a softmax between them."""
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {c.name for c in model.graph.initializer}
    readers = readers_of(model.graph)
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Softmax":
            found |= _reached(
                [made.get(node.input[0])], constants, lambda n: [made.get(x) for x in n.input]
            )
            found |= _reached(
                list(readers.get(node.output[0], [])), constants,
                lambda n: [r for name in n.output for r in readers.get(name, [])],
            )  # fmt: skip
    return found


BETWEEN = frozenset(
    ("Add", "Mul", "Div", "Sub", "Where", "Cast", "Reshape", "Transpose", "Dropout", "Identity", "Clip",
     "Max", "Min", "Expand", "Slice", "Squeeze", "Unsqueeze")
)  # fmt: skip
"""What may stand between a product of attention and its softmax."""


def _reached(
    start: Sequence[NodeProto | None], constants: set[str],
    step: Callable[[NodeProto], list[NodeProto | None]],
) -> set[str]:  # fmt: skip
    found, seen, todo = set(), set(), list(start)
    while todo:
        node = todo.pop()
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in ("MatMul", "Einsum"):
            if not constants & set(node.input):
                found.add(node.name)
        elif node.op_type in BETWEEN:
            todo += step(node)
    return found


def layers_by_node(groups: Iterable[Group]) -> Mapping[str, str]:
    """Node -> the layer that it belongs to; those of none are absent."""
    return {node: group.name for group in groups for node in group.nodes}
