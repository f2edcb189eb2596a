"""Figures by task: what is projected, kept, written and said of values and of sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze, dry_run
from core.cli.main import main
from core.decide import answer
from core.decide.advise.advice import feasibility, recommendations
from core.decide.assess.compare import compare, strategy
from core.decide.assess.layer_effect import layer_effect
from core.decide.assess.loss import CLASSES, VALUES, loss_at_most, loss_figures, read_first
from core.decide.assess.outcome import Outcome, outcome, uniform_map
from core.decide.assess.parallel import NARROW_LAYERS, axes
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import AnalysisError, DataError, ModelError
from core.estimate.projection import Projector
from core.estimate.values import ValueProjector
from core.evidence.evidence import Evidence, Outputs
from core.evidence.measure.metric_runs import Judge
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.export.map.checklist import checks
from core.export.map.precision_map import describe, from_json, to_json
from core.export.report import html, markdown
from core.source.batches import answers
from core.source.contract import model_source
from core.source.inventory import take_inventory
from core.task import Metric
from tests.core.synthetic import synthetic_analysis

DEVICE = "server-cpu-vnni"


def _net(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, outputs)
    )


def _mean_absolute_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().mean())


def _share_close(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return ((outputs - targets["y"]).abs() < targets["within"][:, None]).float().mean()


def _spec(**changes: Any) -> dict[str, Any]:
    model = _net()
    x = torch.randn(600, 4)
    y = model(x).detach() + 0.05 * torch.randn(600, 2)
    base = {"model": model, "calibration": torch.randn(80, 4), "evaluation": (x, y)}
    return {**base, "task": "regression", **changes}


def _custom(**changes: Any) -> dict[str, Any]:
    given = {"task": "custom", "metric": _mean_absolute_error, "metric_name": "MAE"}
    return _spec(**given, higher_is_better=False, **changes)


@pytest.fixture(scope="module")
def regression() -> Analysis:
    """A small regression model, measured."""
    return analyze(model_source(_spec()))


@pytest.fixture(scope="module")
def custom() -> Analysis:
    """The same model judged by a person's own metric."""
    return analyze(model_source(_custom()))


def _evidence(analysis: Analysis) -> Evidence:
    assert analysis.evidence is not None
    return analysis.evidence


def _uniform(analysis: Analysis, name: str = "INT8") -> tuple[Study, Outcome]:
    study = Study(analysis)
    return study, outcome(study, uniform_map(study, name, DEVICE))


def test_classifiers_keep_their_totals(tiny_study: Study) -> None:
    """A classifier has the totals it always had, by the same names, and no others."""
    totals = outcome(tiny_study, answer.decide(tiny_study, Policy())).totals

    assert tuple(totals) == ("size_bytes", "latency_ms", *CLASSES.every, "size_reduction_pct",
                             "speedup")  # fmt: skip
    assert isinstance(tiny_study.projector, Projector)
    assert loss_figures(totals) is CLASSES


def test_values_have_their_own_figures_beside(regression: Analysis) -> None:
    """Accuracy, KL and flips are n/a for values, and metric, its loss and relative MSE are known."""
    study, found = _uniform(regression)

    assert isinstance(study.projector, ValueProjector)
    assert all(found.totals[name].value is None for name in CLASSES.every)
    for name in VALUES.every:
        figure = found.totals[name]
        assert figure.kind == "projected"
        assert figure.low is not None
        assert figure.value is not None
        assert figure.high is not None
        assert figure.low < figure.value < figure.high


def test_single_layers_and_uniform_maps_are_exact(regression: Analysis, custom: Analysis) -> None:
    """What was simulated is projected as it was, outputs and a person's metric alike."""
    for analysis in (regression, custom):
        study, evidence = Study(analysis), _evidence(analysis)
        for p, name in enumerate(evidence.precisions, start=1):
            for i in np.flatnonzero(analysis.layers.computes):
                codes = np.zeros(len(analysis.layers), dtype=np.int8)
                codes[i] = p
                _check_exact(study, codes, evidence.perturbations[p - 1, i])
            whole = uniform_map(study, name, DEVICE).codes
            _check_exact(study, whole, evidence.whole[p - 1])


