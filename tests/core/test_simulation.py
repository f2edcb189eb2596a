"""Simulated precision against integer arithmetic written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.simulate.functions import Functions
from core.evidence.evidence import Evidence
from core.evidence.measure.measure import make_simulator, measure, planned_runs
from core.evidence.options import MeasureOptions
from core.numerics.activation_grids import Grid, round_to
from core.numerics.precision import FP16, INT8, integers
from core.numerics.rounding import Range, affine_grid, round_activation, round_affine, round_weight
from core.numerics.scheme import ORT_CPU
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from core.source.operations import Stored, attention_by_products
from tests.conftest import REPOSITORY
from tests.zoo import models
from tests.zoo.precisions import registered
from tests.zoo.sources import source_of, tiny_source


def _simulator(source: ModelSource):  # noqa: ANN202 (the simulator's own type says it)
    return make_simulator(source, take_inventory(source), MeasureOptions())


def _integer_linear(x: np.ndarray, layer: nn.Linear, seen: np.ndarray) -> np.ndarray:
    """A linear layer in integers as ONNX defines it: uint8 x int8 -> int32, one rescale."""
    weight = layer.weight.detach().double().numpy()
    s_w = (np.abs(layer.weight.detach().numpy()).max(axis=1) / np.float32(127)).astype(np.float64)
    w_q = np.clip(np.rint(weight / s_w[:, None]), -127, 127).astype(np.int64)
    low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    s_x = (high - low) / 255
    zero = round(-low / s_x)
    x_q = np.clip(np.rint(x.astype(np.float64) / s_x) + zero, 0, 255).astype(np.int64)
    bias = np.rint(layer.bias.detach().double().numpy() / (s_x * s_w)).astype(np.int64)
    return ((x_q - zero) @ w_q.T + bias) * s_x * s_w


def test_int8_linear_equals_integer_arithmetic() -> None:
    """An INT8 linear layer gives what exact integer arithmetic gives."""
    source = source_of(models.NeverCalled(), (5,))
    layer = source.model.get_submodule("used")
    assert isinstance(layer, nn.Linear)
    x = source.selection.inputs

    simulated = _simulator(source).run({"used": INT8}, x)

    expected = _integer_linear(x.numpy(), layer, source.calibration.inputs.numpy())
    np.testing.assert_allclose(simulated, expected, rtol=0, atol=2e-6)
    exact = _simulator(source).run({}, x)
    assert np.abs(simulated - exact).max() > 1e-4  # it did round


# PyTorch will drop these tensors one day; until then they are a reference nobody here wrote.
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_int8_convolution_equals_torchs_quantized_kernel() -> None:
    """Weights, input and output of an INT8 convolution sit on PyTorch's own quantized grids."""
    torch.manual_seed(3)
    conv = nn.Conv2d(1, 4, 3, bias=False)
    source = source_of(nn.Sequential(conv, nn.Flatten()), (1, 6, 6))
    simulator = _simulator(source)
    x = source.selection.inputs

    simulated = simulator.run({"0": INT8}, x)

    s_x, z_x = affine_grid(simulator.ranges["0", 0, 0], 8)
    s_y, z_y = affine_grid(simulator.ranges["0", 0, -1], 8)
    x_q = torch.quantize_per_tensor(x, s_x, z_x, torch.quint8).dequantize()
    scales = conv.weight.detach().abs().amax(dim=(1, 2, 3)) / 127
    w_q = torch.quantize_per_channel(
        conv.weight.detach(), scales, torch.zeros(4, dtype=torch.int64), 0, torch.qint8
    ).dequantize()
    y = torch.nn.functional.conv2d(x_q, w_q)
    expected = torch.quantize_per_tensor(y, s_y, z_y, torch.quint8).dequantize().flatten(1)
    # A product that lies on a rounding boundary may fall to the neighbouring step.
    assert np.abs(simulated - expected.numpy()).max() <= s_y * 1.001
    assert (np.abs(simulated - expected.numpy()) > s_y / 2).mean() < 1e-3


def test_fp16_layers_hold_only_half_values() -> None:
    """A model wholly in FP16 returns numbers that survive a cast to half unchanged."""
    source = tiny_source()
    names = take_inventory(source).names

    outputs = _simulator(source).run(dict.fromkeys(names, FP16), source.selection.inputs)

    np.testing.assert_array_equal(outputs, outputs.astype(np.float16).astype(np.float32))


def test_fp16_overflow_shows_as_infinity_and_is_forbidden() -> None:
    """Activations beyond 65,504 are infinite in FP16; that pair is forbidden, never summed."""
    source = source_of(models.Overflowing(), (5,))
    layers = take_inventory(source)

    evidence = measure(source, layers, MeasureOptions(precisions=(FP16, INT8))).evidence

    assert not evidence.allowed[0, layers.index["large"]]
    assert evidence.allowed[1].all()
    assert not evidence.perturbations[0, layers.index["large"]].any()
    assert np.isfinite(evidence.perturbations).all()


