"""How long a decision and a projection take. Run with `make bench`; skipped by `make test`."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.budget import parse_budgets
from core.decide.policy.policy import Policy
from core.decide.solve.search import search
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.estimate.projection import Projector
from tests.core.synthetic import synthetic_analysis, synthetic_evidence, synthetic_layers


@pytest.mark.parametrize(("layers", "bar_ms"), [(2_000, 10), (10_000, 30)])
def test_decide(benchmark: BenchmarkFixture, layers: int, bar_ms: int) -> None:
    """Deciding thresholds with two pins stays within its bar."""
    study = Study(synthetic_analysis(layers, measured=False))
    policy = Policy(pins=(("block.1*", "FP32"), ("*norm", "FP16")))
    answer.decide(study, policy)

    chosen = benchmark(answer.decide, study, policy)

    assert len(chosen.codes) == layers
    assert benchmark.stats.stats.median * 1e3 <= bar_ms


def test_project(benchmark: BenchmarkFixture) -> None:
    """Projecting a new map of 60 layers, 1,000 samples and 10 classes stays within 5 ms."""
    layers = synthetic_layers(60)
    projector = Projector(synthetic_evidence(layers, samples=1000), "FP32")
    codes = np.where(layers.computes, 2, -1).astype(np.int8)
    projector.project(codes)

    projection = benchmark(projector.project, codes)

    assert projection.kl.value is not None
    assert benchmark.stats.stats.median * 1e3 <= 5


BUDGETS = {
    "size": "size=0.4",
    "latency": "latency=0.97",
    "both": "size=0.5, latency=1.0",
}


@pytest.mark.parametrize("asked", BUDGETS)
@pytest.mark.parametrize(("layers", "bar_ms"), [(60, 50), (300, 250), (2_000, None)])
def test_answer_to_a_budget(
    benchmark: BenchmarkFixture, layers: int, bar_ms: int | None, asked: str
) -> None:
    """Solving a moved budget with interactions and boundary costs, tables kept. Both budgets are
    tight, and at 300 layers printed without a bar.
    """
    study = Study(synthetic_analysis(layers, samples={60: 1000, 300: 500}.get(layers, 60)))
    policy = Policy(strategy="budget", budgets=parse_budgets(BUDGETS[asked]))
    task = study.derived(Solver).task(policy)

    found = benchmark.pedantic(search, (task,), rounds=5, warmup_rounds=1)

    assert found.feasible
    if bar_ms is not None and (layers, asked) != (300, "both"):
        assert benchmark.stats.stats.median * 1e3 <= bar_ms


def test_outcome(benchmark: BenchmarkFixture, informer_study: Study) -> None:
    """Everything the verdict strip shows for one map of the Informer."""
    chosen = answer.decide(informer_study, Policy())
    outcome(informer_study, chosen)

    found = benchmark(outcome, informer_study, chosen)

    assert found.totals["size_bytes"].value