def _check_exact(study: Study, codes: np.ndarray, change: np.ndarray) -> None:
    evidence = _evidence(study.analysis)
    projection = study.project(codes)
    assert projection is not None
    after = evidence.baseline.astype(np.float64) + change
    spread = np.square(evidence.baseline - evidence.baseline.mean(axis=0, dtype=np.float64)).sum()
    moved = np.square(change.astype(np.float64)).sum() / spread
    assert projection.relative_mse.value == pytest.approx(moved, rel=1e-4, abs=1e-12)
    metric = study.analysis.metric
    assert metric is not None
    source = model_source(_spec())
    targets = source.selection.targets.double().numpy()
    if metric.name == "RMSE":
        expected = np.sqrt(np.square(after - targets).mean())
    else:
        expected = np.abs(after - targets).mean()
    assert projection.metric.value == pytest.approx(expected, rel=1e-5)


def test_the_reference_loses_nothing(regression: Analysis, custom: Analysis) -> None:
    """The FP32 map changes nothing, exactly."""
    for analysis in (regression, custom):
        _, found = _uniform(analysis, "FP32")
        for name in ("metric_loss_pct", "relative_mse"):
            figure = found.totals[name]
            assert (figure.value, figure.low, figure.high) == (0.0, 0.0, 0.0)


def test_projected_ranges_hold_simulated_maps() -> None:
    """Maps that no probe has seen fall into the 90 % ranges of the metric mostly."""
    from core.evidence.measure.measure import assignment_of, make_simulator

    source = model_source(_spec())
    study = Study(analyze(source))
    evidence = _evidence(study.analysis)
    simulator = make_simulator(source, study.layers, MeasureOptions())
    rng = np.random.default_rng(99)
    inside = {"metric": 0, "relative_mse": 0}
    for _ in range(20):
        codes = rng.integers(0, len(study.precisions), len(study.layers)).astype(np.int8)
        given = assignment_of(
            (codes - 1).astype(np.int8), study.layers, MeasureOptions().precisions
        )
        outputs = simulator.run(given, source.selection.inputs).astype(np.float64)
        projection = study.project(codes)
        assert projection is not None
        truth = {
            "metric": float(np.sqrt(np.square(outputs - evidence.targets).mean())),
            "relative_mse": np.square(outputs - evidence.baseline).sum() / evidence.spread,
        }
        for name, value in truth.items():
            figure = getattr(projection, name)
            inside[name] += figure.low - 1e-9 <= value <= figure.high + 1e-9

    assert min(inside.values()) >= 15


def test_a_metric_that_points_up_loses_when_it_falls() -> None:
    """A loss is positive where the metric gets worse, whichever way it points."""
    metrics = {"up": (lambda o, t: 1 / _mean_absolute_error(o, t), True),
               "down": (_mean_absolute_error, False)}  # fmt: skip
    losses = {}
    for name, (metric, up) in metrics.items():
        spec = _custom()
        spec |= {"metric": metric, "higher_is_better": up}
        _, found = _uniform(analyze(model_source(spec), MeasureOptions(probes=2)))
        losses[name] = found.totals["metric_loss_pct"].value or 0.0

    assert losses["up"] * losses["down"] > 0
    assert losses["up"] == pytest.approx(losses["down"], rel=0.1)


def test_a_metric_may_take_any_targets() -> None:
    """Targets of a custom task may be a dict; a tensor of one number is a metric's value."""
    spec = _custom()
    x, y = spec["evaluation"]
    spec["evaluation"] = (x, {"y": y, "within": torch.full((600,), 0.05)})
    spec |= {"metric": _share_close, "higher_is_better": True}

    analysis = analyze(model_source(spec), MeasureOptions(probes=2))

    assert analysis.metric is not None
    assert 0.5 < (analysis.metric.holdout or 0) < 0.9
    assert _evidence(analysis).targets is None


