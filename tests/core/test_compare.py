"""Strategies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide import answer
from core.decide.assess.compare import COSTS, SAME_MAP, Comparison, Strategy, compare, strategy
from core.decide.assess.pareto import Point, dominates, pareto_front
from core.decide.assess.strategies import named_strategies
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError, PolicyError
from core.quantity import Quantity
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(42))
UNMEASURED = Study(synthetic_analysis(42, measured=False))


def _named(study: Study = STUDY) -> list[Strategy]:
    return [
        strategy(study, title, answer.decide(study, policy))
        for title, policy in named_strategies(study, Policy()).items()
    ]


def _with(
    base: Strategy, name: str, *, size: float | None = 1, latency: float | None = 1,
    drop: float | None = 0, kl: float | None = 0,
) -> Strategy:  # fmt: skip
    projected = {
        **base.outcome.projected,
        "accuracy_drop_pts": Quantity(drop, "pts", "projected"),
        "kl": Quantity(kl, "nats", "projected"),
    }
    totals = {
        **base.outcome.totals,
        **projected,
        "size_bytes": Quantity(size, "bytes", "exact"),
        "latency_ms": Quantity(latency, "ms", "estimated"),
    }
    made = replace(base.outcome, totals=totals, projected=projected)
    return replace(base, name=name, outcome=made)


def _compared(*given: dict[str, float | None]) -> Comparison:
    base = _named()[0]
    named = [_with(base, chr(ord("a") + i), **figures) for i, figures in enumerate(given)]
    return compare(named, "a")


def test_differences_are_taken_from_the_reference() -> None:
    """Every total's change is this less the reference, and the reference differs in nothing."""
    named = _named()
    found = compare(named, "All INT8")
    reference = next(s for s in named if s.name == "All INT8")

    for s, column in zip(named, found.columns, strict=True):
        for key, gain in column.gains.items():
            value, base = s.outcome.totals[key].value, reference.outcome.totals[key].value
            assert value is not None
            assert base is not None
            assert gain.change == value - base
            if base:
                assert gain.change_pct == pytest.approx(100 * (value - base) / base)
            else:
                assert gain.change_pct is None
    own = found.columns[[c.name for c in found.columns].index("All INT8")]
    assert own.changes == ()
    assert {g.change for g in own.gains.values()} == {0}


def test_unknown_figures_have_unknown_differences() -> None:
    """Before anything is measured no change of accuracy is given, but sizes are."""
    found = compare(_named(UNMEASURED), "All FP32")

    for column in found.columns:
        assert column.gains["accuracy_drop_pts"].change is None
        assert column.gains["size_bytes"].change is not None
    assert found.dominances == ()
    assert found.fronts == {"size": (), "latency": ()}


def test_rows_are_the_layers_that_any_strategy_treats_differently() -> None:
    """Exactly the layers on which not all agree, with counts and amounts that add up to them."""
    named = _named()
    found = compare(named, named[0].name)
    maps = [s.map.assigned for s in named]
    expected = [i for i, at in enumerate(zip(*maps, strict=True)) if len(set(at)) > 1]

    assert [row.index for row in found.layers] == expected
    for k, (s, column) in enumerate(zip(named, found.columns, strict=True)):
        assert column.size_bytes == sum(row.size_bytes[k] for row in found.layers)
        assert column.latency_ms == pytest.approx(sum(row.latency_ms[k] for row in found.layers))
        assert sum(column.precisions.values()) == len(found.layers)
        for row in found.layers:
            assert row.precisions[k] == s.map.by_layer[row.layer]
    assert found.headline.startswith(f"{len(expected)} layers differ; they take ")


def test_one_layer_is_spoken_of_in_the_singular() -> None:
    """One differing layer is "1 layer differs"."""
    name = next(layer.name for layer in STUDY.layers if layer.computes_at_inference)
    named = [
        strategy(STUDY, "a", answer.decide(STUDY, Policy(strategy="uniform"))),
        strategy(
            STUDY,
            "b",
            answer.decide(STUDY, Policy(strategy="uniform", overrides=((name, "FP32"),))),
        ),
    ]

    assert compare(named, "a").headline.startswith("1 layer differs; it takes ")


def test_equal_maps_are_said_to_be_equal() -> None:
    """Two policies with one map: no rows, one sentence, and no one beats anyone."""
    named = [
        strategy(
            STUDY, "uniform", answer.decide(STUDY, Policy(strategy="uniform", uniform="INT8"))
        ),
        strategy(STUDY, "pinned", answer.decide(STUDY, Policy(pins=(("*", "INT8"),)))),
    ]
    found = compare(named, "uniform")

    assert found.layers == ()
    assert found.headline == SAME_MAP == "The strategies give the same map."
    assert found.equal == (("uniform", "pinned"),)
    assert found.dominances == ()


