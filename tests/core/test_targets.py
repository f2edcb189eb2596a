"""Files for other tools: what each says of a map, against expectations written by hand."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide.assess.outcome import outcome
from core.decide.study import Study
from core.errors import MapError, PolicyError, check_names
from core.export.targets.contract import Exported
from core.export.targets.legality import legality, meaning
from core.export.targets.modules import modules_of
from core.export.targets.registry import TARGETS, export, get
from core.layers import ROOT
from core.numerics import precision as registry
from core.onnx_graph import node_table as graphs
from tests.conftest import REPOSITORY
from tests.core import deployable
from tests.core.hostile import EVIL

FOLDER = REPOSITORY / "core" / "export" / "targets"
STUDY = deployable.study()
GRAPH = deployable.graph()
MIXER = ["mixer.linear1", "mixer.linear2"]
PRODUCTS = ["conv", "first", "across", "second", "classify"]

INT8: dict[str, list[str]] = {
    "onnxruntime": ["conv", "relu", "first", "across", "second", "classify"],
    "tensorrt-qdq": PRODUCTS,
    "nncf": PRODUCTS,
    "aimet": PRODUCTS,
    "quark": PRODUCTS,
    "modelopt": ["stem.conv", *MIXER, "head"],
    "torchao": [*MIXER, "head"],
    "inc": ["stem.conv", *MIXER, "head"],
    "brevitas": ["stem.conv", *MIXER, "head"],
    "coremltools": ["stem.conv", *MIXER, "head"],
}
"""What a Python file for the tool calls INT8 under the nearest legal map of `deployable.MIXED`."""

HALF = ["pick", "qkv", "qkv_bias", "heads", "scores", "softmax", "mix", "out", "gelu"]
"""Nodes of the layers in FP16. Their neighbours' additions join FP32 and stay there."""


def made(name: str, *overrides: tuple[str, str], **options: Any) -> Exported:
    """The file for a tool under the nearest legal map."""
    map_ = deployable.chosen(STUDY, *overrides)
    return export(STUDY, map_, name, graph=options.pop("graph", GRAPH), nearest=True, **options)


def constants(content: bytes) -> dict[str, Any]:
    """Upper-case names that a script sets to plain data."""
    found = {}
    for node in ast.parse(content).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            try:
                found[name] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


@pytest.mark.parametrize("name", TARGETS)
def test_files_are_those_that_were_read(name: str, golden: Callable[[str, str], None]) -> None:
    """Each exporter's file is the one that a person has looked at."""
    legal = legality(STUDY, deployable.chosen(STUDY), get(name), GRAPH).legal
    content = export(STUDY, legal, name, graph=GRAPH).content

    (table,) = FOLDER.glob(f"*/{name.replace('-', '_')}.toml")
    golden(str(table.with_suffix(".golden")), content.decode())


@pytest.mark.parametrize("name", TARGETS)
def test_the_contract_holds(name: str) -> None:
    """The same map gives the same bytes, and every layer is expressed or says what is lost."""
    first, second = made(name), made(name)

    assert first.content == second.content
    assert [line.layer for line in first.lines] == list(STUDY.layers.names)
    for line in first.lines:
        if line.asked is None:
            assert line.got is None
            continue
        assert line.got is not None
        assert line.got == line.asked or line.note, line
        if line.note:
            assert any(line.note in sentence for sentence in first.cannot), line
    assert first.content.endswith(b"\n")
    head = first.content.decode()
    if get(name).file.endswith((".py", ".sh")):
        assert get(name).version in head.splitlines()[0] + head.splitlines()[1]
        assert all(sentence in head for sentence in first.cannot)


@pytest.mark.parametrize("name", INT8)
def test_int8_is_what_was_meant(name: str) -> None:
    """The script's list of INT8 names is the one that was worked out by hand."""
    found = constants(made(name).content)

    assert found.get("INT8_NODES", found.get("INT8_MODULES")) == INT8[name]


@pytest.mark.parametrize("name", ["onnxruntime", "tensorrt-qdq"])
def test_half_precision_is_what_was_meant(name: str) -> None:
    """Nodes of FP16 layers are in FP16, and nothing that reads FP32 beside it."""
    assert constants(made(name).content)["FP16_NODES"] == HALF


