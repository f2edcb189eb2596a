"""Operations between layers: rounded where the scheme rounds them, and layers of their own then."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.advise.advice import considerations
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.replay.replayer import Replayer
from core.engines.torch.simulate.simulator import Simulator
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.layers import ROOT, LayerTable
from core.numerics.activation_grids import grid_of, round_to
from core.numerics.precision import FP16, INT8
from core.numerics.rounding import round_float
from core.numerics.scheme import (
    OPENVINO,
    OPENVINO_MIXED,
    ORT_CPU,
    ORT_CPU_ALL,
    SCHEMES,
    TENSORRT,
    Scheme,
)
from core.numerics.states import under
from core.runtime.torch_export import export
from core.source.batches import take
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core.runtime_case import decibels
from tests.core.static_quantizer import statically_quantized
from tests.zoo.gluing import Gated, detector_source, right_class
from tests.zoo.sources import source_of

Floats = NDArray[np.float32]


def _gated() -> ModelSource:
    torch.manual_seed(3)
    return source_of(Gated(), (6,), name="gated")


def _layers(source: ModelSource, scheme: Scheme, *, expand: bool = False) -> LayerTable:
    found = take_inventory(source, expand_units=expand, functions=scheme.functions)
    return under(found, scheme)


def _simulator(source: ModelSource, scheme: Scheme) -> Simulator:
    return make_simulator(source, _layers(source, scheme), MeasureOptions(scheme=scheme))


@cache
def _measured() -> tuple[ModelSource, Analysis]:
    source = detector_source()
    return source, analyze(source, MeasureOptions(ORT_CPU_ALL, precisions=(FP16, INT8), probes=4))


def _metric(outputs: Floats, source: ModelSource) -> float:
    values = torch.from_numpy(outputs).reshape(len(outputs), 7, -1)
    assert source.selection.targets is not None
    return right_class(values, source.selection.targets)


def _quantize_static(source: ModelSource, folder: Path) -> Floats:
    """Outputs of the file that ONNX Runtime's `quantize_static` makes by its defaults."""
    graph = export(source, take_inventory(source))
    (name,) = graph.inputs
    found = statically_quantized(graph.model, name, source, folder)
    return found.reshape(len(found), -1)


# ---- who is a layer


def test_glue_is_a_layer_where_its_scheme_rounds_it() -> None:
    """A container is a layer of its own under schemes that round what it computes, and only there."""
    found = {s.name: {x.name: x for x in _layers(detector_source(), s)} for s in SCHEMES.values()}

    assert {name for name, layers in found.items() if "head" in layers} == {
        "ort-cpu-all", "openvino", "openvino-mixed",
    }  # fmt: skip
    head = found["ort-cpu-all"]["head"]
    assert (head.role, head.kind, head.state, head.macs) == ("glue", "Head", "rounds output", 0)
    kinds = dict(head.operations)
    assert (kinds["cat"], kinds["mul"], kinds["sigmoid"]) == (2, 1, 1)
    assert found["openvino"]["head"].state == "rounds input"
    assert "head" in take_inventory(detector_source()).glue
    assert "head" not in _layers(detector_source(), ORT_CPU_ALL).glue


def test_values_flow_through_a_glue_layer() -> None:
    """What a container joins comes in by edges from its layers, and goes out by its own."""
    layers = _layers(_gated(), ORT_CPU_ALL)
    edges = {
        (layers.names[e.source], layers.names[e.target])
        for e in layers.edges
        if max(e.source, e.target) < len(layers)
    }

    assert layers.layers[layers.index[ROOT]].role == "glue"
    assert {("a", ROOT), ("b", ROOT), ("gate", ROOT), (ROOT, "gate"), (ROOT, "last")} <= edges
    assert [t.name for t in layers.layers[layers.index[ROOT]].tensors] == ["offset"]
    assert layers.glue_tensors == ()


def test_a_declared_unit_takes_its_glue_along() -> None:
    """`units` of a source make one layer of a module, its glue included."""
    names = _layers(detector_source(units=["head"]), ORT_CPU_ALL).names

    assert [n for n in names if n.startswith("head")] == ["head"]


# ---- what is rounded


def test_one_scale_for_boxes_and_scores_kills_the_scores(tmp_path: Path) -> None:
    """The projection of all layers in INT8 loses what ONNX Runtime's own file loses, and the glue
    of the head in FP32 brings it back.
    """
    source, analysis = _measured()
    study = Study(analysis)
    real = _metric(_quantize_static(source, tmp_path), source)

    def projected(**overrides: str) -> float:
        policy = Policy(strategy="uniform", uniform="INT8", overrides=tuple(overrides.items()))
        projection = study.project(answer.decide(study, policy).codes)
        assert projection is not None
        assert projection.metric.value is not None
        return projection.metric.value

    assert real < 60
    assert projected() == pytest.approx(real, abs=1e-6)
    assert projected(head="FP32") > 90


