"""Node names of ONNX files: whose module is whose, for every way that exporters write names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import MapError
from core.export.targets.names import kept_nodes
from core.onnx_graph import node_table as graphs
from core.onnx_graph import read_nodes
from core.source import samples
from tests.core import deployable

onnx = pytest.importorskip("onnx", reason="reading ONNX files needs the package onnx")

LAYERS = deployable.layers()


def model(*nodes: Any, weights: tuple[str, ...] = ()) -> Any:
    """A model of these nodes; shapes do not matter."""
    held = [onnx.helper.make_tensor(name, 1, [1], [0.0]) for name in weights]
    graph = onnx.helper.make_graph(list(nodes), "g", [], [], initializer=held)
    return onnx.helper.make_model(graph, producer_name="pytorch", producer_version="2.13.0")


def node(op: str, name: str, inputs: list[str], scope: str = "") -> Any:
    """A node, with the metadata of `torch.onnx.export(dynamo=True)` if a scope is given."""
    found = onnx.helper.make_node(op, inputs, [f"{name}_out"], name=name)
    if scope:
        entry = found.metadata_props.add()
        entry.key, entry.value = read_nodes.SCOPES, scope
    return found


def modules(given: Any) -> dict[str, str]:
    """Module of each node."""
    return {n.name: n.module for n in read_nodes.table(given, LAYERS).nodes}


def test_metadata_of_the_dynamo_exporter_is_read() -> None:
    """The last scope but one is the module; the last is the operation's own name."""
    found = modules(
        model(
            node("MatMul", "n1", ["x", "val_1"], "['', 'mixer', 'mixer.linear1', 'linear_2']"),
            node("Add", "n2", ["a", "b"], "['', 'add_1']"),
            node("Softmax", "n3", ["a"], "['', 'attention', 'softmax']"),
        )
    )
    assert found == {"n1": "mixer.linear1", "n2": "", "n3": "attention"}


def test_a_folded_batch_norm_leaves_its_convolution_where_it_was() -> None:
    """Folding leaves the norm's path in the metadata; the weight says whose node it is."""
    conv = node("Conv", "n", ["x", "stem.conv.weight"], "['', 'stem', 'stem.norm', 'norm']")

    assert modules(model(conv, weights=("stem.conv.weight",))) == {"n": "stem.conv"}


def test_tied_weights_stay_with_the_module_that_runs() -> None:
    """A head that multiplies by the embedding's table is the head."""
    head = node("Gemm", "n", ["x", "table.weight"], "['', 'head', 'linear']")

    assert modules(model(head, weights=("table.weight",))) == {"n": "head"}


@pytest.mark.parametrize(("name", "module"), [
    ("/stem/conv/Conv", "stem.conv"),
    ("/mixer/linear1/MatMul_1", "mixer.linear1"),
    ("/attention/Softmax", "attention"),
    ("/Add", ""),
    ("/elsewhere/Mul", ""),
])  # fmt: skip
def test_names_of_the_older_exporter_are_read(name: str, module: str) -> None:
    """Without metadata the path stands in the node's name."""
    assert modules(model(node("Conv", name, ["x"]))) == {name: module}


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    """Garbage is an error with a next step."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x00\xff nothing")

    with pytest.raises(MapError, match="is no ONNX model"):
        read_nodes.read(path, LAYERS)


@pytest.mark.parametrize("name", samples.names())
def test_every_product_of_a_sample_has_its_nodes(name: str) -> None:
    """The table kept with a bundled analysis covers its layers, and none twice."""
    from core.analysis import store

    folder = samples.get(name).analysis
    table = kept_nodes(folder)
    assert table is not None
    layers = store.load(folder).layers
    graph = graphs.lay_over(table, layers)

    for layer in layers:
        if {"linear", "conv", "matmul"} & {kind for kind, _ in layer.operations}:
            products = [n for n in graph.of[layer.name] if n.op_type in graphs.PRODUCTS]
            calls = sum(n for kind, n in layer.operations if kind in {"linear", "conv", "matmul"})
            assert 0 < len(products) <= calls, layer.name
