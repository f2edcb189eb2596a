"""FP8 over scales, and INT8 with ranges set while a model runs: what they round, keep and run."""

from __future__ import annotations

import copy

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.simulate.dynamic import SampleAxis, round_samples, sample_axis
from core.errors import ModelError, PolicyError
from core.estimate import hardware
from core.estimate.latency import LatencyModel
from core.estimate.size import layer_bytes
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP8, FP16, FP32, INT8, INT8_DYNAMIC, Precision, TensorFormat
from core.numerics.ranges import Ranges
from core.numerics.rounding import round_scaled, round_weight
from core.numerics.states import state_in
from core.onnx_graph.float8_simulated import _rounding
from core.runtime.build import build, check_kernels
from core.source.inventory import take_inventory
from tests.core.runtime_case import case_of, decibels
from tests.core.test_onnx_agreement import _calibrated, _exported, _pairs
from tests.core.test_weight_formats import _mixed
from tests.zoo.beside import beside
from tests.zoo.precisions import registered
from tests.zoo.sources import source_of, tiny_source

TOP = 448.0


def _cast(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


# ---- FP8


def test_fp8_is_what_torch_casts_to() -> None:
    """The simulation gives, bit for bit, what the model gives whose weights are cast to float8_e4m3fn
    over the largest of each output channel / 448, and what its products take in over the largest that
    calibration saw / 448.
    """
    source = _mixed()
    simulator = make_simulator(source, take_inventory(source), MeasureOptions())
    by_hand = copy.deepcopy(source.model)
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> None:
        def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0].abs().amax()

        by_hand.get_submodule(name).register_forward_pre_hook(note)

    for name in ("conv", "first", "second"):
        watch(name)
    x = source.selection.inputs
    with torch.no_grad():
        by_hand(source.calibration.inputs)
        largest, seen = dict(seen), {}
        for name, top in largest.items():
            module = by_hand.get_submodule(name)
            weight = module.weight.data
            others = tuple(range(1, weight.ndim))
            module.weight.data = _cast(weight, weight.abs().amax(others, keepdim=True) / TOP)
            module.register_forward_pre_hook(lambda _, args, s=top / TOP: (_cast(args[0], s),))
        expected = by_hand(x).numpy()

    found = simulator.run(dict.fromkeys(simulator.varied, FP8), x)

    assert np.array_equal(found, expected)
    assert not np.array_equal(found, simulator.run({}, x))


def test_what_lies_beyond_the_scale_saturates() -> None:
    """Values beyond 448 scales become 448 scales, infinity too, and NaN stays NaN."""
    x = torch.tensor([1.0, 500.0, -1e9, float("inf"), float("nan")])
    found = round_scaled(x, torch.tensor(1.0), FP8.weights)

    assert found[:4].tolist() == [1.0, TOP, -TOP, TOP]
    assert bool(found[4].isnan())


def test_a_channel_of_zeros_stays_zero() -> None:
    """A weight without a largest value has the scale 1."""
    weight = torch.zeros(3, 4)
    weight[1] = torch.randn(4)

    found = round_weight(weight, FP8, 0)

    assert torch.equal(found[0], torch.zeros(4))
    assert found[1].abs().amax() == weight[1].abs().amax()


def test_the_graph_rounds_as_torch_casts() -> None:
    """Every number of the format, every middle between two, and what lies just beside them are rounded
    by the nodes of a graph as torch casts them.
    """
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    exact = codes[codes.isfinite()].sort().values
    middle = (exact[1:] + exact[:-1]) / 2
    near = [f(v) for v in (exact, middle) for f in (
        lambda v: v, lambda v: torch.nextafter(v, v + 1), lambda v: torch.nextafter(v, v - 1)
    )]  # fmt: skip
    x = torch.cat([*near, torch.randn(5000) * 100, torch.randn(5000) * 1e-3]) * 0.37
    nodes = _rounding("x", "y", 0.37, FP8.weights)
    float_ = onnx.TensorProto.FLOAT
    given, made = (onnx.helper.make_tensor_value_info(n, float_, ["n"]) for n in "xy")
    graph = onnx.helper.make_graph(nodes, "rounding", [given], [made])
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    (found,) = session.run(None, {"x": x.numpy()})

    expected = round_scaled(x, torch.tensor(0.37), FP8.weights).numpy()
    assert np.array_equal(found, expected)


