"""A map becomes a model of ONNX Runtime that computes what its simulation computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from core.errors import ModelError
from core.numerics import precision as registry
from core.numerics.precision import INT8
from core.numerics.rounding import Range, affine_grid
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.executed_kernels import FLOAT, INTEGER
from core.onnx_graph.layered_graph import layer_of_node
from core.onnx_graph.session import executed, part_weights
from core.runtime.build import assemble, build
from core.runtime.simulation import stored_simulator
from core.runtime.torch_export import export
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.core.runtime_case import Case, as_asked_or_why, case_of, decibels
from tests.processors import needs_x86
from tests.zoo import awkward, fusing, models, passes
from tests.zoo.sources import source_of, tiny_source

EXACT_DB = 90.0
"""What is left of a difference when two programs compute the same with other sums."""


def _of(model: nn.Module, x: Any) -> ModelSource:
    return model_source(
        {"model": model, "calibration": x, "evaluation": (x, None), "holdout": None,
         "task": "regression"}
    )  # fmt: skip


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _ids(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def _fusing(kind: Callable[[], fusing.Norms]) -> Callable[[], ModelSource]:
    def make() -> ModelSource:
        model = kind()
        return source_of(fusing.trained(model), model.SHAPE)

    return make


ZOO: dict[str, Callable[[], ModelSource]] = {
    "attention and feed-forward units": tiny_source,
    "convolutions, transposed too": lambda: source_of(models.ConvNet(), (1, 8, 8)),
    "one module called several times": lambda: source_of(models.LoopedModule(), (5,)),
    "embedding table": lambda: source_of(models.TokenModel(), (4,), ids=20),
    "tied embedding": lambda: _of(awkward.TiedEmbedding(), _ids(30, 24, 6)),
    "encoder layer of PyTorch": lambda: source_of(models.Encoder(), (5, 8)),
    "inputs in a dict, a mask among them": lambda: _of(
        awkward.MaskedEncoder(), {"x": _draw(24, 7, 8), "padding": _draw(24, 7) > 1}
    ),
    "several inputs": lambda: _of(
        awkward.Recommender(), (_ids(2_000, 24), _ids(1_000, 24), _ids(50, 24, 4))
    ),
    "convolution with norm and ReLU": _fusing(fusing.ConvNormRelu),
    "convolution with ReLU6": _fusing(fusing.ConvRelu6),
    "linear with norm and ReLU": _fusing(fusing.LinearNorm),
    "weight of two convolutions": _fusing(fusing.SharedWeight),
    "3-d convolution": _fusing(fusing.Conv3dNorm),
    "residual before activation": lambda: source_of(passes.PreActivation(), (5,)),
}


@cache
def _case(name: str) -> Case:
    torch.manual_seed(1)
    return case_of(ZOO[name]())


@pytest.fixture(params=list(ZOO))
def zoo(request: pytest.FixtureRequest) -> Case:
    """One awkward model after another."""
    return _case(request.param)


@pytest.fixture
def tiny_case() -> Case:
    """A tiny transformer with attention and feed-forward units."""
    return _case("attention and feed-forward units")


def test_integers_run_as_simulated(zoo: Case) -> None:
    """All layers in INT8: ONNX Runtime gives the simulation's outputs up to the order of sums, and
    a layer that does not run on integers says why.
    """
    x = zoo.source.selection.inputs
    built = zoo.built(zoo.uniform("INT8"))
    found, reference = zoo.ran(built, x), zoo.simulator.run({}, x)
    simulated = zoo.simulated(built, x)

    assert decibels(reference, found - simulated) > EXACT_DB
    assert decibels(reference, found - reference) < 60  # there is something to agree on
    assert as_asked_or_why(built) == []


SHARING = ("one module called several times", "weight of two convolutions",
           "inputs in a dict, a mask among them")  # fmt: skip


@pytest.mark.usefixtures("no_vnni")
@pytest.mark.parametrize("name", SHARING)
def test_weights_of_several_kernels_are_summed_exactly_without_vnni(name: str) -> None:
    """Where sums are kept exact, a weight that several layers read is copied for the session, which
    ONNX Runtime would refuse to open, and outputs are those of the simulation; the model that is
    written keeps one copy.
    """
    case = _case(name)
    built, x = case.built(case.uniform("INT8")), case.source.selection.inputs
    before = built.model.SerializeToString()

    found = case.ran(built, x)

    reference, simulated = case.simulator.run({}, x), case.simulated(built, x)
    assert decibels(reference, found - simulated) > EXACT_DB
    assert built.model.SerializeToString() == before
    assert part_weights(built.model)


@needs_x86
def test_sums_are_kept_exact_where_there_is_no_vnni(tiny_case: Case, *, vnni: bool) -> None:
    """A session multiplies by weights in int8 with VNNI, which is fast, and in uint8 without."""
    graph = executed(tiny_case.built(tiny_case.uniform("INT8")).model).graph

    weights = {
        c.data_type for c in graph.initializer
        if c.data_type in {TensorProto.INT8, TensorProto.UINT8} and len(c.dims) > 1
    }  # fmt: skip
    assert weights == {TensorProto.INT8 if vnni else TensorProto.UINT8}


def test_the_exported_reference_is_the_model(zoo: Case) -> None:
    """All layers in FP32, in any size of batch: the person's own outputs."""
    built = zoo.built(zoo.uniform("FP32"))
    x = zoo.source.selection.inputs
    reference = zoo.simulator.run({}, x)
    for stop in (1, 7, len(zoo.source.selection)):
        part = take(x, 0, stop)

        assert decibels(reference, zoo.ran(built, part) - reference[:stop]) > EXACT_DB
    assert all(row.as_asked for row in built.report)


