"""A source's model as an ONNX graph in float32 whose nodes know their layers.

`torch.export` follows the model once; its module paths come along in the nodes' metadata and
are read straight after, because whatever optimises the graph later drops them.
"""

from __future__ import annotations

import ast
import io
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from core.errors import ModelError
from core.layers import ROOT, LayerTable
from core.onnx_graph.layered_graph import LAYER_KEY, WITH_WEIGHT, LayeredGraph
from core.onnx_graph.read_nodes import SCOPES
from core.onnx_graph.surgery import MARK
from core.onnx_graph.weights_only import whole_weights
from core.runtime.export_errors import explained
from core.source.batches import (
    SEED,
    Inputs,
    Output,
    call,
    fixed_random_state,
    fused_attention_off,
    read_output,
    state_kept,
    take,
)
from core.source.contract import ModelSource
from core.source.fusion import folded_norms
from core.source.operations import COMPOSITES
from core.source.ownership import layer_owners
from core.source.recurrent import projects
from core.source.trees import map_tensors, named_tensors, tensors

_WRAPPED = "model"
NORM = "BatchNormalization"
SAMPLES = 2
"""Samples in the example batch: one would let an exporter take the axis for a constant."""

_FREE = {0: torch.export.Dim.DYNAMIC}
_REPEATED_CALL = re.compile(r"@\d+")
_TAKEN_APART = (
    F.scaled_dot_product_attention, F.multi_head_attention_forward, torch.rnn_tanh, torch.rnn_relu,
    torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell,
)  # fmt: skip
"""What the simulator sees as separate products has to be separate nodes, in the same order. LSTM and
GRU stay whole, because ONNX has operators for them, but for an LSTM with a projection."""


def layer_owner(
    source: ModelSource, layers: LayerTable, *, expand_units: bool
) -> dict[str, str | None]:
    """Module path -> layer, as the simulator has it; None for containers."""
    found = layer_owners(source, layers, expand_units=expand_units)
    known = set(layers.names)
    owner = {path: (name or ROOT) if (name or ROOT) in known and name is not None else None
             for path, name in found.items()}  # fmt: skip
    first = {id(module): path for path, module in source.model.named_modules()}
    return owner | {  # a module that the model has under several names is called by each
        path: owner[first[id(module)]]
        for path, module in source.model.named_modules(remove_duplicate=False)
        if first[id(module)] in owner
    }


def export(source: ModelSource, layers: LayerTable, *, expand_units: bool = False) -> LayeredGraph:
    """The model of `source` in ONNX, batch size free.

    Does not change the model. Raises `ModelError` naming operator and layer where PyTorch cannot
    export it.
    """
    owner = layer_owner(source, layers, expand_units=expand_units)
    given = take(source.calibration.inputs, 0, SAMPLES)
    wrapped = _JudgedOutput(source.model, given, source.output)
    flat = tuple(tensor.clone() for tensor in tensors(given))
    with _SeparateProducts():
        model = _exported(
            source,
            owner,
            wrapped,
            flat,
            {},
            (tuple(_FREE for _ in flat),),
            _input_names(given),
            folded_norms({layer.name: layer.fused for layer in layers}),
        )
    whole_weights(model)
    return _read(model, owner, layers)


def export_as_deployed(source: ModelSource, layers: LayerTable) -> onnx.ModelProto:
    """The model of `source` as `torch.onnx.export` alone gives it, whole and with module paths in
    its nodes: inputs are called x, or as the dict of inputs calls them. Raises like `export`.
    """
    given: Any = take(source.calibration.inputs, 0, SAMPLES)
    named = given if isinstance(given, dict) else {}
    arguments = () if named else (given,) if isinstance(given, Tensor) else tuple(given)
    free = dict.fromkeys(named, _FREE) or tuple(_FREE for _ in arguments)
    names = ["x"] if len(arguments) == 1 else list(named) or None
    owner = layer_owner(source, layers, expand_units=False)
    return _exported(source, owner, source.model, arguments, named, free, names)