def test_glue_follows_what_it_reads() -> None:
    """A residual addition between FP16 layers is FP16, and FP32 as soon as one side is."""
    half = {n: "FP16" for n, p in deployable.MIXED if n in {"table", "attention", "norm"}}
    both = [(n, "FP16") for n in ("stem.conv", "stem.norm", "stem.activation", *half)]
    assert {"join", "residual"} <= set(constants(made("onnxruntime", *both).content)["FP16_NODES"])
    assert "join" not in constants(made("onnxruntime").content)["FP16_NODES"]


def test_modelopts_list_is_ordered() -> None:
    """Everything is switched off first, since later entries win."""
    found = constants(made("modelopt").content)["QUANT_CFG"]

    assert found["algorithm"] == "max"
    assert found["quant_cfg"][0] == {"quantizer_name": "*", "enable": False}
    on = [entry["quantizer_name"] for entry in found["quant_cfg"][1:]]
    assert on == [
        f"{path}.{kind}_quantizer" for path in INT8["modelopt"] for kind in ("weight", "input")
    ]


def test_quantos_map_has_its_own_form() -> None:
    """Each INT8 module has weights and activations in qint8, and nothing else is in the file."""
    entry = {"weights": "qint8", "activations": "qint8"}

    assert json.loads(made("quanto").content) == dict.fromkeys(INT8["modelopt"], entry)


def test_trtexecs_flags_parse_by_its_grammar() -> None:
    """Read as trtexec documents it, every layer's products have the map's precision."""
    line = made("tensorrt").content.decode().split("set -eu")[1].replace("\\\n", " ")
    flags = dict(w[2:].partition("=")[::2] for w in shlex.split(line) if w.startswith("--"))
    spec = dict(entry.rsplit(":", 1) for entry in flags["layerPrecisions"].split(","))
    types = dict(entry.rsplit(":", 1) for entry in flags["layerOutputTypes"].split(","))

    assert flags["precisionConstraints"] == "obey"
    assert {"int8", "fp16"} <= set(flags)
    assert [n for n, p in spec.items() if p == "int8"] == ["conv", "relu", *PRODUCTS[1:]]
    assert [n for n, p in spec.items() if p == "fp16"] == HALF
    assert next(iter(spec)) == next(iter(types)) == "*"
    assert set(types) == set(spec)
    assert "int8" not in types.values()


def test_names_that_a_flag_cannot_hold_are_refused() -> None:
    """A node with a comma in its name would be cut in two by trtexec."""
    table = deployable.node_table()
    nodes = tuple(replace_name(n, "conv", "conv,1") for n in table.nodes)
    odd = graphs.lay_over(replace_nodes(table, nodes), STUDY.layers)

    with pytest.raises(MapError, match=r"conv,1.*commas") as caught:
        made("tensorrt", graph=odd)
    assert "tensorrt-qdq" in caught.value.next_step


def replace_name(node: graphs.Node, old: str, new: str) -> graphs.Node:
    """`node` with another name, if it has that one."""
    return node if node.name != old else graphs.Node(
        new, node.op_type, node.module, node.inputs, node.outputs
    )  # fmt: skip


def replace_nodes(table: graphs.NodeTable, nodes: tuple[graphs.Node, ...]) -> graphs.NodeTable:
    """`table` with other nodes."""
    return graphs.NodeTable(table.schema_version, table.origin, nodes)


def test_overlays_carry_the_analysis() -> None:
    """Scores, thresholds and precisions stand at the right nodes."""
    map_ = deployable.chosen(STUDY)
    scores = json.loads(made("model-explorer").content)
    precisions = json.loads(made("model-explorer-precisions").content)["results"]
    attached = json.loads(made("netron").content)

    at = STUDY.layers.index
    assert scores["results"]["out"]["value"] == pytest.approx(
        map_.scores[at["attention"]], abs=1e-6
    )
    assert [t["value"] for t in scores["thresholds"]] == [0.4, 0.7, 1.0]
    assert {n: r["value"] for n, r in precisions.items()} == {
        node.name: map_.by_layer[layer]
        for node, layer in zip(GRAPH.nodes, GRAPH.owner, strict=True) if layer
    }  # fmt: skip
    values = {(m["target"], m["name"]): m["value"] for m in attached["metadata"]}
    assert values["out", "precision"] == "FP16"
    assert values["out", "layer"] == "attention"
    assert attached["signature"] == "netron:attachment"


