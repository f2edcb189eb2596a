"""What single layers of an ONNX graph give, each as a small graph of its own.

Such a graph takes the values that a pass of the whole one has made in front of the layer. A variant
is made of the file that `build` would make of it: roundings that it leaves out become nothing, and
weights that it leaves as they are come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from core.engines.onnx.engine import OnnxEngine
from core.engines.variant import AS_USUAL, InputChannels, Variant
from core.errors import ModelError
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges, Site
from core.numerics.scheme import Scheme
from core.onnx_graph.cut import Cutter, Part
from core.onnx_graph.forms import chunks, with_outputs
from core.onnx_graph.layered_graph import LayeredGraph, attribute
from core.onnx_graph.marking import LayerMarks
from core.onnx_graph.session import Feed
from core.onnx_graph.surgery import replace_nodes
from core.source.batches import Inputs

UNASKED = ("WeightBiasQuantization", "QDQSelectorActionTransformer")
"""Optimisers of ONNX Runtime that round what a variant leaves in float: the first rounds weights
beside rounded activations, the second takes kernels that round activations beside rounded weights.
"""
SCALED = "__equalised"
"""What is added to the name of an operand whose channels are scaled."""


@dataclass(frozen=True, eq=False)
class _LayerPart:
    """A layer's part of the graph, and what of it others read."""

    part: Part
    outputs: tuple[str, ...]


