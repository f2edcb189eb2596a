"""torchao makes INT8 weights of exactly the modules that our script names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.engines.torch.simulate.dynamic import round_dynamic
from core.numerics import precision as registry
from core.numerics.rounding import round_weight, scales_of
from tests.interop import sample

MIXES = (("INT8", "FP16"), ("FP16", "FP32"))
"""What takes turns with a precision of weights alone; in the first the one float format is FP16."""

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


@pytest.mark.parametrize("precision", sample.FORMATS)
@pytest.mark.parametrize("others", MIXES)
def test_weights_by_groups_have_the_measured_bits(
    others: tuple[str, ...], precision: str, tmp_path: Path
) -> None:
    """Codes and scales in torchao's tensors equal, bit for bit, those that the evidence has, in
    exactly the modules of such layers; the model runs on what they stand for.
    """
    ao = sample.needs("torchao.quantization", "torchao")
    study, chosen = sample.in_turns("digits_vit", "torchao", None, (*others, precision))
    x = sample.inputs_of("digits_vit")
    model, by_hand = sample.model_of("digits_vit"), sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=True)
    script = sample.script_of(study, chosen, "torchao", tmp_path)
    model = script.quantize(model)

    dtype = getattr(torch, script.FLOAT_DTYPE)
    modules = dict(model.named_modules())
    done = {
        n: m.weight for n, m in modules.items()
        if isinstance(m, nn.Linear) and isinstance(m.weight, ao.IntxUnpackedToInt8Tensor)
    }  # fmt: skip
    assert {p for p, _ in expected.values()} >= {precision}
    assert set(done) == set(expected)
    for name, (_, kept) in expected.items():
        codes = done[name].qdata.to(torch.int16) + 2 ** (kept.bits - 1)
        assert torch.equal(codes, kept.codes.flatten(1).to(torch.int16))
        assert torch.equal(done[name].scale, kept.scales)
        assert done[name].scale.dtype == torch.float32
        assert done[name].target_dtype == getattr(torch, f"int{kept.bits}")
        by_hand.get_parameter(f"{name}.weight").data = kept.restored()
    if "INT8" not in others:
        assert torch.equal(model(x.to(dtype)), by_hand.to(dtype)(x.to(dtype)))


@pytest.mark.parametrize("others", [(), ("INT8", "FP32"), ("FP16", "INT4-g32")])
def test_int8_dynamic_is_what_was_measured(others: tuple[str, ...], tmp_path: Path) -> None:
    """Codes and scales in exactly the modules of INT8-dynamic layers equal, bit for bit, those that the
    evidence has, and one sample gives what products of integers on a range of its own give.
    """
    ao = sample.needs("torchao.quantization", "torchao")
    study, chosen = sample.in_turns("digits_vit", "torchao", None, ("INT8-dynamic", *others))
    model, by_hand = sample.model_of("digits_vit"), sample.model_of("digits_vit")
    expected = {
        n for n in sample.modules_in(study, chosen, model, "INT8-dynamic")
        if isinstance(model.get_submodule(n), nn.Linear) and "attention" not in n
    }  # fmt: skip
    script = sample.script_of(study, chosen, "torchao", tmp_path)
    model = script.quantize(model)

    dtype = getattr(torch, script.FLOAT_DTYPE)
    assert expected
    assert set(script.DYNAMIC_MODULES) == expected
    kept = registry.get("INT8-dynamic")
    for name in expected:
        found, module = model.get_submodule(name).weight, by_hand.get_submodule(name)
        weight = by_hand.get_parameter(f"{name}.weight").detach()
        assert isinstance(found, ao.Int8Tensor)
        assert torch.equal(found.scale.flatten(), scales_of(weight, kept.weights))
        assert torch.equal(found.qdata * found.scale, round_weight(weight, kept))
        module.weight.data = round_weight(weight, kept)
        module.register_forward_pre_hook(lambda _, args: round_dynamic(args[0][None], 8, 0)[0])
    for name in script.INT8_MODULES:
        found = model.get_submodule(name).weight
        largest = by_hand.get_parameter(f"{name}.weight").abs().amax(1, keepdim=True)
        assert torch.allclose(found.scale, largest / 127.5)
    if not others:
        x = sample.inputs_of("digits_vit")[:1]
        with torch.no_grad():
            plain = sample.model_of("digits_vit")(x)
            found, measured = model(x.to(dtype)), by_hand(x)
        assert (found - measured).norm() < 1e-3 * (measured - plain).norm()
    assert torch.isfinite(model(sample.inputs_of("digits_vit").to(dtype))).all()


@pytest.mark.parametrize("precision", sample.FORMATS)
def test_torchaos_own_grid_is_a_choice_and_another(precision: str, tmp_path: Path) -> None:
    """Asked for, the same modules get torchao's grid by its own configuration: a scale is the largest
    magnitude of a group over 2^(bits-1) - 0.5.
    """
    sample.needs("torchao.quantization", "torchao")
    study, chosen = sample.in_turns("digits_vit", "torchao", None, (precision,))
    model, plain = sample.model_of("digits_vit"), sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=True)
    script = sample.script_of(study, chosen, "torchao", tmp_path)
    model = script.quantize(model, own_grid=True)

    assert expected
    for name, (_, kept) in expected.items():
        weight = model.get_submodule(name).weight
        values = plain.get_parameter(f"{name}.weight").reshape(kept.codes.shape)
        scales = values.abs().amax(-1) / (2 ** (kept.bits - 1) - 0.5)
        assert torch.allclose(weight.scale, scales)
        assert not torch.equal(weight.scale, kept.scales)


def test_weights_by_groups_are_kept_and_exported(tmp_path: Path) -> None:
    """Another copy of the model takes the quantized weights by name, and torch.export takes them."""
    sample.needs("torchao.quantization", "torchao")
    study, chosen = sample.in_turns("digits_vit", "torchao", None, ("INT4-g32",))
    script = sample.script_of(study, chosen, "torchao", tmp_path)
    model = script.quantize(sample.model_of("digits_vit"))
    again = sample.model_of("digits_vit")
    again.load_state_dict(model.state_dict(), assign=True)
    x = sample.inputs_of("digits_vit")

    assert torch.equal(again(x), model(x))
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))


def test_a_wrong_name_stops(tmp_path: Path) -> None:
    """A model whose modules are called otherwise is refused with the nearest names."""
    sample.needs("torchao.quantization", "torchao")
    script = sample.imported(sample.written("digits_vit", "torchao", tmp_path))
    wrapped = nn.ModuleDict({"net": sample.model_of("digits_vit")})

    with pytest.raises(SystemExit, match=r"has no .*\(nearest: net\."):
        script.quantize(wrapped)
