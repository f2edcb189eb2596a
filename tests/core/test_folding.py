"""Batch norm folded into the layer before it, against PyTorch's own folding and by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from core.analysis import store
from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.engines import calibrated_engine
from core.engines.torch.replay.replayer import Replayer
from core.engines.torch.simulate.folding import stored_tensors
from core.estimate import hardware
from core.estimate.latency import LatencyModel
from core.evidence.diagnose.own_output import OwnOutputs
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import FP16, INT8
from core.numerics.scheme import ORT_CPU
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.core.tensor_file import write_tensors
from tests.zoo import by_hand, fusing
from tests.zoo.sources import source_of

DEVICE = hardware.DEFAULT
cases = pytest.mark.parametrize("case", fusing.CASES, ids=lambda case: case.__name__)


def _source(case: Callable[[], fusing.Norms]) -> ModelSource:
    torch.manual_seed(0)
    model = case()
    return source_of(fusing.trained(model), model.SHAPE)


def _folded(layers: LayerTable) -> dict[str, str]:
    return {layer.name: layer.folded_into for layer in layers if layer.folded_into}


@cases
def test_what_a_runtime_folds_is_seen_in_the_run(case: Callable[[], fusing.Norms]) -> None:
    """A batch norm folds if it alone reads what one product gives, and reads nothing else; it is
    then no operation, keeps its parameters in the count and stores nothing.
    """
    source = _source(case)
    layers = take_inventory(source)
    norms = {name: m for name, m in source.model.named_modules()
             if isinstance(m, nn.modules.batchnorm._BatchNorm)}  # fmt: skip

    assert _folded(layers) == source.model.FOLDED
    for name, norm in norms.items():
        layer = layers.layers[layers.index[name]]
        folds = name in source.model.FOLDED
        assert (layer.state == "nothing") == folds
        assert layer.params == sum(p.numel() for p in norm.parameters())
        assert (layer.tensors == ()) == (folds or (norm.running_mean is None and not norm.affine))
    assert layers.params.sum() == sum(p.numel() for p in source.model.parameters())
    at = {layers.index[name] for name in source.model.FOLDED}
    assert not any({edge.source, edge.target} & at for edge in layers.edges)


def test_statistics_that_move_are_left_alone() -> None:
    """A batch norm in training mode stays a layer of its own, as it is run."""
    layers = take_inventory(_source(fusing.STATEFUL))

    assert _folded(layers) == {}
    assert layers.layers[layers.index["bn"]].state == "rounds output"


def test_a_judged_output_inside_an_object_is_a_reader() -> None:
    """What a model returns in an object of its own is read by whoever judges it."""
    model = fusing.trained(fusing.OpaqueFeatures())
    given = {"model": model, "calibration": torch.randn(8, 2, 6, 6), "task": "regression"}

    assert _folded(take_inventory(model_source({**given, "output": "features"}))) == {}
    assert _folded(take_inventory(model_source({**given, "output": "logits"}))) == {"bn": "conv"}


@cases
def test_the_reference_is_the_unmodified_model(case: Callable[[], fusing.Norms]) -> None:
    """Without an assignment nothing is folded: outputs are the model's own to the bit."""
    source = _source(case)
    x = source.selection.inputs
    layers = take_inventory(source)
    with torch.no_grad():
        expected = source.model(x)
    if isinstance(expected, dict):
        expected = expected["logits"]

    outputs = make_simulator(source, layers, MeasureOptions()).run({}, x, batch_size=len(x))

    assert outputs.tobytes() == expected.numpy().tobytes()


def _by_torch(model: nn.Module, weight: str, norm: str) -> tuple[Tensor, Tensor]:
    """The folded weight and bias as `torch.nn.utils.fusion` has them, for layers without groups."""
    product = copy.deepcopy(model.get_submodule(weight.rpartition(".")[0]))
    bn = copy.deepcopy(model.get_submodule(norm))
    if isinstance(product, nn.Linear):
        fused: nn.Module = fuse_linear_bn_eval(product, bn)  # type: ignore[type-var]
    else:
        is_transposed = isinstance(product, nn.ConvTranspose2d)
        fused = fuse_conv_bn_eval(product, bn, transpose=is_transposed)  # type: ignore[type-var]
    return fused.weight.detach(), fused.bias.detach()  # type: ignore[return-value, operator]


