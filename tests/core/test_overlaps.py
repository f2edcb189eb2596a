"""Two layers that round the same tensor are counted once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from core.analysis import store
from core.engines.engines import engine_of, layers_of
from core.estimate.combine_perturbations import FIRST_ORDER, FORMS, Combiner, Form
from core.estimate.map_objective import MapObjective
from core.estimate.overlaps import overlaps
from core.estimate.projection import Projector
from core.evidence.evidence import Evidence
from core.evidence.shared_rounding import no_pairs, shared_rounding
from core.numerics import precision as registry
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU
from core.source import samples
from tests.core.interacting import interacting_evidence
from tests.zoo.sources import tiny_source

ONCE = Form(1, None, once=True)
PAIRS = np.array([[0, 1], [1, 2], [4, 6], [2, 6]])


def _sharing(**changes: object) -> Evidence:
    """Nine layers, some of which share what they round."""
    return replace(interacting_evidence(9, seed=3, bent=0.5), shared=PAIRS, **changes)


def test_an_output_and_an_operand_of_one_range_are_one_tensor() -> None:
    """Places that saw the same ends are paired where one rounds an output and the other an operand;
    two operands, a layer with itself, ranges of nothing and layers that are gone are not.
    """
    seen = [
        Calibration("norm", -1, -1, -1.0, 2.0), Calibration("query", 0, 0, -1.0, 2.0),
        Calibration("key", 0, 0, -1.0, 2.0), Calibration("key", 0, -1, 0.5, 3.0),
        Calibration("key", 1, 0, 0.5, 3.0), Calibration("dead", -1, -1, 0.0, 0.0),
        Calibration("head", 0, 0, 0.0, 0.0), Calibration("gone", 0, 0, -1.0, 2.0),
    ]  # fmt: skip
    index = {name: i for i, name in enumerate(("norm", "query", "key", "dead", "head"))}

    assert shared_rounding(seen, index).tolist() == [[0, 1], [0, 2]]
    assert shared_rounding([], index).shape == no_pairs().shape


def test_what_two_layers_share_is_in_their_sum_once() -> None:
    """Of Δa = a + t and Δb = b + t the sum has the size of a + b + t, and each alone is as it was."""
    rng = np.random.default_rng(5)
    a, b, t = np.linalg.qr(rng.normal(size=(400, 3)))[0].T * np.array([[1.0], [0.5], [2.0]])
    rows = np.stack([a + t, b + t, a]).reshape(1, 3, 100, 4).astype(np.float32)
    evidence = replace(
        interacting_evidence(3, samples=100), precisions=("INT8",), perturbations=rows,
        whole=np.zeros((0, 100, 4), np.float32), shared=np.array([[0, 1]]),
    )  # fmt: skip
    combiner = Combiner(evidence)

    def size(*codes: int) -> float:
        return float(np.square(combiner.change(np.array(codes, np.int8), ONCE)).sum())

    assert size(1, 1, 0) == pytest.approx(1 + 0.25 + 4, rel=1e-5)
    assert size(1, 0, 0) == pytest.approx(1 + 4, rel=1e-5)
    assert size(0, 1, 1) == pytest.approx(0.25 + 4 + 1, rel=1e-5)  # the third shares nothing


def test_a_norm_and_what_reads_it_are_projected_as_they_run() -> None:
    """In a transformer a sum says too much of every pair that shares a tensor, by a quarter and more,
    and less than half of that is left on average.
    """
    source = tiny_source()
    layers = layers_of(source, ORT_CPU)
    engine = engine_of(source, layers, ORT_CPU)
    engine.calibrate(source.calibration.inputs)
    inputs = source.selection.inputs
    base = engine.run({}, inputs)
    alone = np.zeros((1, len(layers), *base.shape), np.float32)
    for i, layer in enumerate(layers):
        if layer.computes_at_inference:
            alone[0, i] = engine.run({layer.name: registry.INT8}, inputs) - base
    pairs = shared_rounding(engine.ranges.to_store(), layers.index)
    evidence = replace(
        interacting_evidence(len(layers)), precisions=("INT8",), baseline=base, perturbations=alone,
        whole=np.zeros((0, *base.shape), np.float32), shared=pairs,
    )  # fmt: skip
    errors = []
    for pair in pairs[np.square(alone[0, pairs]).sum(axis=(1, 2, 3)) > 0]:
        codes = np.zeros(len(layers), np.int8)
        codes[pair] = 1
        names = [layers.names[i] for i in pair]
        ran = np.square(engine.run(dict.fromkeys(names, registry.INT8), inputs) - base).sum()
        with_overlap, plain = (
            np.square(Combiner(evidence).change(codes, form)).sum() for form in (ONCE, FIRST_ORDER)
        )
        errors.append(np.log([with_overlap / ran, plain / ran]))

    assert len(errors) >= 4
    found, summed = np.array(errors).T
    assert (np.abs(found) < np.abs(summed)).all()
    assert summed.mean() > 0.25
    assert np.abs(found).mean() < summed.mean() / 2


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.in_words())
def test_the_search_weighs_them_as_the_projector_does(form: Form) -> None:
    """Costs of maps, of moves, and of where these lead are the projector's."""
    evidence = _sharing()
    projector, objective = Projector(evidence, "FP32"), MapObjective(evidence, form)
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, (60, 9)).astype(np.int8)
    codes[:, ~evidence.perturbations.any(axis=(0, 2, 3))] = -1
    codes[0, codes[0] >= 0] = 2
    projected = [projector.figures(projector.change(row, form)).kl for row in codes]

    assert [objective.place(row).cost for row in codes] == pytest.approx(projected, rel=1e-6)
    assert objective.costs(codes) == pytest.approx(projected, rel=1e-3, abs=1e-9)
    for before, after in itertools.pairwise(codes):
        layers = np.flatnonzero((before != after) & (before >= 0))[:3]
        wanted = before.copy()
        wanted[layers] = after[layers]
        change = (layers, after[layers].astype(np.int64))
        place = objective.place(before)
        expected = pytest.approx(objective.place(wanted).cost, rel=1e-6)
        assert objective.moved(place, [change])[0] == expected
        assert objective.after(place, change).cost == expected


