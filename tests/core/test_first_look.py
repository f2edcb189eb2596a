"""Analyses that are there before all samples are measured: a first look, and a settled ranking."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from core.analysis import analyze as analysing
from core.analysis import store
from core.analysis.analysis import Analysis
from core.cli import main as cli
from core.decide.answer import decide
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.simulate.simulator import Simulator
from core.errors import ModelError
from core.evidence.evidence import Evidence
from core.evidence.measure import draw, settled
from core.evidence.measure.cache import Cache
from core.evidence.measure.memory import BATCH, SMALLEST
from core.evidence.options import FIRST_LOOK, MeasureOptions
from core.evidence.ranking import ranking
from core.numerics.precision import FP16, INT8
from core.source.contract import model_source
from core.source.data import Split
from tests.core.synthetic import synthetic_analysis
from tests.zoo.sources import tiny_source

HOW = MeasureOptions(precisions=(FP16, INT8), probes=2)
LOOK = replace(HOW, until="first look")


@pytest.fixture(scope="module")
def whole() -> Analysis:
    """The whole analysis of a small transformer."""
    return analysing.analyze(tiny_source(), HOW)


def rows_of(part: Evidence, whole: Evidence) -> list[int]:
    """Where the samples of `part` stand among those of `whole`, whose outputs differ."""
    same = (part.baseline[:, None] == whole.baseline).all(axis=-1)
    assert (same.sum(axis=1) == 1).all()
    return [int(row) for row in same.argmax(axis=1)]


@given(st.integers(1, 700), st.integers(SMALLEST, BATCH))
def test_every_sample_is_measured_once_in_batches_that_fit(samples: int, size: int) -> None:
    """Batches cover the order end to end, the first is the first look, none is larger than allowed or
    as small as kernels sum otherwise, and their bounds meet those of full batches.
    """
    parts = draw.parts(samples, size)

    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(samples))
    assert all(p.stop - p.start <= size for p in parts)
    assert set(range(0, samples, BATCH)) <= {p.start for p in parts}
    assert sorted(draw.order(samples)) == list(range(samples))
    if samples >= draw.FEW:
        assert parts[0] == slice(0, FIRST_LOOK)
        assert min(p.stop - p.start for p in parts if p.stop % BATCH and p.stop < samples) >= 8


def test_sorted_samples_are_all_stood_for() -> None:
    """Of a split sorted by class the first samples hold most of its ten classes."""
    classes = np.arange(1000) // 100

    assert len(set(classes[draw.order(1000)[:FIRST_LOOK]])) >= 7


def test_a_first_look_is_part_of_the_whole(whole: Analysis) -> None:
    """A first look has the bits of the whole analysis on its samples, whole maps and probes included;
    it says how many there are, and looks at no layer by itself.
    """
    seen = analysing.analyze(tiny_source(), LOOK)
    evidence, full = seen.evidence, whole.evidence
    assert evidence is not None
    assert full is not None

    assert seen.partial is not None
    assert seen.partial.in_words() == "first look, 16 of 200 samples"
    assert seen.splits == replace(whole.splits, selection=16)
    assert evidence.local is None
    assert evidence.measured is None
    assert (evidence.of_samples, full.of_samples) == (200, 0)
    rows = rows_of(evidence, full)
    assert rows == sorted(draw.order(200)[:16])
    np.testing.assert_array_equal(evidence.perturbations, full.perturbations[:, :, rows])
    np.testing.assert_array_equal(evidence.whole, full.whole[:, rows])
    np.testing.assert_array_equal(evidence.probes, full.probes[:, rows])
    np.testing.assert_array_equal(evidence.targets, full.targets[rows])
    assert seen.identity == whole.identity


def test_maps_can_be_made_from_a_first_look(tmp_path: Path) -> None:
    """A first look is opened from its folder, and uniform maps and budgets are made of it, with ranges
    wider than those of all samples.
    """
    store.save(analysing.analyze(tiny_source(), LOOK), tmp_path)
    few = Study(store.load(tmp_path))
    all_of_it = Study(analysing.analyze(tiny_source(), HOW))

    narrow = Policy(strategy="uniform", uniform="INT8")
    for policy in (narrow, Policy(strategy="budget", budgets=(Budget("size", 0.6, "fraction"),))):
        drops = []
        for study in (few, all_of_it):
            found = study.project(decide(study, policy).codes)
            assert found is not None
            low, high = found.accuracy_drop_pts.low, found.accuracy_drop_pts.high
            assert low is not None
            assert high is not None
            drops.append(high - low)
        assert drops[0] > drops[1]


def test_a_first_look_is_not_measured_twice(
    whole: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a first look the whole analysis makes none of its runs on those samples again, and has
    the same bits; measured once more, only the model as it is runs.
    """
    cache = Cache(tmp_path)
    analysing.analyze(tiny_source(), LOOK, cache=cache)
    sizes: list[int] = []
    told = Simulator.run_module
    monkeypatch.setattr(
        Simulator,
        "run_module",
        lambda self, assignment, *rest: (
            sizes.append(len(assignment)),
            told(self, assignment, *rest),
        )[1],
    )
    resumed = analysing.analyze(tiny_source(), HOW, cache=cache)
    first = len(sizes)
    sizes.clear()
    again = analysing.analyze(tiny_source(), HOW, cache=cache)

    for found in (resumed, again):
        assert found.evidence is not None
        assert whole.evidence is not None
        assert found.evidence.perturbations.tobytes() == whole.evidence.perturbations.tobytes()
        assert found.evidence.probes.tobytes() == whole.evidence.probes.tobytes()
    assert len(sizes) < first


