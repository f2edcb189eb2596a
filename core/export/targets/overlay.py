"""What overlays for graph viewers have in common: values by node, or by module without a graph."""

from __future__ import annotations

from collections.abc import Iterator

from core.export.targets.contract import ExportRequest

COLOURS = ("#1b6ca8", "#4fa3d1", "#e0a33b", "#c0504d")
"""From little to much: blue to red through pale tones, told apart without red against green."""


def places(request: ExportRequest) -> Iterator[tuple[int, str]]:
    """Position of each layer in the model, with each of its nodes; its own path without a graph."""
    for i, layer in enumerate(request.study.layers):
        nodes = () if request.graph is None else request.graph.of.get(layer.name, ())
        if request.graph is None:
            yield i, layer.name
        yield from ((i, node.name) for node in nodes)