def test_overlays_need_no_graph() -> None:
    """Without nodes an overlay is keyed by module path."""
    found = json.loads(made("model-explorer", graph=None).content)["results"]

    assert list(found) == list(STUDY.layers.names)


def test_a_target_with_one_float_says_what_becomes_of_the_others() -> None:
    """Beside INT8 the widest float asked for is used, and the narrower layers are named."""
    map_ = deployable.chosen(STUDY, ("stem.norm", "FP32"), ("stem.activation", "FP32"))
    found = legality(STUDY, map_, get("nncf"), GRAPH).legal
    lines = {line.layer: line for line in export(STUDY, found, "nncf", graph=GRAPH).lines}

    assert lines["attention"].got == "FP32"
    assert "FP16 becomes FP32" in lines["attention"].note
    half = [(n, "FP16") for n, p in deployable.MIXED if p == "FP32"]
    assert constants(made("nncf", *half).content)["COMPRESS_TO_FP16"] is True
    assert constants(made("nncf").content)["COMPRESS_TO_FP16"] is False


def test_fused_layers_in_two_precisions_are_named() -> None:
    """A convolution and its activation run in one kernel: two precisions are said to be."""
    assert not any("kernel of fused" in sentence for sentence in made("nncf").cannot)
    apart = made("nncf", ("stem.activation", "FP32"))

    assert any("stem.conv + stem.activation" in sentence for sentence in apart.cannot)


def test_parts_of_a_unit_that_no_module_runs_are_said() -> None:
    """Products of activations stay in float where a tool takes modules."""
    lines = {line.layer: line for line in made("torchao").lines}

    assert lines["mixer"].got == "INT8"
    assert "products of activations" in lines["mixer"].note


@pytest.mark.parametrize(("layer", "expected"), [
    ("stem.conv", [("stem.conv", "Conv2d")]),
    ("stem.activation", [("stem.activation", "ReLU")]),
    ("table", [("table", "Embedding")]),
    ("attention", []),
    ("mixer", [("mixer.linear1", "Linear"), ("mixer.linear2", "Linear")]),
    ("memory", [("memory", "LSTM")]),
])  # fmt: skip
def test_modules_of_layers(layer: str, expected: list[tuple[str, str]]) -> None:
    """A leaf is itself, a unit its parts, and attention's parts are never called as modules."""
    found = modules_of(STUDY.layers.layers[STUDY.layers.index[layer]])

    assert [(m.path, m.kind) for m in found] == expected


def test_weights_without_a_module_have_none() -> None:
    """A module that multiplies by a parameter of its own, and the model itself, have no name."""
    mixer = STUDY.layers.layers[STUDY.layers.index["mixer"]]
    bare = replace(
        mixer, parts=("mixer",), tensors=(replace(mixer.tensors[0], name="mixer.weight"),)
    )
    assert modules_of(bare) == ()
    assert "no module" in meaning(get("torchao"), bare, "INT8").why
    assert "no module path" in meaning(get("torchao"), replace(bare, name=ROOT), "INT8").why


def test_illegal_choices_are_refused_with_the_nearest_map() -> None:
    """The message names layers, the reason, the nearest precision and what that costs."""
    map_ = deployable.chosen(STUDY, ("attention", "INT8"), ("norm", "INT8"))

    with pytest.raises(MapError) as caught:
        export(STUDY, map_, "torchao")
    said = caught.value.cause
    assert "attention (nn.MultiheadAttention hands its weights to a function" in said
    assert "torchao has no INT8 for LayerNorm, nearest FP16" in said
    assert re.search(r"The nearest legal map changes size \+?[\d.]+ MB \(\+[\d.]+ %\) exact", said)
    assert "estimated" in said
    assert "projected" in said
    assert "--nearest" in caught.value.next_step


