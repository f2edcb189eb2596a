"""Partial results: what is measured so far is usable, and what is not is never taken for harmless."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analysis import analyze as analysing
from core.analysis import store
from core.analysis.analysis import Analysis
from core.cli.main import main
from core.decide import answer
from core.decide.advise.advice import feasibility, recommendations
from core.decide.assess.layer_effect import layer_effect
from core.decide.assess.outcome import outcome
from core.decide.policy.budget import Budget
from core.decide.policy.decision import BY_LACK, BY_OVERRIDE, BY_PIN
from core.decide.policy.policy import Policy
from core.decide.policy.unmeasured import hold_back
from core.decide.stability.resampling import resampled_scores
from core.decide.study import Study
from core.errors import PolicyError
from core.evidence.evidence import Partial
from core.evidence.measure import partial_results
from core.evidence.measure.partial_results import PartialResults
from core.evidence.options import MeasureOptions
from core.export.map import precision_map
from core.export.report import markdown
from core.jobs.progress import Reporter
from core.layers import LayerTable
from tests.core.partial import MEASURED, partial_analysis
from tests.core.small_job import write_model
from tests.core.synthetic import synthetic_analysis, synthetic_layers
from tests.zoo.sources import tiny_source


@pytest.fixture(scope="module")
def study() -> Study:
    """A study of a partial analysis."""
    return Study(partial_analysis())


@pytest.fixture(scope="module", params=[1, 2])
def seen(request: pytest.FixtureRequest) -> tuple[Analysis, list[Analysis]]:
    """A whole analysis and every partial one on the way to it, by one process and by two."""
    found: list[Analysis] = []
    with pytest.MonkeyPatch.context() as patch:  # told after every run, by the measurement itself
        patch.setattr(PartialResults, "_keep", lambda self: None)
        told = PartialResults.look
        patch.setattr(PartialResults, "look", lambda self: (told(self), self._tell())[0])
        whole = analysing.analyze(
            tiny_source(), MeasureOptions(probes=2, jobs=request.param), on_partial=found.append
        )
    return whole, found


def test_partial_evidence_is_the_whole_one_where_it_is_known(
    seen: tuple[Analysis, list[Analysis]],
) -> None:
    """On its samples, each known pair of a partial analysis has the bits of the whole analysis."""
    whole, found = seen
    assert whole.evidence is not None
    assert whole.evidence.measured is None
    assert whole.partial is None
    assert len(found) > 4
    for analysis in found:
        part, evidence = analysis.partial, analysis.evidence
        assert evidence is not None
        assert part is not None
        n = part.samples
        assert analysis.splits.selection == evidence.samples == n <= part.of_samples == 200
        same = (evidence.baseline[:, None] == whole.evidence.baseline).all(axis=-1)
        rows = same.argmax(axis=1)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(evidence.baseline, whole.evidence.baseline[rows])
        known = evidence.measured
        if known is None:
            np.testing.assert_array_equal(evidence.whole, whole.evidence.whole[:, rows])
            np.testing.assert_array_equal(evidence.probes, whole.evidence.probes[:, rows])
            known = np.ones(evidence.allowed.shape, dtype=np.bool_)
        else:
            assert (len(evidence.whole), len(evidence.probes)) == (0, 0)
            assert not evidence.perturbations[~known].any()
        expected = whole.evidence.perturbations[:, :, rows]
        np.testing.assert_array_equal(evidence.perturbations[known], expected[known])
        computes = whole.layers.computes
        assert part.layers == (known.all(axis=0) & computes).sum()
        assert part.of_layers == computes.sum()


def test_partial_analyses_grow(seen: tuple[Analysis, list[Analysis]]) -> None:
    """Each has more layers than the one before, or as many and more samples; the last one lacks only
    single layers. Samples alone may shrink: two processes that are equally far drift apart again.
    """
    parts = [one.partial for one in seen[1] if one.partial is not None]
    grown = [(p.layers, p.samples) for p in parts]

    assert grown == sorted(grown)
    assert {p.samples for p in parts} >= {16, 200}
    assert "first look, 16 of 200 samples" in [p.in_words() for p in parts]
    assert parts[-1].in_words() == "partial, causes not examined yet"
    assert any("of 200 samples" in p.in_words() for p in parts)


class Assembled:
    """Stands for an assembler whose evidence takes a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def partial(self, *given: np.ndarray) -> tuple[np.ndarray, None]:
        """How many runs are done."""
        time.sleep(self.seconds)
        return given[2].sum(), None


