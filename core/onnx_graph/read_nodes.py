"""Read the node table of an ONNX file.

Needs the package onnx. Nothing in the file is run: weights are read as bytes or not at all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from core.errors import MapError
from core.files import FileKind
from core.layers import LayerTable
from core.onnx_graph.node_table import SCHEMA_VERSION, TYPES_OF, Node, NodeTable

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where `torch.onnx.export(dynamo=True)` keeps the module path of a node."""

GRAPHS = FileKind(MapError, 2**31, "Give a file that torch.onnx.export wrote.")
"""A protobuf has 2 GiB at most."""

_TAIL = re.compile(r"/[A-Za-z]+(_\d+)?$")
_QUOTED = re.compile(r"'([^']*)'")


def read(path: Path, layers: LayerTable) -> NodeTable:
    """The nodes of the ONNX file at `path`, with the module of each.

    That is the module in the node's metadata if it computes products; else the one that owns a
    weight which the node reads (a batch norm folded into its convolution leaves its own path
    there); else the one in the node's name (`/stem/conv/Conv`). Raises `MapError` where the file
    cannot be read.
    """
    return from_bytes(GRAPHS.read(path), layers, str(path))


def from_bytes(raw: bytes, layers: LayerTable, origin: str) -> NodeTable:
    """`read` of a file's bytes; weights that lie outside the file are not looked for."""
    try:
        import onnx
    except ImportError as error:
        raise MapError(
            f"{origin} cannot be read: the package onnx is not installed.",
            "Install onnx, or give the node table that `python -m core nodes` writes.",
        ) from error
    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:  # protobuf's own errors share no base class
        raise MapError(
            f"{origin} is no ONNX model: {str(error)[:200] or type(error).__name__}.",
            "Give a file that torch.onnx.export wrote.",
        ) from error
    return table(model, layers)


def table(model: Any, layers: LayerTable) -> NodeTable:
    """The nodes of an `onnx.ModelProto`."""
    reader = _Reader(layers, {tensor.name for tensor in model.graph.initializer})
    nodes = tuple(
        Node(node.name, node.op_type, reader.module(node), tuple(node.input), tuple(node.output))
        for node in model.graph.node
    )
    opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)
    written = f"{model.producer_name} {model.producer_version}".strip() or "unknown exporter"
    return NodeTable(SCHEMA_VERSION, f"{written}, opset {opset}", nodes)


def module_of(node: Any) -> str:
    """Path of the module that an exporter of PyTorch names in a node's metadata; "" if none is."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
    found = _QUOTED.findall(scopes)[-2:-1]  # the last is the operation's own name
    return str(found[0]) if found else ""


class _Reader:
    """Finds the module of a node."""

    def __init__(self, layers: LayerTable, weights: set[str]) -> None:
        self.weights = weights
        self.known = {*layers.names, *layers.glue, *(p for one in layers for p in one.parts)}
        self.products = {
            path
            for one in layers
            if {kind for kind, _ in one.operations} & set(TYPES_OF)
            for path in (one.name, *one.parts)
        }

    def module(self, node: Any) -> str:
        """Path of the module that `node` came from; "" for the model itself."""
        path = module_of(node)
        if path and self._longest(path) in self.products:
            return path
        for tensor in node.input:
            owner = tensor.rpartition(".")[0]
            if tensor in self.weights and owner in self.known:
                return str(owner)
        if path:
            return path
        return self._longest(_TAIL.sub("", node.name).strip("/").replace("/", "."))

    def _longest(self, path: str) -> str:
        """The longest known module that `path` lies under."""
        while path and path not in self.known:
            path = path.rpartition(".")[0]
        return path