class GraphLayerOutputs:
    """`LayerOutputs` (`core.evidence.diagnose.own_output`) of the graph of `engine`, calibrated."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine
        self._cutter = Cutter(engine.graph, engine.model.forms)
        self._fed: list[Feed] = []
        self._graph: tuple[str, LayeredGraph] | None = None

    @property
    def ranges(self) -> Ranges:
        """The calibrated ranges."""
        return self._engine.ranges

    @property
    def scheme(self) -> Scheme:
        """How integers are done."""
        return self._engine.scheme

    @cached_property
    def _seen(self) -> dict[str, _LayerPart]:
        """Layer -> its part. What clips at the end of a product's kernel belongs to it: a grid that
        ends there clips too.
        """
        marks = LayerMarks(self._engine.graph, (), self.scheme)
        found = {}
        for name in self._engine.varied:
            outputs = marks.own_outputs(name)
            for node in self._engine.graph.products(name):
                clip = marks.clip_behind(marks.node[node.name])
                if clip is not None and node.output[0] in outputs:
                    outputs[outputs.index(node.output[0])] = clip.output[0]
            outputs = [tensor for tensor in outputs if tensor in self._engine.floats]
            part = self._cutter.alone(name, outputs) if outputs else None
            if part is not None:
                found[name] = _LayerPart(part, tuple(dict.fromkeys(outputs)))
        return found

    def record(
        self, inputs: Inputs, observe: Callable[[Site, Tensor, InputChannels | None], None]
    ) -> None:
        """Tell `observe` of every activation that the scheme may round, as it is."""
        channels: dict[Site, InputChannels | None] = {}

        def told(site: Site, value: Any) -> None:
            if site not in channels:
                channels[site] = self._channels(site)
            observe(site, torch.from_numpy(value), channels[site])

        self._engine.record(inputs, told)

    def reference(self, inputs: Inputs) -> dict[str, list[Tensor]]:
        """Own outputs of every layer in the reference precision on one batch."""
        engine = self._engine
        given = set(engine.graph.inputs)
        wanted = {
            name: None
            for one in self._seen.values()
            for name in (*one.part.reads, *one.outputs)
            if name not in given
        }
        session = engine.open(with_outputs(engine.graph.model, list(wanted), engine.model.forms))
        self._fed = [
            {**feed, **dict(zip(wanted, session.run(list(wanted), feed), strict=True))}
            for feed, _ in chunks(engine.model.feed(inputs), engine.model.batch)
        ]
        return {
            name: [torch.from_numpy(fed[o]) for fed in self._fed for o in one.outputs]
            for name, one in self._seen.items()
        }

    def of(
        self, layer: str, precision: Precision, inputs: Inputs, variant: Variant = AS_USUAL
    ) -> list[Tensor]:
        """Own outputs of `layer` in `precision`, on the batch that `reference` saw last; none where
        ONNX Runtime does not run it cut out.
        """
        one = self._seen.get(layer)
        if one is None:
            return []
        try:
            session = self._session(layer, one, precision, variant)
        except ModelError:
            return []
        found = []
        for fed in self._fed:
            feed = {name: fed[name] for name in one.part.reads}
            found += session.run(list(one.outputs), feed)
        return [torch.from_numpy(np.asarray(values)) for values in found]

    def _session(
        self, layer: str, one: _LayerPart, precision: Precision, variant: Variant
    ) -> ort.InferenceSession:
        graph = self._graph_of(layer, one)
        if variant.factors:
            graph = self._equalised(graph, layer, variant.factors)
        ranges = Ranges({**self.ranges, **variant.ranges})
        model, disabled, _ = self._engine.assembled(graph, {layer: precision}, ranges)
        if not (variant.weights and variant.activations):
            model, disabled = _without(model, graph.model, variant), (*disabled, *UNASKED)
        return self._engine.open(model, disabled)

    def _graph_of(self, layer: str, one: _LayerPart) -> LayeredGraph:
        """The graph of the layer that was asked for last: it comes in several variants."""
        if self._graph is None or self._graph[0] != layer:
            self._graph = layer, self._cutter.graph_of(one.part, one.outputs)
        return self._graph[1]

    # ---- input channels

    def _channels(self, site: Site) -> InputChannels | None:
        layer, number, slot = site
        if number < 0 or slot == OUTPUT:
            return None
        node = self._engine.graph.products(layer)[number]
        weight = self._weight(self._engine.graph.model, node)
        if weight is None or slot != 0:
            return InputChannels(-1)
        most = np.abs(_by_channel(node, weight)).max(axis=(1, 3))
        return InputChannels(_axis(node, weight), torch.from_numpy(most.ravel()))

    def _weight(self, model: onnx.ModelProto, node: NodeProto) -> Any:
        """The weight that a product multiplies its operand with; None where it has none, or where
        its channels are not known.
        """
        if node.op_type not in ("Conv", "Gemm", "MatMul") or attribute(node, "transA", 0):
            return None
        held = next((c for c in model.graph.initializer if c.name == node.input[1]), None)
        if held is None or (node.op_type != "Conv" and len(held.dims) != 2):
            return None
        return numpy_helper.to_array(held)

    def _equalised(
        self, graph: LayeredGraph, layer: str, factors: Mapping[Site, Tensor]
    ) -> LayeredGraph:
        """`graph` with the input channels of products divided by `factors` and their weights
        multiplied.
        """
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        layer_of, nodes = dict(graph.layer_of), list[NodeProto]()
        places = {node.name: n for n, node in enumerate(graph.products(layer))}
        for node in model.graph.node:
            given = factors.get((layer, places.get(node.name, -1), 0))
            weight = None if given is None else self._weight(model, node)
            if given is not None and weight is not None:
                by = given.numpy().astype(np.float32)
                spread = by.reshape(-1, *[1] * (-_axis(node, weight) - 1))
                name = f"{node.name}{SCALED}"
                scaled = _by_channel(node, weight) * _by_group(node, weight, by)
                back = _as_held(node, scaled, weight.shape)
                model.graph.initializer.append(numpy_helper.from_array(spread, f"{name}_by"))
                model.graph.initializer.append(
                    numpy_helper.from_array(np.ascontiguousarray(back), f"{name}_weight")
                )
                nodes.append(helper.make_node("Div", [node.input[0], f"{name}_by"], [name], name))
                layer_of[name] = None
                node.input[0], node.input[1] = name, f"{name}_weight"
            nodes.append(node)
        replace_nodes(model, nodes)
        return LayeredGraph(model, layer_of, graph.inputs, graph.output)


def _axis(node: NodeProto, weight: Any) -> int:
    """The axis of an operand along which its channels lie, counted from behind."""
    return 1 - weight.ndim if node.op_type == "Conv" else -1


def _by_channel(node: NodeProto, weight: Any) -> Any:
    """A weight as (groups, outputs, inputs, kernel), where input channel `group * inputs + input`
    stands at [group, :, input].
    """
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    rows = weight if attribute(node, "transB", 0) else weight.T
    return rows[None, :, :, None]


def _by_group(node: NodeProto, weight: Any, by: Any) -> Any:
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    return by.reshape(groups, 1, -1, 1)


def _as_held(node: NodeProto, by_channel: Any, shape: tuple[int, ...]) -> Any:
    """The weight in the layout that the node reads."""
    if node.op_type == "Conv":
        return by_channel.reshape(shape)
    rows = by_channel[0, :, :, 0]
    return rows if attribute(node, "transB", 0) else rows.T


def _without(
    model: onnx.ModelProto, float_model: onnx.ModelProto, variant: Variant
) -> onnx.ModelProto:
    """`model` without the roundings that `variant` leaves out: those of activations become nothing,
    or what clips where a grid's end had taken its place, and nodes read weights and biases as
    `float_model` has them.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    before = {node.name: node for node in float_model.graph.node}
    names = {node.name for node in found.graph.node}
    clips = {n.output[0]: n for n in float_model.graph.node if n.name not in names}
    constants = {c.name for c in found.graph.initializer}
    rounded = {
        n.output[0]
        for n in found.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in constants
    }
    for node in found.graph.node:
        is_rounding = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if is_rounding and not variant.activations and node.output[0] not in rounded:
            given, made = node.input[0], node.output[0]
            node.CopyFrom(
                clips.get(made) or helper.make_node("Identity", [given], [made], node.name)
            )
            node.input[0] = given
        elif not variant.weights and node.name in before:
            for slot, name in enumerate(node.input):
                if name in rounded:
                    node.input[slot] = before[node.name].input[slot]
    read = {name for node in found.graph.node for name in node.input}
    back = [c for c in float_model.graph.initializer if c.name in read - constants]
    found.graph.initializer.extend(back)
    anew = {c.name for c in back}  # some keep the name of what they were before they were rounded
    replace_nodes(found, [node for node in found.graph.node if not anew & set(node.output)])
    return found
