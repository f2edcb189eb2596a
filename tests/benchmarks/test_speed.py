"""How long a decision and a projection take. Run with `make bench`; skipped by `make test`."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from core.decide.outcome import outcome
from core.decide.policy import Policy
from core.estimate.projection import Projector
from core.study import Study
from tests.core.synthetic import synthetic_analysis, synthetic_evidence, synthetic_layers


@pytest.mark.parametrize(("layers", "bar_ms"), [(2_000, 10), (10_000, 30)])
def test_decide(benchmark: BenchmarkFixture, layers: int, bar_ms: int) -> None:
    """Deciding thresholds with two pins stays within its bar."""
    study = Study(synthetic_analysis(layers, measured=False))
    policy = Policy(pins=(("block.1*", "FP32"), ("*norm", "FP16")))
    study.decide(policy)

    chosen = benchmark(study.decide, policy)

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


def test_outcome(benchmark: BenchmarkFixture, informer_study: Study) -> None:
    """Everything the verdict strip shows for one map of the Informer."""
    chosen = informer_study.decide(Policy())
    outcome(informer_study, chosen)

    found = benchmark(outcome, informer_study, chosen)

    assert found.totals["size_bytes"].value
