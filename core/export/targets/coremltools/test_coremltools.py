"""coremltools converts what our script says, weight by weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(name: str, tmp_path: Path) -> None:
    """Integer weights are those of INT8 layers, and weights in FP32 those of FP32 layers."""
    sample.needs("coremltools", "coremltools")
    study = sample.study_of(name)
    chosen = sample.mixed(study, "coremltools", None)
    script = sample.imported(sample.written(name, "coremltools", tmp_path))
    model = sample.model_of(name)
    program = torch.export.export(model, (sample.inputs_of(name, 1),)).run_decompositions({})
    converted = script.convert(program)

    paths = {
        f"p_{path.replace('.', '_')}_weight": path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and "attention" not in path
    }
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    integer = set(script.integer_weights(converted))
    assert integer == {w for w, path in paths.items() if sample.module_layer(study, path) in wanted}
    block = next(
        iter(converted.get_spec().mlProgram.functions["main"].block_specializations.values())
    )
    half = {
        weight: bool(end)
        for operation in block.operations
        for output in operation.outputs
        for weight in paths
        for end in ("", "_to_fp16")
        if output.name == f"{weight}{end}"
    }
    # Quantizing runs Core ML's passes once more, which folds batch norms into float convolutions.
    assert set(half) <= set(paths) - integer
    assert name == "digits_resnet" or set(half) == set(paths) - integer
    for weight, is_half in half.items():
        asked = chosen.by_layer[sample.module_layer(study, paths[weight])]
        assert is_half == (asked == "FP16"), weight
    if name == "digits_resnet":
        floats = [op for op in block.operations if op.type in {"conv", "linear"}]
        asked_32 = [p for p in paths.values() if chosen.by_layer[p] == "FP32"]
        assert sum(not op.outputs[0].name.endswith("_cast_fp16") for op in floats) == len(asked_32)