def looking(seconds: float) -> tuple[partial_results.PartialResults, list[int], np.ndarray]:
    """Partial results of a measurement, what they tell, and what it has done."""
    told: list[int] = []
    done = np.zeros((500, 1), dtype=np.bool_)
    found = partial_results.PartialResults(Assembled(seconds), lambda e, p: told.append(int(e)))  # type: ignore[arg-type]
    found.watch(np.zeros((500, 1, 1), np.float32), done[:, 0], done, [np.array([0])])
    return found, told, done


@pytest.mark.slow
def test_partial_results_are_told_seldom_and_the_last_one_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hundreds of quick runs are told a few times, in order and with the last; the measurement
    never waits for a slow writer but at its end.
    """
    monkeypatch.setattr(partial_results, "EVERY_S", 0.01)
    monkeypatch.setattr(partial_results, "MOST_SHARE", 0.5)
    watching, told, done = looking(0.05)
    with watching:
        start = time.monotonic()
        for i in range(500):
            done[i] = True
            watching.look()
            time.sleep(0.001)
        took = time.monotonic() - start

    assert told == sorted(told)
    assert told[-1] == 500
    assert 2 <= len(told) <= 2 + took / 0.1


def test_what_comes_before_a_long_run_is_told_during_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is finished right after a telling is told while the next, long one goes on."""
    monkeypatch.setattr(partial_results, "EVERY_S", 0.05)
    watching, told, done = looking(0.0)
    with watching:
        for i in range(3):
            done[i] = True
            watching.look()
        give_up = time.monotonic() + 30
        while 3 not in told and time.monotonic() < give_up:
            time.sleep(0.01)
        during = list(told)
    assert during[-1] == 3


@pytest.mark.parametrize(
    "policy",
    [Policy(), Policy(strategy="top-k", top_k=14), Policy(strategy="manual"),
     Policy(high="INT8", medium="FP16", low="FP16")],
)  # fmt: skip
def test_a_strategy_leaves_unmeasured_layers_as_trained(study: Study, policy: Policy) -> None:
    """Whatever a strategy would choose, a layer that was not measured in it stays in FP32, and
    the map, its reason and the warnings say so.
    """
    chosen = answer.decide(study, policy)
    late = [i for i in range(MEASURED, 14) if study.layers.computes[i]]

    assert late
    assert all(chosen.assigned[i] == "FP32" and chosen.origin[i] == BY_LACK for i in late)
    assert all("not measured yet" in chosen.reason(i) for i in late)
    early = [i for i in range(MEASURED) if study.layers.computes[i]]
    whole = answer.decide(Study(synthetic_analysis(14, samples=40)), policy)
    assert [chosen.assigned[i] for i in early] == [whole.assigned[i] for i in early]
    found = outcome(study, chosen)
    assert f"{len(late)} layers not measured yet stay in FP32." in found.warnings
    assert any(f"of {int(study.layers.computes.sum())} layers are measured so far, on 40 of 200"
               in warning for warning in found.warnings)  # fmt: skip
    assert found.confidence == "partial"


def test_a_projection_before_whole_maps_has_no_range(study: Study) -> None:
    """A map of measured layers has a projected loss, whose range is n/a; the reference's is exact."""
    found = outcome(study, answer.decide(study, Policy()))
    evidence = study.analysis.evidence
    assert evidence is not None
    codes = answer.decide(study, Policy()).codes
    added = sum(
        evidence.perturbations[c - 1, i].astype(np.float64) for i, c in enumerate(codes) if c > 0
    )
    flips = (evidence.baseline + added).argmax(axis=1) != evidence.baseline.argmax(axis=1)

    assert found.totals["flips_pct"].value == pytest.approx(100 * flips.mean())
    for name in ("accuracy", "accuracy_drop_pts", "kl", "flips_pct"):
        quantity = found.totals[name]
        assert quantity.value is not None
        assert (quantity.low, quantity.high) == (None, None)
    reference = outcome(study, answer.decide(study, Policy(strategy="uniform", uniform="FP32")))
    kl = reference.totals["kl"]
    assert (kl.value, kl.low, kl.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("policy", "origin"),
    [
        (Policy(strategy="uniform", uniform="INT8"), 0),
        (Policy(pins=(("block.1[0-3]*", "INT8"),)), BY_PIN),
        (Policy().with_override("block.13.glue", "INT8"), BY_OVERRIDE),
    ],
)
def test_a_persons_word_is_kept_and_nothing_is_projected(
    study: Study, policy: Policy, origin: int
) -> None:
    """A precision that a person names is given to an unmeasured layer too; its figures are n/a."""
    chosen = answer.decide(study, policy)
    late = [i for i in range(MEASURED, 14) if chosen.assigned[i] == "INT8"]

    assert late
    assert {int(chosen.origin[i]) for i in late} == {origin}
    found = outcome(study, chosen)
    for name in ("accuracy", "accuracy_drop_pts", "kl", "flips_pct"):
        assert found.totals[name].value is None
    assert found.totals["size_bytes"].value is not None
    assert any("not measured there yet: nothing is projected" in w for w in found.warnings)
    assert found.forbidden == ()


