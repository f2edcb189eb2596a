"""Allowed precisions of a measured model, weights by groups among them, which its norms cannot take."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.assess.frontier import frontier
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.stability.budget_stability import budget_stability
from core.decide.study import Study
from core.evidence.options import MeasureOptions
from core.numerics.precision import BF16, FP16, INT4_G32, INT8
from tests.zoo.sources import tiny_source

NAMES = ("FP32", "FP16", "BF16", "INT8", "INT4-g32")


@pytest.fixture(scope="module")
def study() -> Study:
    """A tiny transformer measured in four precisions."""
    how = MeasureOptions(precisions=(FP16, BF16, INT8, INT4_G32), probes=4)
    return Study(analyze(tiny_source(), how))


def _outside(study: Study, policy: Policy) -> list[tuple[str, str]]:
    """Layers with a precision that is not allowed, but for the reference where nothing else is."""
    chosen = answer.decide(study, policy)
    found = []
    for name, given_ in chosen.by_layer.items():
        if given_ is not None and given_ not in policy.allowed and given_ != "FP32":
            found.append((name, given_))
    return found


sets = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).map(tuple)


@given(
    allowed=sets, strategy=st.sampled_from(["thresholds", "top-k", "uniform", "manual"]),
    high=st.sampled_from(NAMES), low=st.sampled_from(NAMES), k=st.integers(0, 20),
)  # fmt: skip
def test_no_strategy_goes_beyond_them(
    study: Study, allowed: tuple[str, ...], strategy: str, high: str, low: str, k: int
) -> None:
    """Whatever levels point to, layers get allowed precisions, or the reference where those mean
    nothing for them.
    """
    policy = Policy(
        strategy=strategy, high=high, medium=low, low=low, uniform=low, top_k=k, allowed=allowed  # type: ignore[arg-type]
    )  # fmt: skip

    assert _outside(study, policy) == []
    if "FP32" not in allowed and {"FP16", "BF16", "INT8"} & set(allowed):
        assert "FP32" not in answer.decide(study, policy).assigned


@pytest.mark.parametrize(
    "allowed", [("FP16", "INT8"), ("FP32", "INT4-g32"), ("BF16", "INT8", "INT4-g32")]
)
def test_budgets_are_solved_among_them(study: Study, allowed: tuple[str, ...]) -> None:
    """Maps under budgets, all points of a frontier and all resampled maps use allowed precisions."""
    codes = [study.precisions.index(name) for name in allowed]
    sizes = np.array(study.size_bytes)
    least = sizes[codes].min(axis=0).sum() + study.glue_bytes
    amount = float(least * 1.1 / study.stored_bytes(np.zeros(len(study.layers), np.int8)))
    policy = Policy(
        strategy="budget", budgets=(Budget("size", amount, "fraction"),), allowed=allowed
    )
    points = frontier(study, policy, "size").points

    assert _outside(study, policy) == []
    assert points
    for point in points:
        used = {study.precisions[c] for c in point.codes if c >= 0}
        assert used <= {*allowed, "FP32"}
    stable = budget_stability(study, policy)
    other = [i for i, name in enumerate(study.precisions) if name not in (*allowed, "FP32")]
    assert not np.any(np.asarray(stable.frequency)[other])


def test_a_budget_finds_the_best_of_all_allowed_maps(study: Study) -> None:
    """Against every map of FP16 and INT8 over six layers, the others pinned: none that keeps the
    budget loses less.
    """
    free = [i for i, layer in enumerate(study.layers) if layer.computes_at_inference][:6]
    pins = tuple(
        (study.layers.names[i], "INT8")
        for i in np.flatnonzero(study.layers.computes)
        if i not in free
    )
    policy = Policy(strategy="budget", overrides=pins, allowed=("FP16", "INT8"),
                    budgets=(Budget("size", 0.45, "fraction"),))  # fmt: skip
    chosen = answer.decide(study, policy)
    limit = 0.45 * study.stored_bytes(np.zeros(len(study.layers), np.int8))
    at = [study.precisions.index(n) for n in ("FP16", "INT8")]
    tables = study.derived(Solver).tables(policy)
    best = np.inf
    for picks in itertools.product(at, repeat=len(free)):
        codes = chosen.codes.copy()
        codes[free] = picks
        if study.stored_bytes(codes) <= limit:
            best = min(best, float(tables.objective.costs(codes[None])[0]))

    assert float(tables.objective.costs(chosen.codes[None])[0]) == pytest.approx(best, rel=1e-9)
