"""Decisions under samples drawn again: intervals, frequencies, and when more samples are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide import answer
from core.decide.policy.decision import decide
from core.decide.policy.policy import STRATEGIES, Policy
from core.decide.stability.resampling import DRAWS, draws, resampled_scores, settling
from core.decide.study import Study
from core.layers import LayerTable
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(28, samples=60))
KL = (("kl", 1.0),)


def grouped() -> Study:
    """A study of the same layers, some of which move together."""
    layers = LayerTable(STUDY.layers.layers, STUDY.layers.edges, groups=((0, 5, 9), (20, 8)))
    return Study(replace(STUDY.analysis, layers=layers))


def test_draws_are_fixed_and_whole() -> None:
    """Every draw has as many samples as there are; the same ones each time."""
    found = draws(40)

    assert found.shape == (DRAWS, 40)
    assert (found.sum(axis=1) == 40).all()
    np.testing.assert_array_equal(found, draws(40))
    assert draws(0).shape == (DRAWS, 0)


@given(
    strategy=st.sampled_from([s for s in STRATEGIES if s != "budget"]), top_k=st.integers(0, 40), high=st.floats(0.4, 1),
    medium=st.floats(0, 0.4), theory=st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
@pytest.mark.slow
def test_frequencies_are_those_of_deciding_each_draw(
    strategy: str, top_k: int, high: float, medium: float, theory: float
) -> None:
    """Deciding all draws at once equals deciding them one by one, pins and groups included."""
    study = grouped()
    policy = Policy(
        strategy=strategy,  # type: ignore[arg-type]
        weights=(("theory", theory), ("kl", 1.0), ("flips", 0.5)),
        high_threshold=high, medium_threshold=medium, high="FP32", medium="FP16", top_k=top_k,
        pins=(("block.1*", "FP16"),), overrides=((study.layers.names[2], "FP32"),),
    )  # fmt: skip
    found = answer.stability(study, policy)

    codes = np.stack(
        [
            decide(
                study.layers,
                study.scores
                | {name: s[r] for name, s in study.derived(resampled_scores).scores.items()},
                policy,
                study.precisions,
            ).codes
            for r in range(DRAWS)
        ]
    )
    for c in range(len(study.precisions)):
        np.testing.assert_allclose(found.frequency[c], (codes == c).mean(axis=0))


def test_rules_do_not_vary() -> None:
    """Under priors alone every layer keeps its precision, and the sentence says why."""
    chosen = answer.decide(STUDY, Policy())
    found = answer.stability(STUDY, Policy())

    assert found.measured_share == 0
    computes = STUDY.layers.computes
    assert (found.of(chosen)[computes] == 1).all()
    assert np.isnan(found.of(chosen)[~computes]).all()
    assert "no sample can change" in settling(found, chosen, 0)
    assert settling(found, chosen, int(np.flatnonzero(~computes)[0])) == ""


def test_a_score_on_a_threshold_is_unsettled() -> None:
    """A layer whose score is the threshold goes either way; far from it, it is settled."""
    score = STUDY.scores["kl"]
    layer = 13
    at = float(score[layer]) - 1e-4
    policy = Policy(weights=KL, high_threshold=at, medium_threshold=0.0)
    chosen, found = answer.decide(STUDY, policy), answer.stability(STUDY, policy)

    share = found.of(chosen)
    assert 0.2 < share[layer] < 0.9
    assert share[0] == 1  # the quietest layer
    said = settling(found, chosen, layer)
    assert said.startswith("FP16 in ")
    assert "threshold" in said or "more samples are needed" in said
    assert "enough to settle" in settling(found, chosen, 0)


def test_how_many_samples_is_estimated() -> None:
    """Between the threshold and the noise there is a number that would settle it."""
    layer = 13
    spread = float(STUDY.derived(resampled_scores).scores["kl"][:, layer].std())
    at = float(STUDY.scores["kl"][layer]) - spread / 2
    policy = Policy(weights=KL, high_threshold=at, medium_threshold=0.0)

    said = settling(answer.stability(STUDY, policy), answer.decide(STUDY, policy), layer)

    assert "roughly 700 (projected)" in said  # 60 * (1.645 * 2)^2 = 649, in hundreds


def test_the_interval_holds_the_score() -> None:
    """The middle of the draws lies around the score and narrows with more samples."""
    many = Study(synthetic_analysis(28, samples=960))
    for name in ("kl", "flips", "output_error", "task_loss"):
        widths = []
        for study in (STUDY, many):
            interval = study.derived(resampled_scores).interval(name, 13)
            assert interval is not None
            assert interval[0] <= study.scores[name][13] <= interval[1]
            widths.append(interval[1] - interval[0])
        assert widths[1] < widths[0]
    assert STUDY.derived(resampled_scores).interval("theory", 13) is None


@pytest.mark.parametrize("measured", [True, False])
def test_a_model_without_layers_or_measurements(measured: bool) -> None:
    """Nothing to decide, or nothing that varies, is no error."""
    empty = Study(synthetic_analysis(0, measured=measured, samples=20))
    assert answer.stability(empty, Policy()).frequency.shape == (len(empty.precisions), 0)

    unmeasured = Study(synthetic_analysis(14, measured=False))
    assert answer.stability(unmeasured, Policy()).measured_share == 0
    assert unmeasured.derived(resampled_scores).scores == {}
