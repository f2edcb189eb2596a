"""One contract for every scorer, and what each says of cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analysis import store
from core.analysis.analysis import Analysis
from core.decide.study import Study
from core.estimate.metrics import kl_per_sample
from core.evidence.evidence import Evidence, Outputs
from core.evidence.layer_alone import AXES, LocalStatistics
from core.evidence.scorers import SCORERS, sample_table, score_table
from core.evidence.scorers.contract import Scorer, decades_to_score, sqnr_to_score
from core.evidence.scorers.flips import per_sample as flips
from core.evidence.scorers.kl import per_sample as divergence
from core.evidence.scorers.logits import log_softmax
from core.evidence.scorers.task_loss import per_sample as task_loss
from core.layers import LayerTable
from core.source import samples
from tests.core.synthetic import synthetic_evidence, synthetic_layers

LAYERS = synthetic_layers(28)
CLASSES = synthetic_evidence(LAYERS, 60, 12)
STEPS = replace(
    CLASSES, outputs=Outputs("logits", 3),
    targets=np.tile(np.array([0, 3, -1]), (60, 1)).astype(np.int64),
)  # fmt: skip
VALUES = replace(
    CLASSES, outputs=Outputs("values"), targets=(CLASSES.baseline + 1).astype(np.float32)
)
KINDS = {"classes": CLASSES, "steps": STEPS, "values": VALUES}


def reordered(evidence: Evidence, order: np.ndarray) -> Evidence:
    """`evidence` with its layers in another order."""
    assert evidence.local is not None
    local = {
        name: None if (array := getattr(evidence.local, name)) is None else array[..., order]
        for name in AXES
    }
    return replace(
        evidence,
        perturbations=evidence.perturbations[:, order],
        weight_sqnr_db=evidence.weight_sqnr_db[:, order],
        allowed=evidence.allowed[:, order],
        probe_codes=evidence.probe_codes[:, order],
        local=LocalStatistics(**local),
    )


def louder(evidence: Evidence, factor: float) -> Evidence:
    """`evidence` with every rounding error `factor` times as large."""
    local = evidence.local
    assert local is not None
    assert local.gradient_error is not None
    assert local.trace_error is not None
    return replace(
        evidence,
        perturbations=evidence.perturbations * np.float32(factor),
        weight_sqnr_db=evidence.weight_sqnr_db - 20 * np.log10(factor),
        local=replace(
            local,
            gradient_error=local.gradient_error * factor**2,
            trace_error=local.trace_error * factor**2,
        ),
    )


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("kind", KINDS)
def test_the_contract(scorer: Scorer, kind: str) -> None:
    """Scores are finite, deterministic, in [0, 1], one per layer, and free of layer order; what a
    scorer cannot say is absent, and a forbidden or silent layer is no surprise.
    """
    evidence = KINDS[kind]
    order = np.random.default_rng(0).permutation(len(LAYERS))
    shuffled = LayerTable(tuple(LAYERS.layers[i] for i in order))

    score = scorer.score(LAYERS, evidence, "INT8")
    again = scorer.score(LAYERS, evidence, "INT8")
    permuted = scorer.score(shuffled, reordered(evidence, order), "INT8")

    if score is None:
        assert any(s.score(LAYERS, e, "INT8") is not None for e in KINDS.values() for s in [scorer])
        assert permuted is None
        return
    assert again is not None
    assert permuted is not None
    assert score.shape == (len(LAYERS),)
    assert np.isfinite(score).all()
    assert ((score >= 0) & (score <= 1)).all()
    np.testing.assert_array_equal(score, again)
    np.testing.assert_allclose(score[order], permuted, rtol=1e-12)


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("kind", KINDS)
def test_a_score_looks_at_its_own_layer_alone(scorer: Scorer, kind: str) -> None:
    """A layer's score is the same with all other layers taken away: no scaling by the model."""
    evidence = KINDS[kind]
    order = np.array([5, 17])
    score = scorer.score(LAYERS, evidence, "INT8")
    if score is None:
        return

    pair = LayerTable(tuple(LAYERS.layers[i] for i in order))
    alone = scorer.score(pair, reordered(evidence, order), "INT8")

    assert alone is not None
    np.testing.assert_allclose(alone, score[order], rtol=1e-12)


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("kind", KINDS)
def test_more_error_is_never_a_lower_score(scorer: Scorer, kind: str) -> None:
    """Twice the rounding error lowers no score, and raises every measured one between the ends."""
    evidence = KINDS[kind]
    before = scorer.score(LAYERS, evidence, "INT8")
    after = scorer.score(LAYERS, louder(evidence, 2.0), "INT8")
    if before is None or after is None:
        assert before is after
        return

    assert (after >= before).all()
    if scorer.kind in {"measured", "projected"} or scorer.name == "weight_error":
        between = (before > 0) & (before < 1)
        assert between.any()
        assert (after[between] > before[between]).all()


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda s: s.name)
def test_without_evidence_only_priors_speak(scorer: Scorer) -> None:
    """Before anything was measured every other scorer is absent, and says what it needs."""
    score = scorer.score(LAYERS, None, "INT8")

    assert (score is not None) == (scorer.kind == "prior")
    assert scorer.needs
    assert (scorer.needs == "nothing") == (scorer.kind == "prior")


