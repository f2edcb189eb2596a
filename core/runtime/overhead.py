"""What a file holds beside its tensors, measured on uniform builds: by layer and precision.

A graph's nodes, names and the scales of biases take a tenth of a small model's file and more of
its INT8 one. They are counted once per analysis in the files of uniform maps, and casts between
precisions in two mixed ones, so that the file of any map is known before it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.numerics import precision as registry
from core.onnx_graph.layered_graph import LayeredGraph, layer_of_node
from core.runtime.build import assemble

MIXED, MIXED_SEED = 2, 20219
FIELD_BYTES = 4
"""Tag and length around a node or a tensor within the graph."""


@dataclass(frozen=True, eq=False)
class Overhead:
    """`extra` [P, L]: bytes of a layer beyond its tensors, by precision; `rest`: of no layer;
    `crossing`: for each edge of the graph between two precisions.
    """

    study: Study
    extra: NDArray[np.int64]
    rest: int
    crossing: float = 0.0

    def file_bytes(self, chosen: PrecisionMap) -> int:
        """Predicted bytes of the file of `chosen`: tensors by the size model, and the overhead."""
        row = np.maximum(chosen.codes, 0)
        column = np.arange(len(row))
        sizes = self.study.size_bytes[row, column].sum() + self.study.glue_bytes
        casts = self.crossing * crossings(self.study, chosen)
        return round(int(sizes) + int(self.extra[row, column].sum()) + self.rest + casts)


def crossings(study: Study, chosen: PrecisionMap) -> int:
    """Edges of the graph whose ends differ in precision; joins are in the reference precision."""
    codes = [*(max(int(code), 0) for code in chosen.codes), *([0] * study.layers.joins)]
    return sum(codes[edge.source] != codes[edge.target] for edge in study.layers.edges)


def measure_overhead(graph: LayeredGraph, analysis: Analysis) -> Overhead:
    """Count the bytes of the files of uniform maps."""
    study = Study(analysis)
    rows, rest = [], 0
    for code, name in enumerate(study.precisions):
        uniform = answer.decide(study, Policy(strategy="uniform", uniform=name))
        model = assemble(graph, analysis, uniform).model
        by_layer = bytes_by_layer(model)
        row = [by_layer.get(layer.name, 0) for layer in study.layers]
        rows.append(np.array(row, dtype=np.int64) - study.size_bytes[code])
        if code == 0:
            rest = model.ByteSize() - sum(row) - study.glue_bytes
    bare = Overhead(study, np.stack(rows), rest)
    beyond, edges = 0, 0
    for chosen in _mixed(study):
        beyond += assemble(graph, analysis, chosen).file_bytes - bare.file_bytes(chosen)
        edges += crossings(study, chosen)
    return replace(bare, crossing=beyond / edges if edges else 0.0)


def _mixed(study: Study) -> list[PrecisionMap]:
    """Maps with every precision in random layers."""
    rng = np.random.default_rng(MIXED_SEED)
    draws = [rng.choice(study.precisions, len(study.layers)) for _ in range(MIXED)]
    return [
        answer.decide(study,
            Policy(strategy="manual", high=registry.REFERENCE,
                   overrides=tuple((n, str(p)) for n, p in zip(study.layers.names, row, strict=True)))
        )
        for row in draws
    ]  # fmt: skip


def bytes_by_layer(model: onnx.ModelProto) -> Mapping[str, int]:
    """Bytes of nodes and of the tensors that they are the first to read, by layer."""
    found: dict[str, int] = {}
    reader: dict[str, str] = {}
    for node in model.graph.node:
        layer = layer_of_node(node) or ""
        found[layer] = found.get(layer, 0) + node.ByteSize() + FIELD_BYTES
        for given in node.input:
            if layer or given not in reader:
                reader.setdefault(given, layer)
    for constant in model.graph.initializer:
        layer = reader.get(constant.name, "")
        found[layer] = found.get(layer, 0) + constant.ByteSize() + FIELD_BYTES
    return found
