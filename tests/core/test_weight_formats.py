"""Formats of weights alone: what they round, what they leave, and that nothing else has to know."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from core.analysis import store
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import AnalysisError
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics import kernel_table, quantizers, scheme
from core.numerics import precision as registry
from core.numerics.groups import grouped, grouped_rows
from core.numerics.precision import FP16, INT2_G32, INT4_G32, INT8, Precision, TensorFormat
from core.numerics.states import lacking, state_in
from core.onnx_graph.group_weights import BYTES, FLOATS, NBITS, ROWS, accuracy_level
from core.onnx_graph.layered_graph import attribute
from core.records import verification
from core.runtime.build import build
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core import verified
from tests.core.runtime_case import Case, case_of, decibels
from tests.core.synthetic import synthetic_analysis
from tests.zoo import models
from tests.zoo.precisions import registered
from tests.zoo.sources import source_of, tiny_source

FORMATS = [name for name in registry.names() if registry.get(name).is_weights_only]


class Mixed(nn.Module):
    """A convolution, and two linear layers with a norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.first = nn.Linear(6 * 36, 40)
        self.norm = nn.LayerNorm(40)
        self.second = nn.Linear(40, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        found = self.norm(torch.relu(self.first(torch.relu(self.conv(x)).flatten(1))))
        return self.second(found)  # type: ignore[no-any-return]


def _mixed() -> ModelSource:
    torch.manual_seed(0)
    return source_of(Mixed(), (1, 8, 8))


@cache
def _mixed_case() -> Case:
    return case_of(_mixed())


@pytest.mark.parametrize("name", FORMATS)
def test_linear_weights_are_rounded_and_nothing_else(name: str) -> None:
    """The simulation gives, bit for bit, what the model gives whose linear weights were replaced by
    what their packed groups stand for.
    """
    source, precision = _mixed(), registry.get(name)
    simulator = make_simulator(source, take_inventory(source), MeasureOptions())
    by_hand = copy.deepcopy(source.model)
    for layer in (by_hand.first, by_hand.second):
        layer.weight.data = grouped(layer.weight.data, precision.weights).restored()
    x = source.selection.inputs
    with torch.no_grad():
        expected = by_hand(x).numpy()

    found = simulator.run(dict.fromkeys(simulator.varied, precision), x)

    assert np.array_equal(found, expected)
    assert not np.array_equal(found, simulator.run({}, x))


@pytest.mark.parametrize("quantizer", quantizers.names())
@pytest.mark.parametrize("name", FORMATS)
def test_every_grid_is_simulated_stored_and_built(quantizer: str, name: str) -> None:
    """Under each quantizer the simulation multiplies by what its groups stand for, the file takes the
    bytes that are planned and answers as it was simulated, and the report names the grid.
    """
    case = _mixed_case().on_grid(quantizer)
    precision = case.analysis.precision(name)
    x = case.source.selection.inputs
    by_hand = copy.deepcopy(case.source.model)
    for layer in (by_hand.first, by_hand.second):
        layer.weight.data = grouped(layer.weight.data, precision.weights).restored()
    chosen = case.uniform(name)
    built = case.built(chosen)
    ran, simulated = case.ran(built, x), case.simulated(built, x)
    grid = quantizers.of_format(precision.weights)

    with torch.no_grad():
        assert np.array_equal(by_hand(x).numpy(), simulated)
    assert built.as_asked
    assert built.kernels[NBITS] == 2
    reshaped = 2 * np.dtype(np.int64).itemsize  # the shape of a Reshape, which no layer owns
    assert built.tensor_bytes - reshaped == case.study.stored_bytes(chosen.codes)
    assert {r.how for r in built.report if grid.name in r.how and NBITS in r.how}
    products = [n for n in built.model.graph.node if n.op_type == NBITS]
    assert {len(n.input) for n in products} == {4 if grid.has_zeros else 3}
    if grid.has_zeros:
        assert {attribute(n, "accuracy_level", 0) for n in products} == {FLOATS}
    reference = case.simulator.run({}, x)
    assert decibels(reference, ran - simulated) > decibels(reference, simulated - reference) + 10


class Words(nn.Module):
    """The rows of a table, of one that nothing packs, and of one that a product reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 40)
        self.odd = nn.Embedding(30, 6)
        self.bag = nn.EmbeddingBag(30, 8)
        self.tied = nn.Embedding(30, 8)
        self.mix = nn.Linear(62, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[N, T] ids -> [N, 30]."""
        rows = [self.table(ids).mean(1), self.odd(ids).mean(1), self.bag(ids)]
        rows.append(self.tied(ids).mean(1))
        return self.head(torch.tanh(self.mix(torch.cat(rows, 1))))  # type: ignore[no-any-return]


@cache
def _words_case() -> Case:
    torch.manual_seed(0)
    return case_of(source_of(Words(), (4,), ids=30))


@pytest.mark.parametrize("quantizer", [quantizers.DEFAULT.name, quantizers.HQQ.name, "torchao"])
@pytest.mark.parametrize("name", FORMATS)
def test_tables_are_packed_and_looked_up(quantizer: str, name: str) -> None:
    """An embedding's rows are simulated, stored and built by groups; one whose rows take no whole
    bytes, one that a product reads too and a bag stay as they are, and that is said.
    """
    case = _words_case().on_grid(quantizer)
    precision = case.analysis.precision(name)
    assert [x.name for x in case.analysis.layers if x.in_groups] == ["table", "mix"]
    x = case.source.selection.inputs
    by_hand = copy.deepcopy(case.source.model)
    by_hand.table.weight.data = grouped_rows(
        by_hand.table.weight.data, precision.weights
    ).restored()
    chosen = case.map({"table": name})
    built = case.built(chosen)
    ran, simulated = case.ran(built, x), case.simulated(built, x)

    with torch.no_grad():
        assert np.array_equal(by_hand(x).numpy(), simulated)
    np.testing.assert_allclose(ran, simulated, atol=1e-5)
    assert not np.array_equal(simulated, case.simulator.run({}, x))
    assert built.as_asked
    assert built.kernels[ROWS] == 1
    grid = quantizers.DEFAULT.name if quantizer == quantizers.HQQ.name else quantizer
    assert f"({grid})" in next(r.how for r in built.report if r.name == "table")
    saved = case.built(case.uniform("FP32")).tensor_bytes - built.tensor_bytes
    assert saved == case.study.stored_bytes(case.uniform("FP32").codes) - case.study.stored_bytes(
        chosen.codes
    )
    width = -(-40 // precision.weights.group)
    assert saved == 30 * (40 * 4 - 40 * precision.bits // 8 - 4 * width)
    refused = case.built(case.map(dict.fromkeys(("odd", "tied", "head", "bag"), name)))
    assert all(not r.as_asked and r.why for r in refused.report if r.asked == name)


def test_one_engine_tells_grids_apart() -> None:
    """A weight that was rounded on one grid is rounded again for another."""
    simulator, x = _mixed_case().simulator, _mixed_case().source.selection.inputs
    found = [
        simulator.run({"first": quantizers.get(name).of(INT4_G32)}, x)
        for name in quantizers.names()
    ]

    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], simulator.run({"first": INT4_G32}, x))


def test_the_quantizer_is_chosen_recorded_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`analyze --quantizer` measures on its grid and the folder, the map and the report say so; a
    folder of before has the default one, one with an unknown name is refused.
    """
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def load():\n"
        "    torch.manual_seed(0)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(40, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))\n"
        "    x = torch.randn(40, 40)\n"
        "    return {'model': model, 'calibration': x, 'evaluation': (x, model(x).argmax(1)),\n"
        "            'task': 'classification'}\n"
    )
    words = ["analyze", f"{file}:load", "--precisions", "INT8,INT4-g32", "--no-cache"]
    perturbed = []
    for name in (quantizers.DEFAULT.name, quantizers.HQQ.name):
        assert main([*words, "--out", str(tmp_path / name), "--quantizer", name]) == 0
        found = store.load(tmp_path / name)
        assert found.quantizer == found.by_groups == name
        assert found.evidence is not None
        perturbed.append(found.evidence.perturbations[found.evidence.precisions.index("INT4-g32")])
        assert f"weights by groups {name}" in found.how_rounded
        assert any("HQQ" in note for note in found.notes) == (name == quantizers.HQQ.name)
        folder, chosen, report = (str(tmp_path / n) for n in (name, "map.json", "report.md"))
        assert (
            main(["plan", folder, "--strategy=uniform", "--uniform=INT4-g32", "--out", chosen]) == 0
        )
        assert json.loads(Path(chosen).read_text())["quantizer"] == name
        assert main(["report", folder, chosen, "--out", report]) == 0
        assert f"weights by groups {name}" in Path(report).read_text()
    assert not np.array_equal(*perturbed)

    written = tmp_path / name / store.FILE
    content = json.loads(written.read_text())
    written.write_text(json.dumps({**content, "quantizer": "gptq"}))
    with pytest.raises(AnalysisError, match="ort-rtn, ort-hqq, torchao"):
        store.load(tmp_path / name)
    del content["quantizer"]
    written.write_text(json.dumps(content))
    assert store.load(tmp_path / name).quantizer == "ort-rtn"
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--quantizer", "gptq"])


def test_a_map_run_on_another_grid_is_not_this_analysis(tmp_path: Path) -> None:
    """What was verified with groups on one grid is read for it alone; a record of before is of the
    default one.
    """
    study = Study(synthetic_analysis(3, samples=20))
    run = verified.verification(study, verified.narrowed(study, 1))
    path = verification.save(tmp_path, run)
    verification.save(
        tmp_path, msgspec.structs.replace(run, quantizer="ort-hqq", created="2026-01-02T00:00:00")
    )
    before = json.loads(path.read_text())
    del before["quantizer"]
    path.write_text(json.dumps(before))
    identity, scheme_name = study.analysis.identity, study.analysis.scheme

    (default,), _ = verification.load(tmp_path, identity, scheme_name)
    (other,), _ = verification.load(tmp_path, identity, scheme_name, "ort-hqq")

    assert (default.quantizer, other.quantizer) == ("ort-rtn", "ort-hqq")
    assert verification.load(tmp_path, identity, scheme_name, "torchao")[0] == ()


def test_a_layer_without_such_weights_costs_nothing_and_is_not_chosen() -> None:
    """A convolution or norm in a format of weights alone is the reference: no change is measured, no
    strategy gives it the format, and set by hand it is said to stay.
    """
    source = _mixed()
    analysis = analyze(source, MeasureOptions(precisions=(INT8, INT4_G32), probes=2))
    study, evidence = Study(analysis), analysis.evidence
    assert evidence is not None
    row = evidence.precisions.index("INT4-g32")
    changed = {
        layer.name
        for i, layer in enumerate(analysis.layers)
        if np.any(evidence.perturbations[row, i])
    }
    chosen = answer.decide(study, Policy(strategy="uniform", uniform="INT4-g32"))
    by_hand = answer.decide(
        study, Policy(strategy="manual", high="FP32", overrides=(("conv", "INT4-g32"),))
    )

    assert changed == {"first", "second"}
    assert [n for n, p in chosen.by_layer.items() if p == "INT4-g32"] == ["first", "second"]
    assert "runs in FP32" in by_hand.reason(analysis.layers.index["conv"])


def test_where_projections_end_is_said() -> None:
    """A map with weights in 2 bits says how many layers have them and that it should be verified;
    in 4 bits nothing is said, nor where 2 bits mean nothing.
    """
    study = Study(analyze(_mixed(), MeasureOptions(precisions=(INT4_G32, INT2_G32), probes=2)))

    def said(name: str, *layers: str) -> list[str]:
        rules = tuple((layer, name) for layer in layers)
        chosen = answer.decide(study, Policy(strategy="manual", high="FP32", overrides=rules))
        return [w for w in outcome(study, chosen).warnings if "where projections end" in w]

    linear = [layer.name for layer in study.layers if layer.in_groups]
    conv = next(layer.name for layer in study.layers if layer.role == "convolution")
    assert [s.split(" have")[0] for s in said("INT2-g32", *linear)] == [f"{len(linear)} layers"]
    assert said("INT4-g32", *linear) == said("INT2-g32", conv) == []


@pytest.mark.parametrize("name", registry.names())
def test_what_lacks_a_precision_is_the_same_for_one_layer_and_for_all(name: str) -> None:
    """The table of all layers agrees with the state of each."""
    precision = registry.get(name)
    for source in (_mixed(), tiny_source()):
        layers = take_inventory(source)
        alone = [state_in(layer, precision) == "float" for layer in layers]

        assert lacking(layers, [precision])[0].tolist() == alone


def test_a_map_of_three_routes_is_built_as_asked() -> None:
    """INT8, FP16 and INT4 stand side by side in one file, each by its own kernels, and it answers as
    it was simulated.
    """
    case = case_of(_mixed())
    chosen = case.map({"conv": "INT8", "first": "INT4-g32", "norm": "FP16", "second": "INT8"})
    built = case.built(chosen)
    got = {row.name: row.got for row in built.report}
    x = case.source.selection.inputs
    ran, simulated = case.ran(built, x), case.simulated(built, x)

    assert (got["conv"], got["first"], got["second"]) == ("INT8", "INT4-g32", "INT8")
    assert got["norm"] in ("FP16", "FP32")  # by the processor's kernels
    assert built.kernels[NBITS] == 1
    reference = case.simulator.run({}, x)
    assert decibels(reference, ran - simulated) > decibels(reference, simulated - reference) + 10


def test_the_accuracy_level_is_written_where_it_is_not_zero() -> None:
    """Products of few rows in 4 bits multiply bytes; with 8 bits, whose weights err as little as the
    bytes would, they multiply floats; the report says which.
    """
    case = case_of(_mixed())
    for name, level in (("INT4-g32", BYTES), ("INT2-g32", BYTES), ("INT8-W", FLOATS)):
        built = case.built(case.map({"first": name}))
        (node,) = [n for n in built.model.graph.node if n.op_type == NBITS]
        row = next(r for r in built.report if r.name == "first")

        assert attribute(node, "accuracy_level", 0) == level
        assert ("8-bit integers" in row.how) == (level == BYTES)
    assert accuracy_level(4, rows=60, inputs=64) == FLOATS
    assert accuracy_level(4, rows=60, inputs=512) == BYTES


def test_a_weight_on_the_left_stays_in_float() -> None:
    """MatMulNBits has its weight on the right: a product with one on the left says so."""
    case = case_of(source_of(models.LoopedModule(), (5,)))
    layer = next(x for x in case.analysis.layers if x.in_groups)
    graph = onnx.ModelProto.FromString(case.graph.model.SerializeToString())
    node = next(n for n in graph.graph.node if n.name == case.graph.products(layer.name)[0].name)
    assert state_in(layer, INT4_G32) == "computes"

    from core.onnx_graph.group_weights import Packer

    node.op_type = "MatMul"
    node.input[0], node.input[1] = node.input[1], node.input[0]
    assert "on the left" in Packer(graph).refused(node)


def test_every_target_says_what_it_does_with_every_format() -> None:
    """The table has a row with a source for each scheme and format, and no row of an unknown one."""
    formats = {
        name for name in registry.names()
        if not (registry.get(name).is_cast or registry.get(name).is_calibrated)
    }  # fmt: skip
    for name in scheme.names():
        for precision in formats:
            row = kernel_table.format_row(name, precision)
            assert row["state"] in ("computes", "float")
            assert len(row["source"]) > 10
        assert kernel_table.look_up_row(name)["state"] in ("computes", "float")
        assert len(kernel_table.look_up_row(name)["source"]) > 10
    rows = kernel_table._file()[kernel_table.FORMATS].values()
    assert all(set(each) == formats for each in rows)


def test_a_new_format_is_one_entry_of_the_registry() -> None:
    """Four bits in groups of 64, registered and nowhere else said, are measured, sized, planned,
    built and run.
    """
    fresh = Precision("INT4-g64", TensorFormat("integer", 4, "group", 64), None)
    with registered(fresh):
        source = tiny_source()
        analysis = analyze(source, MeasureOptions(precisions=(FP16, INT8, fresh), probes=3))
        study = Study(analysis)
        chosen = answer.decide(study, Policy(strategy="uniform", uniform="INT4-g64"))
        built = build(source, analysis, chosen)
        sized = study.stored_bytes(chosen.codes)
        whole = study.stored_bytes(np.where(chosen.codes >= 0, 0, chosen.codes).astype(np.int8))

    packed = [n for n in built.model.graph.node if n.op_type == NBITS]
    assert built.as_asked
    assert {attribute(n, "block_size", 0) for n in packed} == {64}
    assert built.kernels[NBITS] == len(packed) > 4
    assert sized < whole


@pytest.mark.parametrize("typed", ["int4-g32", "INT4-G32", " Int4-g32 "])
def test_names_are_read_in_letters_of_any_case(typed: str) -> None:
    """A person may type the name of a precision in any case."""
    assert registry.as_named(typed) == "INT4-g32"
