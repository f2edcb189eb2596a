"""Distributions over many classes: some entries of each, and the rest as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import NodeProto
from scipy.stats import spearmanr

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze, dry_run
from core.cli.main import main
from core.decide import answer
from core.decide.assess.classes import by_class
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.stability.budget_stability import resampled
from core.decide.study import Study
from core.engines.engines import calibrated_engine
from core.errors import AnalysisError
from core.estimate import loss_function
from core.estimate.interactions import interactions
from core.estimate.metrics import kl_per_sample
from core.estimate.projection import Projector
from core.evidence import reduction
from core.evidence.evidence import Evidence, Outputs
from core.evidence.measure import outputs as reading
from core.evidence.measure.cache import Cache
from core.evidence.measure.keeper import Keeper, keep
from core.evidence.measure.outputs import OutputReader, read
from core.evidence.options import MeasureOptions
from core.evidence.scorers import flips
from core.evidence.scorers.logits import log_softmax
from core.export.report import assemble as reports
from core.export.report import markdown
from core.numerics.precision import INT8
from core.onnx_graph.read_model import from_bytes
from core.onnx_graph.session import open_session
from core.runtime import verify as verifying
from core.runtime.build import assemble
from core.runtime.inference import run
from core.source.contract import ModelSource, model_source
from core.source.onnx_model import OnnxModel
from tests.core.recognizer import recognizer
from tests.zoo.graphs import graph, node

OPTIONS = MeasureOptions(precisions=(INT8,), probes=4)
MAPS = 30
LARGE, STEPS = 20_000, 8
FORCED = 4 * (reduction.FEWEST + 1)
"""Outputs of a sample that make 4 steps of 200 classes too many."""


def _evidence(analysis: Analysis) -> Evidence:
    assert analysis.evidence is not None
    return analysis.evidence


@pytest.fixture(scope="module")
def small() -> ModelSource:
    """200 classes at 4 steps: 800 outputs, kept whole."""
    return recognizer(200, 4, 150, sharp=5.0)


@pytest.fixture(scope="module")
def whole(small: ModelSource) -> Analysis:
    """Its analysis as it is."""
    return analyze(small, OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where finished work of the forced analysis is kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def forced(small: ModelSource, folder: Path) -> Analysis:
    """Its analysis with so little room that distributions are reduced, at every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MAX_OUTPUTS", FORCED)
        return analyze(small, OPTIONS, cache=Cache(folder))


@pytest.fixture(scope="module")
def large() -> ModelSource:
    """20,000 classes at 8 steps."""
    return recognizer(LARGE, STEPS, 36, sharp=6.0)


@pytest.fixture(scope="module")
def reduced(large: ModelSource) -> Analysis:
    """Its analysis, whose partial results name the entries of the samples that they have."""
    partial = list[Analysis]()
    found = analyze(large, replace(OPTIONS, probes=0), on_partial=partial.append)
    assert partial
    for one in partial:
        assert _evidence(one).entries.shape[0] == one.splits.selection  # type: ignore[union-attr]
    return found


def test_a_small_output_is_kept_whole(whole: Analysis, forced: Analysis) -> None:
    """Nothing is reduced that has room, and an analysis without room says what it kept."""
    kept, evidence = _evidence(whole), _evidence(forced)

    assert kept.outputs == Outputs("logits", 4)
    assert kept.entries is None
    assert not any("lower bounds" in note for note in whole.notes)
    assert evidence.outputs == Outputs("logits", 4, 800, 200)
    assert evidence.entries is not None
    assert evidence.entries.shape == (100, 4, reduction.FEWEST)
    assert "32 of 200 classes at all 4 steps, 99." in forced.notes[0]
    assert "lower bounds" in forced.notes[0]
    assert forced.holdout_accuracy == whole.holdout_accuracy


