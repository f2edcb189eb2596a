"""Loss budgets: which end of a range keeps them, and which of equal answers is given."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest

from core.analysis import store
from core.cli.main import main
from core.decide import answer
from core.decide.advise.advice import feasibility
from core.decide.advise.budget_words import found_in_words
from core.decide.advise.explain import explain
from core.decide.assess.outcome import outcome
from core.decide.policy.budget import BYS, Axis, Budget, By, Unit, bounds_in_words, parse_budgets
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import PolicyError
from core.evidence.evidence import Outputs
from core.export.map import precision_map, session_file
from core.export.map.reproduce import plan_command
from core.quantity import written
from core.task import RMSE
from tests.core.interacting import interacting_analysis, interacting_evidence
from tests.core.synthetic import synthetic_analysis

LAYERS, SAMPLES = 6, 200
SHARES = (0.1, 0.35, 0.7)
"""Limits of loss, as quantiles over all maps."""
GOALS: tuple[Axis, ...] = ("size", "latency")


@cache
def _study(values: bool = False) -> Study:
    """Few layers, perturbed so much that answers change, and changes that do not add up."""
    evidence = interacting_evidence(LAYERS, samples=SAMPLES, seed=3, bent=0.3)
    rng = np.random.default_rng(0)
    wrong = rng.random(SAMPLES) < 0.1
    assert evidence.targets is not None
    evidence = replace(
        evidence, perturbations=evidence.perturbations * 6, whole=evidence.whole * 6,
        probes=evidence.probes * 6,
        targets=np.where(wrong, rng.integers(0, 4, SAMPLES), evidence.targets),
    )  # fmt: skip
    if values:
        targets = (evidence.baseline + rng.normal(size=evidence.baseline.shape)).astype(np.float32)
        evidence = replace(evidence, outputs=Outputs("values"), targets=targets)
    base = synthetic_analysis(LAYERS, measured=False, samples=SAMPLES)
    return Study(replace(base, evidence=evidence, metric=RMSE if values else None))


@cache
def _every_map(study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All maps (M, L) with bytes and milliseconds (M,)."""
    computing = np.flatnonzero(study.layers.computes)
    picked = list(itertools.product(range(len(study.precisions)), repeat=len(computing)))
    codes = np.full((len(picked), len(study.layers)), -1, dtype=np.int8)
    codes[:, computing] = picked
    size = np.array([study.stored_bytes(row) for row in codes], dtype=float)
    return codes, size, study.latency(Policy().hardware).times_ms(codes)


def _asking(amount: float, unit: Unit, by: By, goal: Axis = "size") -> Policy:
    return Policy(strategy="budget", budgets=(Budget("loss", amount, unit, by),), minimise=goal)


def _shown(study: Study, codes: np.ndarray, unit: Unit, by: By) -> float:
    """The end of the range that pages show of a map, straight from its projection."""
    projection = study.project(codes)
    assert projection is not None
    by_value = study.analysis.metric is not None
    found = {
        "metric": projection.accuracy_drop_pts,
        "percent": projection.metric_loss_pct,
        "divergence": projection.relative_mse if by_value else projection.kl,
    }[unit]
    end = found.high if by == "upper" else found.value
    assert end is not None
    return end


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize(
    ("values", "unit"), [(False, "metric"), (False, "divergence"), (True, "percent")]
)
def test_loss_budgets_against_every_map(values: bool, unit: Unit, by: By) -> None:
    """What is found keeps the budget by the end that is shown, nothing that keeps it is smaller
    or faster, and of equally small maps the fastest, of equally fast ones the smallest, is given.
    """
    study = _study(values)
    codes, size, ms = _every_map(study)
    loss = np.array([_shown(study, row, unit, by) for row in codes])
    for share, goal in itertools.product(SHARES, GOALS):
        most = max(float(np.quantile(loss, share)), 0.0)
        least, other = (size, ms) if goal == "size" else (ms, size)
        found = study.derived(Solver).solve(_asking(most, unit, by, goal))
        (k,) = np.flatnonzero((codes == found.found.codes).all(axis=1))

        assert loss[k] <= most * (1 + 1e-9), (share, goal)
        assert found.used["loss"] == pytest.approx(loss[k])
        kept = loss <= most * (1 + 1e-9)
        best = least[kept].min()
        assert least[k] <= best * (1 + 1e-9), (share, goal)
        assert other[k] <= other[kept & (least <= best * (1 + 1e-9))].min() * (1 + 1e-9)


