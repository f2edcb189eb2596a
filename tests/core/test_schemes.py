"""Schemes as data: what each rounds, what INT8 means under it, and what every one has to hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.replay.replayer import Replayer
from core.errors import PolicyError
from core.estimate.hardware import profiles
from core.evidence.measure.cache_key import content_key
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.export.map import precision_map
from core.layers import ROLES, State
from core.numerics import kernel_table
from core.numerics import scheme as schemes
from core.numerics.activation_grids import Grid, grid_of, round_to
from core.numerics.calibrate import calibrators
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.precision import FP16, INT8
from core.numerics.rounding import Range, affine_grid, round_activation
from core.numerics.saturation import WARNING, saturates, warning
from core.numerics.scheme import (
    OPENVINO,
    OPENVINO_MIXED,
    ORT_CPU,
    ORT_CPU_ALL,
    TENSORRT,
    Scheme,
)
from core.numerics.states import states, under
from core.source.batches import take
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core.static_quantizer import statically_quantized
from tests.core.synthetic import synthetic_analysis
from tests.core.tensor_file import write_tensors
from tests.processors import own_notes
from tests.zoo import fusing, models, passes
from tests.zoo.sources import source_of, tiny_source

ALL = tuple(schemes.SCHEMES.values())
by_name = pytest.mark.parametrize("scheme", ALL, ids=lambda s: s.name)


def _simulator(source: ModelSource, scheme: Scheme, calibrator: str = "min-max"):  # noqa: ANN202
    layers = under(take_inventory(source, functions=scheme.functions), scheme)
    return make_simulator(
        source, layers, MeasureOptions(scheme=scheme, calibrator=calibrators.get(calibrator))
    )


class Mixed(nn.Module):
    """Attention, norm, convolution, ReLU, GELU and a residual add in one small model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gelu = nn.GELU()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6, 5] -> [N, 3]."""
        x = self.relu(self.conv(x)).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(self.gelu(x).mean(dim=1))


def _mixed() -> ModelSource:
    torch.manual_seed(2)
    return source_of(Mixed(), (6, 5), name="mixed")


# ---- names and words


def test_names_are_known_and_unknown_ones_name_the_known() -> None:
    """Every name gives its scheme; an unknown one is an error that names the known."""
    assert schemes.names()[0] == "ort-cpu"
    assert {"ort-cpu-all", "tensorrt", "openvino"} < set(schemes.names())
    assert all(schemes.get(name).name == name for name in schemes.names())
    with pytest.raises(PolicyError, match="ort-cpu, ort-cpu-all, tensorrt"):
        schemes.get("coreml")


@by_name
def test_every_scheme_says_what_it_is_and_where_that_is_from(scheme: Scheme) -> None:
    """A description and a source stand beside the facts."""
    assert len(scheme.description) > 60
    assert len(scheme.source) > 20


def test_a_mismatch_is_said_and_names_both() -> None:
    """Evidence of one scheme on the way to another is called so, with how to measure it."""
    assert schemes.mismatch("tensorrt", "tensorrt") is None
    said = schemes.mismatch("ort-cpu", "tensorrt")
    assert said is not None
    assert said.startswith("Not measured under the target's scheme")
    assert "ort-cpu" in said
    assert "analyze --scheme tensorrt" in said
    assert "activations symmetric, not affine" in said
    unknown = schemes.mismatch("of-a-later-version", "ort-cpu")
    assert unknown is not None
    assert "of-a-later-version" in unknown


# ---- the table of kernels


def test_the_table_of_kernels_is_complete_and_sourced() -> None:
    """Each scheme has a state and a source for everything that a layer can run."""
    known = set(get_args(State))
    for name in schemes.names():
        for runs in kernel_table.ROWS:
            row = kernel_table.row(name, runs)
            assert row["state"] in known, (name, runs)
            assert len(row["source"]) > 5, (name, runs)
        assert kernel_table.state(name, "dropout") == "nothing"
    for name, rows in kernel_table.table().items():
        assert name in schemes.names()
        assert all(row["state"] in known and row["source"] for row in rows.values())


def test_every_role_has_a_row() -> None:
    """Whatever a layer's role and operations are, the table has something to say."""
    kinds: tuple[dict[str, int], ...] = ({}, {"linear": 1}, {"conv": 1}, {"embedding": 1})
    runs = {(role, *kind): kernel_table.runs_of(role, kind) for role in ROLES for kind in kinds}

    assert {key: row for key, row in runs.items() if row not in kernel_table.ROWS} == {}