def test_a_strategy_no_worse_in_both_and_better_in_one_dominates() -> None:
    """Each cost has its own winner, and ties in both beat no one."""
    found = _compared(
        {"drop": 1, "size": 10, "latency": 5},
        {"drop": 1, "size": 9, "latency": 6},
        {"drop": 1, "size": 10, "latency": 5},
    )

    assert found.beaten("a") == {"size": ("b",), "latency": ()}
    assert found.beaten("b") == {"size": (), "latency": ("a", "c")}
    assert found.fronts == {"size": ("b",), "latency": ("a", "c")}


def test_equal_drops_are_parted_by_kl() -> None:
    """With the same drop and size the lower divergence wins; a lower drop beats any divergence."""
    found = _compared({"drop": 1, "kl": 0.2}, {"drop": 1, "kl": 0.1}, {"drop": 0.5, "kl": 9})

    assert found.beaten("a")["size"] == ("b", "c")
    assert found.beaten("b")["size"] == ("c",)
    assert found.beaten("c")["size"] == ()


def test_a_gain_by_chance_beats_no_one() -> None:
    """A negative loss counts as none, so the reference with its KL of 0 is not beaten by it."""
    found = _compared({"drop": 0, "kl": 0}, {"drop": -0.2, "kl": 0.1}, {"drop": -0.1, "kl": 0.05})

    assert found.beaten("a")["size"] == ()
    assert found.beaten("b")["size"] == ("a", "c")
    assert found.beaten("c")["size"] == ("a",)


@pytest.mark.parametrize("unknown", ["drop", "kl", "size"])
def test_unknown_figures_neither_beat_nor_are_beaten(unknown: str) -> None:
    """A strategy with a missing figure is on no front and in no dominance of that cost."""
    found = _compared({unknown: None}, {"drop": 5, "size": 5}, {"drop": -5, "size": 0.5})

    assert found.beaten("a")["size"] == ()
    assert found.beaten("b")["size"] == ("c",)
    assert "a" not in found.fronts["size"]


def test_a_model_without_labels_is_compared_by_kl() -> None:
    """Where no drop is known at all, the divergence is the loss."""
    found = _compared({"drop": None, "kl": 0.2}, {"drop": None, "kl": 0.1})

    assert found.beaten("a")["size"] == ("b",)


def test_fronts_are_those_that_no_one_dominates() -> None:
    """On real figures the front and the list of dominances say the same."""
    named = _named()
    found = compare(named, named[0].name)

    for cost in COSTS:
        unbeaten = [s.name for s in named if not found.beaten(s.name)[cost]]
        assert found.fronts[cost] == tuple(unbeaten)


number = st.one_of(st.none(), st.integers(0, 6).map(float), st.floats())


@settings(max_examples=300)
@given(st.lists(st.tuples(number, number), max_size=25))
@pytest.mark.slow
def test_the_front_equals_brute_force(points: Sequence[Point]) -> None:
    """The sweep finds exactly the known points that no other one dominates."""
    known = [
        i for i, point in enumerate(points) if all(v is not None and np.isfinite(v) for v in point)
    ]
    expected = tuple(i for i in known if not any(dominates(points[j], points[i]) for j in known))

    assert pareto_front(points) == expected


def test_the_front_of_many_points_is_fast() -> None:
    """A hundred thousand points on a descending line are all on the front."""
    points = [(float(i), float(-i)) for i in range(100_000)]

    assert pareto_front(points) == tuple(range(100_000))


def test_another_device_is_priced_anew() -> None:
    """`strategy` prices a map on the device asked for; mixed devices are refused."""
    chosen = answer.decide(STUDY, Policy(hardware="datacenter-gpu-t4"))
    here = strategy(STUDY, "here", chosen, "server-cpu-vnni")
    there = strategy(STUDY, "there", chosen)

    assert here.map.policy.hardware == "server-cpu-vnni"
    assert here.outcome.totals["latency_ms"] != there.outcome.totals["latency_ms"]
    with pytest.raises(PolicyError, match="priced on"):
        compare([here, there], "here")


def test_bad_requests_name_what_is_wrong() -> None:
    """Equal names, an unknown reference and another model's map are refused."""
    named = _named()
    with pytest.raises(PolicyError, match="same name"):
        compare([named[0], named[0]], named[0].name)
    with pytest.raises(PolicyError, match="No strategy is called 'ghost'"):
        compare(named, "ghost")
    other = Study(synthetic_analysis(3))
    with pytest.raises(MapError, match="different models"):
        compare([named[0], strategy(other, "other", answer.decide(other, Policy()))], "other")


def test_an_empty_model_can_be_compared() -> None:
    """No layers: the maps are the same."""
    study = Study(synthetic_analysis(0))
    found = compare(_named(study), "All INT8")

    assert found.headline == SAME_MAP
