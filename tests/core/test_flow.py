"""Models whose samples take different ways: experts, early exits, branches on the batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis import store
from core.analysis.analyze import analyze, dry_run
from core.cli.main import main
from core.errors import ModelError
from core.evidence.measure import model_notes
from core.evidence.measure.measure import make_simulator, planned_runs
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import Runner, prepare
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT8
from core.numerics.scheme import SCHEMES, Scheme
from core.numerics.states import under
from core.runtime.torch_export import export
from core.source import python_file
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory

WIDTH = 8
OPTIONS = MeasureOptions(probes=2, precisions=(FP16, INT8))


class Experts(nn.Module):
    """Each sample goes through one of three experts, that of the largest of its first numbers.

    With `guarded` an expert without samples is not called; otherwise it is given no rows.
    """

    def __init__(self, guarded: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.guarded = guarded
        self.first = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():  # which expert it is, a layer's output decides
            self.first.weight.copy_(torch.eye(WIDTH) + 0.05 * torch.randn(WIDTH, WIDTH))
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(3)
        )
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, 3]."""
        h = self.first(x)
        chosen = h[:, :3].argmax(1)
        out = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero(as_tuple=True)[0]
            if rows.numel() or not self.guarded:
                out[rows] += expert(h[rows])
        return self.head(h + out)


class Exit(nn.Module):
    """Leaves after the first layer if every sample of the batch is sure."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.early = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.second, self.late = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        with torch.no_grad():
            self.early.weight.mul_(8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, 3]."""
        h = torch.relu(self.first(x))
        early = self.early(h)
        if bool((early.softmax(-1).amax(-1) > 0.6).all()):
            return early
        return self.late(torch.relu(self.second(h)))


def _for(*experts: int, seed: int = 1) -> Tensor:
    """A sample for each of `experts` in turn, of `Experts`."""
    x = torch.randn(len(experts), WIDTH, generator=torch.Generator().manual_seed(seed))
    x[:, :3] = 0.3 * x[:, :3] + 4 * nn.functional.one_hot(torch.tensor(experts), 3)
    return x


def _source(model: nn.Module, calibration: Tensor, x: Tensor) -> ModelSource:
    spec = {"model": model, "calibration": calibration, "evaluation": (x, None), "holdout": None}
    return model_source({"task": "classification", **spec})


def _runner(source: ModelSource) -> Runner:
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, OPTIONS)
    runs = planned_runs(layers, OPTIONS)
    return prepare(simulator, source, read(source), len(runs), OPTIONS)


@pytest.mark.parametrize("guarded", [True, False])
def test_an_expert_is_found_wherever_calibration_reaches_it(guarded: bool) -> None:
    """An expert that the first sample passes by is a layer like the others, also where only the
    second batch holds a sample for it; one that no sample reaches is named as such.
    """
    calibration = _for(0, *[1] * 15, *[0] * 60, 2)
    layers = take_inventory(_source(Experts(guarded), calibration, _for(0, 1, 2)))
    without = take_inventory(_source(Experts(guarded), calibration[:-1], _for(0, 1, 2)))

    assert set(layers.names) == {
        "first", "head", *(f"experts.{i}.{k}" for i in range(3) for k in (0, 1))
    }  # fmt: skip
    assert set(layers.sometimes) == {f"experts.{i}.{k}" for i in (1, 2) for k in (0, 1)}
    assert layers.unreached == ()
    assert {t.kind for x in layers if x.name == "experts.2.0" for t in x.tensors} == {
        "weight", "bias"
    }  # fmt: skip
    assert layers.glue_tensors == ()
    assert "experts.2.0" not in without.names
    assert without.unreached == ("experts.2.0",)
    assert sum(t.size for t in without.unread_tensors) == WIDTH * WIDTH + WIDTH