@cases
def test_folded_tensors_equal_pytorchs(case: Callable[[], fusing.Norms]) -> None:
    """Weights and biases as stored are those of PyTorch's own fusion within 1e-6 of the largest,
    keep their shapes, and make up the model without its batch norms.
    """
    source = _source(case)
    layers = take_inventory(source)
    stored = stored_tensors(layers, source.model)

    for layer in layers:
        for one in layer.fused:
            spec = next(t for t in layer.tensors if t.name == one.weight)
            assert stored[spec.name].shape == spec.shape
            if not one.batch_norm or case in (fusing.BareWeight, fusing.GroupedTransposedNorm):
                continue
            weight, bias = _by_torch(source.model, one.weight, one.batch_norm)
            added = next(t for t in layer.tensors if t.weight == one.weight)
            kind = "bias" if layer.state == "computes" else "float"
            assert (added.kind, added.shape) == (kind, tuple(bias.shape))
            for mine, theirs in ((stored[spec.name], weight), (stored[added.name], bias)):
                assert float((mine - theirs).abs().max()) <= 1e-6 * float(theirs.abs().max())


@pytest.mark.parametrize("case", [fusing.GroupedTransposedNorm, fusing.BareWeight])
def test_folding_in_groups_and_bare_weights_gives_the_same_function(
    case: Callable[[], fusing.Norms],
) -> None:
    """Where PyTorch has no fusion, the folded product gives what product and batch norm give."""
    source = _source(case)
    layers = take_inventory(source)
    (layer,) = [x for x in layers if x.fused]
    (one,) = layer.fused
    stored = stored_tensors(layers, source.model)
    bias = next(t.name for t in layer.tensors if t.weight == one.weight)
    x = source.selection.inputs
    norm = source.model.get_submodule(one.batch_norm)
    with torch.no_grad():
        if case is fusing.BareWeight:
            before = nn.functional.conv2d(x, source.model.get_parameter("kernel"))
            after = nn.functional.conv2d(x, stored[one.weight], stored[bias])
        else:
            before = source.model.get_submodule("conv")(x)
            after = nn.functional.conv_transpose2d(x, stored[one.weight], stored[bias], groups=2)
        torch.testing.assert_close(after, norm(before), rtol=1e-5, atol=2e-6)


def _pooled(model: nn.Module, y: Tensor) -> np.ndarray:
    assert isinstance(model, fusing.Norms)
    return model.pooled(y).numpy()


RELUS = [
    (fusing.ConvNorm, lambda y: y),
    (fusing.ConvNormRelu, torch.relu),
    (fusing.ConvNormFunctionalRelu, torch.relu),
    (fusing.TransposedNorm, torch.relu),
    (fusing.ConvRelu6, lambda y: y.clamp(0, 6)),
]