def test_fp8_is_said_to_be_simulated_and_is_not_built() -> None:
    """A map with a layer in FP8 is neither built nor verified, and says why; nothing else of the study
    is in its way.
    """
    source = _mixed()
    analysis = analyze(source, MeasureOptions(precisions=(FP16, FP8, INT8), probes=2))
    study = Study(analysis)
    uniform = answer.decide(study, Policy(strategy="uniform", uniform="FP8"))

    assert [n for n, p in uniform.by_layer.items() if p == "FP8"] == ["conv", "first", "second"]
    with pytest.raises(PolicyError, match="3 layers of this map are in FP8, which is simulated"):
        build(source, analysis, uniform)
    check_kernels(answer.decide(study, Policy(strategy="uniform", uniform="INT8")))


@pytest.mark.parametrize("device", ["datacenter-gpu-h100", "datacenter-gpu-l40s"])
def test_fp8_is_as_fast_as_a_device_multiplies_it(device: str) -> None:
    """Where a profile knows FP8, a layer in it computes at that peak; where none does, as FP32."""
    layers = take_inventory(_mixed())
    sizes = np.zeros((3, len(layers)), np.int64)
    here, there = hardware.get(device), hardware.get(hardware.DEFAULT)
    i = layers.index["first"]

    def work(profile: hardware.Hardware) -> list[float]:
        slow = msgspec.structs.replace(profile, bandwidth_gb_per_s=1e9)
        model = LatencyModel(layers, sizes, ("FP32", "FP8", "INT8"), slow)
        return (model._work_s["typical"][:, i] * 1e12).tolist()  # type: ignore[no-any-return]

    full, fp8, int8 = work(here)
    peaks = here.peak_gmac_per_s
    assert fp8 == pytest.approx(full * peaks["FP32"] / peaks["FP8"])
    assert fp8 == pytest.approx(int8)
    full, fp8, int8 = work(there)
    assert fp8 == pytest.approx(full)
    assert int8 < full


# ---- INT8 with ranges set while the model runs