def test_divergences_are_near_lower_bounds(whole: Analysis, forced: Analysis) -> None:
    """Of every layer alone and of 30 random maps the reduced KL is no larger than that of all
    classes, and smaller by no more than the analysis says; order, accuracy and flips are the same.
    """
    all_of_it, kept = (Projector(_evidence(a), "FP32") for a in (whole, forced))
    share = reduction.part_of(_evidence(forced)).share  # type: ignore[union-attr]
    alone = [
        np.array([p.figures(change).kl for change in p.evidence.perturbations[0]])
        for p in (all_of_it, kept)
    ]
    computes = np.flatnonzero(whole.layers.computes)
    ratios = (alone[1] / np.maximum(alone[0], 1e-300))[computes]
    rng = np.random.default_rng(3)
    maps = np.full((MAPS, len(whole.layers)), -1, np.int8)
    maps[:, computes] = rng.integers(0, 2, (MAPS, len(computes)))
    maps[:, computes[0]] |= ~(maps > 0).any(axis=1)
    projected = [[p.project(codes) for codes in maps] for p in (all_of_it, kept)]
    kl = np.array([[found.kl.value for found in row] for row in projected])

    assert 0.99 < share < 1
    assert ratios.max() <= 1 + 1e-6
    assert ratios.min() > 1 - 4 * (1 - share)
    assert all_of_it.form == kept.form
    assert spearmanr(*(a[computes] for a in alone)).statistic == pytest.approx(1)
    assert spearmanr(*kl).statistic > 0.995
    assert np.abs(np.log(kl[1] / kl[0])).mean() < 0.02
    for one, other in zip(*projected, strict=True):
        assert other.accuracy.value == pytest.approx(one.accuracy.value)
        assert other.flips.value == pytest.approx(one.flips.value)


