"""The layers of an ONNX file: which nodes are one, what they are called, hold and cost."""

from __future__ import annotations

import numpy as np
import pytest

from core.engines.engines import layers_of
from core.errors import ModelError
from core.layers import Layer, LayerTable
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.grouping import under
from tests.core.test_onnx_engine import source_of
from tests.zoo.graphs import GRAPHS, draw, graph, node, tables


def table(name: str, **more: object) -> LayerTable:
    """The layers of one of the zoo's graphs."""
    return layers_of(source_of(name, **more), ORT_CPU)


def _layer(found: LayerTable, name: str) -> Layer:
    return found.layers[found.index[name]]


def test_what_runs_in_one_kernel_is_one_layer() -> None:
    """A convolution takes its batch norm, bias and ReLU in, a MatMul its bias, and a hard swish of
    four nodes is one activation; each is called as its product or activation is.
    """
    found = table("opset_11")

    assert found.names == ("Conv@0", "Clip@0", "Conv@1", "Pool@0", "MatMul@0", "Softmax@0")
    assert found.roles == (
        "convolution", "activation", "convolution", "pooling", "output_projection", "activation",
    )  # fmt: skip
    assert _layer(found, "Clip@0").parts == ("Add@0", "Clip@0", "Mul@0", "Div@0")
    assert _layer(found, "Conv@1").parts == ("Conv@1", "Relu@0")


def test_parameters_and_macs_are_exact() -> None:
    """Weights, biases and the two factors of a batch norm count; multiply-accumulates are those of a
    sample, by hand.
    """
    found = table("opset_11")

    conv, second, product = (_layer(found, n) for n in ("Conv@0", "Conv@1", "MatMul@0"))
    assert (conv.params, conv.macs) == (4 * 27 + 8, 64 * 4 * 27)
    assert (second.params, second.macs) == (24 + 6, 64 * 6 * 4)
    assert (product.params, product.macs) == (30 + 5, 30)
    assert int(found.params.sum()) == 116 + 30 + 35
    assert (conv.input_shape, conv.output_shape) == ((3, 8, 8), (4, 8, 8))


def test_an_lstm_counts_every_step() -> None:
    """Its weights are met once a step, and its samples lie along the second axis."""
    lstm = _layer(table("recurrent"), "lstm")

    assert lstm.macs == 7 * (24 * 5 + 24 * 6)
    assert lstm.input_shape == (7, 5)
    assert lstm.dynamic


def test_a_norm_of_parts_is_one_layer() -> None:
    """Nine nodes that normalize one tensor are a layer norm, with two parameters a feature."""
    norm = _layer(table("recurrent"), "norm/mean")

    assert (norm.role, norm.params, len(norm.parts)) == ("layer_norm", 12, 9)


def test_a_node_without_a_name_is_called_as_what_it_gives() -> None:
    """Names stay a person's own, with every character in them."""
    assert table("odd_names").names == (
        "/enc.0/fc/MatMul", "r", "it's \"odd\" `${x}`", "a.b/c", "y",
    )  # fmt: skip


def test_shared_weights_belong_to_the_first_reader() -> None:
    """A weight that two products read, and a table that is turned for a third, count once."""
    found = table("shared_weights")

    assert [layer.params for layer in found] == [60, 36, 0, 0, 0]
    assert [spec.name for spec in _layer(found, "second").tensors] == []


def test_values_flow_through_what_is_no_layer() -> None:
    """A residual sum joins what flows into it; reshapes hand values on."""
    found = table("norm_left")
    join = len(found)

    edges = {(edge.source, edge.target): edge.elements for edge in found.edges}
    norm, conv, act, last = (found.index[n] for n in ("first_norm", "conv", "act", "last"))
    assert edges == {
        (norm, conv): 144, (norm, join): 144, (conv, join): 144, (join, act): 144, (act, last): 144,
    }  # fmt: skip
    assert (found.joins, found.glue) == (1, ("residual",))


def test_what_holds_a_graph_of_its_own_stays_in_float() -> None:
    """A branch and a loop are a layer each, whose weights take 32 bits in every precision."""
    found = table("bodies")

    assert [_layer(found, n).state for n in ("choose", "repeat")] == ["float", "float"]
    assert {spec.width for spec in _layer(found, "repeat").tensors if spec.name == "w2"} == {32}


def test_a_unit_is_what_lies_under_a_path() -> None:
    """`--unit` makes one layer of the nodes under each path that its wildcards match."""
    found = table("odd_names", units=["/enc.*/fc"])
    assert _layer(found, "/enc.0/fc").parts == ("/enc.0/fc/MatMul", "/enc.0/fc/Add")
    with pytest.raises(ModelError, match="No node lies under the unit 'nowhere'"):
        table("odd_names", units=["nowhere"])


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        (
            "/encoder/layers.0/attn/MatMul",
            ["encoder", "layers", "*", "attn"],
            "/encoder/layers.0/attn",
        ),
        ("a.b.c", ["a", "b"], "a.b"),
        ("a.b.c", ["a", "c"], None),
        ("ab", ["a"], None),
        ("a", ["a", "b"], None),
    ],
)
def test_paths_are_matched_part_by_part(name: str, path: list[str], expected: str | None) -> None:
    """Slashes and dots part names; a wildcard stays within its part."""
    assert under(name, path) == expected


def test_a_persons_role_wins() -> None:
    """`--role` names layers by wildcard, and one that matches none is refused."""
    assert table("odd_names", roles={"/enc*": "attention"}).roles[0] == "attention"
    with pytest.raises(ModelError, match="The role of 'none' is that of no layer"):
        table("odd_names", roles={"none": "attention"})


def test_products_around_a_softmax_are_attention() -> None:
    """Scores and values of attention have its role, through masks, scales and turns between."""
    nodes = [
        node("MatMul", "x wq", "q", "query"), node("MatMul", "x wk", "k", "key"),
        node("Transpose", "k", "kt", "turn", perm=[0, 2, 1]), node("MatMul", "q kt", "s", "scores"),
        node("Mul", "s scale", "sc", "scale"), node("Softmax", "sc", "p", "weights", axis=-1),
        node("MatMul", "p x", "y", "mix"),
    ]  # fmt: skip
    held = {"wq": draw(6, 6), "wk": draw(6, 6), "scale": np.float32(0.4)}
    here = {"attention": lambda: (graph(nodes, held, {"x": ["n", 5, 6]}), {"x": draw(8, 5, 6)})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.core.test_onnx_engine.GRAPHS", {**GRAPHS, **here})
        found = table("attention")

    roles = dict(zip(found.names, found.roles, strict=True))
    assert roles == {"query": "linear", "key": "output_projection", "scores": "attention",
                     "weights": "activation", "mix": "attention"}  # fmt: skip
    assert _layer(found, "scores").macs == 5 * 5 * 6


def test_tables_that_only_look_ups_read_are_kept_by_groups() -> None:
    """Formats by groups take a table along its rows, unless those take no whole bytes or something
    else reads it too.
    """
    with pytest.MonkeyPatch.context() as patch:
        here = {"tables": lambda: tables(columns=True)}
        patch.setattr("tests.core.test_onnx_engine.GRAPHS", {**GRAPHS, **here})
        found = table("tables")
    axes = {spec.name: spec.group_axis for layer in found for spec in layer.tensors}

    assert {layer.name for layer in found if layer.in_groups} == {"own", "narrow", "head"}
    assert axes == {"own": 1, "odd": -1, "both": -1, "narrow": 0, "w": 0}
