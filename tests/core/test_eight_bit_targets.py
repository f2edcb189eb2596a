"""FP8 and INT8-dynamic in files for other tools, against expectations written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from core.decide.study import Study
from core.errors import MapError
from core.export.targets.contract import Exported
from core.export.targets.legality import Meaning, legality, meaning
from core.export.targets.registry import TARGETS, export, get
from core.export.targets.schemes import mismatch
from tests.core import deployable
from tests.core.test_targets import constants

STUDY = deployable.in_groups()
GRAPH = deployable.graph()
PLAIN = {name: "FP32" for name, _ in deployable.MIXED}


def made(name: str, asked: dict[str, str]) -> Exported:
    """The file of a map that a tool takes as it stands, all else in FP32."""
    chosen = deployable.chosen(STUDY, *(PLAIN | asked).items())
    return export(STUDY, chosen, name, graph=GRAPH)


def meant(name: str, layer: str, precision: str) -> Meaning:
    """What a precision means for a layer at a tool."""
    return meaning(get(name), STUDY.layers.layers[STUDY.layers.index[layer]], precision, GRAPH)


def test_modelopts_list_has_e4m3_for_both_sides_of_a_product() -> None:
    """A module in FP8 has exponent and mantissa in place of bits: weights per output channel,
    activations per tensor.
    """
    found = constants(
        made("modelopt", {"stem.conv": "FP8", "mixer": "FP8", "head": "INT8"}).content
    )
    entries = {e["quantizer_name"]: e["cfg"] for e in found["QUANT_CFG"]["quant_cfg"][1:]}

    few = ["stem.conv", "mixer.linear1", "mixer.linear2"]
    assert (found["FP8_MODULES"], found["INT8_MODULES"]) == (few, ["head"])
    for name in few:
        assert entries[f"{name}.weight_quantizer"] == {"num_bits": (4, 3), "axis": 0}
        assert entries[f"{name}.input_quantizer"] == {"num_bits": (4, 3), "axis": None}
    assert entries["head.weight_quantizer"] == {"num_bits": 8, "axis": 0}
    assert len(entries) == 8


def test_quantos_map_has_e4m3() -> None:
    """A module in FP8 is in qfloat8_e4m3fn on both sides."""
    found = json.loads(made("quanto", {"stem.conv": "FP8", "head": "INT8"}).content)

    assert found == {
        "stem.conv": {"weights": "qfloat8_e4m3fn", "activations": "qfloat8_e4m3fn"},
        "head": {"weights": "qint8", "activations": "qint8"},
    }


@pytest.mark.parametrize("name", ["modelopt", "quanto"])
def test_fp8_is_for_what_int8_computes(name: str) -> None:
    """Norms, look-ups and recurrent layers have none; what runs inside a kernel goes with it, and
    products that no module runs are said to stay in float.
    """
    for layer in ("norm", "table", "memory", "mixer.activation"):
        assert not meant(name, layer, "FP8").state
        assert f"no FP8 for {next(x.kind for x in STUDY.layers if x.name == layer)}" in (
            meant(name, layer, "FP8").why
        )
    assert "function" in meant(name, "attention", "FP8").why
    assert meant(name, "mixer", "FP8").left == ("products of activations",)
    assert meant("modelopt", "stem.activation", "FP8").state == "folded"


def test_fp8_needs_a_product_that_was_measured_in_it() -> None:
    """Where INT8 stores a weight for a float kernel, FP8 rounds nothing, and no tool is asked for it."""
    table = STUDY.layers
    head = replace(table.layers[table.index["head"]], state="stores")

    assert not meaning(get("modelopt"), head, "FP8").state


def test_onnxruntime_has_products_with_matrices_by_layer() -> None:
    """Of attention the two products with weights stand in the script and not those of activations; an
    embedding's table is in integers as INT8 has it.
    """
    asked = {"attention": "INT8-dynamic", "mixer": "INT8-dynamic", "table": "INT8-dynamic"}
    file = made("onnxruntime", asked | {"head": "INT8"})
    found = constants(file.content)

    assert found["DYNAMIC"] == {"attention": ["qkv", "out"], "mixer": ["first", "second"]}
    assert found["INT8_NODES"] == ["pick", "classify"]
    assert "pick" not in found["FP16_NODES"]
    assert {one.layer: one.note for one in file.lines if one.layer in asked} == {
        "attention": "", "mixer": "",
        "table": "only its weights are kept as integers; it runs in float",
    }  # fmt: skip


def test_torchao_names_modules_with_a_matrix() -> None:
    """Each Linear of such a layer stands in the list, beside those in INT8 and by groups."""
    asked = {"mixer": "INT8-dynamic", "head": "INT4-g32"}
    found = constants(made("torchao", asked).content)

    assert found["DYNAMIC_MODULES"] == ["mixer.linear1", "mixer.linear2"]
    assert (found["INT8_MODULES"], found["GROUPED_MODULES"]) == ([], {"head": (4, 32)})
    assert "function" in meant("torchao", "attention", "INT8-dynamic").why


@pytest.mark.parametrize("name", [n for n in TARGETS if "INT8-dynamic" in get(n).precisions])
def test_only_matrices_and_tables_have_ranges_set_while_they_run(name: str) -> None:
    """A convolution, a norm or an activation has nothing in INT8-dynamic, with the reason."""
    if get(name).overlay:
        return
    for layer in ("stem.conv", "norm", "mixer.activation"):
        found = meant(name, layer, "INT8-dynamic")
        assert not found.state
        assert "matrices and tables" in found.why


@pytest.mark.parametrize("name", TARGETS)
def test_a_tool_without_the_precision_is_offered_its_nearest(name: str) -> None:
    """Where a tool's table lacks it the map is refused, and the nearest map is in INT8."""
    target = get(name)
    for precision in ("FP8", "INT8-dynamic"):
        if target.overlay or precision in target.precisions or not target.integers:
            continue
        with pytest.raises(MapError, match=f"and no {precision}"):
            made(name, {"head": precision})
        chosen = deployable.chosen(STUDY, *(PLAIN | {"head": precision}).items())
        assert legality(STUDY, chosen, target, GRAPH).legal.by_layer["head"] == "INT8"


def test_a_map_without_calibrated_integers_fits_every_scheme() -> None:
    """Schemes say what integers on calibrated ranges mean: without any there is nothing to warn of."""
    study = deployable.study()
    plain: list[Any] = [deployable.chosen(study, *PLAIN.items())]
    mixed = deployable.chosen(study)

    assert mismatch(study, get("torchao"), plain[0]) is None
    assert "Not measured" in (mismatch(study, get("torchao"), mixed) or "")
    unmeasured = Study(replace(study.analysis, evidence=None))
    assert mismatch(unmeasured, get("torchao"), mixed) is None
