"""Replaying what follows a layer gives, bit by bit, what a full pass gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core.analysis import store
from core.analysis.analyze import analyze, dry_run
from core.cli.main import main
from core.engines.torch.replay.replayer import Replayer
from core.engines.torch.simulate.simulator import Simulator
from core.errors import PolicyError
from core.evidence.measure.measure import make_simulator, measure, planned_runs
from core.evidence.measure.memory import BATCH, SMALLEST, batches, free_bytes
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import Runner, prepare
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from core.numerics.precision import FP16, INT8
from core.source import samples
from core.source.batches import take
from core.source.contract import ModelSource, Split, model_source
from core.source.inventory import take_inventory
from tests.zoo import awkward, models, passes
from tests.zoo.sources import source_of, tiny_source

PRECISIONS = (FP16, INT8)
SAMPLES = ("digits_resnet", "digits_vit", "informer")


def _simulator(source: ModelSource) -> Simulator:
    return make_simulator(source, take_inventory(source), MeasureOptions())


def _first(source: ModelSource, count: int) -> ModelSource:
    targets = source.selection.targets
    split = Split(source.selection.inputs[:count], None if targets is None else targets[:count])
    return replace(source, selection=split)


def _compared(source: ModelSource, count: int = 24) -> Replayer:
    """Replay every layer in every precision on `count` samples, compare, and say how it went."""
    simulator = _simulator(source)
    inputs = take(source.selection.inputs, 0, count)
    pairs = [(name, precision) for name in simulator.varied for precision in PRECISIONS]
    replayer = Replayer(simulator, take(inputs, 0, 2), [(name, INT8) for name in simulator.varied])
    baseline, *replayed = replayer.run(inputs, pairs)
    assert baseline.tobytes() == simulator.run({}, inputs, count).tobytes()
    for (name, precision), outputs in zip(pairs, replayed, strict=True):
        full = simulator.run({name: precision}, inputs, count)
        assert full.tobytes() == outputs.tobytes(), (name, precision.name)
    return replayer


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.slow
def test_every_layer_of_a_sample_is_replayed_to_the_same_bits(name: str) -> None:
    """All layers of a bundled sample, alone in FP16 and INT8, equal full passes bit by bit."""
    replayer = _compared(samples.load(name), 12 if name == "informer" else 24)

    assert (replayer.refusal, replayer.full_passes) == ("", 0)


CAPTURED: list[tuple[Callable[[], nn.Module], tuple[int, ...], int]] = [
    (models.ConvNet, (1, 8, 8), 0),
    (models.TiedWeights, (5,), 0),
    (models.LoopedModule, (5,), 0),
    (models.TokenModel, (4,), 20),
    (models.NeverCalled, (5,), 0),
    (models.NoLayers, (3,), 0),
    (models.Overflowing, (5,), 0),
    (models.DictOutput, (5,), 0),
    (models.Encoder, (5, 8), 0),
    (models.TinyTransformer, (5, 6), 0),
    (passes.InPlace, (5,), 0),
    (passes.PreActivation, (5,), 0),
    (passes.InputBranch, (5,), 0),
    (passes.Same, (5,), 0),
    (passes.Recurrent, (4, 5), 0),
    (passes.OwnProducts, (5,), 0),
    (passes.Branches, (5,), 0),
    (passes.Packed, (4, 5), 0),
    (passes.Options, (5, 8), 0),
    (passes.WrittenInput, (5,), 0),
    (passes.StoredHandedBack, (5,), 0),
]


@pytest.mark.parametrize(
    ("model", "shape", "ids"), CAPTURED, ids=lambda v: getattr(v, "__name__", "")
)
def test_the_zoo_is_replayed_to_the_same_bits(
    model: Callable[[], nn.Module], shape: tuple[int, ...], ids: int
) -> None:
    """Every model that can be captured is replayed without a single full pass, to the bit."""
    torch.manual_seed(1)
    replayer = _compared(source_of(model(), shape, ids=ids))

    assert (replayer.refusal, replayer.full_passes) == ("", 0)


def _ids(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


AWKWARD: list[tuple[type[nn.Module], Callable[[], Any], str]] = [
    (awkward.Shared, lambda: _draw(24, 5), ""),
    (awkward.TiedEmbedding, lambda: _ids(30, 24, 6), ""),
    (awkward.InPlace, lambda: _draw(24, 6), "writes into memory that another value still uses"),
    (awkward.Views, lambda: _draw(9, 6, 24).permute(2, 0, 1), ""),
    (awkward.Structured, lambda: _draw(24, 5), ""),
    (awkward.Squeezing, lambda: _draw(24, 5), ""),
    (awkward.LstmOnly, lambda: _draw(24, 9, 4), ""),
    (awkward.EinsumAttention, lambda: _draw(24, 5, 8), ""),
    (awkward.ImageToImage, lambda: _draw(24, 1, 8, 8), ""),
    (awkward.Video, lambda: _draw(24, 1, 5, 5, 5), ""),
    (awkward.Recommender, lambda: (_ids(2_000, 24), _ids(1_000, 24), _ids(50, 24, 4)), ""),
    (awkward.MaskedEncoder, lambda: {"x": _draw(24, 7, 8), "padding": _draw(24, 7) > 1}, ""),
    (awkward.FrozenBuffers, lambda: _draw(24, 5), "writes into a parameter or a buffer"),
    (awkward.BatchCentred, lambda: _draw(24, 5), ""),
    (awkward.Counting, lambda: _draw(24, 5), "attribute 'calls' changes from pass to pass"),
    (awkward.DropoutAlwaysOn, lambda: _draw(24, 5), "it draws random numbers"),
]


@pytest.mark.parametrize(
    ("model", "inputs", "reason"), AWKWARD, ids=lambda v: getattr(v, "__name__", "")
)
def test_awkward_models_are_replayed_or_say_why(
    model: type[nn.Module], inputs: Callable[[], Any], reason: str
) -> None:
    """Trees of inputs, stored operands and outputs in structures are replayed to the bit; what
    cannot be is run in full.
    """
    torch.manual_seed(1)
    x = inputs()
    source = model_source(
        {"model": model(), "calibration": x, "evaluation": (x, None), "holdout": None,
         "task": "regression"}
    )  # fmt: skip

    if model is awkward.Counting:  # no two of its passes are equal
        replayer = Replayer(_simulator(source), take(x, 0, 2))
    else:
        replayer = _compared(source)

    assert reason in replayer.refusal
    assert bool(replayer.refusal) == bool(reason)
    assert replayer.full_passes == 0


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (passes.ValueBranch, "the model itself reads a value that depends on layers (__bool__)"),
    (passes.WrittenView, "writes into memory that another value still uses"),
    (passes.Noise, "draws random numbers"),
    (passes.PythonNoise, "draws random numbers"),
    (passes.Counter, "attribute 'calls' changes from pass to pass"),
    (passes.RunningMean, "writes into a parameter or a buffer"),
    (passes.OpaqueOutput, "module 'part' returns a Box, whose tensors cannot be followed"),
    (passes.Mapped, "its pass could not be recorded (NotImplementedError"),
    (passes.Autocast, "runs under autocast"),
    (passes.SideDoor, "a value leaves module 'part' by another way than its output"),
]


@pytest.mark.parametrize(("model", "reason"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_what_cannot_be_replayed_says_why_and_gives_the_same_numbers(
    model: Callable[[], nn.Module], reason: str
) -> None:
    """A model that cannot be replayed in part is run in full, and the analysis keeps the reason."""
    torch.manual_seed(1)
    made = model()
    units = ("part",) if hasattr(made, "part") else ()
    source = source_of(made, (5,), units=units)
    _compared(source)

    analysis = analyze(source, MeasureOptions(probes=2, precisions=PRECISIONS))

    (note,) = (note for note in analysis.notes if "full passes" in note)
    assert reason in note
    assert dry_run(source, MeasureOptions(precisions=PRECISIONS)).full_passes in note
    assert analysis.evidence is not None
    simulator = _simulator(source)
    change = simulator.run({"head": INT8}, source.selection.inputs) - analysis.evidence.baseline
    at = analysis.layers.index["head"]
    np.testing.assert_array_equal(change, analysis.evidence.perturbations[1, at])


@pytest.mark.parametrize("model", [passes.ShapeBranch, passes.DataShape])
def test_single_runs_that_go_another_way_are_full_passes(model: Callable[[], nn.Module]) -> None:
    """Where a batch or a change takes another way than the recording, that run alone is in full."""
    torch.manual_seed(1)
    replayer = _compared(source_of(model(), (5,)))

    assert replayer.refusal == ""
    assert replayer.full_passes > 0


def test_a_replay_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a replay of the pilot differs from a full pass in one bit, replay is not used."""
    source = tiny_source()
    simulator = _simulator(source)
    original = Replayer.replayed
    monkeypatch.setattr(
        Replayer,
        "replayed",
        lambda *args: None if "head" in args[1].layers else original(*args),
    )

    replayer = Replayer(simulator, source.selection.inputs[:2], [("embed", INT8), ("head", INT8)])

    assert replayer.refusal == "layer 'head' alone differs from a full pass in INT8"