def _exported(
    source: ModelSource, owner: Mapping[str, str | None], module: nn.Module,
    arguments: tuple[Any, ...], named: dict[str, Any], free: Any, names: list[str] | None,
    folded: Collection[str] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """`module` in ONNX. Of its batch norms the exporter folds those at the paths `folded` alone, or
    where that is None as it pleases: what is returned beside, shared, or in training mode too.
    """
    try:
        with (
            torch.no_grad(), fixed_random_state(SEED), fused_attention_off(),
            state_kept(source.model), _quietly(),
        ):  # fmt: skip
            program = torch.onnx.export(
                module.eval(), arguments, kwargs=named, dynamo=True, dynamic_shapes=free,
                verbose=False, external_data=False, input_names=names, optimize=folded is None,
            )  # fmt: skip
            if program is not None and folded is not None:
                with _norms_kept(program.model.graph, folded):
                    program.optimize()
    except Exception as error:
        raise explained(error, source.model, owner) from error
    if program is None:
        raise ModelError("PyTorch exported nothing.", "Run torch.onnx.export by hand.")
    model: onnx.ModelProto = program.model_proto
    return model


@contextmanager
def _norms_kept(graph: Iterable[Any], folded: Collection[str]) -> Iterator[None]:
    """Batch norms of `graph` that are not at the paths `folded` go by another name, which no rule of
    an optimiser knows.
    """
    kept = [
        node
        for node in graph
        if node.op_type == NORM
        and next(iter(_paths(node.metadata_props.get(SCOPES, ""))), None) not in folded
    ]
    for node in kept:
        node.op_type = f"{NORM}{MARK}"
    try:
        yield
    finally:
        for node in kept:
            node.op_type = NORM


class _JudgedOutput(nn.Module):
    """The model as a function of its input tensors alone, giving the one output that is judged."""

    def __init__(self, model: nn.Module, inputs: Inputs, output: Output) -> None:
        super().__init__()
        self.model = model
        self._inputs, self._output = inputs, output

    def forward(self, *flat: Tensor) -> Tensor:
        """The output, in its own shape."""
        rest = iter(flat)
        return read_output(call(self.model, map_tensors(self._inputs, lambda _: next(rest))),
                           self._output)  # fmt: skip


class _SeparateProducts(TorchFunctionMode):
    """Attention in one call becomes the two products that the simulator rounds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        if func in _TAKEN_APART or (func is torch.lstm and projects(*args)):
            with self:
                return COMPOSITES[func](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter speaks of optional packages, of PyTorch's own deprecations, and of what it
    could not simplify or follow.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(), redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _input_names(inputs: Inputs) -> list[str]:
    """A readable name for each input tensor: "input", or its place such as "input_mask"."""
    paths = [re.sub(r"\W+", "_", path).strip("_") for path, _ in named_tensors(inputs)]
    return [f"input_{path}" if path else "input" for path in paths]


def _read(
    model: onnx.ModelProto, owner: Mapping[str, str | None], layers: LayerTable
) -> LayeredGraph:
    """Node -> layer from the metadata, which then makes room for the layer's name alone."""
    norms = {layer.name for layer in layers if layer.role == "batch_norm"}
    reader = {spec.name: layer.name for layer in layers for spec in layer.tensors}
    layer_of: dict[str, str | None] = {}
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
        name = _owner_of(node, owner)
        if node.op_type in WITH_WEIGHT and (name is None or name in norms):
            # A folded batch norm leaves its own path on the product that holds it.
            weights = (_plain(given) for given in node.input[1:2])
            name = next((reader[w] for w in weights if w in reader), name)
        layer_of[node.name] = name
        _strip(node)
        if name is not None:
            node.metadata_props.add(key=LAYER_KEY, value=name)
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output,
                  *model.graph.initializer, model.graph, model):  # fmt: skip
        _strip(value)
    inputs = tuple(value.name for value in model.graph.input)
    return LayeredGraph(model, layer_of, inputs, model.graph.output[0].name)


def _strip(value: Any) -> None:
    del value.metadata_props[:]


def _plain(name: str) -> str:
    return name.removeprefix(f"{_WRAPPED}.")


def _owner_of(node: onnx.NodeProto, owner: Mapping[str, str | None]) -> str | None:
    """The layer of a node: that of the innermost module it was called in."""
    said = next((p.value for p in node.metadata_props if p.key == SCOPES), "")
    return next((owner[path] for path in _paths(said) if path in owner), None)


def _paths(said: str) -> Iterator[str]:
    """Paths of the modules that a node was called in, the innermost first, as its metadata say."""
    try:
        scopes = ast.literal_eval(said) if said else []
    except (SyntaxError, ValueError):
        scopes = []
    for scope in reversed(scopes[:-1]):
        path = _REPEATED_CALL.sub("", str(scope))
        if path == _WRAPPED or path.startswith(f"{_WRAPPED}."):
            yield path.removeprefix(_WRAPPED).removeprefix(".")
