"""torchao makes INT8 weights of exactly the modules that our script names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


def test_exactly_the_intended_layers_are_int8(tmp_path: Path) -> None:
    """Modules whose weight torchao replaced belong to INT8 layers, and all of theirs are replaced."""
    sample.needs("torchao.quantization", "torchao")
    name = "digits_vit"
    study = sample.study_of(name)
    chosen = sample.mixed(study, "torchao", None)
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    before = model(x)
    plain = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    script = sample.imported(sample.written(name, "torchao", tmp_path))
    model = script.quantize(model).float()

    done = {
        n for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and type(m.weight.data).__name__.startswith("Int8")
    }  # fmt: skip
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert done == {n for n in plain if sample.module_layer(study, n) in wanted}
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.2 * before.abs().max()


def test_a_wrong_name_stops(tmp_path: Path) -> None:
    """A model whose modules are called otherwise is refused with the nearest names."""
    sample.needs("torchao.quantization", "torchao")
    script = sample.imported(sample.written("digits_vit", "torchao", tmp_path))
    wrapped = nn.ModuleDict({"net": sample.model_of("digits_vit")})

    with pytest.raises(SystemExit, match=r"has no .*\(nearest: net\."):
        script.quantize(wrapped)
