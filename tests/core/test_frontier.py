"""Frontiers, explanations and stability of solved maps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide import answer
from core.decide.advise.explain import explain
from core.decide.assess.frontier import frontier
from core.decide.policy.budget import parse_budgets
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.stability.budget_stability import budget_stability
from core.decide.study import Study
from core.errors import PolicyError
from core.quantity import Quantity
from tests.core.interacting import interacting_analysis


@pytest.fixture(scope="module")
def study() -> Study:
    """Fourteen layers that interact."""
    return Study(interacting_analysis(14, seed=6, bent=0.4))


def _policy(text: str, **changes: object) -> Policy:
    return replace(Policy(), strategy="budget", budgets=parse_budgets(text), **changes)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 50), axis=st.sampled_from(["size", "latency"]), pinned=st.booleans())
def test_frontiers_fall_and_no_point_beats_another(seed: int, axis: str, pinned: bool) -> None:
    """Cost rises and loss falls strictly from point to point, pins kept in every map."""
    fresh = Study(interacting_analysis(9, seed=seed, bent=0.3))
    pins = (("block.1.*", "FP16"),) if pinned else ()

    found = frontier(fresh, Policy(pins=pins), axis, points=8)  # type: ignore[arg-type]

    assert len(found.points) > 2
    for before, after in itertools.pairwise(found.points):
        costs = [p.size_bytes if axis == "size" else p.latency_ms for p in (before, after)]
        assert costs[0] < costs[1]
        assert before.loss > after.loss
    if pinned:
        at = fresh.layers.names.index("block.1.feed_forward")
        assert {fresh.precisions[p.codes[at]] for p in found.points} == {"FP16"}


@pytest.mark.parametrize("axis", ["size", "latency"])
@pytest.mark.slow
def test_the_policy_of_a_point_gives_its_map(study: Study, axis: str) -> None:
    """A point's own budget, solved anew, gives the same map, so that a link says everything."""
    found = frontier(study, Policy(), axis)  # type: ignore[arg-type]
    fresh = Study(study.analysis)

    assert len(found.points) >= 5
    for point in found.points:
        assert np.array_equal(answer.decide(fresh, point.policy).codes, point.codes)


def test_a_frontier_ends_at_no_loss_and_at_the_least_cost(study: Study) -> None:
    """The dearest point loses nothing, the cheapest has the smallest size that there is."""
    points = frontier(study, Policy(), "size").points

    assert points[-1].loss == pytest.approx(0, abs=1e-12)
    assert points[0].size_bytes == int(study.size_bytes.min(axis=0).sum()) + study.glue_bytes


def test_a_frontier_is_made_once(study: Study) -> None:
    """Budgets and thresholds of a policy do not matter: the same frontier is returned."""
    first = frontier(study, Policy(), "size")

    assert frontier(study, _policy("size=0.5", high_threshold=0.9), "size") is first
    assert frontier(study, Policy(pins=(("*", "FP16"),)), "size") is not first


def test_a_frontier_over_nothing_is_refused(study: Study) -> None:
    """An unknown axis is refused with the known ones."""
    with pytest.raises(PolicyError, match="size or latency"):
        frontier(study, Policy(), "loss")  # type: ignore[arg-type]


def test_an_explanation_says_what_is_saved_lost_and_needed(study: Study) -> None:
    """Savings and costs are those of the map without the layer; the flip is enough room."""
    chosen = answer.decide(study, _policy("size=0.4"))
    int8 = [i for i, name in enumerate(chosen.assigned) if name == "INT8"]
    # an INT8 that cancels another's error gains by itself; the one that costs most is asked
    i = max(int8, key=lambda i: explain(study, chosen, study.layers.names[i]).costs.value or 0)
    layer = study.layers.names[i]
    codes = chosen.codes.copy()
    codes[i] = 0
    before, after = study.project(codes), study.project(chosen.codes)
    assert before is not None
    assert after is not None

    found = explain(study, chosen, layer)

    assert found.saves_bytes == Quantity(
        float(study.size_bytes[0, i] - study.size_bytes[chosen.codes[i], i]), "bytes", "exact"
    )
    assert found.costs.value == pytest.approx((after.kl.value or 0) - (before.kl.value or 0))
    assert "size budget decided" in found.decided
    assert "more room would let it be" in found.flip
    assert found.in_words().startswith(f"{layer}: INT8 saves ")
    assert "\n" not in found.in_words()


def test_explanations_name_rules_thresholds_and_places(study: Study) -> None:
    """A pin, an override, a threshold, a place and a layer without work are each called so."""
    names = study.layers.names
    nothing = next(layer.name for layer in study.layers if not layer.computes_at_inference)
    pinned = answer.decide(
        study, Policy(pins=((names[0], "FP16"),), overrides=((names[1], "FP32"),))
    )
    ranked = answer.decide(study, Policy(strategy="top-k", top_k=3))

    assert "pinned by a rule" in explain(study, pinned, names[0]).in_words()
    assert "set by hand" in explain(study, pinned, names[1]).in_words()
    assert "threshold" in explain(study, pinned, names[2]).in_words()
    assert "top-k" in explain(study, ranked, names[2]).in_words()
    assert "does nothing" in explain(study, pinned, nothing).in_words()
    with pytest.raises(PolicyError, match="No layer is called"):
        explain(study, pinned, "nowhere")


def test_an_explanation_without_measurements_knows_no_loss() -> None:
    """Before anything was measured, savings are told and the loss is unknown."""
    bare = Study(replace(interacting_analysis(5), evidence=None))

    found = explain(bare, answer.decide(bare, Policy()), bare.layers.names[0])

    assert found.costs.value is None
    assert "costs" not in found.in_words()


def test_layers_of_a_group_are_explained_together(study: Study) -> None:
    """What moves together is named, and its savings add up."""
    chosen = answer.decide(
        study, _policy("size=0.35", groups=("block.0.*", "block.1.*"), minimise="loss")
    )
    both = replace(chosen.policy, groups=("block.[01].*",))

    found = explain(study, answer.decide(study, both), "block.0.attention")

    assert found.together == ("block.1.feed_forward",)


def test_stability_counts_how_often_layers_keep_their_precision(study: Study) -> None:
    """Shares add up to 1 for layers that compute, and the map's loss lies in its own range."""
    policy = _policy("size=0.4")
    chosen = answer.decide(study, policy)

    found = budget_stability(study, policy, draws=6)

    assert found.solved == found.draws == 6
    shares = found.frequency.sum(axis=0)
    assert shares[study.layers.computes] == pytest.approx(1.0)
    agreed = found.of(chosen)
    assert all(
        (share is None) == (code < 0) for share, code in zip(agreed, chosen.codes, strict=True)
    )
    assert found.loss.low is not None
    assert found.loss.high is not None
    assert found.loss.low < found.loss.high
    assert found.loss.kind == "projected"


def test_tables_are_kept_between_budgets(study: Study) -> None:
    """A solution is made once: the second answer is the very same object."""
    policy = _policy("size=0.6")
    first = study.derived(Solver).solve(policy)

    assert study.derived(Solver).solve(replace(policy, high_threshold=0.8)) is first