def test_scores_of_unmeasured_layers_are_not_zero(study: Study) -> None:
    """A scorer that needs every layer measured is n/a meanwhile; rules and weights stay."""
    assert "theory" in study.scores
    assert "weight_error" in study.scores
    assert not {"output_error", "kl", "flips", "task_loss"} & set(study.scores)
    assert study.derived(resampled_scores).scores == {}
    frequency = answer.stability(study, Policy()).of(answer.decide(study, Policy()))
    assert set(frequency[study.layers.computes]) == {1.0}


def test_what_a_layer_does_alone_is_known_or_not(study: Study) -> None:
    """Alone, a measured layer has measured figures with a range; an unmeasured one has none."""
    first = int(np.flatnonzero(study.layers.computes)[0])
    known = layer_effect(study, study.layers.names[first], "INT8", Policy().hardware)
    unknown = layer_effect(study, "block.13.glue", "INT8", Policy().hardware)

    assert known is not None
    assert unknown is not None
    assert (known.alone["kl"].kind, known.alone["kl"].value is None) == ("measured", False)
    assert known.alone["kl"].low is not None
    assert unknown.alone["kl"].value is None
    assert unknown.everything["kl"].value is None


def test_no_verdict_is_reached_on_layers_that_are_unknown(study: Study) -> None:
    """A partial map is never good to ship, and recommendations say that they are rules."""
    chosen = answer.decide(study, Policy())
    verdict = feasibility(study, chosen, outcome(study, chosen))

    assert verdict.feasibility == "cautious"
    assert "Not every layer is measured yet" in verdict.reasons[0]
    for advice in recommendations(study, Policy()):
        assert advice.why == "by rule: not every layer is measured yet"


def test_a_budget_chooses_only_what_was_measured(study: Study) -> None:
    """A tight budget narrows measured layers alone; a rule for an unmeasured one is refused."""
    policy = Policy(strategy="budget", minimise="loss", budgets=(Budget("size", 0.75, "fraction"),))
    chosen = answer.decide(study, policy)

    assert study.unknown is not None
    narrow = np.flatnonzero(chosen.codes > 0)
    assert len(narrow)
    assert not study.unknown[chosen.codes[narrow], narrow].any()
    wholly = study.layers.computes & study.unknown[1:].all(axis=0)
    assert set(chosen.origin[wholly].tolist()) == {BY_LACK}
    with pytest.raises(PolicyError, match=r"block\.13\.glue to INT8, which was not measured yet"):
        answer.decide(study, policy.with_override("block.13.glue", "INT8"))


def by_hand(
    codes: list[int], layers: LayerTable, unknown: np.ndarray, groups: tuple[tuple[int, ...], ...]
) -> list[int]:
    """Hold back layer by layer."""
    held = {i for i, c in enumerate(codes) if c > 0 and unknown[c, i]}
    for group in groups:
        members = {i for i in group if layers.computes[i]}
        if members & held:
            held |= members
    return [0 if i in held else c for i, c in enumerate(codes)]


@settings(max_examples=60)
@given(st.data())
def test_holding_back_is_done_layer_by_layer(data: st.DataObject) -> None:
    """For any codes and any unknown pairs: those of unknown pairs and of their groups become the
    reference, all others stay; many rows at once give what each gives alone.
    """
    count = 9
    groups = ((0, 1, 2), (4, 7))
    layers = LayerTable(synthetic_layers(count).layers, groups=groups)
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    unknown = np.array([[False] * count, data.draw(flags), data.draw(flags)])
    rows = data.draw(
        st.lists(
            st.lists(st.integers(-1, 2), min_size=count, max_size=count), min_size=1, max_size=3
        )
    )
    codes = np.array(rows, dtype=np.int8)
    together = codes.copy()
    hold_back(together, layers, unknown, layers.groups, np.zeros(count, np.int8))

    for row, alone in zip(rows, together, strict=True):
        assert alone.tolist() == by_hand(row, layers, unknown, groups)
    nothing = codes.copy()
    hold_back(nothing, layers, None, layers.groups, np.zeros(count, np.int8))
    np.testing.assert_array_equal(nothing, codes)


