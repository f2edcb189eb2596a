"""Folded batch norms, fused activations and dynamic kernels under every scheme."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.engines.torch.simulate.dynamic import round_dynamic
from core.engines.torch.simulate.folding import clips, stored_tensors
from core.estimate.size import layer_bytes
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics import kernel_table
from core.numerics import scheme as schemes
from core.numerics.activation_grids import grid_of, round_to
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.precision import FP16, FP32, INT8
from core.numerics.rounding import Range
from core.numerics.scheme import OPENVINO, ORT_CPU, ORT_CPU_ALL, TENSORRT, Scheme
from core.numerics.states import under
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.zoo import awkward, by_hand, fusing
from tests.zoo.sources import source_of

ALL = tuple(schemes.SCHEMES.values())
by_name = pytest.mark.parametrize("scheme", ALL, ids=lambda s: s.name)


def _source(case: Callable[[], nn.Module], shape: tuple[int, ...]) -> ModelSource:
    torch.manual_seed(4)
    return source_of(fusing.trained(case()), shape)


class BiasedNorm(fusing.ConvNorm):
    """Convolution with a bias of its own, batch norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 6, 6] -> [N, 3]."""
        return self.pooled(self.bn(self.conv(x)).relu())


def _on(value: Tensor, seen: Tensor, scheme: Scheme) -> Tensor:
    return round_to(value, grid_of(Range(float(seen.min()), float(seen.max())), scheme))


@by_name
def test_a_convolution_is_the_folded_one_under_every_scheme(scheme: Scheme) -> None:
    """INT8 of one convolution is PyTorch's fused one with operands, bias and output rounded as the
    scheme says, the output over the range behind the ReLU; its own bias is part of the fused one.

    Tolerance: a result on a rounding boundary may fall to the next step.
    """
    source = _source(BiasedNorm, fusing.ConvNorm.SHAPE)
    model, x, seen = source.model, source.selection.inputs, source.calibration.inputs
    assert isinstance(model, BiasedNorm)
    simulator = make_simulator(
        source, under(take_inventory(source), scheme), MeasureOptions(scheme=scheme)
    )
    fused = fuse_conv_bn_eval(model.conv, model.bn)
    assert fused.bias is not None
    with torch.no_grad():
        after = fused(seen).relu()
        step = grid_of(Range(float(seen.min()), float(seen.max())), scheme).scale
        scales = step * fused.weight.abs().amax((1, 2, 3)).double() / 127
        fused.weight.copy_(by_hand.symmetric(fused.weight.detach(), 0))
        if scheme.bias == "int32":
            fused.bias.copy_((fused.bias.double() / scales).round() * scales)
        y = fused(_on(x, seen, scheme)).relu()
        y = _on(y, after, scheme) if "conv" in scheme.rounds_outputs else y
        expected = model.pooled(y).numpy()
        exact = model(x).numpy()

    found = simulator.run({"conv": INT8}, x)

    off, change = np.abs(found - expected).mean(), np.abs(found - exact).mean()
    assert change > 1e-4  # it did round
    assert off < 0.05 * change
    assert (("conv", 0, OUTPUT) in simulator.ranges) == ("conv" in scheme.rounds_outputs)
    assert not any(site[0] == "bn" or site[1] < -1 for site in simulator.ranges)


@by_name
def test_stored_tensors_are_the_fused_ones_under_every_scheme(scheme: Scheme) -> None:
    """What is written and profiled is PyTorch's fused weight and bias, whatever form they get."""
    source = _source(BiasedNorm, fusing.ConvNorm.SHAPE)
    model = source.model
    assert isinstance(model, BiasedNorm)
    fused = fuse_conv_bn_eval(model.conv, model.bn)
    assert fused.bias is not None

    found = stored_tensors(under(take_inventory(source), scheme), model)

    torch.testing.assert_close(found["conv.weight"], fused.weight.detach())
    torch.testing.assert_close(found["conv.bias"], fused.bias.detach())


@by_name
def test_half_precision_is_the_same_under_every_scheme(scheme: Scheme) -> None:
    """A scheme is about integers: FP16 of a folded convolution does not depend on it."""
    source = _source(fusing.ConvNormRelu, fusing.ConvNormRelu.SHAPE)
    inventory = take_inventory(source)
    x = source.selection.inputs
    usual = make_simulator(source, inventory, MeasureOptions()).run({"conv": FP16}, x)

    found = make_simulator(source, under(inventory, scheme), MeasureOptions(scheme=scheme)).run(
        {"conv": FP16}, x
    )

    assert found.tobytes() == usual.tobytes()


class LinearRelu(nn.Module):
    """A linear layer with a ReLU that is no other layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.act = nn.ReLU()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5] -> [N, 3]."""
        return self.last(self.act(self.first(x)))