def test_what_the_nearest_map_costs_is_what_it_costs() -> None:
    """The change of size is that of the two maps priced one by one."""
    map_ = deployable.chosen(STUDY, ("attention", "INT8"))
    found = legality(STUDY, map_, get("torchao"))
    sizes = [outcome(STUDY, m).totals["size_bytes"].value or 0 for m in (map_, found.legal)]

    assert found.changes["size_bytes"].change == sizes[1] - sizes[0]
    assert sizes[1] > sizes[0]


def test_a_format_of_the_same_width_is_nearer_than_a_wider_one() -> None:
    """BF16 goes to FP16 where a target knows that alone, not to FP32."""
    unmeasured = Study(replace(STUDY.analysis, evidence=None))  # open to all that is registered
    found = legality(
        unmeasured, deployable.chosen(unmeasured, ("head", "BF16")), get("onnxruntime")
    )

    assert [(one.layer, one.nearest) for one in found.illegal] == [("head", "FP16")]


ASKED = st.fixed_dictionaries(
    {name: st.sampled_from(["FP32", "FP16", "INT8"]) for name, _ in deployable.MIXED}
)


@settings(max_examples=60)
@given(asked=ASKED, name=st.sampled_from(TARGETS), with_graph=st.booleans())
def test_the_nearest_legal_map_is_legal_and_nearest(
    asked: dict[str, str], name: str, with_graph: bool
) -> None:
    """No layer is illegal in it, none is narrower than asked, and legal choices are kept."""
    target, graph = get(name), GRAPH if with_graph else None
    map_ = deployable.chosen(STUDY, *asked.items())
    found = legality(STUDY, map_, target, graph)
    again = legality(STUDY, found.legal, target, graph)

    assert again.illegal == ()
    wrong = {one.layer for one in found.illegal}
    for layer, before, after in zip(STUDY.layers, map_.assigned, found.legal.assigned, strict=True):
        if layer.name not in wrong:
            assert after == before
            continue
        assert before is not None
        assert after is not None
        fitting = [
            p for p in STUDY.precisions
            if registry.get(p).bits >= registry.get(before).bits
            and meaning(target, layer, p, graph).state
        ]  # fmt: skip
        assert after == min(fitting, key=lambda p: registry.get(p).bits)


def test_groups_move_together() -> None:
    """A layer that must go wider takes its group along."""
    table = STUDY.layers
    pair = (table.index["norm"], table.index["head"])
    grouped = Study(replace(STUDY.analysis, layers=replace(table, groups=(pair,))))
    map_ = deployable.chosen(grouped, ("norm", "INT8"), ("head", "INT8"))
    found = legality(grouped, map_, get("torchao")).legal

    assert [found.assigned[i] for i in pair] == ["FP16", "FP16"]


def test_a_wrong_module_name_is_an_error_with_the_nearest() -> None:
    """A deployed model whose modules are called otherwise is refused."""
    given_ = [f"backbone.{name}" for name in (*STUDY.layers.names, *MIXER)]

    with pytest.raises(MapError) as caught:
        made("torchao", modules=tuple(given_))
    assert "mixer.linear1 (nearest: backbone.mixer.linear1" in caught.value.cause


def test_a_graph_of_another_model_is_an_error_with_the_nearest() -> None:
    """A layer whose products are not in the graph is named with what looks like it."""
    table = deployable.node_table()
    nodes = tuple(
        graphs.Node(n.name, n.op_type, n.module.replace("head", "heads"), n.inputs, n.outputs)
        for n in table.nodes
    )
    with pytest.raises(MapError, match=r"no head \(nearest: heads"):
        graphs.lay_over(replace_nodes(table, nodes), STUDY.layers)


@pytest.mark.parametrize("name", ["", "conv"])
def test_nodes_need_names_of_their_own(name: str) -> None:
    """Empty and repeated names cannot be told apart by any tool."""
    table = deployable.node_table()
    nodes = tuple(replace_name(n, "relu", name) for n in table.nodes)

    with pytest.raises(MapError, match="without a name of their own"):
        graphs.lay_over(replace_nodes(table, nodes), STUDY.layers)