class _Unseen(nn.Module):
    """Five layers and, behind the one at `place`, a function that no mode sees."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(5))
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == self.place:
                with torch._C.DisableTorchFunction():
                    x = torch.tanh(x)
        return x * 2


@pytest.mark.parametrize("place", range(5))
def test_a_value_that_takes_an_unseen_way_is_noticed(place: int) -> None:
    """Layers are compared all at once and, as that fails, one by one, which names the first."""
    torch.manual_seed(1)
    source = source_of(_Unseen(place), (5,))

    replayer = _compared(source)

    assert replayer.refusal == "layer 'layers.0' alone differs from a full pass in INT8"


def test_layers_that_replay_are_compared_with_two_passes_for_each_precision() -> None:
    """However many layers there are: every other one at once, and the rest."""
    source = tiny_source()
    simulator = _simulator(source)
    check = [(name, precision) for name in simulator.varied for precision in PRECISIONS]
    ran: list[int] = []
    run = simulator.run

    def counted(assignment: Any, *rest: Any) -> Any:
        ran.append(len(assignment))
        return run(assignment, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "run", counted)
        replayer = Replayer(simulator, source.selection.inputs[:2], check)

    layers = len(simulator.varied)
    assert replayer.refusal == ""
    assert ran == [0, *[layers - layers // 2, layers // 2] * len(PRECISIONS)]


def test_only_what_a_layer_reaches_runs_again() -> None:
    """What follows the head is the head alone; an unneeded layer has none; branches are left out."""
    source = source_of(passes.Branches(), (5,))
    simulator = _simulator(source)
    replayer = Replayer(simulator, source.selection.inputs[:2])
    dependents_of = replayer.plan.dependents_of

    shaping = 2  # what brings the output into rows and columns
    assert len(dependents_of["head"].steps) == 1 + shaping
    assert "dead" not in dependents_of
    assert len(dependents_of["left"].steps) == 3 + shaping  # itself, the product, the head
    assert len(dependents_of["right"].steps) == 4 + shaping
    shares = replayer.shares(source.selection.inputs)
    assert shares["dead"] == 0
    assert 0 < shares["head"] < shares["right"] <= 1


def test_an_unchanged_layer_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose own output keeps its bits is not followed any further."""
    source = tiny_source()
    simulator = _simulator(source)
    replayer = Replayer(simulator, source.selection.inputs[:2])
    inputs = source.selection.inputs[:16]
    monkeypatch.setattr(
        simulator, "run_module", lambda _, module, args, kwargs, counts: module(*args, **kwargs)
    )

    with torch.no_grad():
        baseline, alone = replayer.run(inputs, [("blocks.0.norm", FP16)])

    assert alone is baseline  # not merely equal: nothing behind the layer ran