def test_a_metric_that_works_in_place_changes_nothing() -> None:
    """Outputs and targets are the metric's own: one that changes them scores every run as one that
    does not, and what is kept of the outputs stays as it was.
    """
    spec = _custom()
    x, y = spec["evaluation"]
    spec["evaluation"] = (x, {"y": y, "beside": [y.clone()]})

    def plainly(outputs: Tensor, targets: dict[str, Any]) -> float:
        return _mean_absolute_error(outputs, targets["y"] + targets["beside"][0])

    def in_place(outputs: Tensor, targets: dict[str, Any]) -> Tensor:
        targets["y"].add_(targets["beside"].pop())
        return outputs.sub_(targets.pop("y")).abs_().mean()

    source = model_source(spec)
    outputs = answers(source.model, source.selection.inputs).numpy()
    before = outputs.copy()
    judge, careless = (Judge(m, read(source), source.selection) for m in (plainly, in_place))

    expected = judge.score(outputs)
    for _ in range(2):
        assert careless.score(outputs) == pytest.approx(expected)
    assert np.array_equal(outputs, before)
    assert judge.score(outputs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda o, t: o.no_such_thing, "The metric failed: AttributeError"),
        (lambda o, t: float("nan"), "The metric is nan"),
        (lambda o, t: "good", "The metric failed: ValueError"),
    ],
)
def test_a_metric_that_fails_is_a_clear_error(metric: Any, message: str) -> None:
    """What the person's function raised is in the message."""
    spec = _custom()
    spec["metric"] = metric

    with pytest.raises(ModelError, match=message):
        analyze(model_source(spec), MeasureOptions(probes=1))


