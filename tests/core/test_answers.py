"""Outputs as models give them and targets as people have them, read as the answers they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze, dry_run
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import DataError, PolicyError
from core.estimate.loss_function import loss_function
from core.estimate.values import away_from_zero
from core.evidence.evidence import Evidence
from core.evidence.measure.outputs import FLOOR, OutputReader, read
from core.evidence.options import MeasureOptions
from core.evidence.scorers import kl, task_loss
from core.onnx_graph.session import open_session
from core.runtime.build import assemble
from core.runtime.inference import run
from core.runtime.judge import judge
from core.runtime.verify import _measured_totals, prepare
from core.source.contract import ModelSource, model_source

N = 200
FEW = MeasureOptions(probes=2)


class Then(nn.Module):
    """A model and a function of what it gives, with the layers' names left as they are."""

    def __init__(self, inside: nn.Module, function: Any) -> None:
        super().__init__()
        self.inside, self.function = inside, function

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        found: Tensor = self.function(self.inside(x))
        return found


def _flat(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, outputs))


def _map(outputs: int) -> nn.Module:
    """A class for each place of an image: [N, 2, 5, 6] -> [N, C, 5, 6]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, outputs, 1))


def _source(model: nn.Module, targets: Tensor | None, task: str = "classification",
            shape: tuple[int, ...] = (8,), **more: Any) -> ModelSource:  # fmt: skip
    x = torch.randn(N, *shape, generator=torch.Generator().manual_seed(1))
    given = {"model": model, "calibration": x[:40], "evaluation": (x, targets), "task": task}
    return model_source(given | more)


def _classes(*shape: int, classes: int = 4) -> Tensor:
    return torch.randint(0, classes, (N, *shape), generator=torch.Generator().manual_seed(2))


def _evidence(analysis: Analysis) -> Evidence:
    assert analysis.evidence is not None
    return analysis.evidence


def _kl(analysis: Analysis, layer: str) -> float:
    """Mean KL in nats of one layer alone in INT8."""
    found = kl.per_sample(_evidence(analysis), "INT8")
    assert found is not None
    return float(found.amounts[analysis.layers.index[layer]].mean())


SOFTMAX = Then(_flat(4), lambda x: x.softmax(-1))
CASES = {
    "softmax": (_flat(4), lambda x: x.softmax(-1), _classes(), (8,)),
    "log softmax": (_flat(4), lambda x: x.log_softmax(-1), _classes(), (8,)),
    "sigmoid": (_flat(1), lambda x: x.sigmoid(), _classes(classes=2), (8,)),
    "sigmoid for each": (_flat(3), lambda x: x.sigmoid(), _classes(3, classes=2), (8,)),
    "softmax of places": (_map(3), lambda x: x.softmax(1), _classes(5, 6, classes=3), (2, 5, 6)),
    "sigmoid of places": (_map(1), lambda x: x.sigmoid(), _classes(5, 6, classes=2), (2, 5, 6)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_probabilities_have_the_figures_of_their_logits(case: str) -> None:
    """A model that ends in softmax or sigmoid has the KL, gradients and accuracy of its logits."""
    model, function, targets, shape = CASES[case]
    logits = analyze(_source(Then(model, lambda x: 1 * x), targets, shape=shape), FEW)
    chances = analyze(_source(Then(model, function), targets, shape=shape), FEW)

    for layer in ("inside.0", "inside.2"):
        assert _kl(logits, layer) > 0
        assert _kl(chances, layer) == pytest.approx(_kl(logits, layer), rel=1e-2)
        one, other = (a.evidence.local.gradient_error for a in (logits, chances))  # type: ignore[union-attr]
        at = _evidence(logits).position("INT8"), logits.layers.index[layer]
        at_other = at[0], chances.layers.index[layer]
        assert other[at_other] == pytest.approx(one[at], rel=2e-2)
    assert chances.holdout_accuracy == pytest.approx(logits.holdout_accuracy)
    assert any("probabilit" in note for note in chances.notes) == (case != "log softmax")


def test_the_logits_of_a_sigmoid_are_bernoullis() -> None:
    """One logit has the KL of p against q, and the sign of the logit is the class."""
    model, targets = _flat(1), _classes(classes=2)
    source = _source(model, targets)
    evidence = _evidence(analyze(source, FEW))
    at = evidence.position("INT8")
    assert at is not None
    with torch.no_grad():
        z = model(source.selection.inputs)[:, 0].double()
    moved = z + torch.from_numpy(np.diff(evidence.perturbations[at, 0])[:, 0])
    p, q = z.sigmoid(), moved.sigmoid()
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = kl.per_sample(evidence, "INT8")

    assert found is not None
    np.testing.assert_allclose(found.amounts[0], expected, rtol=1e-3, atol=1e-9)
    np.testing.assert_array_equal(evidence.baseline.argmax(1), (z > 0).long())


def test_a_probability_of_zero_costs_what_the_least_one_does() -> None:
    """A probability of exactly 0 has the logarithm of the floor, and none is NaN or infinite."""
    reader = OutputReader(
        read(_source(SOFTMAX, _classes())).outputs, (2,), None, form="probabilities"
    )

    np.testing.assert_allclose(
        reader.keep(np.array([[0.0, 1.0]], np.float32)), [[np.log(FLOOR), 0.0]], atol=1e-7
    )


def test_logits_between_0_and_1_are_taken_for_logits_and_said_to_be() -> None:
    """Outputs in [0, 1] that do not sum to 1 are no probabilities of classes."""
    reader = read(_source(Then(_flat(4), lambda x: x.sigmoid()), _classes()))

    assert reader.form == "as they are"
    assert "do not sum to 1" in reader.notes[0]


def test_a_logit_that_leaves_0_to_1_later_is_a_logit() -> None:
    """Two samples between 0 and 1 prove no probability: more of them are looked at."""

    def mostly(x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] < 2, x.sigmoid(), x * 3)

    assert read(_source(Then(_flat(1), mostly), _classes(classes=2))).form == "one logit"


def _accuracy(outputs: NDArray[np.float32], targets: NDArray[np.int64], classes: int) -> float:
    return float((outputs.reshape(-1, classes).argmax(1) == targets.ravel()).mean())


@pytest.mark.parametrize("task", ["classification", "sequence"])
def test_classes_lie_where_targets_say(task: str) -> None:
    """[N, C, H, W] and [N, H, W, C] with targets [N, H, W] are the same answers, and axis 1 is said."""
    model, targets = _map(3), _classes(5, 6, classes=3)
    first = _source(model, targets, task, (2, 5, 6))
    last = _source(Then(model, lambda x: x.permute(0, 2, 3, 1)), targets, task, (2, 5, 6))
    one, other = read(first), read(last)
    x = first.selection.inputs
    with torch.no_grad():
        outputs = [s.model(x).flatten(1).numpy() for s in (first, last)]

    np.testing.assert_array_equal(one.keep(outputs[0]), other.keep(outputs[1]))
    assert one.outputs.positions == 30
    assert "along axis 1 of the outputs [N, 3, 5, 6]: 30 answers" in one.notes[0]
    assert not other.notes
    for reader in (one, other):
        np.testing.assert_array_equal(
            reader.targets(first.selection), first.selection.targets.flatten(1)
        )


def test_places_beyond_the_bound_are_sampled_whole() -> None:
    """Of a large map whole answers are kept, with the targets that are theirs."""
    model = nn.Conv2d(2, 3, 1)
    source = _source(model, _classes(50, 60, classes=3), shape=(2, 50, 60))
    reader = read(source)
    with torch.no_grad():
        outputs = model(source.selection.inputs)
    kept = reader.keep(outputs.flatten(1).numpy())
    targets = reader.targets(source.selection)
    right = float((outputs.argmax(1) == source.selection.targets).float().mean())

    assert kept.shape[1] == 4095
    assert targets is not None
    assert targets.shape == (len(kept), 1365)
    assert _accuracy(kept, targets, 3) == pytest.approx(right, abs=0.01)


@pytest.mark.parametrize(
    "given",
    [
        lambda y: y[:, None], lambda y: y.float(), lambda y: F.one_hot(y, 4),
        lambda y: F.one_hot(y, 4).float(), lambda y: y.to(torch.uint8),
    ],
    ids=["column", "floats", "one-hot", "one-hot floats", "bytes"],
)  # fmt: skip
def test_classes_are_taken_however_they_are_written(given: Any) -> None:
    """A column, whole floats and one-hot rows name the same classes as integers [N] do."""
    plain, source = (_source(_flat(4), t) for t in (_classes(), given(_classes())))

    np.testing.assert_array_equal(
        read(source).targets(source.selection), read(plain).targets(plain.selection)
    )


def test_each_output_may_decide_for_itself() -> None:
    """Targets of zeros and ones as many as outputs make each a decision; NaN is not counted."""
    targets = _classes(3, classes=2).float()
    targets[::5, 1] = torch.nan
    source = _source(_flat(3), targets)
    analysis = analyze(source, FEW)
    assert source.holdout is not None
    with torch.no_grad():
        said = (source.model(source.holdout.inputs) > 0).float()
    known = ~source.holdout.targets.isnan()

    assert analysis.holdout_accuracy == pytest.approx(
        float((said == source.holdout.targets)[known].float().mean())
    )
    assert any("Each of 3 outputs" in note for note in analysis.notes)


@pytest.mark.parametrize("targets", [["a"] * N, np.zeros(N), [1, 2] * (N // 2)])
def test_targets_that_are_no_tensor_are_named(targets: Any) -> None:
    """Strings, lists and arrays as targets end with what they are and what to give."""
    with pytest.raises(DataError, match=f"hold no tensor, but a {type(targets).__name__}"):
        _source(_flat(4), targets)


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_loader_of_pairs_calibrates_with_its_inputs(evaluated: bool) -> None:
    """Calibration takes the inputs alone of (inputs, targets), and says so."""
    x, y = torch.randn(N, 8), _classes()
    loader = DataLoader(TensorDataset(x, y), 32)
    spec = {"model": _flat(4), "calibration": loader, "task": "classification"}
    source = model_source(spec | ({"evaluation": loader} if evaluated else {}))

    assert torch.equal(source.calibration.inputs, x)  # type: ignore[arg-type]
    assert any("took the inputs alone" in note for note in source.notes)


def test_a_loader_may_fill_the_same_memory_for_each_batch() -> None:
    """Batches are taken as they come, from a loader that overwrites the one before as well."""
    x, y = torch.randn(N, 8), _classes()

    def reusing() -> Iterator[tuple[Tensor, Tensor]]:
        held = torch.empty(32, 8), torch.empty(32, dtype=torch.long)
        for start in range(0, N, 32):
            parts = [t[start : start + 32] for t in (x, y)]
            kept = [h[: len(part)].copy_(part) for h, part in zip(held, parts, strict=True)]
            yield kept[0], kept[1]

    spec = {"model": _flat(4), "task": "classification", "calibration": x, "evaluation": reusing()}
    source = model_source(spec | {"holdout": None})

    assert torch.equal(source.selection.inputs, x)  # type: ignore[arg-type]
    assert torch.equal(source.selection.targets, y)


def test_two_inputs_stay_two() -> None:
    """A model of two arguments is calibrated with both, evaluated or not."""
    model, pair = nn.Bilinear(8, 8, 3), (torch.randn(N, 8), torch.randn(N, 8))
    for more in ({}, {"evaluation": (pair, _classes(classes=3))}):
        source = model_source(
            {"model": model, "calibration": pair, "task": "classification"} | more
        )
        assert isinstance(source.calibration.inputs, tuple)


@pytest.mark.parametrize(
    ("targets", "metric"),
    [
        (_classes(), lambda o, t: float((o.argmax(1) == t).float().mean())),
        ({"y": _classes(), "w": torch.ones(N)},
         lambda o, t: float(((o.argmax(1) == t["y"]) * t["w"]).mean())),
        ((_classes(), torch.ones(N)), lambda o, t: float(((o.argmax(1) == t[0]) * t[1]).mean())),
    ],
    ids=["integers", "dict", "tuple"],
)  # fmt: skip
def test_a_metric_takes_targets_of_any_form(targets: Any, metric: Any) -> None:
    """Targets of a custom metric need not look like outputs, in a forecast and in an analysis."""
    source = _source(_flat(4), targets, "custom", metric=metric, higher_is_better=True)

    dry_run(source, FEW)
    assert analyze(source, FEW).metric.holdout is not None  # type: ignore[union-attr]


def _missing() -> tuple[ModelSource, ModelSource]:
    """A regression with unknown targets: whole samples, and single values of others; and one in
    which the same targets are known, as what the model gives.
    """
    model = _flat(2)
    source = _source(model, torch.randn(N, 2), "regression", holdout=None)
    with torch.no_grad():
        filled = model(source.selection.inputs)
    known = source.selection.targets.clone()
    gaps = torch.zeros(N, 2, dtype=torch.bool)
    gaps[:20], gaps[20:60, 1] = True, True
    holes = torch.where(gaps, torch.nan, known)
    made = [_source(model, t, "regression") for t in (holes, torch.where(gaps, filled, known))]
    return made[0], made[1]


def test_unknown_targets_of_values_are_left_out(tmp_path: Any) -> None:
    """NaN among targets is in no RMSE, no score and no search, and a folder keeps it."""
    source, _ = _missing()
    analysis = analyze(source, FEW)
    targets = source.selection.targets
    with torch.no_grad():
        errors = (source.model(source.selection.inputs) - targets).square()
    folder = tmp_path / "a"
    store.save(analysis, folder)
    study = Study(store.load(folder))
    evidence = study.analysis.evidence
    assert evidence is not None
    rises = task_loss.per_sample(evidence, "INT8")
    loss, _ = loss_function(evidence, "labels")

    assert study.projector.reference_metric == pytest.approx(  # type: ignore[union-attr]
        float(errors.nanmean().sqrt()), rel=1e-5
    )
    assert rises is not None
    assert np.isfinite(rises.amounts).all()
    assert (rises.amounts[:, targets.isnan().all(1).numpy()] == 0).all()
    assert np.isfinite(loss.linear()).all()
    found = study.projector.alone(0, 1)  # type: ignore[union-attr]
    assert found.metric.value is not None
    assert np.isfinite(found.metric.value)
    assert any("targets are NaN" in note for note in analysis.notes)


def test_a_regression_of_zeros_and_ones_says_what_else_there_is() -> None:
    """A logit that is judged by RMSE is told of the task that judges its sign."""
    source = _source(
        Then(_flat(1), lambda x: x.flatten()), _classes(classes=2).float(), "regression"
    )

    assert "judge one logit by its sign" in read(source).notes[0]


def test_a_built_model_of_probabilities_is_verified_as_logits() -> None:
    """Figures of a run, and its decibels, are of the logarithm of what the built model gives."""
    targets = _classes(5, 6, classes=3)
    source = _source(Then(_map(3), lambda x: x.softmax(1)), targets, shape=(2, 5, 6))
    analysis = analyze(source, FEW)
    bench = prepare(source, analysis)
    chosen = answer.decide(bench.study, Policy(strategy="uniform", uniform="INT8"))
    built = assemble(bench.graph, analysis, chosen)
    inputs = source.selection.inputs
    ran = run(open_session(built.model, built.disabled), built, inputs)
    with torch.no_grad():
        p = source.model(inputs).clamp(min=FLOOR).numpy()
    q = np.maximum(ran.reshape(p.shape), FLOOR)
    held = bench.selection_keeper.hold(ran)
    same = judge(
        source, bench.selection_keeper, source.selection, None, bench.selection_outputs, held
    )

    assert same.figures.kl.value == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-2)
    assert bench.study.projector is not None
    projected = bench.study.projector.project(chosen.codes).kl.value
    assert same.figures.kl.value == pytest.approx(projected, rel=0.2)


def _near_zero(kind: str) -> ModelSource:
    """Targets that the model gives itself but for 1e-6, by RMSE or by a metric around 0."""
    model, x = _flat(2), torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        targets = model(x) + 1e-6
    if kind == "RMSE":
        return _source(model, targets, "regression")
    bias = lambda o, t: float((o - t).mean())  # noqa: E731
    return _source(model, targets, "custom", metric=bias, higher_is_better=False)


@pytest.mark.parametrize("kind", ["RMSE", "bias"])
def test_a_reference_near_zero_loses_no_percent(kind: str) -> None:
    """Plan and verification say n/a for a loss in percent of nothing; budgets in its unit work."""
    source = _near_zero(kind)
    analysis = analyze(source, FEW)
    study = Study(analysis)
    chosen = answer.decide(study, Policy(strategy="uniform", uniform="INT8"))
    totals = outcome(study, chosen).totals
    bench = prepare(source, analysis)
    built = assemble(bench.graph, analysis, chosen)
    ran = bench.keeper.hold(run(open_session(built.model), built, bench.split.inputs))
    found = judge(source, bench.keeper, bench.split, analysis.metric, bench.outputs, ran)
    solver, projection = Solver(study), study.project(chosen.codes)

    assert totals["metric"].value is not None
    assert totals["metric_loss_pct"].value is None
    assert "metric_loss_pct" not in _measured_totals(study, found.figures)
    assert "metric" in _measured_totals(study, found.figures)
    change = totals["metric"].value - study.projector.reference_metric  # type: ignore[union-attr, operator]
    assert solver.loss(projection, "metric").value == pytest.approx(change)
    with pytest.raises(PolicyError, match="too near 0"):
        solver.loss(projection, "percent")


@pytest.mark.parametrize(
    ("reference", "sampling", "scale", "expected"),
    [(0.5, 0.01, 1.0, True), (9e-3, 0.0, 1.0, False), (0.01, 0.02, 0.1, False), (0.0, 0, 0, False),
     (-3.0, 0.1, 5.0, True)],
)  # fmt: skip
def test_percent_need_a_metric_away_from_zero(
    reference: float, sampling: float, scale: float, expected: bool
) -> None:
    """A metric below a hundredth of its scale, or within its own range of 0, has no percent."""
    assert away_from_zero(reference, sampling, scale) == expected