@pytest.mark.parametrize(
    ("model", "shape", "ids"),
    [
        (models.ConvNet, (1, 8, 8), 0),
        (models.TokenModel, (4,), 20),
        (models.TinyTransformer, (5, 6), 0),
        (passes.Recurrent, (4, 5), 0),
        (fusing.ConvNormRelu, fusing.ConvNormRelu.SHAPE, 0),
    ],
)
@by_name
def test_states_are_found_from_any_other_scheme(
    model: Callable[[], nn.Module], shape: tuple[int, ...], ids: int, scheme: Scheme
) -> None:
    """A table measured under one scheme tells the states of each other, without the model."""
    torch.manual_seed(0)
    layers = take_inventory(source_of(model(), shape, ids=ids))

    seen = under(layers, scheme)

    assert states(layers, ORT_CPU) == tuple(layer.state for layer in layers)
    assert tuple(layer.state for layer in seen) == states(layers, scheme)
    for other in ALL:
        assert states(seen, other) == states(layers, other)


def test_states_are_those_of_the_runtimes() -> None:
    """Norm, GELU and attention mean what each runtime makes of them."""
    layers = take_inventory(_mixed())
    at = layers.index

    def of(scheme: Scheme) -> dict[str, State]:
        found = states(layers, scheme)
        return {name: found[at[name]] for name in ("conv", "relu", "norm", "attention", "gelu")}

    both = {"conv": "computes", "attention": "computes"}
    rounds = dict.fromkeys(("relu", "norm", "gelu"), "rounds output")
    assert of(ORT_CPU) == both | rounds
    assert of(ORT_CPU_ALL) == both | rounds | {"gelu": "float"}
    assert of(TENSORRT) == both | dict.fromkeys(("relu", "norm", "gelu"), "float")
    assert of(OPENVINO) == both | {"relu": "float", "norm": "rounds input", "gelu": "float"}
    assert of(OPENVINO_MIXED) == of(OPENVINO)


# ---- grids


def test_the_default_grid_is_onnx_runtimes() -> None:
    """Affine unsigned, with the bits that `affine_grid` always gave."""
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    for seen in (Range(-2.0, 1.0), Range(0.5, 2.0), Range(-3.0, -1.0), Range(0.0, 0.0)):
        grid = grid_of(seen, ORT_CPU)
        assert (grid.scale, grid.zero_point) == affine_grid(seen, 8)
        assert torch.equal(round_to(x, grid), round_activation(x, seen, 8))


@pytest.mark.parametrize("scheme", [TENSORRT, OPENVINO], ids=lambda s: s.name)
def test_a_symmetric_grid_is_integer_arithmetic(scheme: Scheme) -> None:
    """X -> clip(round(x / s), -128, 127) * s with s = max|x| / 127, written out in NumPy."""
    x = torch.randn(2_000, generator=torch.Generator().manual_seed(1))
    seen = Range(-1.5, 2.0)
    step = 2.0 / 127

    rounded = round_to(x, grid_of(seen, scheme))

    expected = np.clip(np.rint(x.double().numpy() / step), -128, 127) * step
    np.testing.assert_allclose(rounded.numpy(), expected, atol=1e-6)


def test_openvino_is_unsigned_where_nothing_was_negative() -> None:
    """NNCF's symmetric_range: 256 levels from 0 to the maximum where no value lies below 0."""
    assert grid_of(Range(0.0, 2.55), OPENVINO) == Grid(pytest.approx(0.01), 0, 0, 255)
    assert grid_of(Range(-0.1, 1.27), OPENVINO) == Grid(pytest.approx(0.01), 0, -128, 127)
    assert grid_of(Range(0.0, 1.27), TENSORRT) == Grid(pytest.approx(0.01), 0, -128, 127)


