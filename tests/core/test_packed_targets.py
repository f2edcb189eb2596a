"""Weights by groups in files for other tools, against expectations written by hand."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide.study import Study
from core.errors import MapError
from core.export.targets.contract import Exported
from core.export.targets.legality import legality, meaning
from core.export.targets.packed import GRIDS
from core.export.targets.registry import TARGETS, export, get
from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics.groups import grouped
from tests.core import deployable
from tests.core.test_targets import constants

STUDY = deployable.in_groups()
GRAPH = deployable.graph()
FORMATS = [name for name in registry.names() if registry.get(name).is_weights_only]
MAP = (
    ("stem.conv", "INT8"), ("table", "FP16"), ("attention", "INT4-g32"), ("norm", "FP32"),
    ("mixer", "INT4-g32"), ("mixer.activation", "FP32"), ("memory", "FP32"), ("head", "INT2-g32"),
)  # fmt: skip


def made(name: str, *overrides: tuple[str, str], nearest: bool = True) -> Exported:
    """The file for a tool under the nearest legal map."""
    wanted = {"stem.norm": "FP32", "stem.activation": "FP32"} | dict(MAP) | dict(overrides)
    chosen = deployable.chosen(STUDY, *wanted.items())
    return export(STUDY, chosen, name, graph=GRAPH, nearest=nearest)


def line(found: Exported, layer: str) -> Any:
    """What the file says of a layer."""
    return next(one for one in found.lines if one.layer == layer)


def test_torchao_names_modules_with_bits_and_groups() -> None:
    """Each Linear whose inputs the groups divide stands in the list; one that they do not divide and
    attention, whose weights belong to a function, are said to stay.
    """
    found = made("torchao")

    assert constants(found.content)["GROUPED_MODULES"] == {
        "mixer.linear1": (4, 32), "head": (2, 32),
    }  # fmt: skip
    assert line(found, "mixer").got == "INT4-g32"
    assert (
        "mixer.linear2 (48 inputs, which groups of 32 do not divide)" in line(found, "mixer").note
    )
    assert line(found, "attention").asked in ("FP16", "BF16")
    assert "groups of 128 do not divide" in refused("torchao", ("mixer", "INT4-g128"))
    assert "function" in refused("torchao", ("attention", "INT4-g32"))


def refused(name: str, *overrides: tuple[str, str]) -> str:
    """Why a tool does not take a map."""
    plain = [(layer, "FP32") for layer, _ in MAP]
    with pytest.raises(MapError) as caught:
        made(name, *plain, *overrides, nearest=False)
    return caught.value.cause


def test_quantos_map_has_weights_alone_and_its_own_groups_are_said() -> None:
    """Modules by groups have no activations; where quanto groups otherwise the layer says how."""
    found = made("quanto", ("mixer", "INT8-W"))
    entries = json.loads(found.content)

    assert entries["head"] == {"weights": "qint2", "activations": "none"}
    assert entries["mixer.linear2"] == {"weights": "qint8", "activations": "none"}
    assert "head in groups of 128 of its 128 inputs, not of 32" in line(found, "head").note
    assert line(found, "mixer").note == ""


def test_modelopts_list_has_blocks_of_weights_alone() -> None:
    """A module by groups has an entry for its weight, in blocks along its inputs, and none for what
    it reads.
    """
    found = constants(made("modelopt").content)
    blocks = [e for e in found["QUANT_CFG"]["quant_cfg"][1:] if "block_sizes" in e["cfg"]]

    assert found["GROUPED_MODULES"] == ["mixer.linear1", "mixer.linear2", "head"]
    assert [(e["quantizer_name"], e["cfg"]) for e in blocks] == [
        (f"{name}.weight_quantizer",
         {"num_bits": bits, "block_sizes": {-1: 32, "type": "static"}})
        for name, bits in (("mixer.linear1", 4), ("mixer.linear2", 4), ("head", 2))
    ]  # fmt: skip


def test_onnxruntime_packs_products_with_a_weight_and_no_others() -> None:
    """Of attention the two products with weights stand in the list and not those of activations; an
    entry is one format, at the level of accuracy that `build` chooses.
    """
    found = made("onnxruntime", ("mixer", "INT8-W"))

    assert constants(found.content)["PACKED"] == [
        {"bits": 4, "block_size": 32, "accuracy_level": 4, "nodes": ["qkv", "out"]},
        {"bits": 8, "block_size": 128, "accuracy_level": 0, "nodes": ["first", "second"]},
        {"bits": 2, "block_size": 32, "accuracy_level": 4, "nodes": ["classify"]},
    ]
    assert constants(found.content)["INT8_NODES"] == ["conv"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_says_whose_grid_its_weights_lie_on(name: str) -> None:
    """A file with weights by groups says that they are the measured bits or names the tool's own
    grid; one without says nothing of grids.
    """
    target, found = get(name), made(name)
    has_groups = any(one.got in FORMATS for one in found.lines) and not target.overlay
    said = [*found.cannot, *found.content.decode().splitlines()]
    grids = [one for one in said if "ONNX Runtime's grid" in one and "Weights by groups" in one]

    assert bool(grids) == has_groups
    if has_groups and target.grid:
        assert any(target.grid in one for one in grids)
        assert any(target.grid in one for one in found.cannot)
    elif has_groups:
        assert any("bits that were measured" in one for one in grids)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=15)
@given(
    st.fixed_dictionaries({n: st.sampled_from(registry.names()) for n, _ in MAP}),
    st.booleans(),
)
def test_the_nearest_map_is_legal_and_says_what_is_lost(
    name: str, asked: dict[str, str], with_graph: bool
) -> None:
    """Every choice of the nearest map is one that the tool takes, legal ones are kept, and each layer
    gets what was asked or says why not.
    """
    target, graph = get(name), GRAPH if with_graph else None
    chosen = deployable.chosen(STUDY, *asked.items())
    found = legality(STUDY, chosen, target, graph)

    assert legality(STUDY, found.legal, target, graph).illegal == ()
    wrong = {one.layer for one in found.illegal}
    for layer, before, after in zip(
        STUDY.layers, chosen.assigned, found.legal.assigned, strict=True
    ):
        assert after == before or layer.name in wrong
        if layer.name in wrong:
            assert registry.width(after or "") >= registry.width(before or "")
    if target.speaks == "modules" or graph is not None or target.overlay:
        for one in export(STUDY, found.legal, name, graph=graph).lines:
            assert one.got == one.asked or one.note


@pytest.mark.parametrize("precision", FORMATS)
def test_a_layer_without_such_weights_has_no_format_of_them(precision: str) -> None:
    """A convolution, a norm or an LSTM in a format of weights alone is refused by every tool."""
    for name in TARGETS:
        if get(name).overlay:
            continue
        for layer in ("stem.conv", "norm", "memory", "table"):
            found = meaning(
                get(name), STUDY.layers.layers[STUDY.layers.index[layer]], precision, GRAPH
            )
            assert not found.state
            assert found.why


def test_glue_behind_weights_by_groups_is_in_float32() -> None:
    """A residual addition that reads FP16 and what such a layer gives stays in FP32."""
    half = [("stem.conv", "FP16"), ("stem.norm", "FP16"), ("stem.activation", "FP16")]
    found = constants(made("onnxruntime", *half).content)["FP16_NODES"]

    assert "join" in found
    assert "residual" not in found


def test_one_float_format_is_said_where_products_of_such_weights_run_in_it() -> None:
    """Where a file has FP16 alone, layers with weights by groups multiply in it, and say so."""
    half = [(layer, "FP16") for layer, p in MAP if p == "FP32"]
    found = made("torchao", *half, ("stem.norm", "FP16"), ("stem.activation", "FP16"))

    assert constants(found.content)["FLOAT_DTYPE"] == "float16"
    assert "products run in FP16" in line(found, "head").note


@settings(max_examples=40)
@given(
    st.sampled_from(FORMATS), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**31 - 1),
    st.sampled_from(["normal", "halves", "one sign", "zeros"]),
)  # fmt: skip
def test_the_grid_in_torchaos_script_is_the_measured_one(
    precision: str, n: int, groups: int, seed: int, kind: str
) -> None:
    """Codes and scales of the script's own function equal `grouped`, bit for bit, ties and groups
    of zeros included.
    """
    tree = ast.parse(made("torchao").content)
    function = next(one for one in tree.body if getattr(one, "name", "") == "on_signed_grid")
    scope: dict[str, Any] = {"torch": torch}
    exec(ast.unparse(function), scope)  # noqa: S102 (what the script would run)
    kept = registry.get(precision).weights
    weight = torch.randn(n, groups * kept.group, generator=torch.Generator().manual_seed(seed))
    most = 2 ** (kept.bits - 1)
    if kind == "halves":  # between two codes throughout, since each group's scale is 1 / most
        weight = ((weight.sigmoid() * 2 - 1) * (most - 1)).round().sub(0.5) / most
        weight[:, :: kept.group] = -1
    elif kind == "one sign":
        weight = weight.abs()
    elif kind == "zeros":
        weight = weight * (weight > 2)
    codes, scales = scope["on_signed_grid"](weight, kept.bits, kept.group)
    expected = grouped(weight, kept)

    assert torch.equal(scales, expected.scales)
    assert torch.equal(
        codes.to(torch.int16) + 2 ** (kept.bits - 1), expected.codes.flatten(1).to(torch.int16)
    )


@pytest.mark.parametrize("quantizer", quantizers.names())
@pytest.mark.parametrize("name", [n for n in TARGETS if get(n).grouped])
def test_a_file_says_whose_grid_the_evidence_has(name: str, quantizer: str) -> None:
    """Where a file holds the measured bits it says so; else it names the grid that was measured and
    the one that the tool makes.
    """
    study = Study(replace(STUDY.analysis, quantizer=quantizer))
    wanted = {"stem.norm": "FP32", "stem.activation": "FP32"} | dict(MAP)
    chosen = deployable.chosen(study, *wanted.items())
    found = export(study, chosen, name, graph=GRAPH, nearest=True)
    text = " ".join(found.content.decode().replace("# ", " ").split())
    same = not get(name).grid and quantizer in get(name).holds
    said = " ".join(found.cannot)

    assert ("were measured on" in said) is not same
    assert same or GRIDS[quantizer] in said
    if name == "torchao":
        assert constants(found.content)["OWN_GRID"] is (quantizer == "torchao")
        assert ("are the bits that were measured" in text) is same
