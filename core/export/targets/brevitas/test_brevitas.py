"""Brevitas replaces exactly the modules of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(name: str, tmp_path: Path) -> None:
    """Modules with a weight quantizer of 8 bits are those of INT8 layers."""
    sample.needs("brevitas.graph.quantize", "brevitas")
    study = sample.study_of(name)
    chosen = sample.mixed(study, "brevitas", None)
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    before = model(x)
    plain = {n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    script = sample.imported(sample.written(name, "brevitas", tmp_path))
    model = script.quantize(model, lambda m: m(x))

    bits = {
        n: int(m.quant_weight().bit_width)
        for n, m in model.named_modules()
        if hasattr(m, "weight_quant") and m.weight_quant.is_quant_enabled
    }
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert set(bits) == {n for n in plain if sample.module_layer(study, n) in wanted}
    assert set(bits.values()) == {8}
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()