def test_signed_grids_waste_half_of_what_follows_a_relu() -> None:
    """On a tensor without negative values symmetric signed errs at least as much as unsigned."""
    x = torch.randn(5_000, generator=torch.Generator().manual_seed(3)).relu()
    seen = Range(float(x.min()), float(x.max()))

    def error(scheme: Scheme) -> float:
        return float((x - round_to(x, grid_of(seen, scheme))).double().square().sum())

    assert error(TENSORRT) > 3 * error(ORT_CPU)  # twice the step: four times the error
    assert error(OPENVINO) == pytest.approx(error(ORT_CPU), rel=1e-3)


# ---- what is rounded where


def test_each_scheme_rounds_its_own_tensors() -> None:
    """Sites say what is rounded: outputs of products, norms and softmax only where it is so."""
    source = _mixed()
    sites = {s.name: set(_simulator(source, s).ranges) for s in ALL}

    assert ("conv", 0, OUTPUT) in sites["ort-cpu"]
    assert ("head", 0, OUTPUT) not in sites["ort-cpu"]
    assert ("head", 0, OUTPUT) in sites["ort-cpu-all"]
    assert all(operand >= 0 for _, _, operand in sites["tensorrt"])
    assert {name for name, *_ in sites["tensorrt"]} == {"conv", "attention", "head"}
    assert ("norm", -2, 0) in sites["openvino"]
    assert ("norm", -1, -1) not in sites["openvino"]
    assert ("norm", -2, 0) in sites["ort-cpu-all"]
    products = {site for site in sites["ort-cpu"] if site[1] >= 0 and site[2] >= 0}
    assert all(products <= found for found in sites.values())  # products keep their numbers
    softmax = {site for site in sites["ort-cpu-all"] if site[0] == "attention" and site[1] < -1}
    assert softmax


def test_all_operators_round_softmax_and_the_norms_scale() -> None:
    """A norm under ort-cpu-all is rounded where quantize_static puts Q/DQ, written out."""
    source = _mixed()
    simulator = _simulator(source, ORT_CPU_ALL)
    norm = source.model.get_submodule("norm")
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    simulator = _simulator(source, ORT_CPU_ALL)
    caught: list[tuple[Tensor, Tensor]] = []
    handle = norm.register_forward_hook(lambda m, a, out: caught.append((a[0], out)))
    x = take(source.selection.inputs, 0, 4)
    simulator.run({"norm": INT8}, x)
    handle.remove()
    given, found = caught[-1]

    def on_grid(value: Tensor, site: tuple[str, int, int]) -> Tensor:
        return round_to(value, grid_of(simulator.ranges[site], ORT_CPU_ALL))

    step = float(norm.weight.detach().abs().max()) / 127
    weight = torch.round(norm.weight.detach() / step) * step
    expected = on_grid(
        F.layer_norm(on_grid(given, ("norm", -2, 0)), (8,), weight, norm.bias.detach()),
        ("norm", -2, OUTPUT),
    )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_tensorrt_leaves_in_float_what_has_no_kernel() -> None:
    """A norm asked for INT8 changes nothing there, and its layer keeps float tensors."""
    source = _mixed()
    simulator = _simulator(source, TENSORRT)
    exact = simulator.run({}, source.selection.inputs)

    for name in ("norm", "gelu", "relu"):
        same = simulator.run({name: INT8}, source.selection.inputs)
        assert same.tobytes() == exact.tobytes()
    assert simulator.run({"head": INT8}, source.selection.inputs).tobytes() != exact.tobytes()