def _by_onnxruntime(x: Tensor) -> Tensor:
    """`x` on the grid that DynamicQuantizeLinear lays over it."""
    names = ["q", "scale", "zero"]
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], names),
        onnx.helper.make_node("DequantizeLinear", names, ["y"]),
    ]
    kind = onnx.TensorProto.FLOAT
    given, made = (onnx.helper.make_tensor_value_info(n, kind, None) for n in "xy")
    graph = onnx.helper.make_graph(nodes, "dynamic", [given], [made])
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@given(
    st.integers(0, 2**31 - 1), st.sampled_from([(3, 4), (3, 5, 4), (2, 3, 4)]),
    st.sampled_from([-3.0, 0.0, 3.0]),
)  # fmt: skip
def test_a_sample_lies_on_the_grid_of_dynamic_quantize_linear(
    seed: int, shape: tuple[int, ...], shift: float
) -> None:
    """Each sample is rounded as ONNX Runtime rounds it by itself, to half a step where a value lies in
    the middle of two.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift
    axis = shape.index(3)
    found = round_samples(x, 8, 3, SampleAxis(axis, leads=True))

    for i in range(3):
        mine = x.select(axis, i)
        step = (mine.amax().clamp(min=0) - mine.amin().clamp(max=0)) / 255
        apart = (found.select(axis, i) - _by_onnxruntime(mine)).abs()
        assert float(apart.max()) <= float(step) * 1.001
        assert float((apart > step * 0.01).float().mean()) < 0.1


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("made", ["first", "second", "flattened", "interleaved"])
def test_samples_are_found_wherever_a_model_lays_them(made: str, samples: int) -> None:
    """On another axis, flattened with steps before or behind them, with as many steps as samples."""
    x = torch.randn(samples, samples, 4)
    ways = {
        "first": lambda v: v,
        "second": lambda v: v.transpose(0, 1),
        "flattened": lambda v: v.flatten(0, 1),
        "interleaved": lambda v: v.transpose(0, 1).flatten(0, 1),
    }
    expected = {
        "first": SampleAxis(0, leads=True),
        "second": SampleAxis(1, leads=True),
        "flattened": SampleAxis(0, leads=True),
        "interleaved": SampleAxis(0, leads=False),
    }
    alone = [ways[made](x[[i, i]]) for i in range(samples)]

    found = sample_axis(ways[made](x), alone)

    assert found == expected[made]
    assert sample_axis(torch.randn(samples, 3), [torch.randn(2, 3)] * samples) is None


class Wide(nn.Module):
    """Two products with a matrix, one of them of as many steps as there are samples, and an attention
    whose products of activations no matrix has a part in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Of x [N, T, 8], with T first within."""
        y = x.transpose(0, 1)
        y = self.attention(y, y, y, need_weights=False)[0]
        return self.head(y.mean(0))  # type: ignore[no-any-return]


def test_figures_do_not_depend_on_the_batch() -> None:
    """What a map with ranges set while it runs gives is the same for batches of 3 and of 100 samples,
    and for every sample alone.
    """
    torch.manual_seed(0)
    for source in (source_of(Wide(), (3, 8)), tiny_source()):
        simulator = make_simulator(source, take_inventory(source), MeasureOptions())
        x = source.selection.inputs[:9]
        given = dict.fromkeys(simulator.varied, INT8_DYNAMIC)

        whole = simulator.run(given, x)
        parts = simulator.run(given, x, batch_size=3)
        alone = simulator.run(given, x, batch_size=1)

        base = simulator.run({}, x)
        for other in (parts, alone):
            assert decibels(base, whole - other) > decibels(base, whole - base) + 10


def test_weights_are_those_of_int8_and_activations_each_samples_own() -> None:
    """The simulation is the model by hand: weights as INT8 stores them, the inputs of linear layers on
    each sample's own grid, and all else as it is.
    """
    source = _mixed()
    simulator = make_simulator(source, take_inventory(source), MeasureOptions())
    model, x = source.model, source.selection.inputs[:8]

    def product(name: str, value: Tensor) -> Tensor:
        layer = model.get_submodule(name)
        rows = torch.cat([_by_onnxruntime(row[None]) for row in value])
        return F.linear(rows, round_weight(layer.weight, INT8, 0), layer.bias)

    with torch.no_grad():
        h = torch.relu(model.conv(x)).flatten(1)
        expected = product("second", model.norm(torch.relu(product("first", h)))).numpy()

    found = simulator.run(dict.fromkeys(simulator.varied, INT8_DYNAMIC), x)

    base = simulator.run({}, x)
    assert decibels(base, found - expected) > decibels(base, found - base) + 10


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_an_lstm_and_a_table_are_in_it_what_they_are_in_int8() -> None:
    """Their INT8 sets ranges while it runs, or needs none: bytes and outputs are the same."""
    for source in (beside("tokens"), beside("steps")):
        layers = take_inventory(source)
        simulator = make_simulator(source, layers, MeasureOptions())
        same = [x for x in layers if x.dynamic or (x.role == "embedding" and not x.packs_products)]
        x = source.selection.inputs
        for layer in same:
            assert state_in(layer, INT8_DYNAMIC) == state_in(layer, INT8) != "float"
            assert layer_bytes(layer, INT8_DYNAMIC) == layer_bytes(layer, INT8)
            one, other = (simulator.run({layer.name: p}, x) for p in (INT8_DYNAMIC, INT8))
            assert np.array_equal(one, other)
        assert same


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", ["vectors", "tokens", "sequences of 6", "sequences of 8", "steps"])
def test_what_runs_is_what_is_simulated(name: str) -> None:
    """Every model of the zoo with linear layers is built as asked, and ONNX Runtime gives what the
    simulation does, 10 dB or more below the error.
    """
    case = case_of(beside(name))
    built = case.built(case.uniform("INT8-dynamic"))
    x = case.source.selection.inputs
    base = case.simulator.run({}, x)
    ran, simulated = case.ran(built, x), case.simulated(built, x)

    left = [
        row.name for row in built.report if not row.as_asked and "does not need it" not in row.why
    ]
    assert not left
    assert built.sets_ranges
    assert decibels(base, ran - simulated) > decibels(base, simulated - base) + 10


def test_a_convolution_stays_in_float() -> None:
    """It means nothing for a convolution: no strategy gives it, and by hand it is built in FP32."""
    case = case_of(_mixed())
    uniform = case.uniform("INT8-dynamic")
    built = case.built(case.map({"conv": "INT8-dynamic", "first": "INT8-dynamic"}))
    rows = {row.name: row for row in built.report}

    assert uniform.by_layer["conv"] == "FP32"
    assert rows["conv"].got == "FP32"
    assert "matrices alone" in rows["conv"].why
    assert rows["first"].kernels == ("DynamicQuantizeMatMul",)
    assert layer_bytes(case.analysis.layers.layers[0], INT8_DYNAMIC) == layer_bytes(
        case.analysis.layers.layers[0], FP32
    )


# ---- both, of a file


@pytest.mark.parametrize("precision", [FP8, INT8_DYNAMIC], ids=lambda p: p.name)
def test_a_file_errs_as_its_module_does(precision: Precision) -> None:
    """What a layer alone costs is the same of a module and of the file that it was exported to, 10 dB
    below the effect.
    """
    source = tiny_source()
    exported = _exported(source, ("blocks.*.attention", "blocks.*.feed_forward"))
    module, file = _calibrated(source), _calibrated(exported)
    layers, inputs = take_inventory(source), exported.selection.inputs
    base, plain = module.run({}, source.selection.inputs), file.run({}, inputs)
    pairs = [
        (layer, owner)
        for layer, owner in _pairs(module, exported)
        if state_in(layers.layers[layers.index[owner]], precision) == "computes"
    ]
    assert len(pairs) >= 6
    replayed = file.replay(inputs).run(inputs, [(layer, precision) for layer, _ in pairs])
    clean = next(replayed)
    for (layer, owner), outputs in zip(pairs, replayed, strict=True):
        effect = module.run({owner: precision}, source.selection.inputs) - base
        full = file.run({layer: precision}, inputs) - plain
        for found in (outputs - clean, full):
            noise = np.square(effect - found, dtype=np.float64).sum()
            assert 10 * np.log10(np.square(effect).sum() / noise) > 10, (layer, owner)


def test_a_format_over_scales_is_one_entry_of_the_registry() -> None:
    """E5M2 over scales, registered and nowhere else said, is measured and sized."""
    dtype = "float8_e5m2"
    fresh = Precision(
        "FP8-E5M2",
        TensorFormat("float", 8, "channel", dtype=dtype),
        TensorFormat("float", 8, "tensor", dtype=dtype),
    )
    with registered(fresh):
        analysis = analyze(_mixed(), MeasureOptions(precisions=(FP8, INT8, fresh), probes=2))
        study = Study(analysis)
        sizes = study.size_bytes

    assert analysis.evidence is not None
    row = analysis.evidence.precisions.index
    changes = analysis.evidence.perturbations
    assert np.abs(changes[row("FP8-E5M2")]).sum() > np.abs(changes[row("FP8")]).sum() > 0
    assert sizes[study.precisions.index("FP8-E5M2")].tolist() == (
        sizes[study.precisions.index("FP8")].tolist()
    )


def test_a_layer_that_was_not_calibrated_has_no_scale() -> None:
    """A layer that no sample reached has no scale: it is said, and not guessed."""
    source = tiny_source()
    engine = _calibrated(source)
    engine.ranges = Ranges({k: v for k, v in engine.ranges.items() if k[0] != "head"})
    with pytest.raises(ModelError, match="no calibration sample reached"):
        engine.run({"head": FP8}, source.selection.inputs)