def test_a_partial_analysis_is_kept_and_read_back(tmp_path: Path) -> None:
    """The folder holds which pairs are known and how far the measurement was; a damaged mask is
    refused.
    """
    analysis = partial_analysis()
    store.save(analysis, tmp_path / "a")
    found = store.load(tmp_path / "a")

    assert found.partial == analysis.partial == store.partial_of(tmp_path / "a")
    assert analysis.evidence is not None
    assert found.evidence is not None
    np.testing.assert_array_equal(found.evidence.measured, analysis.evidence.measured)
    assert found.evidence.whole.shape == (0, 40, 10)
    policy = Policy()
    assert (
        outcome(Study(found), answer.decide(Study(found), policy)).totals
        == outcome(Study(analysis), answer.decide(Study(analysis), policy)).totals
    )
    store.save(synthetic_analysis(2, samples=4), tmp_path / "b")
    assert store.partial_of(tmp_path / "b") is None
    assert store.partial_of(tmp_path / "nowhere") is None
    np.save(tmp_path / "a" / "arrays" / "measured.npy", np.ones((2, 3), dtype=np.bool_))
    with pytest.raises(store.AnalysisError, match=r"measured\.npy"):
        store.load(tmp_path / "a")


def test_files_of_a_partial_analysis_say_so(study: Study) -> None:
    """Map and report carry the mark, each held layer says why; a map of a whole one has no key."""
    chosen = answer.decide(study, Policy())
    content = json.loads(precision_map.to_json(study, chosen))

    assert content["partial"]["of_samples"] == 200
    assert content["confidence"] == "partial"
    assert {r["set_by"] for r in content["layers"]} == {"strategy", "not measured"}
    again = precision_map.from_json(precision_map.to_json(study, chosen), study)
    np.testing.assert_array_equal(again.codes, chosen.codes)
    np.testing.assert_array_equal(again.origin, chosen.origin)
    report = markdown.to_markdown(study, chosen).decode()
    assert "partial, " in report
    assert "accuracy loss (partial)" in report
    whole = Study(synthetic_analysis(14, samples=40))
    assert "partial" not in json.loads(precision_map.to_json(whole, answer.decide(whole, Policy())))
    read = precision_map.from_json(precision_map.to_json(study, chosen), whole)
    np.testing.assert_array_equal(read.codes, chosen.codes)  # the map stays what it was


def test_the_command_line_shows_and_plans_on_a_partial_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show`, `plan`, `export` and `report` work on what is there and say that it is partial."""
    store.save(partial_analysis(), tmp_path / "a")
    folder, target = str(tmp_path / "a"), str(tmp_path / "map.json")

    assert main(["show", folder]) == 0
    shown = capsys.readouterr().out
    assert main(["plan", folder, "--out", target]) == 0
    planned = capsys.readouterr().out
    assert main(["report", folder, target]) == 0
    reported = capsys.readouterr().out

    for text in (shown, planned, reported):
        assert re.search(r"[Cc]onfidence +[│|] partial +[│|]", text)
        assert "Partial: 8 of 13 layers are measured so far, on 40 of 200 samples." in text
        assert "not measured yet stay in FP32" in text
    assert main(["show", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["partial"]["samples"] == 40


def test_an_analysis_that_is_stopped_leaves_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl+C leaves a partial folder, the next run replaces it with a whole one; a whole one is
    not touched by a run that does not end.
    """
    source = write_model(tmp_path / "mine")
    out = tmp_path / "out"
    command = ["analyze", source, "--out", str(out), "--no-cache", "--precisions", "INT8"]
    step = Reporter.step

    def stop(self: Reporter, done: int, total: int, label: str) -> None:
        step(self, done, total, label)
        if done == 3:  # the baseline and two layers are over
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "step", stop)
        assert main(command) == 1
    assert "stopped" in capsys.readouterr().err
    there = store.load(out)
    assert there.partial == Partial(2, 3, 32, 32)

    assert main(command) == 0
    whole = store.load(out)
    assert whole.partial is None
    before = store.stamp(out)
    with monkeypatch.context() as patch:
        patch.setattr("core.evidence.measure.measure.collect", interrupted)
        assert main(command) == 1
    assert store.stamp(out) == before
    assert store.load(out).partial is None


def interrupted(*_: object, **__: object) -> None:
    """A measurement that is stopped at once."""
    raise KeyboardInterrupt


def test_a_full_disk_costs_partial_results_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where partial results cannot be written it is said once, and the analysis goes on."""
    save, calls = store.save, []

    def failing(analysis: Analysis, folder: Path) -> None:
        calls.append(analysis.partial)
        if analysis.partial is not None:
            raise store.AnalysisError("The disk is full.", "Free some room.")
        save(analysis, folder)

    monkeypatch.setattr(partial_results, "EVERY_S", 0.0)
    monkeypatch.setattr(store, "save", failing)
    source = write_model(tmp_path / "mine")
    assert main(["analyze", source, "--out", str(tmp_path / "out"), "--no-cache"]) == 0

    said = capsys.readouterr().err
    assert said.count("Partial results are not kept: The disk is full.") == 1
    assert [c is None for c in calls] == [False, True]
    assert store.load(tmp_path / "out").partial is None
