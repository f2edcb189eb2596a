"""Times of layers are read off the runtime's profiler, and prices fitted to whole runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.evidence.options import MeasureOptions
from core.numerics.precision import INT4_G32, INT8
from core.runtime import profile as profiling
from core.runtime import verify as verifying
from core.runtime.build import assemble
from core.runtime.profiler import Charger, Profiled, middle
from core.runtime.timing import repeated
from core.source import samples
from tests.core.verified import narrowed
from tests.zoo.sources import tiny_source


@pytest.fixture(scope="module")
def bench(tiny_analysis: Analysis) -> verifying.Bench:
    """A tiny transformer, exported."""
    return verifying.prepare(tiny_source(), tiny_analysis)


def test_nodes_are_charged_to_their_layers(bench: verifying.Bench) -> None:
    """Every multiplying layer takes time in FP32, nothing is converted there, and in a mixed map
    conversions stand apart.
    """
    study = bench.study
    given = repeated(bench.reference.inputs, bench.split.inputs, 16)
    plain = Charger(bench.reference, study.layers).profiled(given, 16)
    mixed = Charger(
        assemble(bench.graph, bench.analysis, narrowed(study, 4)), study.layers
    ).profiled(given, 16)

    heavy = [i for i, layer in enumerate(study.layers) if layer.macs]
    assert (plain.layers[heavy] > 0).all()
    assert plain.boundaries < 0.1 * plain.total
    assert mixed.boundaries > plain.boundaries


@pytest.mark.slow
def test_a_fused_kernel_is_charged_to_the_layer_that_multiplies() -> None:
    """A convolution whose kernel ends with its activation takes all of that kernel's time,
    although the runtime gives the kernel the activation's name; in FP32 as in INT8.
    """
    analysis = store.load(samples.get("digits_resnet").analysis)
    bench = verifying.prepare(samples.load(f"{samples.PREFIX}digits_resnet"), analysis)
    study = bench.study
    given = repeated(bench.reference.inputs, bench.split.inputs, 16)
    before = [a for a, _ in study.layers.kernels]
    behind = [b for _, b in study.layers.kernels]
    assert before

    for precision in ("FP32", "INT8"):
        uniform = answer.decide(study, Policy(strategy="uniform", uniform=precision))
        built = assemble(bench.graph, analysis, uniform)
        found = Charger(built, study.layers).profiled(given, 16)
        assert (found.layers[before] > 0).all(), precision
        assert found.layers[behind].sum() < 0.02 * found.layers[before].sum(), precision


def test_one_slow_pass_does_not_count() -> None:
    """Several passes of one map give the median of each figure."""
    passes = [Profiled(np.array([ms, 1.0]), boundaries=ms, rest=0.5) for ms in (0.2, 9.0, 0.3)]

    found = middle(passes)

    assert found.layers.tolist() == [0.3, 1.0]
    assert (found.boundaries, found.rest) == (0.3, 0.5)


def test_times_within_another_kernel_do_not_count() -> None:
    """The time of an activation is the mean over the maps in which it is a kernel of its own."""
    study = Study(store.load(samples.get("digits_resnet").analysis))
    precisions = ("FP32", "INT8")
    chosen = profiling.profiled_maps(study, precisions, 10)
    behind = study.layers.kernels[0][1]
    inside = [bool(study.forms.changes(one.codes)[1][behind]) for one in chosen]
    narrow = [one.assigned[behind] == "INT8" for one in chosen]
    assert {fused for fused, is_narrow in zip(inside, narrow, strict=True) if is_narrow} == {
        True, False,
    }  # fmt: skip
    seen = [
        Profiled(np.full(len(study.layers), 0.0 if fused else 0.25), 0.0, 0.0) for fused in inside
    ]

    own, _ = profiling.layer_times(study, precisions, chosen, seen, np.ones(len(chosen)))

    assert own[1, behind] == 0.25


def test_a_profile_covers_every_layer(bench: verifying.Bench) -> None:
    """A profile names its machine, batch and way, and latency can be estimated from it."""
    found = profiling.profile(bench, maps=3, rounds=2)
    analysis: Analysis = replace(bench.analysis, profile=found)
    study = Study(analysis)

    assert found.layers == study.layers.names
    assert set(found.way) <= {"profiler", "difference"}
    assert found.machine.processor
    assert found.machine.threads == 1
    assert found.batch > 1  # a tiny model's call is too short
    estimate = study.latency("this-machine").estimate(narrowed(study, 4).codes)
    assert estimate.total.value is not None
    assert estimate.total.value > 0


def test_weights_by_groups_are_timed() -> None:
    """A profile holds times of its own for weights by groups, and its maps mix them with integers on
    both sides, so that prices of boundaries are found all the same.
    """
    analysis = analyze(tiny_source(), MeasureOptions(precisions=(INT8, INT4_G32), probes=2))
    bench = verifying.prepare(tiny_source(), analysis)
    precisions = ("FP32", "INT8", "INT4-g32")
    maps = profiling.profiled_maps(bench.study, precisions)
    takes = bench.study.layers.takes_groups
    mixed = [{p for p, t in zip(one.assigned, takes, strict=True) if t} for one in maps]
    found = profiling.profile(bench, maps=3, rounds=2)

    assert set(precisions) in mixed
    for one in maps[len(precisions) :]:
        plain = {p for p, t in zip(one.assigned, takes, strict=True) if not t}
        assert "INT4-g32" not in plain
    assert found.precisions == precisions
    study = Study(replace(analysis, profile=found))
    low = answer.decide(study, Policy(strategy="uniform", uniform="INT4-g32"))
    model = study.latency("this-machine")
    own = np.array(found.layer_ms)
    heavy = takes & (own > 0).all(axis=0)
    assert heavy.any()
    assert (own[2, heavy] != own[0, heavy]).any()
    assert model.estimate(low.codes).total.value == pytest.approx(
        sum(own[c, i] for i, c in enumerate(low.codes) if c >= 0) + found.rest_ms
    )


def test_prices_are_found_again(bench: verifying.Bench) -> None:
    """Whole maps made of known layer times, conversions and a rest give these back."""
    study = bench.study
    precisions = ("FP32", "INT8")
    chosen = profiling.profiled_maps(study, precisions, 10)
    rng = np.random.default_rng(0)
    own = rng.uniform(0.5, 1.0, (2, len(study.layers))) * study.layers.computes
    totals = []
    for one in chosen:
        crossing, silent = study.forms.changes(one.codes)
        at = np.array([precisions.index(n) if n is not None else -1 for n in one.assigned])
        layers = sum(own[p, i] for i, p in enumerate(at) if p >= 0 and not silent[i])
        elements = np.array([edge.elements for edge in study.layers.edges])
        totals.append(0.9 * layers + 0.4 + 0.05 * crossing.sum() + 1e-3 * elements[crossing].sum())

    found = profiling.fit(study, precisions, chosen, own, np.array(totals))

    assert found.scale == pytest.approx(0.9, rel=1e-3)
    assert found.rest_ms == pytest.approx(0.4, rel=1e-2)
    assert found.quantized.fixed_ms == pytest.approx(0.05, rel=1e-2)
    assert found.quantized.per_element_ms == pytest.approx(1e-3, rel=1e-2)
    assert found.spread < 1e-6


def test_what_the_profiler_cannot_name_is_found_as_a_difference(bench: verifying.Bench) -> None:
    """A layer without a single recognised node gets the difference of whole maps."""
    study = bench.study
    precisions = ("FP32", "INT8")
    chosen = profiling.profiled_maps(study, precisions, 12)
    lost = next(i for i, layer in enumerate(study.layers) if layer.macs)
    known = np.full((2, len(study.layers)), 0.1)
    known[:, lost] = 0.0
    seen = [Profiled(known[0], 0.0, 0.0) for _ in chosen]
    totals = np.array(
        [known[0].sum() + (1.0 if one.assigned[lost] == "FP32" else 0.4) for one in chosen]
    )

    own, way = profiling.layer_times(study, precisions, chosen, seen, totals)

    assert way[lost] == "difference"
    assert own[0, lost] - own[1, lost] == pytest.approx(0.6, abs=1e-6)
    assert set(way[:lost] + way[lost + 1 :]) == {"profiler"}