@pytest.mark.slow
def test_batches_do_not_change_the_numbers() -> None:
    """Any batch size gives the same evidence, bit by bit, on every bundled sample."""
    for name in SAMPLES:
        source = _first(samples.load(name), 40)
        simulator = _simulator(source)
        pairs = [(layer, INT8) for layer in simulator.varied[::12]]
        replayer = Replayer(simulator, source.selection.inputs[:2])
        whole = list(replayer.run(source.selection.inputs, pairs))

        parts = [list(replayer.run(source.selection.inputs[p], pairs)) for p in batches(40, 16)]

        for i, outputs in enumerate(whole):
            assert np.concatenate([part[i] for part in parts]).tobytes() == outputs.tobytes()


@pytest.mark.parametrize("size", [16, 17, 37, 99, 100])
def test_batches_are_even_parts_of_full_ones(size: int) -> None:
    """Batches cover every sample once, stay within their size and keep eight rows or more."""
    for count in (1, 7, 16, 100, 150, 450, 1500):
        found = batches(count, size)

        assert [i for part in found for i in range(part.start, part.stop)] == list(range(count))
        lengths = [part.stop - part.start for part in found]
        assert max(lengths) <= size
        assert min(lengths) >= min(8, count % BATCH or BATCH)


@pytest.mark.slow
def test_memory_is_bounded_by_smaller_batches() -> None:
    """A bound makes batches smaller, then lets rounded weights go, then makes replay impossible,
    then the measurement.
    """
    source = _first(samples.load("digits_vit"), 100)
    simulator = _simulator(source)
    runs = len(planned_runs(take_inventory(source), MeasureOptions(precisions=PRECISIONS)))

    def runner(memory_bytes: int) -> Runner:
        options = MeasureOptions(precisions=PRECISIONS, memory_bytes=memory_bytes)
        return prepare(simulator, source, read(source), runs, options)

    wide = runner(10**10)
    tight, tighter = runner(wide.need.peak(60)), runner(wide.need.peak(SMALLEST))
    lean = runner(wide.need.peak(SMALLEST) - 1)
    short = runner(wide.need.holding(0).peak(SMALLEST) - 1)

    assert (wide.batch, tight.batch, tighter.batch) == (100, 60, SMALLEST)
    assert SMALLEST < short.batch < 100
    assert tight.peak_bytes <= wide.need.peak(60) < wide.peak_bytes
    assert (wide.reason, tight.reason, tighter.reason) == ("", "", "")
    assert lean.reason == ""
    assert lean.need.weights < wide.need.weights == tighter.need.weights
    assert lean.peak_bytes < wide.need.peak(SMALLEST)
    assert "memory" in short.reason
    assert short.peak_bytes < wide.need.peak(SMALLEST)
    assert wide.notes(0) == tight.notes(0) == ()  # compared: parts of 60 give the same bits
    assert "may change last bits" in tighter.notes(0)[0]  # 100 at once do not fit to compare
    with pytest.raises(PolicyError, match="more than the 1 MB allowed"):
        runner(10**6)