@pytest.mark.slow
def test_every_product_runs_on_integers(tiny_case: Case) -> None:
    """In a transformer every product is executed by an integer kernel, and none by a float one."""
    case = tiny_case
    products = sum(len(case.graph.products(layer.name)) for layer in case.analysis.layers)

    built = case.built(case.uniform("INT8"))

    assert sum(built.kernels.get(name, 0) for name in INTEGER) == products > 10
    assert not set(built.kernels) & FLOAT
    plain = case.built(case.uniform("FP32"))
    assert not set(plain.kernels) & INTEGER


class _Siblings(nn.Module):
    """One tensor that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.stem(x))
        return torch.cat((self.first(y), self.second(y)), dim=1)


def test_a_sibling_in_float_reads_the_float_tensor() -> None:
    """Of two readers of one tensor, only the one in INT8 reads the rounded copy."""
    torch.manual_seed(0)
    case = case_of(_of(_Siblings(), _draw(64, 6)))
    x = case.source.selection.inputs
    built = case.built(case.map({"first": "INT8"}))

    difference = case.ran(built, x) - case.simulator.run({}, x)

    assert np.abs(difference[:, :4]).max() > 1e-3
    assert np.abs(difference[:, 4:]).max() < 1e-5
    made = {tensor: node.op_type for node in built.model.graph.node for tensor in node.output}
    reads = {
        layer_of_node(node): made.get(node.input[0])
        for node in built.model.graph.node
        if node.op_type == "Gemm"
    }
    assert reads == {"stem": None, "first": "DequantizeLinear", "second": "Tanh"}


@pytest.mark.slow
def test_float_weights_stay_float_between_rounded_neighbours() -> None:
    """ONNX Runtime would quantize such a convolution by itself: that optimiser is left out."""
    torch.manual_seed(0)
    case = case_of(_of(_Convs(), _draw(16, 2, 6, 6)))
    built = case.built(case.map({"before": "INT8", "conv1": "INT8", "act2": "INT8"}))
    x = case.source.selection.inputs
    reference = case.simulator.run({}, x)

    assert "WeightBiasQuantization" in built.disabled
    assert [row.got for row in built.report if row.name == "conv2"] == ["FP32"]
    assert decibels(reference, case.ran(built, x) - case.simulated(built, x)) > EXACT_DB


class _Convs(nn.Module):
    """Convolutions and activations in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.conv1, self.act1 = nn.ReLU(), nn.Conv2d(2, 4, 3), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(4, 3, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act2(self.conv2(self.act1(self.conv1(self.before(x)))))
        return y.flatten(1)


def test_grids_are_those_that_the_analysis_holds(tiny_case: Case) -> None:
    """Every activation grid of the file is the affine grid of a stored range."""
    built = tiny_case.built(tiny_case.uniform("INT8"))
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in built.model.graph.initializer}
    stored = {
        (np.float32(scale), zero)
        for r in tiny_case.analysis.ranges
        for scale, zero in [affine_grid(Range(r.low, r.high), INT8.bits)]
    }
    grids = [
        (constants[node.input[1]].item(), constants[node.input[2]].item())
        for node in built.model.graph.node
        if node.op_type == "QuantizeLinear"
    ]

    assert len(grids) > 10
    for scale, zero in grids:
        assert any(np.isclose(scale, s, rtol=1e-6) and zero == z for s, z in stored)


def test_the_schemes_facts_are_the_analysis_own(tiny_case: Case) -> None:
    """A map is built and simulated by the facts that it was measured under, although a scheme of
    the same name now says something else.
    """
    facts = replace(ORT_CPU, activations="symmetric", bias="float")
    analysis = replace(tiny_case.analysis, scheme_facts=facts)
    simulator = stored_simulator(tiny_case.source, analysis)
    chosen = tiny_case.uniform("INT8")
    built = assemble(tiny_case.graph, analysis, chosen)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in built.model.graph.initializer}
    zeros = [
        constants[node.input[2]].item()
        for node in built.model.graph.node
        if node.op_type == "QuantizeLinear"
    ]
    x = tiny_case.source.selection.inputs
    ran = tiny_case.ran(built, x)
    assignment = {r.name: registry.get(r.got) for r in built.report if r.got is not None}

    assert analysis.scheme == ORT_CPU.name
    assert simulator.scheme == facts
    assert zeros
    assert not any(zeros)
    by_facts = decibels(ran, ran - simulator.run(assignment, x))
    by_name = decibels(ran, ran - tiny_case.simulator.run(assignment, x))
    assert by_facts > by_name + 6


