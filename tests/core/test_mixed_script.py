"""The script that is exported for ONNX Runtime does what `build` does, by the same text."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from core.analysis import store
from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.targets.legality import legality
from core.export.targets.registry import export as export_to
from core.export.targets.registry import get
from core.onnx_graph import surgery
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.marking import LayerMarks
from core.onnx_graph.node_table import Graph, Node, NodeTable, lay_over
from core.onnx_graph.session import open_session
from core.runtime.build import assemble
from core.runtime.inference import run
from core.runtime.torch_export import export
from core.source import samples
from core.source.batches import Inputs
from tests.core.runtime_case import case_of
from tests.interop import sample
from tests.zoo import models
from tests.zoo.sources import source_of, tiny_source

TOOL = get("onnxruntime")
Built = tuple[LayeredGraph, Analysis, Inputs]


def _convolutions() -> Built:
    torch.manual_seed(1)
    case = case_of(source_of(models.ConvNet(), (1, 8, 8)))
    return case.graph, case.analysis, case.source.selection.inputs


def _resnet() -> Built:
    source = samples.load(f"{samples.PREFIX}digits_resnet")
    analysis = store.load(samples.get("digits_resnet").analysis)
    graph = export(source, analysis.layers, expand_units=analysis.expanded_units)
    return graph, analysis, source.selection.inputs


def _transformer() -> Built:
    case = case_of(tiny_source())
    return case.graph, case.analysis, case.source.selection.inputs


def _map(study: Study, wanted: dict[str, str]) -> PrecisionMap:
    return answer.decide(
        study, Policy(strategy="manual", high="FP32", overrides=tuple(wanted.items()))
    )


def _named(graph: LayeredGraph, analysis: Analysis) -> Graph:
    """The nodes of the graph, each in its layer."""
    nodes = tuple(
        Node(n.name, n.op_type, graph.layer_of[n.name] or "", tuple(n.input), tuple(n.output))
        for n in graph.model.graph.node
    )
    return lay_over(NodeTable(1, "here", nodes), analysis.layers)


def _parts(model: onnx.ModelProto) -> tuple[set[Any], dict[str, bytes]]:
    """Nodes without what `build` writes into them beside their work, and stored tensors."""
    nodes = {
        (n.name, n.op_type, *n.input, "->", *n.output,
         *sorted(a.SerializeToString() for a in n.attribute))
        for n in model.graph.node
    }  # fmt: skip
    return nodes, {c.name: c.SerializeToString() for c in model.graph.initializer}


def test_a_script_holds_the_text_that_builds() -> None:
    """The script has the module's source as it stands, which needs nothing of this program."""
    for target in ("onnxruntime", "tensorrt-qdq"):
        path = Path(inspect.getfile(get)).parent / _golden(target)
        assert inspect.getsource(surgery).rstrip() in path.read_text("utf-8")
    tree = ast.parse(inspect.getsource(surgery))
    roots = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert roots == {"collections", "dataclasses", "numpy", "onnx", "onnxruntime"}


def _golden(target: str) -> str:
    return {"onnxruntime": "onnxruntime/onnxruntime.golden",
            "tensorrt-qdq": "tensorrt/tensorrt_qdq.golden"}[target]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("made", [_convolutions, _resnet])
@pytest.mark.parametrize("turns", [("INT8",), ("INT8", "FP32", "INT8"), ("FP32", "INT8", "FP16")])
def test_script_and_build_give_one_graph(made: Any, turns: tuple[str, ...], tmp_path: Path) -> None:
    """Given the same ranges, the script makes the nodes and tensors that `build` makes, and
    outputs are equal bit for bit. Glue that reads FP16, which `build` leaves in float32, is left out.
    """
    _compare(*made(), turns, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "turns",
    [("INT4-g32",), ("INT8", "INT2-g32", "FP16"), ("INT8-W", "INT4-g128"), ("INT4-g32", "INT8")],
)
def test_script_and_build_give_one_graph_with_weights_by_groups(
    turns: tuple[str, ...], tmp_path: Path
) -> None:
    """MatMulNBits, by ONNX Runtime's quantizer in the script and by this program in `build`, have the
    same codes, scales, names and levels of accuracy, beside INT8 and FP16.
    """
    model = _compare(*_transformer(), turns, tmp_path)

    assert sum(node.op_type == "MatMulNBits" for node in model.graph.node) > 1


@pytest.mark.slow
@pytest.mark.parametrize("turns", [("INT8-dynamic",), ("INT8-dynamic", "FP16", "INT8", "INT4-g32")])
def test_script_and_build_give_one_graph_with_ranges_set_while_it_runs(
    turns: tuple[str, ...], tmp_path: Path
) -> None:
    """DynamicQuantizeLinear and MatMulInteger stand where `build` puts them, on the same integers."""
    model = _compare(*_transformer(), turns, tmp_path)

    assert sum(node.op_type == "MatMulInteger" for node in model.graph.node) > 1


def _compare(
    graph: LayeredGraph, analysis: Analysis, x: Inputs, turns: tuple[str, ...], tmp_path: Path
) -> onnx.ModelProto:
    """Build a map both ways; what `build` gives."""
    study, named = Study(analysis), _named(graph, analysis)
    wanted = {n: turns[i % len(turns)] for i, n in enumerate(study.layers.names)}
    wanted |= {
        one.layer: "FP32" for one in legality(study, _map(study, wanted), TOOL, named).illegal
    }
    chosen = _map(study, wanted)
    path = tmp_path / "script.py"
    path.write_bytes(export_to(study, chosen, "onnxruntime", graph=named).content)
    script = sample.imported(path)
    half = {n for n, p in chosen.by_layer.items() if p == "FP16"}
    script.FP16_NODES = [n for n, layer in graph.layer_of.items() if layer in half]
    marks = LayerMarks(graph, analysis.ranges, analysis.rounding)
    for layer in analysis.layers:
        if chosen.by_layer[layer.name] == "INT8":
            marks.take(layer)
    ranges = dict.fromkeys((t for n in graph.model.graph.node for t in n.output), (0.0, 1.0))
    ranges |= marks.rounded | {node.input[slot]: span for node, slot, span in marks.operands}

    built = assemble(graph, analysis, chosen)
    found = script.mixed(graph.model, ranges)

    kinds = {node.op_type for node in found.graph.node}
    assert "QuantizeLinear" in kinds or "INT8" not in turns
    assert _parts(found) == _parts(built.model)
    outputs = [run(open_session(m, built.disabled), built, x) for m in (found, built.model)]
    assert np.array_equal(*outputs)
    return built.model
