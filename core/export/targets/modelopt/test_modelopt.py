"""NVIDIA ModelOpt enables quantizers and keeps nodes in FP32 exactly where our files say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(name: str, tmp_path: Path) -> None:
    """Enabled quantizers are the weight and input ones of the modules of INT8 layers."""
    sample.needs("modelopt.torch.quantization", "modelopt")
    study = sample.study_of(name)
    chosen = sample.mixed(study, "modelopt", None)
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    before = model(x)
    plain = {
        n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
    }
    script = sample.imported(sample.written(name, "modelopt", tmp_path))
    model = script.quantize(model, lambda m: m(x))

    wanted = sample.integer_layers(study, chosen)
    assert wanted
    modules = {n for n in plain if sample.module_layer(study, n) in wanted}
    on = {n for n, q in model.named_modules() if n.endswith("_quantizer") and q.is_enabled}
    assert on == {f"{n}.{kind}_quantizer" for n in modules for kind in ("weight", "input")}
    quantizers = dict(model.named_modules())
    for quantizer in on:
        assert quantizers[quantizer].num_bits == 8
        assert quantizers[quantizer].amax.numel() == (
            len(quantizers[quantizer.removesuffix(".weight_quantizer")].weight)
            if quantizer.endswith("weight_quantizer") else 1
        )  # fmt: skip
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()


@pytest.mark.parametrize("precision", sample.FORMATS)
def test_weights_by_groups_have_a_scale_each(precision: str, tmp_path: Path) -> None:
    """Of such modules the weight's quantizer alone is enabled, with a range for every group, on the
    grid that the export names: rounded weights are whole multiples of the largest magnitude over
    2^(bits-1) - 1.
    """
    sample.needs("modelopt.torch.quantization", "modelopt")
    study, chosen = sample.in_turns("digits_vit", "modelopt", None, ("INT8", "FP32", precision))
    x = sample.inputs_of("digits_vit")
    model = sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=False)
    integer = {
        n for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)
        and chosen.by_layer.get(sample.module_layer(study, n)) == "INT8"
    }  # fmt: skip
    model = sample.script_of(study, chosen, "modelopt", tmp_path).quantize(model, lambda m: m(x))

    on = {n for n, q in model.named_modules() if n.endswith("_quantizer") and q.is_enabled}
    both = {f"{n}.{kind}_quantizer" for n in integer for kind in ("weight", "input")}
    assert {p for p, _ in expected.values()} == {precision}
    assert both
    assert on == both | {f"{n}.weight_quantizer" for n in expected}
    for name, (_, kept) in expected.items():
        quantizer = model.get_submodule(f"{name}.weight_quantizer")
        weight = model.get_submodule(name).weight.detach()
        rounded = quantizer(weight.clone())
        padding = (0, -kept.inputs % kept.codes.shape[-1])
        pad = torch.nn.functional.pad
        steps = pad(weight, padding).reshape(kept.codes.shape).abs().amax(-1)
        steps /= 2 ** (kept.bits - 1) - 1
        codes = pad(rounded, padding).reshape(kept.codes.shape) / steps[..., None]
        assert quantizer.amax.numel() == steps.numel()
        assert torch.allclose(codes, codes.round(), atol=1e-3)
        assert codes.abs().max().round() == 2 ** (kept.bits - 1) - 1


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_autocast_keeps_exactly_the_intended_layers(
    name: str, tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Weights that AutoCast stored in FP16 are those of FP16 layers."""
    sample.needs("modelopt.onnx.autocast", "modelopt")
    import onnx

    path, _, graph = onnx_of(name)
    study = sample.study_of(name)
    chosen = sample.mixed(study, "modelopt-autocast", graph)
    out = tmp_path / "out.onnx"
    file = sample.written(name, "modelopt-autocast", tmp_path, graph)
    sample.imported(file).convert(str(path), str(out))

    model = onnx.load(out)
    half = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    products = sample.products_by_layer(graph)
    got: dict[str, bool] = {}
    for node in model.graph.node:
        layer = graph.owner_of.get(node.name, "")
        if (
            layer in products
            and node.name in products[layer]
            and any(t.name in node.input for t in model.graph.initializer)
        ):
            got[layer] = got.get(layer, True) and any(t in half for t in node.input)
    assert {n for n, is_half in got.items() if is_half} == {
        n for n in got if chosen.by_layer[n] == "FP16"
    }
    assert set(got.values()) == {True, False}