def test_the_memory_of_a_replay_is_predicted() -> None:
    """Values that are kept never take more than was predicted, and are freed as layers pass."""
    source = tiny_source()
    simulator = _simulator(source)
    options = MeasureOptions(precisions=PRECISIONS, memory_bytes=10**9)
    runner = prepare(simulator, source, read(source), 40, options)
    inputs = source.selection.inputs[:50]
    kept: list[int] = []
    original = Replayer.replayed

    def watched(self: Replayer, dependents, precision, recording, values):  # noqa: ANN001, ANN202 (as it is)
        storages = {v.untyped_storage().data_ptr(): v.untyped_storage() for v in values.values()}
        kept.append(sum(storage.nbytes() for storage in storages.values()))
        return original(self, dependents, precision, recording, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replayer, "replayed", watched)
        list(runner.replayer.run(inputs, [(name, INT8) for name in simulator.varied]))

    assert 0 < kept[0] <= runner.need.kept * 50
    assert kept[-1] < kept[0] / 4
    assert 0 < free_bytes() < 2**50


def test_measuring_replays_and_reports_every_layer() -> None:
    """`measure` gives what full passes give, and progress names each layer and precision."""
    source = tiny_source()
    layers = take_inventory(source)
    seen: list[tuple[int, int, str]] = []

    evidence = measure(
        source,
        layers,
        MeasureOptions(precisions=PRECISIONS, probes=2),
        progress=lambda *step: seen.append(step),
    ).evidence

    runs = planned_runs(layers, MeasureOptions(precisions=PRECISIONS, probes=2))
    assert [done for done, _, _ in seen[1:]] == list(range(3 * len(runs) + 1))
    assert {total for _, total, _ in seen} == {3 * len(runs)}
    assert {label for _, _, label in seen} == {run.label for run in runs} | {"done"}
    simulator = _simulator(source)
    baseline = simulator.run({}, source.selection.inputs)
    assert baseline.tobytes() == evidence.baseline.tobytes()
    found = [
        *(
            (
                run,
                evidence.perturbations[
                    PRECISIONS.index(run.assignment[run.layer]), layers.index[run.layer]
                ],
            )
            for run in runs
            if run.layer
        ),
        *zip(runs[-4:], (*evidence.whole, *evidence.probes), strict=True),
    ]
    assert len(found) == len(runs) - 1
    for run, change in found:
        expected = simulator.run(run.assignment, source.selection.inputs) - baseline
        assert expected.tobytes() == change.tobytes(), run.label