@pytest.mark.parametrize(("case", "activation"), RELUS, ids=lambda v: getattr(v, "__name__", ""))
def test_int8_rounds_the_folded_weight_and_what_the_activation_lets_through(
    case: Callable[[], fusing.Norms], activation: Callable[[Tensor], Tensor]
) -> None:
    """INT8 of one convolution equals the folded weight on its own grid per output channel, an
    int32 bias, and an output on the grid over the range after the activation, all by hand.

    Tolerance: a result on a rounding boundary may fall to the next step, and then moves an output
    by a step at most; the mean difference stays below a hundredth of a step.
    """
    source = _source(case)
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    model, x, seen = source.model, source.selection.inputs, source.calibration.inputs
    conv = copy.deepcopy(model.get_submodule("conv"))
    is_transposed = isinstance(conv, nn.ConvTranspose2d)
    has_norm = "bn" in dict(model.named_modules())
    if has_norm:
        bn = model.get_submodule("bn")
        fused = fuse_conv_bn_eval(conv, bn, transpose=is_transposed)  # type: ignore[type-var]
    else:
        fused = conv
    axis = 1 if is_transposed else 0
    with torch.no_grad():
        after = activation(fused(seen))
        grid = by_hand.affine(x.numpy(), seen.numpy())
        low, high = min(float(seen.min()), 0), max(float(seen.max()), 0)
        weight = fused.weight.detach()  # type: ignore[union-attr, operator]
        largest = weight.abs().amax([d for d in range(weight.ndim) if d != axis])
        step = (high - low) / 255 * (largest.double() / 127)
        bias = (fused.bias.detach().double() / step).round() * step  # type: ignore[union-attr, operator]
        fused.weight.copy_(by_hand.symmetric(weight, axis))  # type: ignore[union-attr, operator]
        if is_transposed:  # its kernel takes floats: its weight alone is rounded
            expected = _pooled(model, activation(fused(x)))
        else:
            fused.bias.copy_(bias)  # type: ignore[union-attr, operator]
            y = by_hand.affine(activation(fused(grid)).numpy(), after.numpy())
            expected = _pooled(model, y)
        reference = _pooled(model, activation(model.bn(model.conv(x)) if has_norm else conv(x)))

    found = simulator.run({"conv": INT8}, x)

    width = (max(float(after.max()), 0) - min(float(after.min()), 0)) / 255
    off = np.abs(found - expected)
    assert off.max() <= width
    assert off.mean() < 0.01 * width
    assert np.abs(found - reference).mean() > 10 * off.mean()  # it did round


def test_int8_linear_with_batch_norm_stays_in_float_behind() -> None:
    """A folded linear layer rounds weight and bias of the fused one and leaves its output alone."""
    source = _source(fusing.LinearNorm)
    model, x = source.model, source.selection.inputs
    fused = fuse_linear_bn_eval(  # type: ignore[type-var]
        copy.deepcopy(model.get_submodule("linear")), model.get_submodule("bn")
    )
    seen = source.calibration.inputs.numpy()
    s_x = (max(float(seen.max()), 0) - min(float(seen.min()), 0)) / 255
    with torch.no_grad():
        step = s_x * fused.weight.abs().amax(1).double() / 127  # type: ignore[operator]
        bias = ((fused.bias.double() / step).round() * step).float()  # type: ignore[operator]
        y = by_hand.affine(x.numpy(), seen) @ by_hand.symmetric(fused.weight).T + bias  # type: ignore[arg-type]
        expected = _pooled(model, torch.relu(y))

    found = make_simulator(source, take_inventory(source), MeasureOptions()).run(
        {"linear": INT8}, x
    )

    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_casts_the_folded_tensors() -> None:
    """FP16 casts folded weight, bias and result; nothing is rounded between product and norm."""
    source = _source(fusing.ConvNorm)
    model, x = source.model, source.selection.inputs
    fused = fuse_conv_bn_eval(model.get_submodule("conv"), model.get_submodule("bn"))  # type: ignore[type-var]
    with torch.no_grad():
        weight, bias = by_hand.half(fused.weight), by_hand.half(fused.bias)  # type: ignore[arg-type]
        y = by_hand.half(nn.functional.conv2d(by_hand.half(x), weight, bias))
        expected = _pooled(model, y)

    found = make_simulator(source, take_inventory(source), MeasureOptions()).run({"conv": FP16}, x)

    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert (np.abs(found - expected) < 1e-6).mean() > 0.9


@cases
def test_replay_of_folded_layers_equals_full_passes(case: Callable[[], fusing.Norms]) -> None:
    """A layer whose batch norm is another module is replayed with it, to the bit."""
    source = _source(case)
    if case is fusing.WithoutStatistics:
        source.model.get_submodule("bn").eval()
    simulator = make_simulator(source, take_inventory(source), MeasureOptions())
    x = source.selection.inputs[:24]
    pairs = [(name, p) for name in simulator.varied for p in (FP16, INT8)]
    replayer = Replayer(simulator, x[:2], pairs)

    _, *replayed = replayer.run(x, pairs)

    assert (replayer.refusal, replayer.full_passes) == ("", 0)
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        full = simulator.run({name: precision}, x, len(x))
        assert full.tobytes() == outputs.tobytes(), (name, precision.name)
        assert len(source.model.FOLDED) == 0 or np.isfinite(full).all()


