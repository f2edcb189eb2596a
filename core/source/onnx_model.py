"""An ONNX graph as a model: called as a PyTorch module is, run by ONNX Runtime.

What reads outputs, keeps time or judges calls it like any module; what knows of layers works on
its graph (`core.source.onnx_inventory`, `core.engines.onnx`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from core.errors import DataError, ModelError, told
from core.layers import LayerTable
from core.onnx_graph.forms import TensorForm, chunks, fixed_batch, observed_forms
from core.onnx_graph.layered_graph import LAYER_KEY, LayeredGraph
from core.onnx_graph.node_table import SCHEMA_VERSION, Node, NodeTable
from core.onnx_graph.prepare import prepared
from core.onnx_graph.read_model import GivenModel
from core.onnx_graph.session import Feed, open_session
from core.onnx_graph.surgery import copied
from core.source.batches import Inputs, Output
from core.source.trees import tensors

TYPES = {
    TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32, TensorProto.INT16: torch.int16,
    TensorProto.INT8: torch.int8, TensorProto.UINT8: torch.uint8, TensorProto.BOOL: torch.bool,
}  # fmt: skip
"""Types that an input may have."""
NOT_FLOAT = {
    TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64",
}  # fmt: skip


class OnnxModel(nn.Module):
    """A graph that was read and prepared. `graph` is never changed; `folded` and `parameters` are
    those of `core.onnx_graph.prepare.Prepared`. `forms` are known once `learn` has seen inputs.
    """

    def __init__(self, given: GivenModel) -> None:
        super().__init__()
        made = prepared(given)
        self.graph, self.folded, self.parameters_of = made.model, made.folded, made.parameters
        self.given, self.made_of = made.given, made.made_of
        self.sha256, self.origin = given.sha256, given.origin
        self.input_names = tuple(v.name for v in self.graph.graph.input)
        self.output_names = tuple(v.name for v in self.graph.graph.output)
        self.forms: dict[str, TensorForm] = {}
        self.batch = fixed_batch(self.graph)
        self._session: ort.InferenceSession | None = None
        _check_weights(self.graph, given.origin)

    def get_extra_state(self) -> Tensor:
        """What stands for the weights: the digest of the file."""
        return torch.frombuffer(bytearray.fromhex(self.sha256), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Nothing is loaded into a graph that was read from a file."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a session belongs to its process

    def by_name(self, inputs: Inputs) -> dict[str, Tensor]:
        """`inputs` by the names of the graph, in its order and types. Raises `DataError` where they
        do not fit.
        """
        if isinstance(inputs, dict):
            unknown = [name for name in inputs if name not in self.input_names]
            missing = [name for name in self.input_names if name not in inputs]
            if unknown or missing:
                what = f"no {missing[0]!r}" if missing else f"an unknown {unknown[0]!r}"
                raise DataError(
                    f"The inputs give {what}.",
                    f"The model's inputs are: {', '.join(self.input_names)}.",
                )
            values = [inputs[name] for name in self.input_names]
        else:
            values = tensors(inputs)
            if len(values) != len(self.input_names):
                raise DataError(
                    f"{len(values)} inputs are given to a model that takes "
                    f"{len(self.input_names)}: {', '.join(self.input_names)}.",
                    "Give them by name.",
                )
        found = {}
        for value, said in zip(values, self.graph.graph.input, strict=True):
            kind = TYPES.get(said.type.tensor_type.elem_type)
            if kind is None or not isinstance(value, Tensor):
                raise DataError(f"Input {said.name!r} is no tensor of numbers.", "Give an array.")
            found[str(said.name)] = value.detach().to("cpu", kind)
        return found

    def feed(self, inputs: Inputs) -> Feed:
        """`inputs` as a session takes them."""
        return {n: np.ascontiguousarray(t.numpy()) for n, t in self.by_name(inputs).items()}

    def forward(self, *args: Any, **named: Any) -> dict[str, Tensor]:
        """Every output by name, [N, ...]."""
        if self._session is None:
            self._session = open_session(self.graph, threads=torch.get_num_threads())
        feed = self.feed(named or (args[0] if len(args) == 1 else args))
        values = run_session(self._session, self.output_names, feed, self.batch)
        return {
            name: torch.from_numpy(value)
            for name, value in zip(self.output_names, values, strict=True)
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        }

    def learn(self, inputs: Inputs) -> None:
        """Find out the form of every tensor from the first samples of `inputs`."""
        self.forms = observed_forms(self.graph, self.feed(inputs), self.origin)

    def judged(self, output: Output) -> str:
        """The name of the output that is judged: as `output` names it, else the first of floats."""
        if isinstance(output, str) and output in self.output_names:
            return output
        if output is not None:
            raise ModelError(
                f"The source's 'output' {output!r} is no output of the graph.",
                f"Name one of: {', '.join(self.output_names)}.",
            )
        floats = [
            str(v.name)
            for v in self.graph.graph.output
            if v.type.tensor_type.elem_type == TensorProto.FLOAT
        ]
        if not floats:
            raise ModelError(f"{self.origin} gives no float32 output.", "Add one to the graph.")
        return floats[0]

    def stored(self) -> dict[str, NDArray[Any]]:
        """Every constant by name."""
        return {c.name: onnx.numpy_helper.to_array(c) for c in self.graph.graph.initializer}


def run_session(
    session: ort.InferenceSession, names: tuple[str, ...], feed: Feed, batch: int | None
) -> list[Any]:
    """The outputs `names` for all samples of `feed`, `batch` of them at a time (None: all)."""
    parts = []
    for part, count in chunks(feed, batch):
        try:
            values = session.run(list(names), part)
        except Exception as error:  # ONNX Runtime has a class of its own for each status
            raise ModelError(
                f"ONNX Runtime failed: {told(error)}.", "Run the file by hand on those samples."
            ) from error
        parts.append(values if batch is None else [v[:count] for v in values])
    return parts[0] if len(parts) == 1 else [np.concatenate(v) for v in zip(*parts, strict=True)]


def nodes_by_layer(model: OnnxModel, layers: LayerTable) -> NodeTable:
    """The nodes of a person's file with the layer of each, those that were folded too."""
    owner = {node: layer.name for layer in layers for node in layer.parts}
    owner |= {
        gone: owner[node] for node, all_ in model.folded.items() for gone in all_ if node in owner
    }
    opset = next((o.version for o in model.graph.opset_import if not o.domain), 0)
    nodes = tuple(
        Node(n.name, n.op_type, owner.get(n.name, ""), tuple(n.input), tuple(n.output))
        for n in model.given
    )
    return NodeTable(SCHEMA_VERSION, f"{Path(model.origin).name}, opset {opset}", nodes)


