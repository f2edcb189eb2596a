"""What was found of single layers is kept as runs are: with the same bits, and nothing twice."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.evidence.diagnose import local_measure
from core.evidence.diagnose.own_output import OwnOutputs
from core.evidence.layer_alone import LocalStatistics
from core.evidence.measure import run_cache
from core.evidence.measure.cache import Cache
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT8, Precision
from core.source.contract import ModelSource
from tests.zoo import awkward
from tests.zoo.sources import source_of

BOTH = (FP16, INT8)


class Stopped(BaseException):
    """Stands for Ctrl+C."""


class Watched:
    """Analyses of a model that count what is looked at: layers by name and precision, gradients."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, source: ModelSource) -> None:
        self.source = source
        self.looked: list[tuple[str, str]] = []
        self.pulled = 0
        of, pull_back = OwnOutputs.of, local_measure.pull_back

        def watched(own: OwnOutputs, layer: str, precision: Precision, *rest: object) -> object:
            self.looked.append((layer, precision.name))
            return of(own, layer, precision, *rest)  # type: ignore[arg-type]

        def pulling(*given: object) -> object:
            self.pulled += 1
            return pull_back(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(OwnOutputs, "of", watched)
        monkeypatch.setattr(local_measure, "pull_back", pulling)
        monkeypatch.setattr(run_cache, "FLUSH_SECONDS", 0.0)

    def analyze(
        self, cache: Path | None, precisions: tuple[Precision, ...] = BOTH, stop: str = ""
    ) -> Analysis:
        """Analyze; `looked` and `pulled` are of this call. `stop` is the step to stop at."""
        self.looked, self.pulled, steps = [], 0, []

        def step(done: int, total: int, label: str) -> None:
            steps.append(label)
            if stop and steps.count(stop) == 2:  # its error, then its remedies
                raise Stopped

        options = MeasureOptions(precisions=precisions, probes=2)
        kept = None if cache is None else Cache(cache)
        return analyze(self.source, options, cache=kept, progress=step)


def bits(analysis: Analysis) -> dict[str, bytes | None]:
    """Every local statistic as bytes: NaN is equal to itself."""
    evidence = analysis.evidence
    assert evidence is not None
    assert evidence.local is not None
    found = {f.name: getattr(evidence.local, f.name) for f in fields(LocalStatistics)}
    return {name: None if x is None else x.tobytes() for name, x in found.items()}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Analyses of a few layers."""
    torch.manual_seed(0)
    layers = (nn.Linear(5, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3))
    return Watched(monkeypatch, source_of(nn.Sequential(*layers), (5,), samples=24))


def test_a_repeated_analysis_looks_at_no_layer_again(watched: Watched, tmp_path: Path) -> None:
    """The second analysis runs no layer and no gradient, and has the bits of one without a cache."""
    expected = bits(watched.analyze(None))
    assert watched.looked
    first = bits(watched.analyze(tmp_path))
    assert watched.looked
    second = bits(watched.analyze(tmp_path))

    assert watched.looked == []
    assert watched.pulled == 0
    assert first == second == expected


def test_an_analysis_that_was_stopped_between_layers_goes_on_there(
    watched: Watched, tmp_path: Path
) -> None:
    """What was found of layers before the stop is found again, the rest is made, bits and all."""
    whole = watched.analyze(None)
    every, names = set(watched.looked), whole.layers.names
    with pytest.raises(Stopped):
        watched.analyze(tmp_path, stop=f"{names[len(names) // 2]} by itself")
    before = list(watched.looked)
    again = watched.analyze(tmp_path)

    assert before
    assert watched.looked
    assert watched.pulled == 0
    assert len(before) + len(watched.looked) == len(every_time(watched))
    assert bits(again) == bits(whole)
    assert {layer for layer, _ in watched.looked} < {layer for layer, _ in every}


def every_time(watched: Watched) -> list[tuple[str, str]]:
    """What an analysis without a cache looks at."""
    made = watched.looked
    watched.analyze(None)
    found, watched.looked = watched.looked, made
    return found


def test_another_precision_finds_what_the_first_found_of_layers(
    watched: Watched, tmp_path: Path
) -> None:
    """Errors of layers in FP16 are not made again when INT8 is asked for too."""
    watched.analyze(tmp_path, (FP16,))
    alone = [name for _, name in watched.looked]
    both = watched.analyze(tmp_path)

    assert set(alone) == {"FP16"}
    # In FP16 each layer is looked at once more, as one of the remedies of INT8.
    halves = [layer for layer, name in watched.looked if name == "FP16"]
    assert len(halves) == len(set(halves)) == len(alone)
    assert bits(both) == bits(watched.analyze(None))


@pytest.mark.parametrize("change", ["version", "draws", "weights"])
def test_what_the_figures_depend_on_is_in_their_key(
    watched: Watched, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another way to look, another number of draws or other weights find nothing of the first."""
    watched.analyze(tmp_path)
    first = watched.looked
    if change == "version":
        monkeypatch.setattr(local_measure, "LOCAL_VERSION", -1)
    elif change == "draws":
        monkeypatch.setattr(local_measure, "DRAWS", 2)
    else:
        with torch.no_grad():
            next(watched.source.model.parameters()).add_(0.01)
    found = watched.analyze(tmp_path)

    assert len(watched.looked) == len(first)
    assert bits(found) == bits(watched.analyze(None))


def test_layers_of_a_model_with_state_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where runs are not kept, since they would differ, single layers are not either."""
    torch.manual_seed(0)
    watched = Watched(monkeypatch, source_of(nn.Sequential(awkward.Counting()), (5,)))
    watched.analyze(tmp_path)
    first = watched.looked
    watched.analyze(tmp_path)

    assert len(watched.looked) == len(first) > 0