def test_a_forbidden_layer_scores_one_wherever_it_was_measured() -> None:
    """Outputs that were not finite are as sensitive as can be."""
    allowed = CLASSES.allowed.copy()
    allowed[1, 4] = False
    table = score_table(LAYERS, replace(CLASSES, allowed=allowed), "INT8")

    measured = [name for name, scorer in SCORERS.items() if scorer.kind == "measured"]
    assert measured
    assert [name for name in measured if table[name][4] != 1] == []


def test_values_have_no_flips_and_unlabelled_data_no_task_loss() -> None:
    """What data cannot tell is left out of the table, never 0."""
    assert "flips" not in score_table(LAYERS, VALUES)
    assert "task_loss" in score_table(LAYERS, VALUES)
    assert "task_loss" not in score_table(LAYERS, replace(CLASSES, targets=None))
    assert "output_error" not in score_table(LAYERS, CLASSES, "FP32")


@given(seed=st.integers(0, 2**16), factor=st.floats(1.0, 50.0), steps=st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_figures_of_a_sample_grow_with_the_error(seed: int, factor: float, steps: int) -> None:
    """KL, lost margin and loss rise are monotone in the size of a change, sample by sample."""
    rng = np.random.default_rng(seed)
    evidence = replace(
        STEPS if steps == 3 else CLASSES,
        perturbations=rng.normal(size=(2, 3, 60, 12)).astype(np.float32),
        allowed=np.ones((2, 3), np.bool_),
    )
    more = replace(evidence, perturbations=evidence.perturbations * np.float32(factor))

    for figure in (divergence, flips, task_loss):
        small, large = figure(evidence, "INT8"), figure(more, "INT8")
        assert small is not None
        assert large is not None
        assert (large.amounts >= small.amounts - 1e-6).all()


def test_divergence_is_the_kl_of_the_projection() -> None:
    """The scorer's KL is what `estimate` computes for the same outputs."""
    found = divergence(CLASSES, "INT8")
    assert found is not None
    reference = log_softmax(CLASSES.baseline)

    for layer in (0, 7, 27):
        outputs = CLASSES.baseline.astype(np.float64) + CLASSES.perturbations[1, layer]
        np.testing.assert_allclose(
            found.amounts[layer], kl_per_sample(reference, outputs), atol=1e-12
        )


def test_lost_margin_is_worked_out() -> None:
    """Half the margin lost is 0.5, a flip 1, a wider margin 0; it is no less than the flips."""
    baseline = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], np.float32)
    change = np.array([[-1.0, 0.0], [-1.0, 1.5], [1.0, 0.0]], np.float32)
    evidence = replace(
        CLASSES, baseline=baseline, perturbations=change[None, None].repeat(2, 0),
        allowed=np.ones((2, 1), np.bool_), targets=None,
    )  # fmt: skip

    found = flips(evidence, "INT8")

    assert found is not None
    np.testing.assert_allclose(found.amounts, [[0.5, 1.0, 0.0]])
    share = flips(louder(CLASSES, 30.0), "INT8")
    assert share is not None
    outputs = CLASSES.baseline + 30 * CLASSES.perturbations[1]
    flipped = outputs.argmax(-1) != CLASSES.baseline.argmax(-1)
    assert flipped.any()
    assert (share.amounts >= flipped).all()


