"""Strategies on parallel axes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.decide import answer
from core.decide.assess.compare import Strategy, compare, strategy
from core.decide.assess.parallel import COSTS, MIDDLE, NARROW_LAYERS, axes
from core.decide.assess.strategies import named_strategies
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.quantity import Quantity
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(42))
UNMEASURED = Study(synthetic_analysis(42, measured=False))


def _uniform(study: Study, *precisions: str) -> list[Strategy]:
    return [
        strategy(study, name, answer.decide(study, Policy(strategy="uniform", uniform=name)))
        for name in precisions
    ]


def test_up_is_better_on_every_axis() -> None:
    """The smallest of each cost and the most narrow layers lie at 1, the worst at 0."""
    named = [
        strategy(STUDY, title, answer.decide(STUDY, policy))
        for title, policy in named_strategies(STUDY, Policy()).items()
    ]
    found = {axis.name: axis for axis in axes(named, "INT8")}

    assert list(found) == [*COSTS, "accuracy_drop_pts", "kl", "flips_pct", NARROW_LAYERS]
    for name, axis in found.items():
        known = [value for value in axis.amounts if value is not None]
        best = max(known) if name == NARROW_LAYERS else min(known)
        assert axis.best == best
        assert axis.places[axis.amounts.index(best)] == 1
        assert axis.places[axis.amounts.index(axis.worst)] == 0
        assert all(place is not None and 0 <= place <= 1 for place in axis.places)


def test_places_are_in_proportion() -> None:
    """A figure a quarter of the way from worst to best lies at a quarter."""
    base = _uniform(STUDY, "FP32")[0]
    sizes = [Quantity(size, "bytes", "exact") for size in (100, 20, 80)]
    named = [
        replace(
            base, outcome=replace(base.outcome, totals={**base.outcome.totals, "size_bytes": q})
        )
        for q in sizes
    ]

    assert axes(named, "INT8")[0].places == pytest.approx((0, 1, 0.25))


def test_equal_figures_lie_in_the_middle() -> None:
    """Where no one is better, no one is drawn as better."""
    for axis in axes(_uniform(STUDY, "INT8", "INT8"), "INT8"):
        assert axis.places == (MIDDLE, MIDDLE)
        assert axis.best == axis.worst


def test_unknown_figures_have_no_axis() -> None:
    """Before anything is measured there is no axis of a loss; sizes, times and layers remain."""
    found = axes(_uniform(UNMEASURED, "FP16", "INT8"), "INT8")

    assert [axis.name for axis in found] == ["size_bytes", "latency_ms", NARROW_LAYERS]


def test_one_unknown_figure_has_no_place() -> None:
    """A single unknown is left out of its axis and moves no other."""
    first, second, third = _uniform(STUDY, "FP32", "FP16", "INT8")
    projected = {**second.outcome.projected, "kl": Quantity(None, "nats", "projected")}
    second = replace(second, outcome=replace(second.outcome, projected=projected))

    kl = next(axis for axis in axes([first, second, third], "INT8") if axis.name == "kl")

    assert kl.places == (1, None, 0)


def test_no_strategy_has_no_axis() -> None:
    """Nothing to compare gives nothing to draw."""
    assert axes([], "INT8") == ()


def test_changes_of_a_layer_are_against_the_reference() -> None:
    """Bytes and milliseconds of each strategy less those of the one at the place."""
    found = compare(_uniform(STUDY, "FP32", "FP16", "INT8"), "FP16")

    assert found.place == 1
    for row in found.layers:
        assert row.size_changes(1) == tuple(size - row.size_bytes[1] for size in row.size_bytes)
        assert row.latency_changes(1)[1] == 0
        assert row.latency_changes(1)[2] == row.latency_ms[2] - row.latency_ms[1]
    saved = sum(row.size_changes(found.place)[2] for row in found.layers)
    assert saved == found.columns[2].gains["size_bytes"].change
