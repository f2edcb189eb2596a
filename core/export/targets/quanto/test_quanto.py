"""optimum-quanto takes our quantization map and gives the same one back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.export.targets.packed import Matrix
from core.export.targets.registry import export, get
from core.numerics import precision as registry
from core.numerics.rounding import round_weight, scales_of
from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(name: str, tmp_path: Path) -> None:
    """Quantized, saved and loaded by quanto's own functions, the map of the model is the file."""
    quanto = sample.needs("optimum.quanto", "quanto")
    study = sample.study_of(name)
    chosen = sample.mixed(study, "quanto", None)
    given = json.loads(sample.written(name, "quanto", tmp_path).read_text("utf-8"))
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    before = model(x)
    quanto.quantize(model, include=list(given), weights=quanto.qint8, activations=quanto.qint8)
    with torch.no_grad(), quanto.Calibration():
        model(x)
    quanto.freeze(model)

    assert quanto.quantization_map(model) == given
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert {sample.module_layer(study, n) for n in given} == wanted
    again = sample.model_of(name)
    quanto.requantize(again, model.state_dict(), given)
    assert quanto.quantization_map(again) == given
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_fp8_has_the_measured_bits(name: str, tmp_path: Path) -> None:
    """FP8 modules, beside INT8 ones, are in quanto's own map those of the file; codes and scales of
    their weights are, bit for bit, torch's casts over the scales of the analysis.
    """
    quanto = sample.needs("optimum.quanto", "quanto")
    study, chosen = sample.in_turns(name, "quanto", None, ("FP8", "INT8", "FP32"))
    given = json.loads(export(study, chosen, "quanto").content)
    x = sample.inputs_of(name)
    model, plain = sample.model_of(name), sample.model_of(name)
    before = model(x)
    few = {n for n, entry in given.items() if entry["weights"] == "qfloat8_e4m3fn"}
    assert few == sample.modules_in(study, chosen, model, "FP8")
    assert given.keys() - few == sample.modules_in(study, chosen, model, "INT8")
    for names, qtype in ((few, quanto.qfloat8_e4m3fn), (given.keys() - few, quanto.qint8)):
        quanto.quantize(model, include=list(names), weights=qtype, activations=qtype)
    with torch.no_grad(), quanto.Calibration():
        model(x)
    quanto.freeze(model)

    assert quanto.quantization_map(model) == given
    kept, state = registry.get("FP8").weights, model.state_dict()
    for n in few:
        weight = plain.get_parameter(f"{n}.weight").detach()
        scales = scales_of(weight, kept).reshape(-1, *[1] * (weight.ndim - 1))
        assert torch.equal(state[f"{n}.weight._scale"], scales)
        codes = (weight / scales).clamp(-448, 448).to(torch.float8_e4m3fn)
        found = state[f"{n}.weight._data"]
        assert torch.equal(found.view(torch.uint8), codes.view(torch.uint8))
        assert torch.equal(
            model.get_parameter(f"{n}.weight").dequantize(),
            round_weight(weight, registry.get("FP8")),
        )
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.4 * before.abs().max()


@pytest.mark.parametrize("precision", sample.FORMATS)
def test_weights_by_groups_are_kept_as_the_file_says(precision: str, tmp_path: Path) -> None:
    """Such modules have weights alone in so many bits, in the groups that the export names, and the
    map of the model is the file, beside modules in INT8.
    """
    quanto = sample.needs("optimum.quanto", "quanto")
    study, chosen = sample.in_turns("digits_vit", "quanto", None, ("INT8", "FP32", precision))
    made = export(study, chosen, "quanto")
    given = json.loads(made.content)
    x = sample.inputs_of("digits_vit")
    model = sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=False)
    for entry in {tuple(one.values()) for one in given.values()}:
        names = [name for name, one in given.items() if tuple(one.values()) == entry]
        weights, activations = (None if one == "none" else one for one in entry)
        quanto.quantize(model, include=names, weights=weights, activations=activations)
    with torch.no_grad(), quanto.Calibration():
        model(x)
    quanto.freeze(model)

    assert quanto.quantization_map(model) == given
    kept = {name: one for name, one in given.items() if one["activations"] == "none"}
    assert kept.keys() == expected.keys()
    notes = " ".join(line.note for line in made.lines)
    for name, (asked, bits) in expected.items():
        module: Any = model.get_submodule(name)
        group = module.weight_group_size or module.in_features
        asked_group = min(registry.get(asked).weights.group, module.in_features)
        said = (
            f"{name} in groups of {group} of its {module.in_features} inputs, not of {asked_group}"
        )
        assert kept[name]["weights"] == f"qint{bits.bits}"
        assert (said in notes) == (group != asked_group)
    with torch.no_grad():
        assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("inputs", [32, 64, 128, 160, 192, 200, 256, 320])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_groups_are_those_that_the_table_foretells(bits: int, inputs: int) -> None:
    """Quanto's own choice of a group is the one that the export works out from the table."""
    quanto = sample.needs("optimum.quanto", "quanto")
    model = torch.nn.Sequential(torch.nn.Linear(inputs, 4))
    quanto.quantize(model, include=["0"], weights=f"qint{bits}")
    kept = registry.TensorFormat("integer", bits, "group", 32)

    group = model[0].weight_group_size or inputs
    said = Matrix("0", "Linear", (inputs,)).regrouped(get("quanto"), kept)
    assert said == (
        "" if group == 32 else f"0 in groups of {group} of its {inputs} inputs, not of 32"
    )