def test_the_projection_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the search's own objective underrates a divergence, what is returned keeps its budget
    all the same, and another map than the reference's is found.
    """
    study = Study(_study().analysis)
    solver = Solver(study)
    monkeypatch.setattr(Solver, "_reach", lambda _self, _by: 0.6)
    monkeypatch.setattr("core.decide.solve.solver.FEW_UNITS", 0)

    found = solver.solve(_asking(0.05, "divergence", "upper"))

    assert _shown(study, found.found.codes, "divergence", "upper") <= 0.05 * (1 + 1e-9)
    assert (found.found.codes > 0).any()


def test_layers_that_lose_alike_get_the_faster_precision() -> None:
    """Under a size budget too: where two precisions change the outputs by nothing, the one in
    which the map is faster is given, else the smaller one.
    """
    analysis = interacting_analysis(6, seed=1)
    assert analysis.evidence is not None
    changes = analysis.evidence.perturbations.copy()
    changes[:, 2:4] = 0
    study = Study(replace(analysis, evidence=replace(analysis.evidence, perturbations=changes)))
    policy = replace(Policy(), strategy="budget", budgets=parse_budgets("size=0.9"))

    found = study.derived(Solver).solve(policy).found

    codes, size, ms = _every_map(study)
    assert found.size <= 0.9 * size.max()
    same = (np.delete(codes, (2, 3), axis=1) == np.delete(found.codes, (2, 3))).all(axis=1)
    best = min(zip(ms[same].round(12), size[same], strict=True))
    assert (round(found.ms, 12), found.size) == best


def test_a_budget_says_what_keeps_it_and_asks_for_the_safer_end() -> None:
    """Text asks for the upper end unless told; a file that does not say was made with the point."""
    said = Budget("loss", 0.5, "metric", "upper")
    old = {"axis": "loss", "amount": 0.5, "unit": "metric"}

    assert parse_budgets("size=0.4, loss=0.5")[1] == said
    assert parse_budgets("loss=0.5", "point") == (replace(said, by="point"),)
    assert msgspec.convert(old, Budget).by == "point"
    assert "upper end of the 90 % range" in bounds_in_words([said])
    assert "(point)" in bounds_in_words([replace(said, by="point")])
    with pytest.raises(PolicyError, match="kept by"):
        replace(said, by="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", BYS)
def test_maps_and_sessions_keep_the_end(by: By) -> None:
    """Both files give the policy back; those from before it was asked are solved by the point."""
    study = _study()
    chosen = answer.decide(study, _asking(3.0, "metric", by))
    raw = precision_map.to_json(study, chosen)
    kept = session_file.entry(study, "Kept", chosen)
    session = session_file.Session(study.analysis.identity, chosen.policy, kept)
    before = json.loads(raw)
    del before["policy"]["budgets"][0]["by"]

    again = precision_map.from_json(raw, study)
    old = precision_map.from_json(json.dumps(before).encode(), study)
    restored = session_file.from_json(session_file.to_json(session), study)

    assert again.policy == restored.policy == chosen.policy
    assert old.policy.budgets[0].by == "point"
    assert np.array_equal(old.codes, chosen.codes)
    assert f"--loss-by={by}" in (plan_command(chosen) or "") or by == "upper"


@pytest.mark.parametrize("by", BYS)
def test_plan_asks_by_either_end(
    by: By, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--loss-by` holds that end of the range, and the answer says which with both figures."""
    folder = tmp_path_factory.mktemp("loss") / "analysis"
    store.save(_study().analysis, folder)

    assert main(["plan", str(folder), "--budget", "loss=3", "--loss-by", by, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["solution"]["budgets"][0]
    assert main(["plan", str(folder), "--budget", "loss=3", "--loss-by", by]) == 0

    assert row["by"] == by
    assert row["used"] == row["loss"]["high" if by == "upper" else "value"] <= 3
    wanted = "upper end of the 90 % range" if by == "upper" else "used (point)"
    assert wanted in " ".join(capsys.readouterr().out.split())


def test_words_name_the_end_and_the_other_figure() -> None:
    """What was found says the end that was held beside the other one; where only ranges leave
    everything as trained, it says from where they reach on these samples.
    """
    study = _study()
    said = {
        (by, amount): found_in_words(study, policy, study.derived(Solver).solve(policy))
        for by, amount in itertools.product(BYS, (0.2, 3.0))
        for policy in [_asking(amount, "metric", by)]
    }

    assert "points of loss by the upper end of the 90 % range, point " in said["upper", 3.0]
    assert "points of loss by the point, 90 % range up to " in said["point", 3.0]
    assert "even a map that changes no answer has a range up to" in said["upper", 0.2]


def test_the_verdict_reads_the_end_of_the_budget() -> None:
    """A map whose point keeps a budget that its range breaks is one to be careful with, unless the
    point was what was asked for: then the verdict reads the point, and says where the range ends.
    """
    study = _study()
    narrow = study.layers.names[0]
    found = {}
    for by in BYS:
        policy = replace(_asking(0.6, "metric", by), overrides=((narrow, "FP16"),))
        chosen = replace(
            answer.decide(study, replace(policy, strategy="manual", high="FP32")), policy=policy
        )
        totals = outcome(study, chosen)
        drop = totals.totals["accuracy_drop_pts"]
        assert drop.value is not None
        assert drop.high is not None
        assert drop.value <= 0.6 < drop.high
        found[by] = feasibility(study, chosen, totals)

    assert any("breaks its budget" in reason for reason in found["upper"].reasons)
    assert not any("breaks its budget" in reason for reason in found["point"].reasons)
    assert not any("may reach" in reason for reason in found["point"].reasons)


def test_the_verdict_reads_a_budget_in_the_metrics_own_unit() -> None:
    """A map that loses more of its metric than the budget allows is one to be careful with, and the
    sentence gives what it loses in the metric's unit, as the solver counts it.
    """
    study = _study(values=True)
    narrow = study.layers.names[0]
    policy = replace(_asking(1e-6, "metric", "point"), overrides=((narrow, "INT8"),))
    chosen = replace(
        answer.decide(study, replace(policy, strategy="manual", high="FP32")), policy=policy
    )
    lost = study.derived(Solver).loss(study.project(chosen.codes), "metric").value
    assert lost is not None
    assert lost > 1e-6

    reasons = feasibility(study, chosen, outcome(study, chosen)).reasons
    assert any(f"breaks its budget: {written(lost, '')} by the point" in said for said in reasons)


def test_explain_holds_alternatives_against_the_end() -> None:
    """What a layer would need of a loss budget in points is said by the end that keeps it."""
    study = _study()
    chosen = answer.decide(study, _asking(3.0, "metric", "upper"))

    found = [explain(study, chosen, name) for name in study.layers.names]

    broken = [e for e in found if any("loss" in a.exceeds for a in e.alternatives)]
    assert broken
    for e in broken:
        for a in e.alternatives:
            row = chosen.codes.copy()
            row[study.layers.index[e.layer]] = study.precisions.index(a.precision)
            assert a.held == pytest.approx(_shown(study, row, "metric", "upper"))
            assert ("loss" in a.exceeds) == ((a.held or 0) > 3.0 * (1 + 1e-9))
    assert any("more loss allowed (by the upper end" in e.flip for e in broken)


def test_a_range_that_is_not_known_keeps_nothing() -> None:
    """Before whole maps were simulated the upper end is refused with the way out; the point works."""
    analysis = interacting_analysis(6)
    assert analysis.evidence is not None
    partly = replace(analysis.evidence, measured=np.ones((2, 6), np.bool_))
    study = Study(replace(analysis, evidence=partly))

    with pytest.raises(PolicyError, match="range of the loss is not known"):
        answer.decide(study, _asking(0.5, "metric", "upper"))
    assert answer.decide(study, _asking(0.5, "metric", "point")).codes.max() >= 0
