"""NVIDIA ModelOpt enables quantizers and keeps nodes in FP32 exactly where our files say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.numerics import precision as registry
from core.numerics.rounding import round_scaled, round_weight, scales_of
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
    integer = sample.modules_in(study, chosen, model, "INT8")
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
def test_fp8_has_the_measured_codes(name: str, tmp_path: Path) -> None:
    """FP8 modules, beside INT8 ones, have both quantizers in E4M3: weights with a scale for each output
    channel and the codes of the analysis, activations on one scale, from the largest value that
    calibration saw.
    """
    sample.needs("modelopt.torch.quantization", "modelopt")
    study, chosen = sample.in_turns(name, "modelopt", None, ("FP8", "INT8", "FP32"))
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    modules = {p: sample.modules_in(study, chosen, model, p) for p in ("FP8", "INT8")}
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_submodule(n).register_forward_pre_hook(
            lambda _, args, n=n: seen.update({n: args[0].detach()})
        )
        for n in modules["FP8"]
    ]
    before = model(x)
    for hook in hooks:
        hook.remove()
    script = sample.script_of(study, chosen, "modelopt", tmp_path)
    model = script.quantize(model, lambda m: m(x))

    on = {n for n, q in model.named_modules() if n.endswith("_quantizer") and q.is_enabled}
    both = modules["FP8"] | modules["INT8"]
    assert set(script.FP8_MODULES) == modules["FP8"]
    assert min(map(len, modules.values())) > 0
    assert on == {f"{n}.{kind}_quantizer" for n in both for kind in ("weight", "input")}
    with torch.no_grad():
        error = (model(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()
    kept = registry.get("FP8")
    for n in modules["FP8"]:
        module = model.get_submodule(n)
        weight = module.weight.detach()
        scales = scales_of(weight, kept.weights).reshape(-1, *[1] * (weight.ndim - 1))
        found, measured = module.weight_quantizer(weight), round_weight(weight, kept)
        assert module.weight_quantizer.num_bits == module.input_quantizer.num_bits == (4, 3)
        assert module.weight_quantizer.amax.numel() == len(weight)
        assert torch.equal(_codes(found, scales), _codes(measured, scales))
        assert torch.allclose(found, measured, rtol=1e-6, atol=0)
        amax, given = module.input_quantizer.amax, seen[n]
        assert torch.equal(amax, given.abs().max())
        taken, expected = (
            module.input_quantizer(given),
            round_scaled(given, amax / 448, kept.weights),
        )
        same = _codes(taken, amax / 448) == _codes(expected, amax / 448)
        assert same.float().mean() > 1 - 1e-4


def _codes(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What stands in E4M3 for `values` that it can hold over `scales`."""
    return (values / scales).to(torch.float8_e4m3fn).float()


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