def test_a_unit_is_replayed_with_the_norms_inside_and_behind() -> None:
    """A declared unit folds the batch norm inside it and the one behind it."""
    torch.manual_seed(0)
    model = fusing.trained(fusing.UnitThenNorm())
    source = source_of(model, (2, 6, 6), units=("unit",))
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    x = source.selection.inputs[:24]
    pairs = [(name, p) for name in simulator.varied for p in (FP16, INT8)]
    replayer = Replayer(simulator, x[:2], pairs)

    _, *replayed = replayer.run(x, pairs)

    assert _folded(layers) == {"unit.bn": "unit", "bn": "unit"}
    assert (replayer.refusal, replayer.full_passes) == ("", 0)
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        assert simulator.run({name: precision}, x, 24).tobytes() == outputs.tobytes(), name
    unit = layers.layers[layers.index["unit"]]
    assert [(f.weight, f.activation, f.low) for f in unit.fused] == [
        ("unit.conv1.weight", "unit.act", 0.0),
        ("unit.conv2.weight", "", 0.0),
    ]


def test_a_layers_own_output_is_taken_behind_its_batch_norm() -> None:
    """The error of a folded convolution by itself is that behind batch norm and activation."""
    source = _source(fusing.ConvNormRelu)
    layers = take_inventory(source)
    analysis = analyze(source, MeasureOptions(precisions=(INT8,), probes=0))
    own = OwnOutputs(calibrated_engine(source, layers, ORT_CPU, analysis.ranges), layers)
    x = source.selection.inputs
    model = source.model
    with torch.no_grad():
        expected = torch.relu(model.bn(model.conv(x)))

    (reference,) = own.reference(x)["conv"]
    (rounded,) = own.of("conv", INT8, x)

    assert "bn" not in own.reference(x)
    torch.testing.assert_close(reference, expected, rtol=0, atol=0)
    error = (rounded - reference).abs()
    assert 0 < float(error.max()) < 0.1 * float(reference.max())
    assert analysis.evidence is not None
    assert analysis.evidence.local is not None
    assert analysis.evidence.local.gradient_error is not None
    at = layers.index["conv"]
    assert 0 < analysis.evidence.local.gradient_error[0, at] < np.inf


def test_folded_sizes_equal_written_files(tmp_path: Path) -> None:
    """Bytes are those of a file with folded tensors in every precision, batch norm's none; the
    file's own integers give the folded weight back.
    """
    from safetensors.torch import load_file

    for case in fusing.CASES:
        source = _source(case)
        analysis = analyze(source, MeasureOptions(precisions=(INT8,), probes=0))
        study = Study(replace(analysis, evidence=None))  # open to all that is registered
        for precision in study.precisions:
            chosen = uniform_map(study, precision, DEVICE)
            path = tmp_path / f"{case.__name__}-{precision}.safetensors"  # type: ignore[attr-defined]
            written = write_tensors(analysis, chosen, source.model, path)
            assert outcome(study, chosen).totals["size_bytes"].value == written, path.name
            names = set(load_file(path))
            assert not any(n.startswith(f"{bn}.") for bn in source.model.FOLDED for n in names)
    kept = load_file(tmp_path / "ConvNorm-INT8.safetensors")
    model = _source(fusing.ConvNorm).model
    fused = fuse_conv_bn_eval(model.get_submodule("conv"), model.get_submodule("bn"))  # type: ignore[type-var]
    back = kept["conv.weight"].float() * kept["conv.weight.scale"].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(
        back,
        by_hand.symmetric(fused.weight),
        rtol=1e-6,
        atol=1e-6,  # type: ignore[arg-type]
    )