def test_interactions_and_budgets_are_those_of_all_classes(
    whole: Analysis, forced: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q of the reduced distributions is that of all within a few percent, and the map that a budget
    gives costs what the best map over all classes does.
    """
    monkeypatch.setattr(loss_function, "MAX_ELEMENTS", 10**9)  # both look at every sample
    own, other = (interactions(_evidence(a)).matrix for a in (whole, forced))
    assert own is not None
    assert other is not None
    large = np.abs(own) > 0.05 * np.abs(own).max()
    budget = Policy(strategy="budget", budgets=(Budget("size", 0.6, "fraction"),))
    codes = [answer.decide(Study(a), budget).codes for a in (whole, forced)]
    best, chosen = (Study(whole).project(c).kl.value for c in codes)  # type: ignore[union-attr]

    np.testing.assert_allclose(other[large], own[large], rtol=0.08)
    assert chosen == pytest.approx(best, rel=0.02)


def test_margins_look_at_entries_alone(whole: Analysis, forced: Analysis) -> None:
    """The rest, which may hold more than the runner-up, takes no margin."""
    own, other = (flips.per_sample(_evidence(a), "INT8") for a in (whole, forced))
    assert own is not None
    assert other is not None

    np.testing.assert_allclose(other.amounts, own.amounts, rtol=1e-4, atol=1e-9)


def test_the_rest_is_no_answer() -> None:
    """Where all other classes together are likelier than any entry, the likeliest entry is still the
    answer, and its margin is over the next one.
    """
    baseline = np.log(np.array([[0.2, 0.3, 0.5]], np.float32))
    change = np.array([[[[0.1, 0.0, 0.0]]]], np.float32)
    evidence = Evidence(
        ("INT8",), "", baseline, np.array([1]), change, change[0], np.zeros((0, 1), np.int8),
        np.zeros((0, 1, 3), np.float32), np.zeros((1, 1)), np.ones((1, 1), np.bool_),
        Outputs("logits", 1, 20, 20), entries=np.array([[[3, 8]]], np.int32),
    )  # fmt: skip
    projector, lost = Projector(evidence, "FP32"), flips.per_sample(evidence, "INT8")
    assert lost is not None

    assert projector.figures(np.zeros((1, 3))).accuracy == 1
    assert projector.figures(np.array([[0.5, 0, 0]])).flips == 1
    assert lost.amounts[0, 0] == pytest.approx(0.1 / np.log(1.5), rel=1e-5)


def test_reduced_runs_are_taken_up_again(
    small: ModelSource, forced: Analysis, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished runs are found again with their bits, and not by an analysis of all classes."""
    said: list[str] = []
    monkeypatch.setattr(reading, "MAX_OUTPUTS", FORCED)
    again = _evidence(analyze(small, OPTIONS, cache=Cache(folder, say=said.append)))

    assert any("100% of the work found" in sentence for sentence in said)
    for name in ("baseline", "perturbations", "whole", "entries", "targets"):
        assert getattr(again, name).tobytes() == getattr(_evidence(forced), name).tobytes()


def test_the_entries_are_the_likeliest_and_the_targets(
    large: ModelSource, reduced: Analysis
) -> None:
    """Each answer has the largest logits of the model and the target's under their own numbers, and
    the logarithm of the sum of all others; a share of the steps is drawn.
    """
    evidence = _evidence(reduced)
    with torch.no_grad():
        logits = large.model(large.selection.inputs)[:, read(large).asked]
    given = torch.as_tensor(large.selection.targets)[:, read(large).asked]
    kept = torch.from_numpy(evidence.entries).long()  # type: ignore[arg-type]
    baseline = torch.from_numpy(evidence.baseline).unflatten(1, (kept.shape[1], -1))
    rest = logits.scatter(2, kept, -torch.inf)
    targets = torch.from_numpy(evidence.targets)  # type: ignore[arg-type]
    counted = given >= 0

    assert 1 < kept.shape[1] < STEPS
    torch.testing.assert_close(baseline[..., :-1], logits.gather(2, kept))
    torch.testing.assert_close(baseline[..., -1], rest.logsumexp(2))
    assert torch.equal(targets >= 0, counted)
    named = kept.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    assert torch.equal(named[counted], given[counted])
    likeliest = logits.topk(kept.shape[2] - 1).indices
    assert bool((likeliest[..., None] == kept[..., None, :]).any(-1).all())
    assert torch.equal((kept.diff(dim=2) > 0).all(), torch.tensor(True))


def test_the_true_divergence_is_a_little_larger(large: ModelSource, reduced: Analysis) -> None:
    """KL over 20,000 classes of everything in INT8 lies above what was measured, by no more than a
    few percent, and accuracy and changed predictions are those of all classes.
    """
    evidence = _evidence(reduced)
    simulator = calibrated_engine(large, reduced.layers, reduced.rounding, reduced.ranges)
    asked, inputs = read(large).asked, large.selection.inputs
    before, after = (
        simulator.run(chosen, inputs)
        .reshape(len(inputs), STEPS, LARGE)[:, asked]
        .reshape(-1, LARGE)
        for chosen in ({}, dict.fromkeys(reduced.layers.names, INT8))
    )
    rows = torch.as_tensor(large.selection.targets)[:, asked].ravel().numpy()
    counted = rows >= 0
    true = kl_per_sample(log_softmax(before), after)[counted].mean()
    found = Projector(evidence, "FP32").figures(evidence.whole[0])

    assert 0.97 * true < found.kl <= true * (1 + 1e-6)
    assert found.accuracy == pytest.approx((after.argmax(1) == rows)[counted].mean())
    assert found.flips == (after.argmax(1) != before.argmax(1))[counted].sum()
    assert found.flips > 0


def test_what_is_kept_is_said(
    large: ModelSource, reduced: Analysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dry run, `show` and report say how many classes, how many steps and how much of the mass; a
    folder gives back what was saved, and classes have their own numbers.
    """
    store.save(reduced, tmp_path / "a")
    again = store.load(tmp_path / "a")
    evidence, entries = _evidence(again), _evidence(reduced).entries
    assert entries is not None
    words = reduction.in_words(
        evidence.outputs, evidence.baseline.shape[1], reduction.part_of(evidence)
    )
    assert main(["show", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    study = Study(again)
    report = markdown.render(reports.build(study, answer.decide(study, study.default_policy)))
    codes = np.where(again.layers.computes, 1, -1).astype(np.int8)
    found = by_class(study, codes)

    steps = entries.shape[1]
    assert f"{entries.shape[2]} of 20,000 classes at {steps} of 8 steps, 99." in words
    assert f"{entries.shape[2]} of 20,000 classes at {steps} of 8 steps, 99." in shown
    assert words in report
    assert dry_run(large, OPTIONS).outputs.startswith(words.partition(" steps")[0])
    assert again.notes[0].count("20,000") == 1
    assert evidence.outputs == _evidence(reduced).outputs
    np.testing.assert_array_equal(evidence.entries, entries)  # type: ignore[arg-type]
    assert found is not None
    numbers = {int(one.name.removeprefix("class ")) for one in found.classes}
    given = torch.as_tensor(large.selection.targets)[:, read(large).asked]
    assert numbers == set(given[given >= 0].tolist())
    assert found.flips
    rows = np.array([3, 3, 0])
    np.testing.assert_array_equal(resampled(evidence, rows).entries, entries[rows])  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["twice", "too large", "negative", "missing"])
def test_damaged_entries_are_refused(reduced: Analysis, tmp_path: Path, fault: str) -> None:
    """A folder whose entries are no classes of the model is refused by name."""
    store.save(reduced, tmp_path / "a")
    path = tmp_path / "a" / store.ARRAYS / "entries.npy"
    entries = np.load(path)
    if fault == "twice":
        entries[1, 0, 1] = entries[1, 0, 0]
    elif fault == "too large":
        entries[1, 0, -1] = LARGE
    elif fault == "negative":
        entries[1, 0, 0] = -1
    path.unlink()
    if fault != "missing":
        np.save(path, entries)

    with pytest.raises(AnalysisError, match="entries"):
        store.load(tmp_path / "a")


def _reader(form: str) -> OutputReader:
    outputs = Outputs("logits", 2, 400, 100)
    return OutputReader(outputs, (2, 100), None, form=form, steps=(2,), entries=8)  # type: ignore[arg-type]


def test_probabilities_are_reduced_as_their_logits_are() -> None:
    """What a softmax gives is kept as the same distribution as its logits, and probabilities of 0
    stay finite.
    """
    rng = np.random.default_rng(0)
    logits, moved = (rng.normal(0, 2, (5, 200)).astype(np.float32) for _ in range(2))
    chances, other = (
        np.exp(log_softmax(z.reshape(5, 2, 100))).reshape(5, 200).astype(np.float32)
        for z in (logits, moved)
    )
    own, same = _reader("as they are"), _reader("probabilities")
    entries = own.likeliest(logits, None)
    np.testing.assert_array_equal(entries, same.likeliest(chances, None))
    for z, p in ((logits, chances), (moved, other)):
        found = [
            log_softmax(reader.reduce(values, entries).reshape(5, 2, 9))
            for reader, values in ((own, z), (same, p))
        ]
        floored = np.maximum(found[0], np.log(reading.FLOOR))
        np.testing.assert_allclose(floored, found[1], atol=5e-4)
    nothing = np.zeros((5, 200), np.float32)
    nothing[:, [0, 100]] = 1

    assert np.isfinite(same.reduce(nothing, entries)).all()


def test_a_batch_is_held_by_its_own_entries(small: ModelSource) -> None:
    """Entries belong to samples by number, and what a run's outputs come from is not changed."""
    values = np.random.default_rng(1).normal(0, 3, (6, 200)).astype(np.float32)
    before = values.copy()
    reader = _reader("as they are")
    unlabelled = replace(small.selection, targets=None)
    keeper, held = keep(reader, unlabelled, [values[:4], values[4:]])

    assert keeper.hold(values[2:5], slice(2, 5)).tobytes() == held[2:5].tobytes()
    assert keeper.hold_all([values[:1], values[1:]]).tobytes() == held.tobytes()
    np.testing.assert_array_equal(values, before)
    assert Keeper(reader, everything=True).hold(values) is values


def test_flat_distributions_are_not_cut_in_half() -> None:
    """Where fewer than half of the classes do not hold nearly all, whole steps are drawn."""
    reader = read(recognizer(3_000, 5, 12, sharp=0.01))

    assert reader.outputs == Outputs("logits", 1, 15_000)
    assert not reader.entries


def test_a_part_that_is_too_small_is_found_to_be() -> None:
    """A confident answer over a flat rest has the mass and not the divergence: more entries are
    taken, and the analysis is told where no number is enough.
    """
    falling = np.tile(np.exp(-np.arange(5_000)) / np.exp(-np.arange(5_000)).sum(), (4, 1))
    flat = np.full((4, 5_000), 1 / 201 / 4_999)  # all others together have a 200th of the mass
    flat[:, 7] = 200 / 201
    few, enough = reduction.fewest([falling], 5_000, 1_023)
    most, rest = reduction.fewest([flat], 5_000, 1_023)

    assert (few, most) == (reduction.FEWEST, 1_023)
    assert enough.is_enough
    assert rest.mass > reduction.MASS
    assert not rest.is_enough


def test_a_tail_below_the_floor_has_no_mass_of_its_own() -> None:
    """Of a softmax over so many classes that the floor of each would add up, as many entries are
    kept as of the same answers in logits, and so at all steps.
    """
    given = recognizer(20_000, 8, 12, sharp=1000.0)
    softmax = replace(given, model=torch.nn.Sequential(given.model, torch.nn.Softmax(-1)))
    own, same = read(given), read(softmax)

    assert same.form == "probabilities"
    assert (same.entries, same.outputs) == (own.entries, own.outputs)
    assert same.outputs.positions == 8


@pytest.mark.slow
def test_a_built_model_is_judged_by_the_same_entries() -> None:
    """Verification reduces as the analysis does: its KL lies just below that of all classes that
    the runtime gives, and outputs agree with the simulation.
    """
    source = recognizer(2_000, 4, 60, sharp=6.0)
    analysis = analyze(source, replace(OPTIONS, probes=0))
    bench = verifying.prepare(source, analysis)
    chosen = answer.decide(bench.study, Policy(strategy="uniform", uniform="INT8"))
    found = verifying.verify(bench, chosen, rounds=1)
    built = assemble(bench.graph, analysis, chosen)
    inputs, rows = source.selection.inputs, torch.as_tensor(source.selection.targets).ravel()
    before, after = (
        run(session, built, inputs).reshape(-1, 2_000)
        for session in (bench.reference_session, open_session(built.model, built.disabled))
    )
    counted = rows.numpy() >= 0
    true = kl_per_sample(log_softmax(before), after)[counted].mean()
    level = 100 * (analysis.holdout_accuracy or 0) - (found.figures["accuracy_drop_pts"].value or 0)

    assert bench.outputs.shape == (len(bench.split), _evidence(analysis).baseline.shape[1])
    assert 0.97 * true < (found.same_samples["kl"].value or 0) <= true * (1 + 1e-6)
    assert found.figures["accuracy"].value == pytest.approx(level)
    assert (found.agreement_db or 0) > (found.error_db or 0) + 6


@pytest.mark.slow
def test_workers_reduce_alike(large: ModelSource, reduced: Analysis) -> None:
    """Two processes give the bits of one."""
    shared = _evidence(analyze(large, replace(OPTIONS, probes=0, jobs=2)))

    assert shared.perturbations.tobytes() == _evidence(reduced).perturbations.tobytes()


def _as_file(source: ModelSource) -> ModelSource:
    """A recognizer as an ONNX graph, with the same data."""
    names = ("first", "middle", "last", "head")
    state = {n: t.numpy() for n, t in source.model.state_dict().items()}
    weights = {f"{n}.w": np.ascontiguousarray(state[f"{n}.weight"].T) for n in names}
    weights |= {n: state[n] for n in (*(f"{n}.bias" for n in names), "norm.weight", "norm.bias")}

    def linear(name: str, given: str) -> list[NodeProto]:
        product = node("MatMul", f"{given} {name}.w", f"{name}.m", name)
        return [product, node("Add", f"{name}.m {name}.bias", name, f"{name}_add")]

    norms = [
        node("LayerNormalization", f"{given} norm.weight norm.bias", made, made)
        for given, made in (("sum", "n1"), ("last", "n2"))
    ]
    nodes = [
        *linear("first", "x"), node("Relu", "first", "h", "relu"), *linear("middle", "h"),
        node("Relu", "middle", "m", "relu2"), node("Add", "h m", "sum", "sum"), norms[0],
        *linear("last", "n1"), norms[1], *linear("head", "n2"),
    ]  # fmt: skip
    steps = source.selection.inputs.shape[1]
    made = graph(nodes, weights, {"x": ("n", steps, 6)}, ("head",))
    calibration, selection, holdout = source.calibration, source.selection, source.holdout
    assert holdout is not None
    return model_source(
        {"model": OnnxModel(from_bytes(made.SerializeToString(), "recognizer.onnx")),
         "calibration": {"x": calibration.inputs}, "task": "sequence",
         "evaluation": ({"x": selection.inputs}, selection.targets),
         "holdout": ({"x": holdout.inputs}, holdout.targets)}
    )  # fmt: skip


def test_a_files_distributions_are_reduced_too(
    small: ModelSource, large: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's outputs of 200 classes, reduced, have KLs just below those of all classes; of
    20,000 classes at 8 steps no more is kept than of any other output, and a map is verified.
    """
    few = _as_file(small)
    options = replace(OPTIONS, probes=0)
    all_of_it = Projector(_evidence(analyze(few, options)), "FP32")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "MAX_OUTPUTS", FORCED)
        kept = Projector(_evidence(analyze(few, options)), "FP32")
    ratios = [
        other.kl / max(one.kl, 1e-300)
        for one, other in (
            (all_of_it.figures(a), kept.figures(b))
            for a, b in zip(all_of_it.evidence.perturbations[0], kept.evidence.perturbations[0],
                            strict=True)
        ) if one.kl > 0
    ]  # fmt: skip
    source = _as_file(large)
    analysis = analyze(source, options)
    bench = verifying.prepare(source, analysis)
    chosen = answer.decide(bench.study, Policy(strategy="uniform", uniform="INT8"))
    found = verifying.verify(bench, chosen, rounds=1)

    assert 0.9 < min(ratios) <= max(ratios) <= 1 + 1e-6
    assert _evidence(analysis).baseline.shape[1] <= reading.MAX_OUTPUTS
    assert (found.same_samples["kl"].value or 0) > 0
    assert found.error_db is not None
    assert found.agreement_db is None  # the engine is the runtime, so that nothing differs