def test_a_few_samples_are_measured_at_once(whole: Analysis) -> None:
    """A split too small for a first look is measured whole, whatever is asked for."""
    source = tiny_source()
    split = Split(source.selection.inputs[:63], source.selection.targets[:63])
    seen = analysing.analyze(replace(source, selection=split), LOOK)

    assert seen.evidence is not None
    assert whole.evidence is not None
    assert seen.partial is None
    assert seen.evidence.samples == 63
    assert seen.evidence.baseline.tobytes() == whole.evidence.baseline[:63].tobytes()


def noisy(noise: float, samples: int = 40, layers: int = 6) -> Evidence:
    """Evidence of layers whose changes grow from one to the next, by samples that differ by `noise`."""
    evidence = synthetic_analysis(layers, samples=samples).evidence
    assert evidence is not None
    rng = np.random.default_rng(3)
    size = np.linspace(1.0, 1.5, layers)[None, :, None, None]
    by_sample = np.exp(noise * rng.normal(size=(*evidence.perturbations.shape[:3], 1)))
    direction = rng.normal(size=(1, 1, *evidence.perturbations.shape[2:]))
    return replace(
        evidence, measured=None,
        perturbations=(0.3 * size * by_sample * direction).astype(np.float32),
        allowed=np.ones_like(evidence.allowed),
    )  # fmt: skip


def test_a_ranking_is_settled_when_samples_agree() -> None:
    """Layers that differ alike on every sample are settled; where samples differ more than layers do,
    they are not, and more samples settle them.
    """
    assert settled.settled(noisy(0.0))
    assert not settled.settled(noisy(1.5))
    assert settled.settled(noisy(0.5, samples=2000))
    partly = replace(noisy(0.0), measured=np.zeros((1, 1), dtype=np.bool_))
    assert not settled.settled(partly)


def test_regret_is_that_of_the_worst_share() -> None:
    """The regret equals that of drawing, choosing and adding up by hand."""
    evidence = noisy(0.8, samples=25)
    found, of_all = settled.regret(evidence, evidence.precisions[-1])

    logits = evidence.baseline.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kl = []
    for change in evidence.perturbations[-1].astype(np.float64):
        moved = logits + change
        log_q = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))
        kl.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
    costs = np.mean(kl, axis=1)
    rng = np.random.default_rng(settled.SEED)
    worst = []
    counts = rng.multinomial(25, np.full(25, 1 / 25), size=settled.DRAWS)
    for share in settled.SHARES:
        k = round(share * len(costs))
        best = min(sum(costs[list(some)]) for some in itertools.combinations(range(len(costs)), k))
        beyond = [costs[np.argsort([one @ c for one in kl])[:k]].sum() - best for c in counts]
        worst.append(np.quantile(beyond, 0.95))
    assert found == pytest.approx(max(worst), rel=1e-6, abs=1e-12)
    assert of_all == pytest.approx(costs.sum(), rel=1e-6)