def test_an_empty_assignment_is_the_model_itself() -> None:
    """Without any assignment the outputs are bit-identical to the model's."""
    source = tiny_source()
    with torch.no_grad():
        expected = source.model(source.selection.inputs).numpy()

    outputs = _simulator(source).run({}, source.selection.inputs, batch_size=len(expected))

    np.testing.assert_array_equal(expected, outputs)


@pytest.mark.parametrize(
    ("is_causal", "mask"), [(False, None), (True, None), (False, "float"), (False, "bool")]
)
def test_attention_by_products_equals_torchs_own(is_causal: bool, mask: str | None) -> None:
    """Attention taken apart gives what PyTorch's fused function gives."""
    if is_causal and mask is not None:
        return  # PyTorch refuses both
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=generator) for _ in range(3))
    given = None if mask is None else torch.randn(5, 5, generator=generator)
    if mask == "bool" and given is not None:
        given = (given > -1) | torch.eye(5, dtype=torch.bool)

    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=given, is_causal=is_causal
    )

    torch.testing.assert_close(
        attention_by_products(q, k, v, attn_mask=given, is_causal=is_causal), expected
    )


def test_built_in_attention_is_quantized() -> None:
    """INT8 reaches the products inside `nn.MultiheadAttention`, and FP32 is untouched."""
    source = source_of(models.Encoder(), (5, 8))
    simulator = _simulator(source)
    with torch.no_grad():
        expected = source.model(source.selection.inputs).numpy()

    reference = simulator.run({}, source.selection.inputs)
    rounded = simulator.run({"layer.self_attn": INT8}, source.selection.inputs)

    np.testing.assert_allclose(reference, expected, atol=1e-5)
    assert np.abs(rounded - reference).max() > 1e-4


def test_runs_do_not_depend_on_what_ran_before() -> None:
    """The same assignment gives the same bits before and after others, and the model is whole."""
    source = tiny_source()
    simulator = _simulator(source)
    before = source.fingerprint()
    first = simulator.run({"head": INT8}, source.selection.inputs)

    simulator.run(dict.fromkeys(take_inventory(source).names, INT8), source.selection.inputs)

    np.testing.assert_array_equal(first, simulator.run({"head": INT8}, source.selection.inputs))
    assert source.fingerprint() == before


def test_dropout_changes_nothing_in_any_precision() -> None:
    """A layer that does nothing at inference has no perturbation."""
    source = tiny_source()
    layers = take_inventory(source)
    evidence = measure(source, layers, MeasureOptions(precisions=(FP16, INT8), probes=2)).evidence

    silent = ~layers.computes
    assert silent.sum() == 2
    assert not evidence.perturbations[:, silent].any()


def test_every_computing_layer_is_run_alone_in_every_precision() -> None:
    """The plan lists baseline, each layer alone, uniform maps and probes, nothing twice."""
    layers = take_inventory(tiny_source())
    runs = planned_runs(layers, MeasureOptions(precisions=(FP16, INT8), probes=3))

    assert len(runs) == 1 + 2 * int(layers.computes.sum()) + 2 + 3
    assert len({run.label for run in runs}) == len(runs)


def test_probes_cover_the_shares_of_the_narrowest_precision() -> None:
    """Probe maps rise in their INT8 share and never leave a computing layer undefined."""
    from core.evidence.measure.measure import probe_codes

    layers = take_inventory(tiny_source())
    codes = probe_codes(layers, (FP16, INT8), 12)

    shares = (codes == 1).sum(axis=1)
    assert (np.diff(shares) >= 0).all()
    assert shares[0] < shares[-1] < layers.computes.sum() + 1
    assert (codes[:, ~layers.computes] == -1).all()


def test_narrower_weights_disturb_more() -> None:
    """Four-bit weights change the outputs more than eight-bit weights in every product layer."""
    int4 = integers("INT4-test", 4)
    source = tiny_source()
    layers = take_inventory(source)
    with registered(int4):
        evidence = measure(
            source, layers, MeasureOptions(precisions=(INT8, int4), probes=0)
        ).evidence

    has_weights = np.isfinite(evidence.weight_sqnr_db[0])
    assert has_weights.sum() == 6
    assert (evidence.energy[1, has_weights] > evidence.energy[0, has_weights]).all()
    assert (evidence.weight_sqnr_db[1, has_weights] < evidence.weight_sqnr_db[0, has_weights]).all()


@pytest.mark.parametrize(
    ("model", "shape", "ids"),
    [
        (models.ConvNet(), (1, 8, 8), 0),
        (models.TiedWeights(), (5,), 0),
        (models.LoopedModule(), (5,), 0),
        (models.TokenModel(), (4,), 20),
        (models.DictOutput(), (5,), 0),
        (models.NoLayers(), (3,), 0),
    ],
)
def test_the_zoo_is_measured(model: nn.Module, shape: tuple[int, ...], ids: int) -> None:
    """Every awkward model yields finite evidence of the right shape."""
    source = source_of(model, shape, ids=ids)
    layers = take_inventory(source)

    evidence: Evidence = measure(
        source, layers, MeasureOptions(precisions=(FP16, INT8), probes=2)
    ).evidence

    assert evidence.perturbations.shape[:3] == (2, len(layers), 64)
    assert evidence.allowed.all()
    assert np.isfinite(evidence.perturbations).all()