def test_nodes_are_needed_where_nodes_are_named() -> None:
    """Without node names the message says where they come from."""
    with pytest.raises(MapError, match="names ONNX nodes") as caught:
        made("onnxruntime", graph=None)
    assert "--onnx" in caught.value.next_step


def test_unknown_targets_are_refused() -> None:
    """The known names are listed."""
    with pytest.raises(PolicyError, match="torchao"):
        get("tflite")


@pytest.mark.parametrize("name", TARGETS)
def test_another_scheme_is_said_in_the_file(name: str) -> None:
    """Evidence of another scheme than the target's is named, with the way to measure it."""
    target = get(name)
    found = made(name)

    if target.overlay or not target.integers or target.scheme == "ort-cpu":
        assert found.mismatch is None
        return
    assert found.mismatch is not None
    assert "Not measured under the target's scheme" in found.mismatch
    if target.file != "quanto.json":
        assert found.mismatch in found.content.decode()


def test_names_of_strangers_run_nothing() -> None:
    """A layer's name that is code stays a string, and a line end leaves no comment."""
    table = STUDY.layers
    head = table.layers[table.index["head"]]
    evil = f'head"""\nimport os  # {EVIL}'
    renamed = replace(head, name=evil, tensors=(replace(head.tensors[0], name=f"{evil}.weight"),),
                      parts=(evil,))  # fmt: skip
    odd = Study(
        replace(STUDY.analysis, layers=replace(table, layers=(*table.layers[:-1], renamed)))
    )
    map_ = deployable.chosen(odd, (evil, "INT8"))
    for name in ("torchao", "modelopt", "coremltools", "inc", "brevitas"):
        content = export(odd, map_, name, nearest=True).content
        assert evil in constants(content)["INT8_MODULES"]
        imported = [n for n in ast.parse(content).body if isinstance(n, ast.Import)]
        assert not any(alias.name == "os" for n in imported for alias in n.names)


def test_scripts_check_names_themselves() -> None:
    """The function in every script stops with the nearest names."""
    content = made("torchao").content.decode()
    wanted = next(n for n in ast.parse(content).body if getattr(n, "name", "") == "check_names")
    scope: dict[str, Any] = {}
    exec(f"import difflib\n{ast.unparse(wanted)}", scope)  # noqa: S102 (what the script would run)

    scope["check_names"](["a.b"], ["a.b", "c"])
    with pytest.raises(SystemExit, match=r"no blocks\.0\.fc1 \(nearest: block\.0\.fc1\)"):
        scope["check_names"](["blocks.0.fc1"], ["block.0.fc1", "x"])


@given(st.lists(st.text(min_size=1, max_size=6), max_size=6), st.lists(st.text(), max_size=6))
def test_checking_names_is_set_arithmetic(wanted: list[str], known: list[str]) -> None:
    """Names are refused exactly when one is not among the known ones."""
    if set(wanted) <= set(known):
        check_names(wanted, known, "It")
    else:
        with pytest.raises(MapError):
            check_names(wanted, known, "It")


def test_a_node_table_round_trips() -> None:
    """Written and read again it is the same, and garbage is refused."""
    table = deployable.node_table()

    assert graphs.from_json(graphs.to_json(table)) == table
    with pytest.raises(MapError, match="is no node table"):
        graphs.from_json(b"[1]")
    with pytest.raises(MapError, match="schema version 9"):
        graphs.from_json(b'{"schema_version": 9, "origin": "", "nodes": []}')


def test_fused_kernels_are_those_of_the_graph() -> None:
    """A product takes in its bias and its activation, and nothing that others read as well."""
    assert [[n.name for n in group] for group in GRAPH.fused] == [
        ["conv", "relu"], ["qkv", "qkv_bias"],
    ]  # fmt: skip


def test_codes_do_not_change() -> None:
    """Exporting leaves the map as it was."""
    map_ = deployable.chosen(STUDY, ("attention", "INT8"))
    before = map_.codes.copy()
    export(STUDY, map_, "torchao", nearest=True)

    assert np.array_equal(map_.codes, before)
