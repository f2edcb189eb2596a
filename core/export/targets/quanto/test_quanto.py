"""optimum-quanto takes our quantization map and gives the same one back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

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
