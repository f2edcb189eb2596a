"""The script that builds a mixed ONNX model from a person's own file, for two tools."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import core.numerics.scheme as schemes
from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.script import python
from core.numerics import precision as registry
from core.onnx_graph.grids import grids_of
from core.onnx_graph.group_weights import level_of
from core.onnx_graph.node_table import PRODUCTS

CLIPPING = ("Relu", "Clip")
KEPT = (*PRODUCTS, "Gather")
"""Types of nodes that read integers."""


def render(request: ExportRequest) -> str:
    """A Python script that does with the person's file and calibration data what
    `core.runtime.build` does with a source's, by the same text, on the grids of the target's scheme.
    """
    surgery = files("core.onnx_graph") / "surgery.py"
    grids = grids_of(schemes.get(request.target.scheme))
    nodes = () if request.graph is None else request.graph.nodes
    look_ups = {node.name for node in nodes if node.op_type == "Gather"}
    tables = {name for names in request.dynamic.values() for name in names} & look_ups
    return python(
        request,
        __name__,
        {
            "INT8_NODES": integer_nodes(request, tables, clips=bool(grids["rounded"])),
            "FP16_NODES": nodes_in(request, "FP16"),
            "PACKED": packed_nodes(request),
            "DYNAMIC": {
                layer: products
                for layer, names in request.dynamic.items()
                if (products := [name for name in names if name not in tables])
            },
            "GRIDS": grids,
        },
        SURGERY=surgery.read_text("utf-8"),
    )


def packed_nodes(request: ExportRequest) -> list[dict[str, Any]]:
    """Products with weights by groups: one entry for each format and level of accuracy, as `build`
    would choose it.
    """
    layers = request.study.layers
    found: dict[tuple[int, int, int], list[str]] = {}
    for line in request.lines:
        if line.got not in request.target.grouped:
            continue
        precision = registry.get(line.got)
        level = level_of(layers.layers[layers.index[line.layer]], precision)
        kept = precision.weights
        found.setdefault((kept.bits, kept.group, level), []).extend(line.names)
    return [
        {"bits": bits, "block_size": group, "accuracy_level": level, "nodes": nodes}
        for (bits, group, level), nodes in found.items()
    ]


def integer_nodes(request: ExportRequest, tables: set[str], *, clips: bool) -> list[str]:
    """Names of INT8 nodes and of `tables` in the graph's order; with activations that only clip where the scheme
    rounds outputs. Of a layer without products, whose output alone is rounded, these are the nodes
    that others read.
    """
    if request.graph is None:
        return request.integers
    chosen = {*request.integers, *tables}
    layers = {line.layer for line in request.lines if line.got in request.target.integers}
    readers: dict[str, set[str]] = {}
    for node, layer in zip(request.graph.nodes, request.graph.owner, strict=True):
        for tensor in node.inputs:
            readers.setdefault(tensor, set()).add(layer)
    return [
        node.name
        for node, layer in zip(request.graph.nodes, request.graph.owner, strict=True)
        if (node.name in chosen or (clips and layer in layers and node.op_type in CLIPPING))
        and (
            node.op_type in KEPT
            or any(readers.get(tensor, set()) != {layer} for tensor in node.outputs)
        )
    ]