def layered(model: OnnxModel, layers: LayerTable, output: Output = None) -> LayeredGraph:
    """The graph of `model` with the layers of its nodes, as builders take it."""
    made = copied(model.graph)
    owner = {node: layer.name for layer in layers for node in layer.parts}
    layer_of: dict[str, str | None] = {}
    for node in made.graph.node:
        name = layer_of[node.name] = owner.get(node.name)
        del node.metadata_props[:]
        if name is not None:
            node.metadata_props.add(key=LAYER_KEY, value=name)
    known = {v.name for v in (*made.graph.input, *made.graph.output)}
    made.graph.value_info.extend(
        form.info(name) for name, form in model.forms.items() if name not in known
    )
    return LayeredGraph(made, layer_of, model.input_names, model.judged(output))


def _check_weights(model: ModelProto, origin: str) -> None:
    """Raise `ModelError` for inputs and weights that are no float32, or not finite."""
    for given in model.graph.input:
        kind = given.type.tensor_type.elem_type
        if kind in NOT_FLOAT:
            raise ModelError(
                f"{origin}: input {given.name!r} is {NOT_FLOAT[kind]}, not float32.", AS_FLOAT
            )
        if kind not in TYPES:
            raise ModelError(
                f"{origin}: input {given.name!r} is no tensor of numbers.",
                "Take what makes numbers of it out of the graph.",
            )
    for constant in model.graph.initializer:
        if constant.data_type in NOT_FLOAT and len(constant.dims) > 1:
            raise ModelError(
                f"{origin}: weight {constant.name!r} is {NOT_FLOAT[constant.data_type]}, not float32.",
                AS_FLOAT,
            )
        if constant.data_type == TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(constant)
            is_mask = not np.isnan(values).any() and not np.isposinf(values).any()
            if not np.isfinite(values).all() and not is_mask:
                raise ModelError(
                    f"{origin}: weight {constant.name!r} holds NaN or infinity.",
                    "Load an intact checkpoint: no figure can be computed from such weights.",
                )


AS_FLOAT = "Give the model in float32: every precision is measured against it."
