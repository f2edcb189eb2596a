"""coremltools converts what our script says, weight by weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.export.targets.registry import get
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


@pytest.mark.parametrize("others", [("INT8", "FP16"), ("INT8", "FP32")])
@pytest.mark.parametrize("precision", get("coremltools").grouped)
def test_weights_by_groups_have_a_scale_for_every_group(
    precision: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    """The program stores such weights in so many bits with as many scales as there are groups, and
    those of INT8 modules with one for each channel.
    """
    sample.needs("coremltools", "coremltools")
    mil = sample.needs("coremltools.proto.MIL_pb2", "coremltools")
    study, chosen = sample.in_turns("digits_vit", "coremltools", None, (*others, precision))
    script = sample.script_of(study, chosen, "coremltools", tmp_path)
    model = sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=True)
    program = torch.export.export(model, (sample.inputs_of("digits_vit", 1),))
    converted = script.convert(program.run_decompositions({}))

    block = next(
        iter(converted.get_spec().mlProgram.functions["main"].block_specializations.values())
    )
    stored = {}
    for operation in block.operations:
        if operation.type != "constexpr_blockwise_shift_scale":
            continue
        name = operation.outputs[0].name.removesuffix("_quantized").removesuffix("_to_fp16")
        data, scale = (
            operation.inputs[key].arguments[0].value.type.tensorType for key in ("data", "scale")
        )
        stored[name] = (
            mil.DataType.Name(data.dataType),
            tuple(d.constant.size for d in data.dimensions),
            tuple(d.constant.size for d in scale.dimensions),
        )
    paths = {f"p_{path.replace('.', '_')}_weight": path for path, _ in model.named_modules()}
    found = {paths[name]: kept for name, kept in stored.items()}
    assert {p for p, _ in expected.values()} >= {precision}
    assert set(expected) <= set(found)
    for path, (dtype, data, scales) in found.items():
        if path in expected:
            assert dtype == f"INT{expected[path][1].bits}"
            assert scales == tuple(expected[path][1].scales.shape)
            assert data == tuple(model.get_parameter(f"{path}.weight").shape)
        else:
            assert chosen.by_layer[sample.module_layer(study, path)] == "INT8"
            assert set(scales[1:]) == {1}
