"""The float32 graph that a source is built from: its own, or its module's as PyTorch exports it."""

from __future__ import annotations

from core.layers import LayerTable
from core.onnx_graph.layered_graph import LayeredGraph
from core.runtime.torch_export import export
from core.source.contract import ModelSource
from core.source.kinds import is_graph
from core.source.onnx_model import layered


def graph_of(
    source: ModelSource, layers: LayerTable, *, expand_units: bool = False
) -> LayeredGraph:
    """The graph of `source`, whose nodes know their layers. Raises `ModelError` where PyTorch
    cannot export the model.
    """
    if is_graph(source.model):
        return layered(source.model, layers, source.output)
    return export(source, layers, expand_units=expand_units)
