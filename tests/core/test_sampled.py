"""Ranges where only some of the selection samples are measured so far."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from core.analysis import store
from core.decide.study import Study
from core.estimate.sampled import log_reach
from core.evidence.evidence import Evidence, Outputs, Partial
from core.quantity import Quantity
from core.source import samples
from tests.core.synthetic import synthetic_analysis, synthetic_evidence, synthetic_layers

LAYERS = synthetic_layers(12)
NARROW = np.where(LAYERS.computes, 2, -1).astype(np.int8)


def drawn(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """`evidence` of the samples `rows` alone."""
    return replace(
        evidence, baseline=evidence.baseline[rows], perturbations=evidence.perturbations[:, :, rows],
        targets=None if evidence.targets is None else evidence.targets[rows],
        whole=evidence.whole[:, rows], probes=evidence.probes[:, rows], of_samples=evidence.samples,
    )  # fmt: skip


def projected(evidence: Evidence, codes: np.ndarray = NARROW) -> Quantity:
    """The divergence of a map of a synthetic model."""
    study = Study(replace(synthetic_analysis(12), evidence=evidence))
    found = study.project(codes)
    assert found is not None
    return found.kl if evidence.outputs.kind == "logits" else found.relative_mse


def width(given: Quantity) -> float:
    """Of a range, in logarithms."""
    assert given.low
    assert given.high
    return float(np.log(given.high / given.low))


@pytest.mark.parametrize("outputs", [Outputs(), Outputs("logits", 2), Outputs("values")])
def test_a_range_shrinks_to_the_plain_one_as_samples_come(outputs: Outputs) -> None:
    """Of classes, steps and values: the more of the samples there are, the narrower the range, and of
    all it is the one that nothing is said of.
    """
    evidence = replace(
        synthetic_evidence(LAYERS, samples=400), outputs=outputs, targets=None, of_samples=400
    )
    plain = projected(replace(evidence, of_samples=0))
    assert projected(evidence) == plain

    some = [projected(drawn(evidence, np.arange(n))) for n in (5, 20, 100, 390)]
    of_these = [
        projected(replace(drawn(evidence, np.arange(n)), of_samples=0)) for n in (5, 20, 100, 390)
    ]
    extra = [width(a) - width(b) for a, b in zip(some, of_these, strict=True)]

    assert extra == sorted(extra, reverse=True)
    assert extra[-1] > 0
    assert extra[0] > 10 * extra[-1]
    assert [a.value for a in some] == [b.value for b in of_these]


def test_the_reference_map_is_certain_and_one_sample_says_nothing() -> None:
    """What changes nothing has no range to widen; of a single sample the range is unknown."""
    evidence = synthetic_evidence(LAYERS, samples=50)
    few, one = drawn(evidence, np.arange(5)), drawn(evidence, np.arange(1))

    nothing = projected(few, np.where(LAYERS.computes, 0, -1).astype(np.int8))
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)
    assert projected(one).high is None


def test_the_lower_reach_is_that_of_a_mean() -> None:
    """By hand: Student's t times the standard error of a mean, relative, of a finite population; and
    the upper one is longer.
    """
    moved = np.array([1.0, 2.0, 6.0, 7.0])
    low, high = log_reach(moved, np.ones(4), 16)

    error = t.ppf(0.95, 3) * moved.std(ddof=1) / 2 / moved.mean() * np.sqrt(12 / 16)
    assert low == pytest.approx(error)
    assert high > np.log1p(error)
    assert log_reach(moved, np.ones(4), 4) == (0, 0)
    assert log_reach(np.zeros(4), np.ones(4), 16) == (np.inf, np.inf)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_vit", "digits_resnet", "informer"])
def test_ranges_of_few_samples_hold_the_figure_of_all(name: str) -> None:
    """Over many draws of 16 and 48 samples of a shipped analysis, 75 to 100 % of the ranges of KL hold
    what is projected from all of its samples.
    """
    analysis = store.load(samples.get(name).analysis)
    evidence = analysis.evidence
    assert evidence is not None
    rng = np.random.default_rng(8)
    computes, most = analysis.layers.computes, len(evidence.precisions)
    maps = np.where(
        computes, rng.integers(0, most + 1, (4, len(computes))), -1
    ).astype(np.int8)  # fmt: skip
    truth = [Study(analysis).project(codes) for codes in maps]
    for n in (16, 48):
        held = []
        for _ in range(60):
            rows = np.sort(rng.choice(evidence.samples, n, replace=False))
            study = Study(replace(analysis, evidence=drawn(evidence, rows)))
            for codes, whole in zip(maps, truth, strict=True):
                found = study.project(codes)
                assert found is not None
                assert whole is not None
                assert whole.kl.value is not None
                low, high = found.kl.low, found.kl.high
                held.append((low or 0) <= whole.kl.value <= (np.inf if high is None else high))
        assert 0.75 <= np.mean(held) <= 1, n


def test_a_partial_folder_says_how_many_samples_there_are(tmp_path: Path) -> None:
    """Evidence that is read from a partial analysis knows of how many samples it holds some."""
    whole = synthetic_analysis(12, samples=40)
    partial = replace(whole, partial=Partial(12, 12, 40, 200))
    for name, given, of in (("whole", whole, 0), ("partial", partial, 200)):
        store.save(given, tmp_path / name)
        found = store.load(tmp_path / name).evidence
        assert found is not None
        assert found.of_samples == of