def test_measuring_ends_when_the_ranking_is_settled(
    whole: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be ranked ends with the first batch that settles it, causes included, and goes on to
    the last sample where nothing does.
    """
    asked: list[int] = []

    def second(evidence: Evidence) -> bool:
        asked.append(evidence.samples)
        return len(asked) == 2

    how = replace(HOW, until="ranked")
    monkeypatch.setattr("core.evidence.measure.measure.settled", second)
    seen = analysing.analyze(tiny_source(), how)
    monkeypatch.setattr("core.evidence.measure.measure.settled", lambda evidence: False)
    never = analysing.analyze(tiny_source(), how)

    assert asked == [16, 100]
    assert seen.partial is not None
    assert seen.partial.in_words() == "partial, 100 of 200 samples"
    assert seen.evidence is not None
    assert seen.evidence.local is not None
    assert never.partial is None
    assert never.evidence is not None
    assert whole.evidence is not None
    assert never.evidence.perturbations.tobytes() == whole.evidence.perturbations.tobytes()


def test_layers_are_ranked_by_what_they_cost_alone(whole: Analysis) -> None:
    """The ranking names the layers with the largest divergence in the precision that costs most, and a
    layer whose outputs are not finite before all others.
    """
    evidence = noisy(0.2)
    layers = synthetic_analysis(6).layers
    found = ranking(layers, evidence, 3)

    assert found is not None
    assert [name for name, _ in found.worst] == [layers.names[i] for i in (5, 4, 3)]
    assert found.unit == "nats"
    allowed = evidence.allowed.copy()
    allowed[:, 0] = False
    broken = ranking(layers, replace(evidence, allowed=allowed), 3)
    assert broken is not None
    assert broken.worst[0] == (layers.names[0], np.inf)
    assert ranking(layers, replace(evidence, perturbations=0 * evidence.perturbations)) is None


def test_the_command_tells_the_first_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`analyze --until first-look` says which layers cost most and on how many samples, and leaves a
    partial analysis that other commands read.
    """
    words = ["analyze", "sample:digits_resnet", "--precisions", "INT8", "--until", "first-look"]
    assert cli.main([*words, "--out", str(tmp_path / "look"), "--no-cache"]) == 0
    said = " ".join(capsys.readouterr().err.split())

    assert "Measured on 16 of 450 samples so far, INT8 costs most in " in said
    assert store.partial_of(tmp_path / "look") is not None
    assert cli.main(["plan", str(tmp_path / "look"), "--out", str(tmp_path / "map.json")]) == 0


class Picky(nn.Module):
    """Fails on a sample that begins with 7, and has no answer for one that begins with 8."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3] to [N, 4]."""
        if bool((x[:, 0] == 7).any()):
            raise ValueError("seven")
        return torch.where(x[:, :1] == 8, torch.nan, self.head(x))


@pytest.mark.parametrize(
    ("begins", "said"),
    [(7, r"on samples 137 to 137.*: seven"), (8, "first on selection sample 137")],
)
@pytest.mark.parametrize("at", [0, 1], ids=["in the first look", "after it"])
def test_errors_name_samples_by_their_place_in_the_split(begins: int, said: str, at: int) -> None:
    """A sample that fails alone is named by its number in the split, however samples are drawn."""
    x = torch.rand(200, 3)
    place = draw.order(200).tolist().index(137)
    looked = place < FIRST_LOOK
    other = int(draw.order(200)[FIRST_LOOK + 1 if looked else 1])
    bad = 137 if looked != bool(at) else other
    x[bad, 0] = begins
    source = model_source(
        {"model": Picky(), "calibration": torch.rand(20, 3), "evaluation": (x, None), "holdout": None,
         "task": "classification"}
    )  # fmt: skip

    with pytest.raises(ModelError, match=said.replace("137", str(bad))):
        analysing.analyze(source, HOW)