def test_resamples_without_a_value_are_left_out() -> None:
    """A metric that has no value on some resamples keeps the others for its range."""

    def only_with_the_first(outputs: Tensor, targets: Tensor) -> float:
        if not bool((targets == first).all(dim=1).any()):
            raise ValueError("the sample is missing")
        return _mean_absolute_error(outputs, targets)

    spec = _custom(holdout=None)
    first = spec["evaluation"][1][0]
    spec["metric"] = only_with_the_first
    runs = _evidence(analyze(model_source(spec), MeasureOptions(probes=2))).metrics

    assert runs is not None
    assert 1 < len(runs.baseline) < 21
    for array in (runs.baseline, runs.alone, runs.whole, runs.probes):
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("task", "outputs", "targets", "message"),
    [
        ("classification", 3, torch.zeros(600, 2), "needs whole numbers of shape"),
        ("classification", 3, torch.full((600,), 0.5), "targets are fractions"),
        ("classification", 3, torch.full((600, 3), 0.5), "needs 0 and 1, or whole numbers"),
        ("classification", 3, torch.full((600,), 3), "name class 3, but the model outputs 3"),
        ("classification", 3, torch.full((600,), -1), "a class below 0"),
        ("classification", 1, torch.full((600,), 2), "name class 2, but the model outputs 2"),
        ("regression", 2, torch.zeros(600, 3), r"needs values of shape \[N, 2\]"),
        ("regression", 2, torch.full((600, 2), torch.inf), "targets hold infinity"),
        ("sequence", 3, torch.zeros(600, 4), "needs values of shape"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_measuring(
    task: str, outputs: int, targets: Tensor, message: str
) -> None:
    """Task, outputs and targets have to agree; a dry run already says so."""
    spec = _spec(model=_net(outputs), task=task)
    spec["evaluation"] = (spec["evaluation"][0], targets)

    with pytest.raises((DataError, ModelError), match=message):
        dry_run(model_source(spec))


def test_a_sequence_of_values_is_judged_as_values() -> None:
    """Floating targets make a sequence one of values, with RMSE over all steps."""
    torch.manual_seed(0)
    model = nn.GRU(2, 3, batch_first=True)
    x = torch.randn(90, 5, 2)
    y = model(x)[0].detach() + 0.1
    spec = {"model": model, "calibration": x, "evaluation": (x, y), "task": "sequence"}
    analysis = analyze(model_source(spec), MeasureOptions(probes=2))

    assert _evidence(analysis).outputs == Outputs("values")
    assert analysis.metric is not None
    assert analysis.metric.holdout == pytest.approx(0.1, rel=1e-4)


def test_a_range_of_a_sequence_knows_that_steps_go_together() -> None:
    """Steps that flip together say less than as many independent samples."""
    rng = np.random.default_rng(0)
    n, steps = 200, 8
    analysis = synthetic_analysis(4, samples=n)
    logits = rng.normal(size=(n, 1, 3)).repeat(steps, axis=1).astype(np.float32)
    change = rng.normal(size=(n, 1, 3)).repeat(steps, axis=1).astype(np.float32)
    flat = logits.reshape(n, -1)
    evidence = replace(
        _evidence(analysis),
        baseline=flat,
        targets=logits.argmax(2).astype(np.int64),
        perturbations=np.zeros((2, 4, n, 3 * steps), np.float32),
        whole=np.stack([change.reshape(n, -1)] * 2),
        probes=np.zeros((0, n, 3 * steps), np.float32),
        probe_codes=np.zeros((0, 4), np.int8),
        outputs=Outputs("logits", steps),
    )
    apart = replace(
        evidence, baseline=logits.reshape(-1, 3), targets=logits.argmax(2).ravel(),
        perturbations=np.zeros((2, 4, n * steps, 3), np.float32),
        whole=np.stack([change.reshape(-1, 3)] * 2), probes=np.zeros((0, n * steps, 3), np.float32),
        outputs=Outputs(),
    )  # fmt: skip
    together, independent = (Projector(e, "FP32").figures(e.whole[0]) for e in (evidence, apart))

    assert together.drop_pts == independent.drop_pts
    assert together.kl == pytest.approx(independent.kl)
    assert together.cluster_variance is not None
    share = independent.lost / (n * steps)
    assert together.cluster_variance == pytest.approx(share * (1 - share) / n, rel=0.01)
    assert independent.cluster_variance is None


def test_a_step_that_is_not_counted_is_in_no_figure() -> None:
    """Whatever happens at a step whose target is below 0, nothing is said of it."""
    analysis = synthetic_analysis(3, samples=100)
    evidence = _evidence(analysis)
    targets = np.stack([evidence.targets % 5, np.full(100, -100)], axis=1)  # type: ignore[operator]
    given = replace(evidence, targets=targets, outputs=Outputs("logits", 2))
    change = np.zeros((100, 10), np.float32)
    change[:, 5:] = np.random.default_rng(0).normal(size=(100, 5)) * 9

    found = Projector(given, "FP32").figures(change)

    assert (found.kl, found.flips, found.drop_pts) == (0.0, 0, 0.0)


@pytest.mark.parametrize("name", ["regression", "custom"])
def test_folders_hold_values_and_metrics(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is written is read back to the same figures, without torch's help."""
    analysis = request.getfixturevalue(name)
    store.save(analysis, tmp_path / "a")
    again = store.load(tmp_path / "a")

    assert again.metric == analysis.metric
    assert _evidence(again).outputs == _evidence(analysis).outputs
    assert _uniform(again)[1].totals == _uniform(analysis)[1].totals


def test_older_folders_are_read_as_classifiers(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """A folder without the newer fields holds logits of one answer per sample."""
    store.save(tiny_analysis, tmp_path / "a")
    path = tmp_path / "a" / store.FILE
    content = json.loads(path.read_text())
    for key in ("metric", "outputs", "optimistic"):
        del content[key]
    del content["layers"]["groups"]
    for layer in content["layers"]["layers"]:
        for tensor in layer["tensors"]:
            del tensor["channel_axis"]
    path.write_text(json.dumps(content))

    again = store.load(tmp_path / "a")

    assert again.metric is None
    assert not again.optimistic
    assert _evidence(again).outputs == Outputs()


def _with(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with("outputs", {"kind": "values", "positions": 0, "total": 0}), "0 equal steps"),
        (_with("outputs", {"kind": "values", "positions": 5, "total": 0}), "5 equal steps"),
        (_with("outputs", {"kind": "logits", "positions": 1, "total": 0}), "targets.npy holds"),
        (_with("outputs", {"kind": "pictures"}), "cannot be read"),
        (lambda c: c["layers"].update(groups=[[0, 99]]), "a group has a layer that is not there"),
    ],
)
def test_damaged_folders_are_refused(
    change: Callable[[dict[str, Any]], None], message: str, regression: Analysis, tmp_path: Path
) -> None:
    """A reading that does not fit the arrays is one clear error."""
    store.save(regression, tmp_path / "a")
    path = tmp_path / "a" / store.FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

    with pytest.raises(AnalysisError, match=message):
        store.load(tmp_path / "a")


def test_maps_of_values_round_trip(regression: Analysis) -> None:
    """A map carries the figures of its task and is read back for its model."""
    study = Study(regression)
    chosen = uniform_map(study, "INT8", DEVICE)
    totals = describe(study, chosen).totals

    assert set(VALUES.every) <= set(totals)
    assert from_json(to_json(study, chosen), study).assigned == chosen.assigned


def test_reports_speak_of_the_metric(custom: Analysis) -> None:
    """Tables and cards name the person's metric; KL and accuracy of classes are not mentioned as
    figures; every figure says that it is projected.
    """
    study = Study(replace(custom, notes=("Something to know.",)))
    chosen = uniform_map(study, "INT8", DEVICE)
    text = markdown.to_markdown(study, chosen).decode()
    page = html.to_html(study, chosen).decode()

    for said in ("| MAE |", "on the selection split", "loss in MAE", "relative MSE of the outputs",
                 "MAE in FP32, holdout split (lower is better)", "Something to know."):  # fmt: skip
        assert said in text
    assert "KL divergence |" not in text
    assert '"judged":[{"name":"metric_loss_pct","title":"loss in MAE"' in page


def test_verdicts_and_advice_follow_the_loss(regression: Analysis) -> None:
    """A loss in percent of the metric is held against the same cut-offs as points of accuracy."""
    study, found = _uniform(regression)
    chosen = uniform_map(study, "INT8", DEVICE)

    def verdict(loss: float) -> tuple[str, str]:
        figure = replace(found.totals["metric_loss_pct"], value=loss, low=loss, high=loss)
        given = replace(found, totals={**found.totals, "metric_loss_pct": figure,
                                       "speedup": replace(found.totals["speedup"], value=2.0)})  # fmt: skip
        result = feasibility(study, chosen, given)
        return result.feasibility, result.reasons[0]

    assert verdict(0.4)[0] == "proceed"
    assert verdict(2.0)[0] == "cautious"
    assert verdict(7.0) == ("avoid", "The projected loss may reach 7.00 %.")
    assert all("1 %" in r.why or "2 %" in r.why or "0.5 %" in r.why
               for r in recommendations(study, Policy()))  # fmt: skip


def test_strategies_of_values_are_compared_by_their_loss(regression: Analysis) -> None:
    """FP16 beats FP32 in no loss, and a map dominates by metric loss, then by relative MSE."""
    study = Study(regression)
    maps = [strategy(study, name, uniform_map(study, name, DEVICE)) for name in study.precisions]

    found = compare(maps, "FP32")

    # Four bytes of scale a channel make INT8 of so small a net larger than FP16.
    assert "FP16" in found.fronts["size"]
    for one in found.dominances:
        loser, winner = (next(m for m in maps if m.name == n) for n in (one.loser, one.winner))
        # A gain counts as no loss.
        losses = [max(m.outcome.totals["metric_loss_pct"].value or 0.0, 0.0)
                  for m in (loser, winner)]  # fmt: skip
        assert losses[1] <= losses[0]


def test_without_labels_the_changed_predictions_bound_the_loss() -> None:
    """A classifier without labels has no accuracy, keeps KL and flips, says that it is optimistic,
    and is judged by the predictions that change; values without labels have no bound.
    """
    classes = _spec(model=_net(3), task="classification")
    del classes["evaluation"]
    study, found = _uniform(analyze(model_source(classes), MeasureOptions(probes=2)))
    verdict = feasibility(study, uniform_map(study, "INT8", DEVICE), found)

    assert found.totals["accuracy"].value is None
    assert found.totals["kl"].value is not None
    assert loss_at_most(found.totals) == found.totals["flips_pct"].high
    assert any(warning.startswith("Optimistic") for warning in found.warnings)
    assert "unknown without labels" in verdict.reasons[0]

    values = _spec()
    del values["evaluation"]
    study, found = _uniform(analyze(model_source(values), MeasureOptions(probes=2)))
    chosen = uniform_map(study, "INT8", DEVICE)
    verdict = feasibility(study, chosen, found)

    assert loss_at_most(found.totals) is None
    assert verdict.feasibility == "cautious"
    assert "Without labels no loss is known" in verdict.reasons[0]
    assert (
        "relative MSE of the outputs (optimistic)" in markdown.to_markdown(study, chosen).decode()
    )


def test_labels_are_not_needed_for_a_split_of_its_own() -> None:
    """Evaluation inputs without targets are measured, and are not optimistic."""
    spec = _spec(model=_net(3), task="classification", holdout=None)
    spec["evaluation"] = (spec["evaluation"][0], None)

    analysis = analyze(model_source(spec), MeasureOptions(probes=1))

    assert not analysis.optimistic
    assert analysis.splits.selection == 600
    assert _evidence(analysis).targets is None


def test_groups_move_together(regression: Analysis) -> None:
    """A group takes the widest precision of its layers; a pin of one layer beats the group."""
    layers = replace(regression.layers, groups=((0, 4),))
    study = Study(replace(regression, layers=layers))
    free = Study(regression)
    first, last = layers.names[0], layers.names[4]
    policy = Policy(strategy="top-k", top_k=1, weights=(("output_error", 1.0),))
    alone, grouped = answer.decide(free, policy).by_layer, answer.decide(study, policy).by_layer

    for k in range(6):
        chosen = answer.decide(study, replace(policy, top_k=k)).by_layer
        assert chosen[first] == chosen[last]
    if "INT8" in (alone[first], alone[last]):
        assert grouped[first] == grouped[last] == "FP16"
    pinned = answer.decide(study, replace(policy, pins=((first, "FP32"),))).by_layer
    assert pinned[first] == "FP32"
    assert pinned[last] == grouped[last]
    assert "group" in answer.decide(study, policy).reason(0)


@pytest.mark.parametrize("rule", ["pins", "overrides"])
def test_a_rule_that_splits_a_group_is_reported(rule: str, regression: Analysis) -> None:
    """A pin or an override of one layer wins over its group, and map, outcome and checklist say
    which layers no longer share a precision; a rule for all of them splits nothing.
    """
    layers = replace(regression.layers, groups=((0, 4),))
    study = Study(replace(regression, layers=layers))
    first, last = layers.names[0], layers.names[4]
    whole = Policy(strategy="uniform", uniform="INT8")
    one = answer.decide(study, replace(whole, **{rule: ((first, "FP32"),)}))
    both = answer.decide(study, replace(whole, **{rule: ((first, "FP32"), (last, "FP32"))}))

    said = f"A rule splits layers that have to share one precision: {first} FP32, {last} INT8."
    assert one.split_groups == ((0, 4),)
    assert said in outcome(study, one).warnings
    found = {check.title: check for check in checks(study, one, outcome(study, one))}
    assert found["Pins and overrides"].status == "warning"
    assert said in found["Pins and overrides"].detail
    assert said not in found["Other warnings"].detail
    assert both.split_groups == answer.decide(study, whole).split_groups == ()
    assert not any("splits" in warning for warning in outcome(study, both).warnings)


def test_a_group_with_a_layer_that_does_nothing_is_not_split(tiny_study: Study) -> None:
    """A layer without a precision takes no part in what its group shares."""
    analysis = synthetic_analysis(30, samples=20)
    idle = int(np.flatnonzero(~analysis.layers.computes)[0])
    layers = replace(analysis.layers, groups=((0, idle, idle + 1),))
    chosen = answer.decide(Study(replace(analysis, layers=layers)), Policy())

    assert chosen.assigned[idle] is None
    assert chosen.assigned[0] == chosen.assigned[idle + 1]
    assert chosen.split_groups == ()
    assert layers.beside(0) == (layers.names[idle], layers.names[idle + 1])
    assert layers.beside(2 + idle) == ()
    assert tiny_study.layers.group_of == {}


def test_what_is_known_is_read_first(regression: Analysis) -> None:
    """A loss comes first where labels tell it; without labels how far the outputs move."""

    def first(analysis: Analysis) -> tuple[str, ...]:
        return read_first(_uniform(analysis, "FP32")[1].totals)

    def bare(analysis: Analysis) -> Analysis:
        return replace(analysis, evidence=replace(_evidence(analysis), targets=None))

    classes = synthetic_analysis(4, samples=20)
    assert first(regression) == ("metric_loss_pct", "relative_mse")
    assert first(bare(regression)) == ("relative_mse", "metric_loss_pct")
    assert first(classes) == ("accuracy_drop_pts", "kl", "flips_pct")
    assert first(bare(classes)) == ("kl", "flips_pct", "accuracy_drop_pts")
    assert first(replace(classes, evidence=None)) == first(classes)


@pytest.mark.parametrize(
    ("groups", "message"),
    [([["0", "ghost"]], "'ghost', which is no layer"), ([["0", "2"], ["2", "4"]], "'2' twice")],
)
def test_groups_name_layers_once(groups: list[list[str]], message: str) -> None:
    """A name that is no layer, or is in two groups, is refused."""
    with pytest.raises(ModelError, match=message):
        take_inventory(model_source(_spec(groups=groups)))


def test_a_subsample_is_the_same_every_time() -> None:
    """Which outputs are kept depends on their number alone; steps are kept whole."""
    torch.manual_seed(0)
    model = nn.Linear(2, 3000)
    x = torch.randn(12, 5, 2)
    spec = {"model": model, "calibration": x, "task": "sequence"}
    reader = read(model_source(spec))

    assert reader.outputs == Outputs("logits", 1, 15_000)
    assert reader.kept is not None
    assert len(reader.kept) == 3000
    assert reader.kept[0] % 3000 == 0
    np.testing.assert_array_equal(np.diff(reader.kept), 1)
    np.testing.assert_array_equal(reader.kept, read(model_source(spec)).kept)


def test_a_metric_is_described() -> None:
    """RMSE points down and is of the targets' own unit."""
    from core.task import RMSE

    assert Metric("RMSE", higher_is_better=False) == RMSE


def test_the_command_line_shows_the_metric(
    custom: Analysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show` and `compare` print the figures of the task."""
    folder = str(tmp_path / "a")
    store.save(custom, tmp_path / "a")

    assert main(["show", folder]) == 0
    assert main(["compare", folder, "all-int8", "all-fp16"]) == 0
    out = capsys.readouterr().out
    assert out.count("loss in MAE") == 2
    assert "KL divergence" not in out


@pytest.mark.parametrize("name", ["regression", "custom"])
def test_one_layer_alone_is_what_was_simulated(name: str, request: pytest.FixtureRequest) -> None:
    """Its figures are those of its stored outputs or scores, and are called measured."""
    analysis = request.getfixturevalue(name)
    study, evidence = Study(analysis), _evidence(analysis)
    i, at = 2, evidence.precisions.index("INT8")
    effect = layer_effect(study, analysis.layers.names[i], "INT8", DEVICE)
    assert effect is not None
    moved = np.square(evidence.perturbations[at, i].astype(np.float64)).sum(axis=1)
    relative = effect.alone["relative_mse"]

    assert {effect.alone[key].kind for key in VALUES.every} == {"measured"}
    assert relative.value == pytest.approx(moved.sum() / evidence.spread, rel=1e-6)
    half = 1.6449 * moved.std(ddof=1) * np.sqrt(len(moved)) / evidence.spread
    assert (relative.high or 0) - (relative.value or 0) == pytest.approx(half, rel=1e-3)
    if evidence.metrics is not None:
        expected = evidence.metrics.alone[at, i, 0]
    else:
        after = evidence.baseline.astype(np.float64) + evidence.perturbations[at, i]
        expected = np.sqrt(np.square(after - evidence.targets).mean())
    assert effect.alone["metric"].value == pytest.approx(expected, rel=1e-6)
    for figure in (effect.alone["metric"], effect.alone["metric_loss_pct"]):
        assert figure.low is not None
        assert figure.low < (figure.value or 0.0) < (figure.high or 0.0)


def test_values_have_parallel_axes_of_their_own(regression: Analysis) -> None:
    """Axes are the loss of the metric and the relative MSE, not figures that are n/a."""
    study = Study(regression)
    maps = [strategy(study, name, uniform_map(study, name, DEVICE)) for name in study.precisions]

    names = [axis.name for axis in axes(maps, "INT8")]

    assert names == ["size_bytes", "latency_ms", "metric_loss_pct", "relative_mse", NARROW_LAYERS]