def test_task_loss_counts_harm_alone() -> None:
    """A sample whose loss falls adds nothing; a step below class 0 is not counted."""
    baseline = np.zeros((2, 2), np.float32)
    change = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    evidence = replace(
        CLASSES, baseline=baseline, perturbations=change[None, None].repeat(2, 0),
        allowed=np.ones((2, 1), np.bool_), targets=np.array([0, 1]),
    )  # fmt: skip

    found = task_loss(evidence, "INT8")
    assert found is not None
    np.testing.assert_allclose(found.amounts, [[0.0, np.log1p(np.e) - np.log(2)]])

    uncounted = task_loss(STEPS, "INT8")
    assert uncounted is not None
    assert (uncounted.bases == 2).all()


def test_squared_errors_are_held_against_the_targets_spread() -> None:
    """For values the rise is that of the squared error over the variation of the targets."""
    found = task_loss(VALUES, "INT8")
    assert found is not None
    assert VALUES.targets is not None
    outputs = VALUES.baseline.astype(np.float64)
    before = np.square(outputs - VALUES.targets).sum(1)
    after = np.square(outputs + VALUES.perturbations[1, 9] - VALUES.targets).sum(1)

    np.testing.assert_allclose(found.amounts[9], np.maximum(after - before, 0), atol=1e-5)
    deviation = VALUES.targets - VALUES.targets.mean(0, dtype=np.float64)
    assert found.bases.sum() == pytest.approx(np.square(deviation).sum())


def test_mappings_are_fixed() -> None:
    """Ends and middle of the two scales."""
    db = sqnr_to_score(np.array([np.inf, 60.0, 35.0, 10.0, -np.inf]))
    decades = decades_to_score(np.array([0.0, 1e-8, 10**-4.5, 0.1, np.inf]), 1e-8, 1e-1)

    np.testing.assert_allclose(db, [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(decades, [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_resampling_every_sample_once_changes_nothing(kind: str) -> None:
    """Scores of a resample that holds every sample once are the scores."""
    table = score_table(LAYERS, KINDS[kind])
    samples = sample_table(KINDS[kind])

    assert set(samples) == {n for n in table if SCORERS[n].kind == "measured"}
    for name, found in samples.items():
        again = found.scores(np.ones((1, KINDS[kind].samples)))[0]
        np.testing.assert_allclose(again, table[name], rtol=1e-9)


def test_every_local_array_is_described() -> None:
    """Each field of the local statistics has its axes, so that it is written and read."""
    assert set(AXES) == {f.name for f in fields(LocalStatistics)}


def test_local_statistics_come_back_from_a_folder(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """Written arrays are read as they were; a folder without them opens, their scorers absent."""
    store.save(tiny_analysis, tmp_path / "a")
    evidence = store.load(tmp_path / "a").evidence
    assert evidence is not None
    assert tiny_analysis.evidence is not None
    for name in AXES:
        ours = getattr(tiny_analysis.evidence.local, name)
        np.testing.assert_array_equal(getattr(evidence.local, name), ours)
        (tmp_path / "a" / store.ARRAYS / f"local_{name}.npy").unlink()

    older = store.load(tmp_path / "a")

    assert older.evidence is not None
    assert older.evidence.local is None
    scores = Study(older).scores
    assert {"output_error", "kl", "flips", "task_loss"} <= set(scores)
    assert not {"weight_outliers", "gradient_error", "trace_error"} & set(scores)


@pytest.mark.parametrize("name", samples.names())
def test_every_scorer_speaks_of_every_sample(name: str) -> None:
    """The shipped analyses hold what every scorer needs, gradients of a graph aside, and no score
    ties most layers.
    """
    study = Study(store.load(samples.get(name).analysis))
    computes = study.layers.computes

    without = set(SCORERS) - set(study.scores)
    of_graph = any(layer.kind == "Conv" for layer in study.layers)
    assert without == ({"gradient_error", "trace_error"} if of_graph else set())
    for scorer in {"kl", "flips", "task_loss", "gradient_error"} - without:
        distinct = len(np.unique(study.scores[scorer][computes].round(6)))
        assert distinct > 0.7 * computes.sum(), scorer