def test_all_operators_are_those_of_onnx_runtime() -> None:
    """What ort-cpu-all rounds is in the registries that quantize_static takes by default."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    supported = {*QDQRegistry, *QLinearOpsRegistry}
    operator = {
        "add": "Add", "mul": "Mul", "multiply": "Mul", "cat": "Concat", "concat": "Concat",
        "concatenate": "Concat", "stack": "Concat", "softmax": "Softmax",
        "sigmoid": "Sigmoid", "leaky_relu": "LeakyRelu", "layer_norm": "LayerNormalization",
        "instance_norm": "InstanceNormalization", "batch_norm": "BatchNormalization",
        "group_norm": "InstanceNormalization", "relu": "Relu", "relu6": "Clip", "hardtanh": "Clip",
        "clamp": "Clip", "clip": "Clip", "silu": "Mul", "split": "Split", "chunk": "Split",
        "tensor_split": "Split",
    }  # fmt: skip
    rounded = {*ORT_CPU_ALL.input_functions, *ORT_CPU_ALL.output_functions}

    assert rounded == set(operator)
    assert set(operator.values()) <= supported
    assert {"Conv", "Gemm", "MatMul", "MaxPool", "AveragePool", "Gather"} <= supported
    assert not {"Gelu", "Elu", "Tanh", "HardSwish", "LogSoftmax", "LSTM", "Div"} & supported


def test_all_operators_err_as_onnx_runtime_does(tmp_path: Path) -> None:
    """Gemm, LayerNormalization and Softmax under quantize_static's defaults: the simulation comes
    10 dB closer to that model than INT8 is to FP32.
    """
    onnx = pytest.importorskip("onnx")

    torch.manual_seed(5)
    first, norm, last = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)
    norm.weight.data.uniform_(0.5, 1.5)
    source = source_of(nn.Sequential(first, norm, nn.Softmax(-1), last), (6,), samples=500)
    stored = {
        "w1": first.weight, "b1": first.bias, "g": norm.weight, "b": norm.bias, "w2": last.weight,
        "b2": last.bias,
    }  # fmt: skip
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
            node("LayerNormalization", ["h", "g", "b"], ["n"], "norm", axis=-1, epsilon=norm.eps),
            node("Softmax", ["n"], ["s"], "softmax", axis=-1),
            node("Gemm", ["s", "w2", "b2"], ["y"], "last", transB=1),
        ],
        "chain",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(t.detach().numpy(), name) for name, t in stored.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    real = statically_quantized(model, "x", source, tmp_path)
    x = source.selection.inputs
    simulator = _simulator(source, ORT_CPU_ALL)
    exact = simulator.run({}, x)
    simulated = simulator.run(dict.fromkeys(simulator.varied, INT8), x)

    def decibels(error: np.ndarray) -> float:
        return float(10 * np.log10(np.square(exact).sum() / np.square(error).sum()))

    assert decibels(simulated - real) > decibels(real - exact) + 10


# ---- the contract: every scheme with every calibrator


def _folding() -> ModelSource:
    torch.manual_seed(3)
    return source_of(fusing.trained(fusing.ConvNormRelu()), fusing.ConvNormRelu.SHAPE, name="fold")


def _cells() -> list[tuple[Scheme, str, Callable[[], ModelSource]]]:
    """Every scheme with every calibrator on a small model; on a larger one too, but entropy, which
    takes a fourth of a second a range, with one scheme alone.
    """
    return [
        (scheme, name, make)
        for scheme in ALL
        for name in calibrators.names()
        for make in (_folding, _mixed)
        if make is _folding or name != "entropy" or scheme is ORT_CPU
    ]


@pytest.mark.parametrize(("scheme", "calibrator", "make"), _cells(),
                         ids=lambda v: getattr(v, "name", None) or getattr(v, "__name__", v))  # fmt: skip
@pytest.mark.slow
def test_every_scheme_and_calibrator_keeps_the_contract(
    scheme: Scheme, calibrator: str, make: Callable[[], ModelSource]
) -> None:
    """Finite, repeatable, within what was seen, an error but no nonsense, replayed to the bit."""
    source = make()
    inputs = take(source.selection.inputs, 0, 24)
    simulator = _simulator(source, scheme, calibrator)
    again = _simulator(source, scheme, calibrator)
    widest = _simulator(source, scheme)

    assert dict(simulator.ranges) == dict(again.ranges)
    assert set(simulator.ranges) == set(widest.ranges)
    for site, seen in simulator.ranges.items():
        whole = widest.ranges[site]
        assert min(whole.low, 0) - 1e-6 <= seen.low <= seen.high <= max(whole.high, 0) + 1e-6
    exact = simulator.run({}, inputs)
    everything = simulator.run(dict.fromkeys(simulator.varied, INT8), inputs)
    assert np.isfinite(everything).all()
    assert again.run(dict.fromkeys(again.varied, INT8), inputs).tobytes() == everything.tobytes()
    noise = np.square(everything - exact).sum()
    assert 0 < noise < np.square(exact - exact.mean(0)).sum()
    pairs = [(name, p) for name in simulator.varied for p in (FP16, INT8)]
    replayer = Replayer(simulator, take(inputs, 0, 2), [(n, INT8) for n in simulator.varied])
    _, *replayed = replayer.run(inputs, pairs)
    assert (replayer.refusal, replayer.full_passes) == ("", 0)
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        full = simulator.run({name: precision}, inputs, 24)
        assert full.tobytes() == outputs.tobytes(), (name, precision.name)


@pytest.mark.parametrize(
    ("model", "shape", "ids"),
    [
        (models.LoopedModule, (5,), 0),
        (models.TokenModel, (4,), 20),
        (models.TinyTransformer, (5, 6), 0),
        (models.ConvNet, (1, 8, 8), 0),
        (passes.InPlace, (5,), 0),
        (passes.Recurrent, (4, 5), 0),
        (passes.PreActivation, (5,), 0),
        (fusing.Conv1dNorm, (2, 9), 0),
        (fusing.LinearNorm, fusing.LinearNorm.SHAPE, 0),
    ],
)
@by_name
def test_the_zoo_is_replayed_to_the_same_bits_under_every_scheme(
    model: Callable[[], nn.Module], shape: tuple[int, ...], ids: int, scheme: Scheme
) -> None:
    """Layers that are called again, work in place or recur are replayed like full passes."""
    torch.manual_seed(1)
    source = source_of(model(), shape, ids=ids)
    simulator = _simulator(source, scheme)
    inputs = take(source.selection.inputs, 0, 16)
    pairs = [(name, INT8) for name in simulator.varied]
    replayer = Replayer(simulator, take(inputs, 0, 2), pairs)

    _, *replayed = replayer.run(inputs, pairs)

    assert replayer.refusal == ""
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        assert simulator.run({name: precision}, inputs, 16).tobytes() == outputs.tobytes(), name


# ---- files, sizes, keys, latency


@pytest.mark.parametrize("make", [_mixed, _folding])
@by_name
def test_an_analysis_keeps_its_scheme_and_its_exact_size(
    scheme: Scheme, make: Callable[[], ModelSource], tmp_path: Path
) -> None:
    """Facts and calibrator survive the folder, and bytes on disk are those of the estimate."""
    source = make()
    calibrator = calibrators.get("percentile:99.9")
    found = analyze(source, MeasureOptions(scheme, calibrator, precisions=(INT8,), probes=2))

    store.save(found, tmp_path / "analysis")
    back = store.load(tmp_path / "analysis")

    assert (back.scheme, back.scheme_facts, back.rounding) == (scheme.name, scheme, scheme)
    assert back.calibrator == "percentile:99.9"
    assert back.how_rounded == f"{scheme.name}, ranges percentile:99.9"
    study = Study(back)
    for precision in ("INT8", "FP32"):
        chosen = answer.decide(study, Policy(strategy="uniform", uniform=precision))
        total = write_tensors(back, chosen, source.model, tmp_path / f"{precision}.safetensors")
        assert total == outcome(study, chosen).totals["size_bytes"].value
    integers = Policy(strategy="uniform", uniform="INT8", high="FP32", medium="INT8")
    for hardware in profiles():
        chosen = answer.decide(study, replace(integers, hardware=hardware))
        latency = outcome(study, chosen).totals["latency_ms"].value
        assert latency is not None
        assert 0 < latency < math.inf


def test_an_older_folder_has_the_facts_of_its_name(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """Without facts and calibrator in the file the name decides, and ranges were min-max."""
    store.save(tiny_analysis, tmp_path / "old")
    path = tmp_path / "old" / store.FILE
    data = msgspec.json.decode(path.read_bytes())
    del data["scheme_facts"], data["calibrator"]
    path.write_bytes(msgspec.json.encode(data))

    back = store.load(tmp_path / "old")

    assert back.scheme_facts is None
    assert (back.rounding, back.calibrator) == (ORT_CPU, "min-max")


@pytest.mark.slow
def test_scheme_and_calibrator_are_in_the_key() -> None:
    """Finished work of one scheme or calibrator is not found by another."""
    source = tiny_source()
    layers = take_inventory(source)

    def key(scheme: Scheme, calibrator: str = "min-max") -> str:
        simulator = _simulator(source, scheme, calibrator)
        reference = simulator.run({}, source.selection.inputs)
        return content_key(source, layers, simulator, reference, everything=False)

    keys = [key(scheme) for scheme in ALL] + [key(ORT_CPU, n) for n in calibrators.names()[1:]]
    assert len(set(keys)) == len(keys)
    assert key(ORT_CPU) == keys[0]
    assert {f.name for f in fields(Scheme)} >= {"activations", "bias", "table"}


def test_the_command_line_takes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`analyze --scheme --calibrator` measures under them; wrong names are one clear line."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def load():\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
        "    x = torch.randn(40, 4)\n"
        "    return {'model': model, 'calibration': x, 'evaluation': (x, model(x).argmax(1)),\n"
        "            'task': 'classification'}\n"
    )
    out = tmp_path / "out"
    words = ["analyze", f"{file}:load", "--out", str(out), "--precisions", "INT8", "--no-cache"]

    assert main([*words, "--scheme", "tensorrt", "--calibrator", "mse"]) == 0
    found = store.load(out)
    assert (found.scheme, found.calibrator) == ("tensorrt", "mse")
    capsys.readouterr()
    assert main([*words, "--calibrator", "median"]) == 2
    assert "min-max, percentile, entropy, mse" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--scheme", "coreml"])


# ---- processors


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_vnni": False}, True),
        ({"architecture": "x86_64", "avx512_vnni": True}, False),
        ({"architecture": "x86_64", "avx_vnni": True, "avx512_vnni": False}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_saturation_is_said_where_it_happens(
    capabilities: dict[str, object], *, expected: bool
) -> None:
    """x86 without VNNI saturates on unsigned times signed; nothing else is warned of."""
    assert saturates(capabilities) is expected
    assert bool(warning(ORT_CPU, capabilities)) is expected
    assert warning(TENSORRT, capabilities) == ()
    assert all("VNNI" in said for said in warning(replace(ORT_CPU, name="mine"), capabilities))


def test_an_analysis_notes_that_its_processor_has_no_vnni(*, vnni: bool) -> None:
    """Without VNNI an analysis notes it, with VNNI it does not; either way that is all it notes."""
    torch.manual_seed(0)
    analysis = analyze(source_of(models.LoopedModule(), (5,)), MeasureOptions(probes=2))

    assert analysis.notes == (() if vnni else (WARNING,))
    assert own_notes(analysis) == ()


@pytest.mark.parametrize("command", ["build", "verify"])
def test_a_scheme_that_no_file_is_built_for_is_refused_before_the_model_is_loaded(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the scheme and the one to analyze with; the source, which is not there, is not
    looked for.
    """
    study = Study(replace(synthetic_analysis(6, samples=50), scheme="ort-cpu-all"))
    store.save(study.analysis, tmp_path / "run")
    chosen = tmp_path / "map.json"
    chosen.write_bytes(precision_map.to_json(study, answer.decide(study, Policy())))
    words = [command, str(tmp_path / "run"), str(chosen), "--source", "nowhere.py:load"]

    code = main([*words, "--out", str(tmp_path / "m.onnx")] if command == "build" else words)

    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "Scheme ort-cpu-all" in said
    assert "--scheme ort-cpu`" in said