def test_work_that_few_samples_need_counts_for_those() -> None:
    """Multiply-accumulates are a mean over the batch in which the experts were found; data flow
    leads from an expert to the head.
    """
    layers = take_inventory(_source(Experts(True), _for(0, *[1] * 24, *[2] * 7), _for(0, 1)))
    macs = dict(zip(layers.names, layers.macs.tolist(), strict=True))
    nodes = [*layers.names, *(f"join {k}" for k in range(layers.joins))]
    readers = {name: {nodes[e.target] for e in layers.edges if nodes[e.source] == name}
               for name in nodes}  # fmt: skip
    reached, todo = set[str](), ["experts.1.1"]
    while todo:
        new = readers[todo.pop()] - reached
        reached |= new
        todo += new

    assert macs["first"] == WIDTH * WIDTH
    assert macs["experts.1.0"] == WIDTH * WIDTH * 24 // 32
    assert macs["experts.2.0"] == WIDTH * WIDTH * 7 // 32
    assert "head" in reached


def test_no_more_samples_are_counted_than_it_takes() -> None:
    """Where the first samples of a batch reach as much as all of it, the mean is over those."""
    layers = take_inventory(_source(Experts(True), _for(0, *[1, 2] * 7, 1, *[0] * 48), _for(0, 1)))
    macs = dict(zip(layers.names, layers.macs.tolist(), strict=True))

    assert macs["experts.1.0"] == WIDTH * WIDTH * 8 // 16
    assert macs["experts.2.0"] == WIDTH * WIDTH * 7 // 16


def test_ways_that_no_batch_shares_are_put_together() -> None:
    """Where the first sample and a batch go different ways, the layers of both are found."""

    class ByCount(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.many = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)
            self.after = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(self.many(x) if len(x) > 1 else self.one(x))

    x = torch.randn(40, WIDTH)
    layers = take_inventory(_source(ByCount(), x, x))
    flows = {(layers.names[e.source], layers.names[e.target]) for e in layers.edges}

    assert layers.names == ("one", "after", "many")
    assert flows == {("one", "after"), ("many", "after")}
    assert layers.macs.tolist() == [WIDTH * 3, 9, WIDTH * 3]


def _hard(seed: int, n: int = 120) -> Tensor:
    """Samples of mixed kinds: near the boundaries between experts, sure and unsure."""
    x = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))
    return x * torch.linspace(0.2, 3, n)[:, None]


@pytest.mark.parametrize(
    "model", [lambda: Experts(True), lambda: Experts(False), Exit], ids=["guarded", "rows", "exit"]
)
def test_runs_are_those_of_full_passes_whatever_way_they_take(model: type[nn.Module]) -> None:
    """Every layer alone, in batches of several sizes, gives the bits of a full pass, although its
    rounding sends samples another way; where the way is read off values the runs say so.
    """
    source = _source(model(), _hard(1), _hard(2))
    runner = _runner(source)
    layers, moved = take_inventory(source), 0
    pairs = [(name, p) for name in layers.names for p in (FP16, INT8)]

    for size in (1, 2, 7, 60, 100):
        batch = take(source.selection.inputs, 10, 10 + size)
        alone = list(runner.replayer.run(batch, pairs, 10))
        for (name, precision), found in zip(pairs, alone[1:], strict=True):
            full = runner.simulator.run({name: precision}, batch, size, 10)
            assert found.tobytes() == full.tobytes()
            moved += not np.array_equal(found, alone[0])
    assert moved
    said = runner.notes(runner.replayer.full_passes)
    assert ("full passes" in said[0]) == bool(runner.reason or runner.replayer.full_passes)
    assert bool(runner.reason) == (model is Exit)


def test_a_forecast_knows_that_other_ways_are_full_passes() -> None:
    """Where a batch takes another way than the recorded pass, each layer costs a whole pass."""
    source = _source(Experts(True), _for(0, 1, 2), _for(*[0] * 20, 1, 2))
    runner = _runner(source)

    assert set(runner.replayer.shares(source.selection.inputs).values()) == {1.0}
    assert dry_run(source, OPTIONS).predicted_seconds > 0


def test_a_batch_that_decides_for_its_samples_is_noted() -> None:
    """An exit that the whole batch has to agree on answers otherwise for single samples."""
    analysis = analyze(_source(Exit(), _hard(1), _hard(2)), OPTIONS)

    assert model_notes.BATCH in analysis.notes


