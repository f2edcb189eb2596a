"""The sweep of the high threshold: every point is a map that the policy gives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.decide import answer
from core.decide.assess.by_role import by_role
from core.decide.assess.curves import MAX_POINTS, sweep_policy, threshold_curve
from core.decide.assess.gains import gains
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(57, samples=60))
POLICIES = [
    Policy(),
    Policy(medium="FP32"),
    Policy(weights=(("output_error", 1.0),), pins=(("*norm", "FP32"),)),
    Policy(strategy="top-k", top_k=5),
]


@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_every_point_is_the_map_of_its_threshold(policy: Policy) -> None:
    """A point's figures are those of the policy with that high threshold."""
    curve = threshold_curve(STUDY, policy)

    assert len(curve) > 2
    for point in curve:
        medium = min(policy.medium_threshold, point.high_threshold)
        asked = replace(policy, strategy="thresholds", high_threshold=point.high_threshold,
                        medium_threshold=medium)  # fmt: skip
        chosen = answer.decide(STUDY, asked)
        assert point.totals == outcome(STUDY, chosen).totals
        assert point.high_layers == int((chosen.scores >= point.high_threshold).sum())


def test_a_lower_threshold_never_narrows_a_layer() -> None:
    """As the threshold falls, more layers reach it."""
    points = threshold_curve(STUDY, Policy())
    thresholds = [p.high_threshold for p in points]
    reached = [p.high_layers for p in points]

    assert thresholds == sorted(thresholds, reverse=True)
    assert reached == sorted(reached)


def test_the_sweep_does_not_depend_on_the_swept_threshold() -> None:
    """Moving the high threshold leaves the curve as it is, so a cache can keep it."""
    moved = Policy(high_threshold=0.9)

    assert sweep_policy(moved) == sweep_policy(Policy())
    assert threshold_curve(STUDY, moved) == threshold_curve(STUDY, Policy())


def test_a_large_model_is_sampled() -> None:
    """No more points than asked for, and both ends are there."""
    large = Study(synthetic_analysis(600, samples=5))
    points = threshold_curve(large, Policy(weights=(("output_error", 1.0),)), max_points=12)

    assert 2 <= len(points) <= 14 <= MAX_POINTS
    assert points[0].high_threshold == 1.0


def test_an_empty_model_has_one_point() -> None:
    """Without layers every threshold gives the same empty map."""
    assert len(threshold_curve(Study(synthetic_analysis(0, measured=False)), Policy())) == 1


def test_roles_add_up_to_the_map() -> None:
    """Layers, parameters, bytes and precisions by role sum to the map's own totals."""
    chosen = answer.decide(STUDY, Policy())
    found = outcome(STUDY, chosen)
    summaries = by_role(chosen, found)

    assert sum(s.layers for s in summaries) == len(STUDY.layers)
    assert sum(s.params for s in summaries) == int(STUDY.layers.params.sum())
    assert sum(s.size_bytes for s in summaries) == int(found.layer_bytes.sum())
    for name in STUDY.precisions:
        assert sum(s.precisions[name] for s in summaries) == chosen.count(name)
    assert sum(s.idle for s in summaries) == int((~STUDY.layers.computes).sum())


def test_gains_are_differences() -> None:
    """A gain is after less before; what is unknown on either side stays unknown."""
    wide = outcome(STUDY, answer.decide(STUDY, Policy(strategy="uniform", uniform="FP32")))
    narrow = outcome(STUDY, answer.decide(STUDY, Policy(strategy="uniform", uniform="INT8")))
    found = gains(wide, narrow)["size_bytes"]

    before, after = wide.totals["size_bytes"].value, narrow.totals["size_bytes"].value
    assert before is not None
    assert after is not None
    assert found.change == after - before
    assert found.change_pct == pytest.approx(100 * (after / before - 1))
    blind = Study(synthetic_analysis(5, measured=False))
    unknown = outcome(blind, answer.decide(blind, Policy()))
    assert gains(unknown, unknown)["accuracy_drop_pts"].change is None