def test_all_operators_put_the_range_of_a_relu_on_the_product_before_it() -> None:
    """ONNX Runtime lets a quantized ReLU's range take the place of its producer's: convolutions
    under both of its schemes, Gemm where its output is rounded at all.
    """
    conv = _source(fusing.ConvNormRelu, fusing.ConvNormRelu.SHAPE)
    linear = _source(LinearRelu, (5,))
    for scheme in (ORT_CPU, ORT_CPU_ALL):
        seen = make_simulator(
            conv, under(take_inventory(conv), scheme), MeasureOptions(scheme=scheme)
        ).ranges
        assert seen[("conv", 0, OUTPUT)].low == 0.0
        assert seen[("conv", 0, OUTPUT)].high > 0.0
    table = under(take_inventory(linear), ORT_CPU_ALL)
    seen = make_simulator(linear, table, MeasureOptions(scheme=ORT_CPU_ALL)).ranges

    assert seen[("first", 0, OUTPUT)].low == 0.0
    assert seen[("last", 0, OUTPUT)].low < 0.0
    assert set(clips(table, ORT_CPU_ALL.rounds_outputs)) == {"first"}
    assert clips(table, ORT_CPU.rounds_outputs) == {}
    for scheme in (TENSORRT, OPENVINO):  # nothing is clipped where no output is rounded
        assert clips(take_inventory(conv), scheme.rounds_outputs) == {}


class Mixes(nn.Module):
    """An einsum of a stored operand and one of activations alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 5, 4] -> [N, 5]."""
        y = torch.einsum("btd,de->bte", x, self.weight)
        return torch.einsum("btd,bsd->bts", y, y).mean(1)


def test_einsum_stays_in_float_where_only_floats_are_listed() -> None:
    """TensorRT's parser lists Einsum in FP32 and FP16, so INT8 changes neither outputs nor bytes."""
    torch.manual_seed(0)
    source = source_of(Mixes(), (5, 4))
    (layer,) = inventory = under(take_inventory(source), TENSORRT)
    simulator = make_simulator(source, inventory, MeasureOptions(scheme=TENSORRT))
    x = source.selection.inputs

    assert inventory.in_float.all()
    assert layer_bytes(layer, INT8) == layer_bytes(layer, FP32)
    assert simulator.run({layer.name: INT8}, x).tobytes() == simulator.run({}, x).tobytes()


# ---- dynamic kernels


class OwnLstm(nn.LSTM):
    """A person's own name for an LSTM."""


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_an_lstm_is_what_each_runtime_makes_of_it() -> None:
    """Dynamic in ONNX Runtime, float in TensorRT, 8-bit weights in OpenVINO; with a projection, and
    an RNN, its products are computed one by one in ONNX Runtime; a GRU has no integer kernel.
    """
    plain = {"ort-cpu": "computes", "ort-cpu-all": "computes", "tensorrt": "float"}
    steps = {**plain, "openvino": "float", "openvino-mixed": "float"}
    for kind, options, expected, dynamic in (
        (nn.LSTM, {}, plain, True),
        (OwnLstm, {}, plain, True),
        (nn.LSTM, {"proj_size": 3}, steps, False),
        (nn.RNN, {}, steps, False),
        (nn.GRU, {}, {"tensorrt": "float"}, False),
    ):
        torch.manual_seed(0)
        source = source_of(awkward.LastOutput(kind(4, 6, batch_first=True, **options)), (5, 4))
        inventory = take_inventory(source)
        for scheme in ALL:
            (layer, *_) = under(inventory, scheme)
            assert layer.state == expected.get(scheme.name, "stores"), (kind, scheme.name)
            assert layer.dynamic == (dynamic and layer.state == "computes")
            assert layer.quantizes_output == (
                scheme is ORT_CPU_ALL and layer.state == "computes" and not dynamic
            )


@pytest.mark.slow
def test_a_dynamic_lstm_is_the_same_under_both_schemes_of_onnx_runtime() -> None:
    """Its gates are no operators of their own, so that rounding all operators changes nothing."""
    torch.manual_seed(0)
    source = source_of(awkward.LastOutput(nn.LSTM(4, 6, batch_first=True)), (5, 4))
    inventory = take_inventory(source)
    x = source.selection.inputs
    found = []
    for scheme in (ORT_CPU, ORT_CPU_ALL):
        simulator = make_simulator(source, under(inventory, scheme), MeasureOptions(scheme=scheme))
        assert not any(site[0] == "recurrent" for site in simulator.ranges)
        found.append(simulator.run({"recurrent": INT8}, x))
        assert np.abs(found[-1] - simulator.run({}, x)).max() > 1e-4

    assert found[0].tobytes() == found[1].tobytes()


def test_dynamic_ranges_lie_on_the_schemes_own_grid() -> None:
    """Each sample is rounded as its scheme's grid over the sample's own range rounds it."""
    x = torch.randn(7, 9, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, 1], x[:, 2] = 0.0, x[:, 1].abs(), -x[:, 2].abs()
    dynamic = [
        s for s in ALL if any(kernel_table.is_dynamic(s.name, runs) for runs in kernel_table.ROWS)
    ]
    assert {s.name for s in dynamic} == {"ort-cpu", "ort-cpu-all"}
    for scheme in dynamic:
        found = round_dynamic(x, scheme.activation_bits)
        for n in range(x.shape[1]):
            sample = x[:, n]
            torch.testing.assert_close(
                found[:, n], _on(sample, sample, scheme), atol=1e-6, rtol=1e-6
            )