def test_a_folded_layer_has_no_precision_and_says_why() -> None:
    """In a map the batch norm is null, with the layer it went into as the reason; priors do not
    depend on folding.
    """
    analysis = analyze(
        _source(fusing.ConvNormRelu), MeasureOptions(precisions=(FP16, INT8), probes=0)
    )
    study = Study(analysis)
    chosen = answer.decide(study, Policy(pins=(("bn", "INT8"),)))
    i = analysis.layers.index["bn"]

    assert chosen.assigned[i] is None
    assert chosen.reason(i) == "Folded into conv, whose weights and bias hold its factors."
    bare = Study(
        analyze(_source(fusing.NormFirst), MeasureOptions(precisions=(FP16, INT8), probes=0))
    )
    j = bare.layers.index["bn"]
    assert chosen.scores[i] == answer.decide(bare, Policy()).scores[j]


def test_a_fused_activation_costs_no_time() -> None:
    """Convolution and activation in one precision cost what the convolution alone does, and no
    boundary lies between them; an activation in another float precision costs its own.
    """
    source = _source(fusing.ConvNormRelu)
    layers = take_inventory(source)
    precisions = ("FP32", "FP16", "INT8")
    sizes = np.zeros((3, len(layers)), dtype=np.int64)
    model = LatencyModel(layers, sizes, precisions, hardware.get("datacenter-gpu-t4"))
    conv, act = layers.index["conv"], layers.index["act"]

    def estimate(first: int, second: int):  # noqa: ANN202
        codes = np.full(len(layers), -1, dtype=np.int8)
        codes[[conv, act]] = first, second
        return model.estimate(codes)

    for same in range(3):
        found = estimate(same, same)
        assert found.layers_ms[act] == 0
        assert found.layers_ms[conv] > 0
        assert found.boundaries == 0
    assert estimate(2, 0).layers_ms[act] == 0  # an integer kernel clips while it rounds
    assert estimate(2, 0).boundaries == 0
    mixed = estimate(1, 0)
    assert mixed.layers_ms[act] > 0
    assert mixed.boundaries == 1


def test_an_analysis_written_before_folding_opens(tmp_path: Path) -> None:
    """A folder without the newer keys is read as one in which nothing is folded."""
    folder = tmp_path / "old"
    store.save(
        analyze(_source(fusing.ConvNorm), MeasureOptions(precisions=(INT8,), probes=0)), folder
    )
    path = folder / store.FILE
    content = json.loads(path.read_text())
    for layer in content["layers"]["layers"]:
        assert {"fused", "folded_into"} <= layer.keys()
        del layer["fused"], layer["folded_into"]
    path.write_text(json.dumps(content))

    assert _folded(store.load(folder).layers) == {}


PARTS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(3, 3, 1),
    "norm": lambda: nn.BatchNorm2d(3),
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "same": nn.Identity,
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(PARTS)), max_size=8))
def test_any_sequence_folds_what_directly_follows(kinds: list[str]) -> None:
    """In a plain sequence exactly the batch norms right behind a convolution fold, and exactly the
    ReLUs right behind a convolution or its batch norm are fused.
    """
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 3, 1), *(PARTS[kind]() for kind in kinds)]
    model = fusing.trained(nn.Sequential(*parts, nn.Flatten(), nn.Linear(12, 3)))
    layers = take_inventory(source_of(model, (3, 2, 2), samples=8))

    expected_norms, expected_relus = {}, {}
    before, open_for = 0, {"norm", "relu"}  # what may still join the kernel of layer `before`
    for i, kind in enumerate(kinds, start=1):
        if kind == "same":
            continue
        if kind == "conv":
            before, open_for = i, {"norm", "relu"}
        elif kind in open_for:
            (expected_norms if kind == "norm" else expected_relus)[str(i)] = str(before)
            open_for = {"relu"} if kind == "norm" else set()
        else:
            open_for = set()
    relus = {f.activation: x.name for x in layers for f in x.fused if f.activation}
    assert _folded(layers) == expected_norms
    assert relus == expected_relus