def test_what_no_sample_reached_is_named_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The analysis, every command that reads it, the report and the sidebar of each page name an
    expert that is no layer.
    """
    analysis = analyze(_source(Experts(True), _for(0, 1, 1), _for(0, 1, 2)), OPTIONS)
    folder = tmp_path / "a"
    store.save(analysis, folder)
    sentence = store.load(folder).layers.unreached_in_words()

    assert "experts.2.0" in sentence
    assert sentence in analysis.notes
    assert any("experts.1.0" in note for note in analysis.notes)
    plan = tmp_path / "map.json"
    for command in (
        ["plan", folder, "--out", plan], ["show", folder, plan], ["compare", folder, plan, "all-int8"],
        ["explain", folder, plan, "head"], ["frontier", folder],
        ["export", folder, plan, "--format", "csv", "--out", tmp_path / "m.csv"],
        ["report", folder, plan, "--out", tmp_path / "r.md"],
    ):  # fmt: skip
        assert main([str(part) for part in command]) == 0
        assert f"quantscape: note: {sentence}" in capsys.readouterr().err
    assert "experts.2.0" in (tmp_path / "r.md").read_text("utf-8")


def test_folders_from_before_know_no_ways(tmp_path: Path) -> None:
    """An analysis without the field says nothing of layers that run for some samples."""
    store.save(analyze(_source(Exit(), _hard(1), _hard(2)), OPTIONS), tmp_path / "a")
    file = tmp_path / "a" / store.FILE
    held = json.loads(file.read_text("utf-8"))
    del held["layers"]["sometimes"]
    file.write_text(json.dumps(held), "utf-8")

    assert store.load(tmp_path / "a").layers.sometimes == ()


def _build(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> tuple[int, str]:
    """Exit code and stderr of analyzing and building the source that `text` defines."""
    file = folder / "mine.py"
    file.write_text(text, "utf-8")
    source, analysis, plan = f"{file}:load", str(folder / "a"), str(folder / "map.json")
    assert (
        main(["analyze", source, "--out", analysis, "--precisions", "FP16,INT8", "--no-cache"]) == 0
    )
    assert (
        main(["plan", analysis, "--strategy", "uniform", "--uniform", "INT8", "--out", plan]) == 0
    )
    capsys.readouterr()
    code = main(["build", analysis, plan, "--source", source, "--out", str(folder / "m.onnx")])
    return code, capsys.readouterr().err


SOURCE = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.first(x)
        {way}
        return self.head(h)

def load():
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    return dict(model=Model(), calibration=x, evaluation=(x, None), task="classification")
"""
ON_VALUES = (
    "if bool((h > 0.9).any()): h = torch.relu(h)",
    "if h[:, 0].sum().item() > 0: h = torch.relu(h)",
    "if max(h.sum(1).tolist()) > 0: h = torch.relu(h)",
    "if float(h.numpy().max()) > 0: h = torch.relu(h)",
    "if torch.equal(h, h.abs()): h = torch.relu(h)",
    "h = torch.relu(h) if len(h[h[:, 0] > 0]) > 3 else h",
)


@pytest.mark.parametrize("way", ON_VALUES)
def test_a_way_that_values_choose_cannot_be_exported(way: str, tmp_path: Path) -> None:
    """One line says why, where in the person's file, and what to do."""
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.format(way=way), "utf-8")
    source = python_file.load(f"{file}:load")

    with pytest.raises(ModelError) as caught:
        export(source, take_inventory(source))
    assert "depends on values in the model's own forward, at line 13 of mine.py" in str(
        caught.value
    )
    assert "torch.where" in caught.value.next_step