finite = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=1, max_size=40), finite, finite)
def test_rounding_an_activation_is_idempotent_and_close(
    values: list[float], a: float, b: float
) -> None:
    """Rounded values stay put when rounded again and lie within half a step of the clipped."""
    seen = Range(min(a, b), max(a, b))
    x = torch.tensor(values, dtype=torch.float32)
    scale, zero = affine_grid(seen, 8)

    once = round_activation(x, seen, 8)

    low, high = -zero * scale, (255 - zero) * scale
    clipped = x.double().clamp(low, high)
    assert bool(((once.double() - clipped).abs() <= scale * 0.5001 + 1e-6 * abs(high - low)).all())
    torch.testing.assert_close(round_activation(once, seen, 8), once, rtol=0, atol=scale * 1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.floats(2**-20, 2**10),
       st.integers(0, 255), st.booleans())  # fmt: skip
def test_rounding_to_a_grid_has_the_bits_of_pytorchs_own_kernel(
    values: list[float], scale: float, zero: int, signed: bool
) -> None:
    """Also for halves between two integers, zeros of either sign, infinity, what is no number, and
    a tensor whose memory is in another order.
    """
    halves = (torch.arange(-600, 600) * (scale / 2)).float()
    x = torch.cat([torch.tensor(values), halves, torch.tensor([0.0, -0.0, -scale / 4])])
    low, zero = (-128, 0) if signed else (0, zero)

    for given_ in (x, torch.stack([x, -x]).t()):
        kernel = torch.fake_quantize_per_tensor_affine(given_, scale, zero, low, low + 255)
        found = round_affine(given_, scale, zero, low, low + 255)
        assert torch.equal(found.view(torch.int32), kernel.view(torch.int32))
        assert found.stride() == kernel.stride()


def test_what_lies_on_a_grid_is_not_rounded_on_it_again() -> None:
    """A value is handed on as it is where it would keep its bits, and rounded anew where it was
    changed in place or the grid is another.
    """
    x, grid = torch.randn(40, generator=torch.Generator().manual_seed(1)), Grid(0.03, 7, 0, 255)
    functions = Functions(ORT_CPU, Stored(nn.Identity()))

    once = functions.round_to(x, grid)
    assert functions.round_to(once, grid) is once
    assert torch.equal(round_to(once, grid).view(torch.int32), once.view(torch.int32))
    wider = functions.round_to(once, Grid(0.05, 7, 0, 255))
    assert wider is not once
    once.add_(0.01)
    assert functions.round_to(once, grid) is not once


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([4, 8]))
def test_rounded_weights_use_at_most_the_grid(seed: int, bits: int) -> None:
    """Each output channel holds at most 2^b - 1 distinct values, symmetric around zero."""
    weight = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed))
    rounded = round_weight(weight, integers("test", bits))

    for channel, original in zip(rounded, weight, strict=True):
        assert len(channel.unique()) <= 2**bits - 1
        assert float(channel.abs().max()) == pytest.approx(float(original.abs().max()), rel=1e-6)


def test_an_all_zero_channel_stays_zero() -> None:
    """A channel without any weight rounds to zeros and not to NaN."""
    weight = torch.zeros(2, 4)
    weight[1] = torch.tensor([1.0, -2.0, 0.5, 0.0])

    assert torch.isfinite(round_weight(weight, INT8)).all()
    assert not round_weight(weight, INT8)[0].any()


def test_a_precision_needs_one_entry_of_the_registry(tiny_study: Study) -> None:
    """BF16 is measured, priced and offered because it is registered; nothing else names it."""
    study = tiny_study
    assert "BF16" in study.precisions

    chosen = answer.decide(study, Policy(strategy="uniform", uniform="BF16"))
    found = outcome(study, chosen)

    half = outcome(study, answer.decide(study, Policy(strategy="uniform", uniform="FP16")))
    assert found.totals["size_bytes"] == half.totals["size_bytes"]
    kl, finer = found.totals["kl"].value, half.totals["kl"].value
    assert kl is not None
    assert finer is not None
    assert kl > finer  # 8 bits of mantissa against 11
    named = [
        path
        for folder in ("core", "dashboard")
        for path in (REPOSITORY / folder).rglob("*.py")
        if "BF16" in path.read_text("utf-8")
    ]
    assert named == [REPOSITORY / "core" / "numerics" / "precision.py"]


def test_bf16_does_not_overflow_where_fp16_does() -> None:
    """BF16 has the exponent of FP32: values beyond 65,504 stay finite and are only coarser."""
    analysis = analyze(source_of(models.Overflowing(), (5,)), MeasureOptions(probes=2))
    evidence = analysis.evidence
    assert evidence is not None

    half, brain = (evidence.precisions.index(name) for name in ("FP16", "BF16"))
    assert not evidence.allowed[half].all()
    assert evidence.allowed[brain].all()