def test_gains_are_told_with_what_is_shared() -> None:
    """Of changes so small that costs are linear, what a search expects of a move is what it gets."""
    evidence = _sharing()
    small = replace(evidence, perturbations=evidence.perturbations * np.float32(1e-3))
    objective = MapObjective(small, ONCE, "labels")
    rng = np.random.default_rng(2)
    for _ in range(5):
        codes = rng.integers(0, 3, 9).astype(np.int8)
        place = objective.place(codes)
        gains = objective.gains(place)
        for layer in range(9):
            for code in (0, 1, 2):
                change = (np.array([layer]), np.array([code]))
                got = objective.moved(place, [change])[0] - place.cost
                crossing = codes[layer] > 0 < code != codes[layer]
                if not crossing:  # a move between precisions is expected to a first order only
                    assert gains[code, layer] == pytest.approx(got, rel=2e-2, abs=2e-9)


def test_a_pair_costs_what_it_weighs_in_second_order() -> None:
    """The quadratic form of two rows of a pair is that of their weighed sum, of others as it was."""
    evidence = _sharing()
    shared = overlaps(evidence)
    rows = evidence.perturbations.reshape(18, -1).astype(np.float64)
    q = shared.between(rows @ rows.T)
    partner = {(a, b) for a, some in shared.partners.items() for b, _ in some}

    assert partner
    for a in range(18):
        for b in range(a):
            picked = np.isin(np.arange(18), (a, b))
            weights = shared.weights(picked[None])[0] if (a, b) in partner else np.ones(18)
            together = np.square((weights * picked) @ rows).sum()
            assert q[a, a] + q[b, b] + 2 * q[a, b] == pytest.approx(together, rel=1e-9)


@pytest.mark.parametrize("name", samples.names())
def test_sums_of_every_sample_gain(name: str) -> None:
    """On whole maps that were simulated, sums err by a tenth less and more than with every rounding
    counted as often as layers do it.
    """
    evidence = store.load(samples.get(name).analysis).evidence
    assert evidence is not None
    assert len(evidence.shared) >= 15

    projector, codes = Projector(evidence, "FP32"), (evidence.probe_codes + 1).astype(np.int8)
    simulated = [projector.figures(change).kl for change in evidence.probes]

    def error(form: Form) -> float:
        projected = [projector.figures(projector.change(c, form)).kl for c in codes]
        return float(np.abs(np.log(np.array(projected) / simulated)).mean())

    assert error(ONCE) < 0.9 * error(FIRST_ORDER)


def test_where_layers_correlate_otherwise_they_are_added() -> None:
    """Layers with an equal range whose changes really add up are projected as the plain sum, for
    the probes show it.
    """
    evidence = replace(interacting_evidence(9, seed=3), shared=PAIRS)

    assert Projector(evidence, "FP32").form == FIRST_ORDER