@pytest.mark.parametrize("make", [detector_source, _gated])
def test_all_operators_are_rounded_as_in_onnx_runtimes_file(
    make: Callable[[], ModelSource], tmp_path: Path
) -> None:
    """Simulated outputs with all layers in INT8 lie 25 dB nearer to the quantized file than it is to
    FP32, glue, constants and what else reads a rounded tensor included.
    """
    source = make()
    simulator = _simulator(source, ORT_CPU_ALL)
    exact = simulator.run({}, source.selection.inputs)

    found = simulator.run(dict.fromkeys(simulator.varied, INT8), source.selection.inputs)
    real = _quantize_static(source, tmp_path)

    assert decibels(exact, found - real) > decibels(exact, real - exact) + 25


@pytest.mark.parametrize("scheme", [OPENVINO, OPENVINO_MIXED], ids=lambda s: s.name)
def test_openvino_rounds_what_glue_takes(scheme: Scheme) -> None:
    """Operands of adds and products between layers are rounded under OpenVINO, results are not."""
    source = _gated()
    simulator = _simulator(source, scheme)
    model, x = source.model, source.selection.inputs
    assert isinstance(model, Gated)
    sites = sorted((s for s in simulator.ranges if s[0] == ROOT), reverse=True)

    def on(value: torch.Tensor, number: int, operand: int) -> torch.Tensor:
        return round_to(value, grid_of(simulator.ranges[ROOT, number, operand], scheme))

    add, product, total, again, gate = sorted({number for _, number, _ in sites}, reverse=True)
    with torch.no_grad():
        a, b = model.a(x).relu(), on(model.b(x), add, 0) + model.offset
        mixed = torch.stack((a, b), 1)
        mixed = on(mixed, product, 0) * on(mixed.softmax(1), product, 1)
        mixed = on(mixed, total, 0).sum(1)
        mixed = on(mixed, again, 0) + on(a, again, 1)
        gated = on(mixed, gate, 0) * on(torch.sigmoid(model.gate(mixed)), gate, 1)
        expected = model.last(gated).numpy()

    np.testing.assert_array_equal(simulator.run({ROOT: INT8}, x), expected)


@pytest.mark.parametrize("scheme", [ORT_CPU, TENSORRT], ids=lambda s: s.name)
def test_other_schemes_leave_glue_alone(scheme: Scheme) -> None:
    """Where a scheme rounds products alone, glue has no site."""
    simulator = _simulator(_gated(), scheme)

    assert {name for name, *_ in simulator.ranges} == {"a", "b", "gate", "last"}


def test_glue_in_half_precision_rounds_its_own_results() -> None:
    """FP16 of glue rounds what it computes and stores, and not what it hands on to its layers."""
    source = _gated()
    simulator = _simulator(source, ORT_CPU_ALL)
    model, x = source.model, source.selection.inputs
    assert isinstance(model, Gated)

    def half(value: torch.Tensor) -> torch.Tensor:
        return round_float(value, FP16)

    with torch.no_grad():
        a, b = half(model.a(x).relu()), half(model.b(x) + half(model.offset))
        mixed = half(torch.stack((a, b), 1))
        mixed = half(half(mixed * half(mixed.softmax(1))).sum(1))
        mixed = half(mixed + a)
        expected = model.last(half(mixed * half(torch.sigmoid(model.gate(mixed))))).numpy()

    np.testing.assert_array_equal(simulator.run({ROOT: FP16}, x), expected)


@pytest.mark.parametrize("make", [detector_source, _gated])
@pytest.mark.parametrize("scheme", [ORT_CPU_ALL, OPENVINO], ids=lambda s: s.name)
def test_glue_is_replayed_to_the_same_bits(scheme: Scheme, make: Callable[[], ModelSource]) -> None:
    """A replay of a container gives what a full pass gives."""
    source = make()
    simulator = _simulator(source, scheme)
    x = take(source.selection.inputs, 0, 16)
    pairs = [(name, p) for name in simulator.varied for p in (FP16, INT8)]
    replayer = Replayer(simulator, take(x, 0, 2), pairs)

    _, *replayed = replayer.run(x, pairs)

    assert (replayer.refusal, replayer.full_passes) == ("", 0)
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        assert simulator.run({name: precision}, x, 16).tobytes() == outputs.tobytes(), name


# ---- what people see


def test_rounded_glue_is_said_with_how_to_keep_it_in_float() -> None:
    """Considerations name the container, its operations, the scheme and the override."""
    _, analysis = _measured()
    study = Study(analysis)

    said = considerations(study, answer.decide(study, Policy()))[-1]

    assert "ort-cpu-all rounds in INT8" in said
    assert "head (" in said
    assert "2 cat" in said
    assert "head=FP32" in said