def test_only_chosen_layers_are_halved(tiny_case: Case) -> None:
    """FP16 halves the weights of the layers that ask for it; no tensor between two others is
    rounded to it, and no constant that both kinds read.
    """
    name = "blocks.0.feed_forward"
    built = tiny_case.built(tiny_case.map({name: "FP16"}))
    half = {
        c.name for c in built.model.graph.initializer if c.data_type == onnx.TensorProto.FLOAT16
    }
    readers = {
        layer_of_node(node) for node in built.model.graph.node for given in node.input
        if given in half
    }  # fmt: skip
    down = [n for n in built.model.graph.node if n.op_type == "Cast" and n.attribute[0].i == 10]
    x = tiny_case.source.selection.inputs
    only = tiny_case.ran(built, x)

    assert readers == {name}
    assert 1 <= len(down) <= 3
    row = next(row for row in built.report if row.name == name)
    assert row.as_asked or "FP16" in row.why
    assert 50 < decibels(only, only - tiny_case.simulator.run({}, x)) < 100


def test_integers_and_halves_stand_side_by_side(tiny_case: Case) -> None:
    """INT8, FP16 and FP32 in one file: what is in integers runs on integers, Q and DQ in float32."""
    given = {"blocks.0.attention": "INT8", "blocks.0.feed_forward": "FP16",
             "blocks.1.feed_forward": "INT8"}  # fmt: skip
    built = tiny_case.built(tiny_case.map(given))
    x = tiny_case.source.selection.inputs
    scales = {n.input[1] for n in built.model.graph.node if n.op_type == "QuantizeLinear"}
    types = {c.name: c.data_type for c in built.model.graph.initializer}

    assert {types[name] for name in scales} == {onnx.TensorProto.FLOAT}
    rows = {row.name: row for row in built.report}
    assert rows["blocks.0.attention"].how == rows["blocks.1.feed_forward"].how == "integer kernel"
    reference = tiny_case.simulator.run({}, x)
    error = decibels(reference, tiny_case.ran(built, x) - reference)
    assert error == pytest.approx(
        decibels(reference, tiny_case.simulated(built, x) - reference), abs=1
    )


def test_an_embedding_is_stored_in_bytes() -> None:
    """The table of an embedding in INT8 takes a byte per value, for the reader that asked alone."""
    case = _case("tied embedding")
    table = next(layer for layer in case.analysis.layers if layer.role == "embedding")
    shape = table.tensors[0].shape
    built = case.built(case.map({table.name: "INT8"}))
    stored = [c for c in built.model.graph.initializer if tuple(c.dims) == shape]

    assert {c.data_type for c in stored} >= {onnx.TensorProto.UINT8}
    assert [row.how for row in built.report if row.name == table.name] == ["stores integers"]


class _Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class _Unexportable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.strange = nn.Linear(4, 3), _Bessel()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.strange(self.linear(x))
        return y


def test_what_cannot_be_exported_is_named() -> None:
    """An operator that ONNX lacks is named with its layer, and everything else works on."""
    source = _of(_Unexportable(), _draw(16, 4))
    layers = take_inventory(source)

    with pytest.raises(ModelError, match=r"bessel_j0.*'strange'") as caught:
        export(source, layers)

    assert "build" in caught.value.next_step


def test_a_branch_on_values_is_named() -> None:
    """A model whose Python asks for a value cannot be exported; the error says where it stands."""
    source = source_of(passes.Packed(), (4, 5))

    with pytest.raises(ModelError, match="'lstm'"):
        export(source, take_inventory(source))


def test_another_model_is_refused(tiny_case: Case) -> None:
    """A source with other weights than the analysis is not built."""
    torch.manual_seed(7)
    other = source_of(models.TinyTransformer(), (5, 6))

    with pytest.raises(ModelError, match="other weights"):
        build(other, tiny_case.analysis, tiny_case.uniform("INT8"))


def test_the_model_is_left_as_it_was(tiny_case: Case) -> None:
    """Export and build change neither weights nor the graph that builds share."""
    before = tiny_case.source.fingerprint()
    graph = tiny_case.graph.model.SerializeToString()
    tiny_case.built(tiny_case.uniform("INT8"))
    tiny_case.built(tiny_case.uniform("FP16"))

    assert tiny_case.source.fingerprint() == before
    assert tiny_case.graph.model.SerializeToString() == graph