@pytest.mark.slow
def test_a_sample_is_measured_as_it_was_shipped() -> None:
    """Measuring a sample anew gives the shipped figures up to another machine's rounding."""
    shipped = store.load(samples.get("digits_resnet").analysis).evidence
    source = _first(samples.load("digits_resnet"), 100)
    assert shipped is not None

    precisions = tuple(registry.get(name) for name in shipped.precisions)
    evidence = measure(
        source, take_inventory(source), MeasureOptions(precisions=precisions, probes=0)
    ).evidence

    np.testing.assert_allclose(shipped.baseline[:100], evidence.baseline, atol=1e-4)
    error = np.abs(shipped.perturbations[:, :, :100] - evidence.perturbations)
    assert np.median(error) < 1e-5


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def _part(kind: str) -> nn.Module:
    if kind == "residual":
        return _Residual(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU()))
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(6, 6),
        "norm": lambda: nn.LayerNorm(6),
        "relu": lambda: nn.ReLU(inplace=True),
        "gelu": nn.GELU,
        "dropout": nn.Dropout,
        "batch norm": lambda: nn.BatchNorm1d(6),
    }
    return makers[kind]()


kinds = st.sampled_from(["linear", "norm", "relu", "gelu", "dropout", "residual", "batch norm"])


@settings(max_examples=25, deadline=None)
@given(st.lists(kinds, max_size=6), st.integers(0, 2**31 - 1))
@pytest.mark.slow
def test_any_small_network_is_replayed_to_the_same_bits(names: list[str], seed: int) -> None:
    """Replay equals full passes on random sequences of layers and residual blocks."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), *(_part(name) for name in names), nn.Linear(6, 3))

    replayer = _compared(source_of(model, (4,), samples=24), count=12)

    assert (replayer.refusal, replayer.full_passes) == ("", 0)


@pytest.mark.slow
def test_a_dry_run_shows_memory_and_keeps_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """`analyze --dry-run --memory` predicts time, memory and batches, and refuses too little."""
    command = ("analyze", "sample:digits_resnet", "--dry-run", "--precisions", "FP16,INT8")
    options = MeasureOptions(precisions=PRECISIONS, memory_bytes=27_000_000)
    plan = dry_run(samples.load("digits_resnet"), options)
    assert 0 < plan.peak_bytes - plan.held_bytes <= 27_000_000
    assert SMALLEST <= plan.batch < BATCH
    assert plan.full_passes == ""
    assert plan.predicted_seconds > 0

    assert main(command) == 0
    out = capsys.readouterr().out
    assert "memory at its peak" in out
    assert "what follows the layer" in out

    assert main([*command, "--memory", "1000"]) == 2
    assert "Give --memory" in capsys.readouterr().err
