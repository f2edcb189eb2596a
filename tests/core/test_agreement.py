"""Rank agreement of scores with the measurement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from core.evidence.diagnose.agreement import TRUTH, agreements, mean_ranks

scores = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=30)


@given(scores)
def test_ranks_are_scipys(values: list[float]) -> None:
    """Places equal SciPy's average ranks of the negated values."""
    assert mean_ranks(np.array(values)) == pytest.approx(rankdata([-v for v in values]))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[float, float]]) -> None:
    """The correlation equals SciPy's, and is None where that is undefined."""
    score, truth = (np.array(column) for column in zip(*pairs, strict=True))
    found = agreements({"theory": score, TRUTH: truth}, np.ones(len(pairs), bool))[0]

    if len(set(score)) == 1 or len(set(truth)) == 1:
        assert found.spearman is None
    else:
        assert found.spearman == pytest.approx(spearmanr(score, truth).statistic)


def test_the_layer_that_disagrees_most_comes_first() -> None:
    """The worst layer is the one with the largest gap, and the sign says which way it errs."""
    truth = np.array([0.9, 0.5, 0.4, 0.3, 0.0])
    score = np.array([0.8, 0.5, 0.4, 0.3, 0.9])
    worst = agreements({"theory": score, TRUTH: truth}, np.ones(5, bool))[0].worst

    assert worst[0].layer == 4
    assert worst[0].gap == 4  # first by score, last by measurement: too careful
    assert all(d.gap != 0 for d in worst)


def test_layers_that_do_nothing_are_left_out() -> None:
    """Dropout, at 0 by every measure, does not flatter the agreement."""
    computes = np.array([True, True, True, False])
    table = {"theory": np.array([1.0, 0.5, 0.2, 0.0]), TRUTH: np.array([0.1, 0.2, 0.3, 0.0])}
    found = agreements(table, computes)[0]

    assert found.layers == 3
    assert found.spearman == pytest.approx(-1)


def test_without_a_measurement_there_is_no_judge() -> None:
    """No measured score, no agreement."""
    assert agreements({"theory": np.array([1.0, 0.5])}, np.ones(2, bool)) == ()
    assert (
        agreements({TRUTH: np.zeros(0), "theory": np.zeros(0)}, np.zeros(0, bool))[0].spearman
        is None
    )
