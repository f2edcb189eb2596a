"""The part of a graph that follows a layer, as a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from core.onnx_graph.forms import TensorForm
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.read_model import reads_of


@dataclass(frozen=True, eq=False)
class Part:
    """The nodes of `layer` and those that depend on them, by place; `reads` are the values that
    they take from before.
    """

    layer: str
    nodes: tuple[int, ...]
    reads: tuple[str, ...]


class Cutter:
    """Cuts `graph` before any of its layers. `forms` are those of its tensors."""

    def __init__(self, graph: LayeredGraph, forms: Mapping[str, TensorForm]) -> None:
        self.graph, self.forms = graph, forms
        self._nodes = list(graph.model.graph.node)
        self._reads = [reads_of(node) for node in self._nodes]
        self._constants = {c.name: c for c in graph.model.graph.initializer}
        self._inputs = {v.name: v for v in graph.model.graph.input}
        self._infos = {v.name: v for v in graph.model.graph.value_info}

    @cached_property
    def _useful(self) -> set[int]:
        """Places of nodes that the judged output depends on."""
        wanted, found = {self.graph.output}, set()
        for i in range(len(self._nodes) - 1, -1, -1):
            if wanted & set(self._nodes[i].output):
                found.add(i)
                wanted.update(self._reads[i])
        return found

    def after(self, layer: str) -> Part | None:
        """What follows `layer`; None where it does not reach the output, or where a value that
        would have to be kept is no tensor.
        """
        changed: set[str] = set()
        found = []
        for i, node in enumerate(self._nodes):
            own = self.graph.layer_of[node.name] == layer
            if not own and (i not in self._useful or not changed & set(self._reads[i])):
                continue
            found.append(i)
            changed.update(node.output)
        return self._part(layer, found) if self.graph.output in changed else None

    def alone(self, layer: str, outputs: Sequence[str]) -> Part | None:
        """What makes `outputs` of the nodes of `layer` and what it reads; None where one of these
        is no tensor.
        """
        own = {i for i, node in enumerate(self._nodes) if self.graph.layer_of[node.name] == layer}
        changed: set[str] = set()
        below = []
        for i, node in enumerate(self._nodes):
            if i in own or changed & set(self._reads[i]):
                below.append(i)
                changed.update(node.output)
        wanted, found = set(outputs), list[int]()
        for i in reversed(below):
            if i in own or wanted & set(self._nodes[i].output):
                found.append(i)
                wanted.update(self._reads[i])
        known = all(name in self.forms for name in outputs)
        return self._part(layer, sorted(found)) if known else None

    def _part(self, layer: str, places: list[int]) -> Part | None:
        """The nodes at `places`, in order, with what they read that none of them makes."""
        inside = {name for i in places for name in self._nodes[i].output} | self._constants.keys()
        reads = dict.fromkeys(n for i in places for n in self._reads[i] if n not in inside)
        if any(name not in self.forms for name in reads):
            return None
        return Part(layer, tuple(places), tuple(reads))

    def graph_of(self, part: Part, outputs: Sequence[str] = ()) -> LayeredGraph:
        """The graph of `part`, which takes what it reads and gives `outputs`, the judged one if
        none are named.
        """
        nodes = [self._nodes[i] for i in part.nodes]
        read = {name for i in part.nodes for name in self._reads[i]}
        made = {name for node in nodes for name in node.output}
        whole = self.graph.model
        model = onnx.ModelProto(ir_version=whole.ir_version)
        model.opset_import.extend(whole.opset_import)
        graph = model.graph
        graph.name = "part"
        graph.node.extend(nodes)
        graph.initializer.extend(c for name, c in self._constants.items() if name in read)
        graph.input.extend(
            self._inputs.get(name) or self.forms[name].info(name) for name in part.reads
        )
        graph.value_info.extend(v for name, v in self._infos.items() if name in made)
        if outputs:
            graph.output.extend(self.forms[name].info(name) for name in outputs)
        else:
            graph.output.extend(v for v in whole.graph.output if v.name == self.graph.output)
        layer_of = {node.name: self.graph.layer_of[node.name] for node in nodes}
        return LayeredGraph(model, layer_of, part.reads, next(iter(outputs), self.graph.output))