@pytest.mark.slow
def test_a_build_of_such_a_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends with code 2 and the line."""
    code, said = _build(tmp_path, capsys, SOURCE.format(way=ON_VALUES[0]))

    assert code == 2
    assert said.count("PyTorch cannot export the model to ONNX: which way it takes") == 1


@pytest.mark.slow
def test_a_way_that_the_batch_chooses_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that holds the way of small batches alone says at which sizes it differs; one that
    holds the whole model says nothing.
    """
    for name in ("plain", "branch"):
        (tmp_path / name).mkdir()

    code, said = _build(tmp_path / "plain", capsys, SOURCE.format(way="h = torch.relu(h)"))
    assert (code, "holds one way" in said) == (0, False)
    way = "h = -h if len(h) > 30 else torch.relu(h)"
    code, said = _build(tmp_path / "branch", capsys, SOURCE.format(way=way))
    assert code == 0
    assert (
        "The file holds one way through the model: for batches of 40 samples its outputs in FP32 "
        "are not those of the model, which does something else for batches of other sizes."
    ) in said


class OneByOne(nn.Module):
    """Experts that are called once for each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, 3]."""
        chosen = x[:, :3].argmax(1).tolist()
        return self.head(
            torch.stack([self.experts[k](row) for k, row in zip(chosen, x, strict=True)])
        )


def test_calls_that_samples_count_share_a_range() -> None:
    """A layer that is called as often as a batch has samples for it has one range: that of all its
    inputs, also in a batch with more calls than any of calibration.
    """
    calibration = torch.cat([_for(*[0, 1, 2] * 21, 0, seed=2), 2 * _for(0, 1, 2, seed=3)])
    source = _source(OneByOne(), calibration, _for(*[0] * 90, 1, 2))
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, OPTIONS)
    mine = calibration[calibration[:, :3].argmax(1) == 1]

    sites = [site for site in simulator.ranges if site[0] == "experts.1" and site[2] == 0]
    assert sites == [("experts.1", 0, 0)]
    seen = simulator.ranges[sites[0]]
    assert (seen.low, seen.high) == (float(mine.min()), float(mine.max()))
    assert np.isfinite(simulator.run({"experts.0": INT8}, source.selection.inputs)).all()


def test_calls_that_the_code_counts_keep_their_own_ranges() -> None:
    """A layer that every sample goes through twice has a range for each time."""
    simulator = _runner(_source(Twice(), _hard(1), _hard(2))).simulator

    assert {site for site in simulator.ranges if site[2] == 0} == {("body", 0, 0), ("body", 1, 0)}


class Twice(nn.Module):
    """The same layer over again."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> the same."""
        return self.body(torch.tanh(self.body(x)))


class NoRows(nn.Module):
    """Attention, a recurrent layer, a convolution and norms that may be given no rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norm, self.lstm = nn.LayerNorm(WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.conv, self.batch_norm = nn.Conv1d(3, 3, 3, padding=1), nn.BatchNorm1d(3)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, WIDTH] -> [N, 3]."""
        t = x[:, None].expand(-1, 3, -1)
        some, out = x[:, 0] > 1, t.clone()
        a = t[some]
        out[some] = self.lstm(self.norm(self.attention(a, a, a)[0]))[0]
        b = t[~some]
        out[~some] = self.batch_norm(self.conv(self.gru(b)[0]))
        return self.head(out.mean(1))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("first", [0, 1])
def test_layers_of_every_kind_may_be_given_no_rows(first: int, scheme: Scheme) -> None:
    """Whichever branch the first sample takes, the layers of both are found, calibrated and run,
    in every scheme and also where a batch has nothing for them.
    """
    x = _for(first, *[1] * 12, 0, 0)
    source = _source(NoRows(), x, x)
    layers = under(take_inventory(source, functions=scheme.functions), scheme)
    simulator = make_simulator(source, layers, MeasureOptions(scheme=scheme, precisions=(INT8,)))
    both = {"attention", "norm", "lstm", "gru", "conv"}

    assert both <= set(layers.names)
    assert both & set(layers.sometimes) in ({"attention", "norm", "lstm"}, {"gru", "conv"})
    assert layers.unreached == ()
    for name in layers.names:
        for precision in (FP16, INT8):
            whole = simulator.run({name: precision}, x)
            for i in (0, 5, 14):
                alone = simulator.run({name: precision}, x[i : i + 1])
                np.testing.assert_allclose(whole[i : i + 1], alone, atol=1e-4)
