"""Size against a written file, latency's rules, and projection against simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import ProfileError
from core.estimate import hardware
from core.estimate.combine_perturbations import FIRST_ORDER, FORMS, Combiner, Form
from core.estimate.metrics import kl_per_sample
from core.estimate.projection import Projector
from core.evidence.measure.measure import assignment_of, make_simulator
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import log_softmax
from core.numerics.precision import FP16, INT8, integers
from tests.core.synthetic import synthetic_analysis, synthetic_evidence, synthetic_layers
from tests.core.tensor_file import write_tensors
from tests.zoo import models
from tests.zoo.precisions import registered
from tests.zoo.sources import source_of, tiny_source

LAUNCHES_LAST = 10_000.0
"""Peak in 10^9 multiply-accumulates a second beyond which launches outweigh small products."""
POLICIES = {
    "document": Policy(),
    "FP32": Policy(strategy="uniform", uniform="FP32"),
    "FP16": Policy(strategy="uniform", uniform="FP16"),
    "INT8": Policy(strategy="uniform", uniform="INT8"),
    "mixed": Policy(strategy="top-k", top_k=4, high="FP32", pins=(("head", "FP16"),)),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_size_equals_the_bytes_of_a_written_file(
    policy: Policy, tiny_analysis: Analysis, tiny_study: Study, tmp_path: Path
) -> None:
    """Estimated bytes are exact: the same as all tensors of a file with the map's types."""
    chosen = answer.decide(tiny_study, policy)
    path = tmp_path / "map.safetensors"

    written = write_tensors(tiny_analysis, chosen, tiny_source().model, path)

    size = outcome(tiny_study, chosen).totals["size_bytes"]
    assert size.kind == "exact"
    assert size.value == written
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == 8 + header + written
    with safe_open(path, framework="np") as file:
        kinds = {str(file.get_tensor(k).dtype) for k in file.keys()}  # noqa: SIM118 (no mapping)
    assert ("int8" in kinds) == (chosen.count("INT8") > 0)
    assert ("float16" in kinds) == (chosen.count("FP16") > 0)


@pytest.mark.slow
def test_sizes_of_the_zoo_equal_written_files(tmp_path: Path) -> None:
    """Batch norm, grouped and transposed convolutions, tables and tied weights are exact too."""
    for model, shape, ids in (
        (models.ConvNet(), (1, 8, 8), 0),
        (models.TokenModel(), (4,), 20),
        (models.TiedWeights(), (5,), 0),
        (models.NeverCalled(), (5,), 0),
        (models.Encoder(), (5, 8), 0),
    ):
        source = source_of(model, shape, ids=ids)
        analysis = analyze(source, MeasureOptions(precisions=(INT8,), probes=0))
        study = Study(replace(analysis, evidence=None))  # open to all that is registered
        for precision in study.precisions:
            chosen = uniform_map(study, precision, hardware.DEFAULT)
            path = tmp_path / f"{type(model).__name__}-{precision}.safetensors"
            written = write_tensors(analysis, chosen, model, path)
            assert outcome(study, chosen).totals["size_bytes"].value == written


@pytest.mark.slow
def test_four_bit_weights_are_packed_two_to_a_byte(tmp_path: Path) -> None:
    """A precision that is only registered is written and counted without further code."""
    int4 = integers("INT4-test", 4)
    source = tiny_source()
    with registered(int4):
        analysis = analyze(source, MeasureOptions(precisions=(FP16, int4), probes=0))
        study = Study(analysis)
        chosen = uniform_map(study, int4.name, hardware.DEFAULT)
        written = write_tensors(analysis, chosen, source.model, tmp_path / "int4.safetensors")

        assert outcome(study, chosen).totals["size_bytes"].value == written
        int8 = Study(analyze(source, MeasureOptions(precisions=(INT8,), probes=0)))
    assert written < 0.8 * (
        outcome(int8, uniform_map(int8, "INT8", hardware.DEFAULT)).totals["size_bytes"].value or 0
    )


def test_layers_add_up_to_totals(tiny_study: Study) -> None:
    """Rows of bytes and milliseconds add up to the headline figures."""
    for policy in POLICIES.values():
        found = outcome(tiny_study, answer.decide(tiny_study, policy))

        assert found.layer_bytes.sum() + found.glue_bytes == found.totals["size_bytes"].value
        latency = found.totals["latency_ms"]
        assert found.layer_ms.sum() + found.boundaries_ms == pytest.approx(latency.value)
        assert latency.low is not None
        assert latency.value is not None
        assert latency.high is not None
        assert latency.low < latency.value < latency.high


def test_uniform_float_maps_cross_no_boundary(tiny_study: Study) -> None:
    """A model wholly in FP32 converts nothing; a mixed one pays for every crossing."""
    device = "datacenter-gpu-t4"
    assert outcome(tiny_study, uniform_map(tiny_study, "FP32", device)).boundaries == 0
    assert outcome(tiny_study, uniform_map(tiny_study, "FP16", device)).boundaries == 0

    one = answer.decide(tiny_study,
        Policy(strategy="manual", high="FP32", hardware=device,
               overrides=(("blocks.0.attention", "FP16"),))
    )  # fmt: skip
    edges = [
        e
        for e in tiny_study.layers.edges
        if tiny_study.layers.index["blocks.0.attention"] in (e.source, e.target)
    ]
    assert outcome(tiny_study, one).boundaries == len(edges) > 0


def test_fp16_is_slower_than_fp32_only_without_kernels(informer_study: Study) -> None:
    """On a CPU without FP16 kernels FP16 costs casts; on a GPU it gains speed."""
    for device, slower in (("server-cpu-vnni", True), ("datacenter-gpu-t4", False)):
        fp32, fp16 = (
            outcome(informer_study, uniform_map(informer_study, p, device)).totals["latency_ms"]
            for p in ("FP32", "FP16")
        )
        assert fp32.value is not None
        assert fp16.value is not None
        assert (fp16.value > fp32.value) == slower


def test_int8_is_faster_where_layers_compute(informer_study: Study) -> None:
    """All-INT8 beats all-FP32 for a model made of matrix products on every profile on which these take
    longer than the launches of its kernels.
    """
    for device in hardware.profiles():
        if hardware.get(device).peak_gmac_per_s["FP32"] > LAUNCHES_LAST:
            continue
        found = outcome(informer_study, uniform_map(informer_study, "INT8", device))
        assert (found.totals["speedup"].value or 0) > 1


def test_a_slower_mixed_map_is_said_to_be_slower(informer_study: Study) -> None:
    """A map that a uniform one beats carries the sentence that says so."""
    found = outcome(informer_study, answer.decide(informer_study, Policy()))

    assert any("slower than all FP32" in sentence for sentence in found.warnings)
    assert any("no FP16 kernels" in sentence for sentence in found.warnings)


@pytest.mark.parametrize(
    "text", ["", "title = 3", "not toml [", "[peak_gmac_per_s]\nFP16 = 1.0", "bandwidth = -1"]
)
def test_malformed_profiles_are_refused(text: str) -> None:
    """A malformed hardware profile is named with what is wrong."""
    with pytest.raises(ProfileError, match="mine"):
        hardware.parse(text, "mine")


def test_every_profile_states_its_source() -> None:
    """No figure of a device stands without where it comes from."""
    assert len(hardware.profiles()) >= 3
    for profile in hardware.profiles().values():
        assert len(profile.source) > 40
        assert profile.efficiency.low < profile.efficiency.typical < profile.efficiency.high


# ---- projection


def test_projection_is_exact_at_both_ends(tiny_study: Study) -> None:
    """The reference map changes nothing; the uniform maps give what was simulated."""
    projector = tiny_study.projector
    evidence = tiny_study.analysis.evidence
    assert projector is not None
    assert evidence is not None
    for code, name in enumerate(tiny_study.precisions):
        codes = uniform_map(tiny_study, name, hardware.DEFAULT).codes
        expected = np.zeros_like(evidence.baseline) if code == 0 else evidence.whole[code - 1]
        np.testing.assert_allclose(projector.change(codes), expected, atol=1e-6)


def test_projection_of_one_layer_is_its_perturbation_when_layers_add_up() -> None:
    """Where whole maps are exact sums, every map is projected exactly."""
    layers = synthetic_layers(20)
    evidence = synthetic_evidence(layers)
    projector = Projector(evidence, "FP32")
    rng = np.random.default_rng(1)
    for _ in range(10):
        codes = rng.integers(0, 3, size=20).astype(np.int8)
        codes[~layers.computes] = -1
        expected = sum(evidence.perturbations[c - 1, i] for i, c in enumerate(codes) if c > 0)
        np.testing.assert_allclose(projector.change(codes), expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.in_words())
def test_every_form_is_exact_where_something_was_measured(form: Form) -> None:
    """A single layer gives its perturbation, and a uniform map what it gave."""
    layers = synthetic_layers(20)
    evidence = synthetic_evidence(layers)
    bent = replace(evidence, whole=(evidence.whole * 0.6).astype(np.float32))
    combiner = Combiner(bent)

    for i in (0, 7, 19):
        codes = np.zeros(20, np.int8)
        codes[i] = 2
        expected = evidence.perturbations[1, i] if layers.computes[i] else 0
        np.testing.assert_allclose(
            combiner.change(codes, form), np.zeros((1, 1)) + expected, atol=1e-5
        )
    for p in (1, 2):
        codes = np.where(layers.computes, p, -1).astype(np.int8)
        np.testing.assert_allclose(combiner.change(codes, form), bent.whole[p - 1], atol=1e-5)


def test_the_form_is_chosen_by_what_the_probes_show() -> None:
    """Layers that add up choose the sum; layers that tip the same samples choose the root."""
    layers = synthetic_layers(20)
    additive = synthetic_evidence(layers, probes=8)
    rng = np.random.default_rng(2)
    # A few samples jump to one alternative output whichever layer tips them.
    jump = rng.normal(size=(1000, 10)).astype(np.float32) * (rng.random((1000, 1)) < 0.05)
    tips = rng.random((2, 20, 1000, 1)) < 0.2
    tips[:, ~layers.computes] = False
    alone = tips * jump

    def together(row: np.ndarray) -> np.ndarray:
        tipped = np.zeros((1000, 1), bool)
        for i, code in enumerate(row):
            if code >= 0:
                tipped |= tips[code, i]
        return (tipped * jump).astype(np.float32)

    tipping = replace(
        additive,
        perturbations=alone.astype(np.float32),
        whole=np.stack([together(np.full(20, p)) for p in (0, 1)]),
        probes=np.stack([together(row) for row in additive.probe_codes]),
    )

    assert Projector(additive, "FP32").form == FIRST_ORDER
    chosen = Projector(tipping, "FP32")
    assert chosen.form.power == 2
    codes = np.where(layers.computes, np.arange(20) % 2 + 1, -1).astype(np.int8)
    simulated = chosen.figures(together(codes - 1)).kl
    found = chosen.project(codes).kl
    assert found.low is not None
    assert found.high is not None
    assert found.low <= simulated <= found.high
    first = chosen.figures(chosen.change(codes, FIRST_ORDER)).kl
    assert first > found.high


def test_a_divergence_weighs_every_form_by_its_errors_on_the_probes() -> None:
    """By hand: the projected KL is the geometric mean over the forms, each weighted by its root mean
    square log error to the power of -3, and its range is wider where the forms lie further apart.
    """
    layers = synthetic_layers(12)
    plain = synthetic_evidence(layers, probes=6)
    rng = np.random.default_rng(3)
    bent = plain.probes * rng.uniform(0.7, 1.1, (6, 1, 1)).astype(np.float32)
    evidence = replace(plain, probes=bent, whole=(plain.whole * 0.8).astype(np.float32))
    projector = Projector(evidence, "FP32")

    def logs(codes: np.ndarray) -> np.ndarray:
        changes = (projector.change(codes.astype(np.int8), form) for form in FORMS)
        return np.log([projector.figures(change).kl for change in changes])

    guessed = np.stack([logs(row + 1) for row in evidence.probe_codes])
    simulated = np.log([projector.figures(probe).kl for probe in evidence.probes])
    weight = (np.square(simulated[:, None] - guessed).mean(axis=0) + 0.005**2) ** -1.5
    weight /= weight.sum()
    apart, widths = [], []
    for share in (0.2, 0.5, 0.8, 1.0):
        codes = np.where(layers.computes & (rng.random(12) < share), 2, 0)
        codes[~layers.computes] = -1
        if not (codes > 0).any():
            continue
        of_forms = logs(codes)
        found = projector.project(codes.astype(np.int8)).kl
        assert found.value == pytest.approx(np.exp(of_forms @ weight))
        assert found.high
        assert found.low
        assert found.high / found.value == pytest.approx(found.value / found.low)
        middle = of_forms @ weight
        if middle >= (guessed @ weight).min():  # below the probes ranges widen for another reason
            apart.append(np.sqrt(np.square(of_forms - middle) @ weight))
            widths.append(np.log(found.high / found.low))
    assert len(apart) > 1
    assert (np.argsort(apart) == np.argsort(widths)).all()


def test_a_range_widens_below_every_probe() -> None:
    """A map that moves the outputs far less than any probe did is projected with a wider range, in
    proportion to how far that is in the logarithm.
    """
    layers = synthetic_layers(12)
    evidence = synthetic_evidence(layers, probes=6)
    projector = Projector(evidence, "FP32")
    least = min(projector.figures(probe).kl for probe in evidence.probes)

    found = projector.project(np.where(layers.computes, 1, -1).astype(np.int8)).kl  # FP16 alone

    assert found.value is not None
    assert found.high is not None
    assert found.value < least / 100
    assert np.log(found.high / found.value) > 2 * 0.05 * np.log(least / found.value)


def test_the_error_of_a_probe_is_unseen_by_the_choice() -> None:
    """Cross-validation: a probe's error comes from the form that the other probes choose."""
    evidence = synthetic_evidence(synthetic_layers(12), probes=6)
    projector = Projector(evidence, "FP32")

    errors = projector.probe_errors

    assert len(errors) == 6
    for (projected, simulated), row in zip(errors, evidence.probe_codes, strict=True):
        under_each = [
            projector.figures(projector.change((row + 1).astype(np.int8), form)).kl
            for form in FORMS
        ]
        assert any(projected.kl == pytest.approx(kl) for kl in under_each)
        assert simulated.kl > 0


@pytest.mark.slow
def test_projection_follows_direct_simulation(tiny_study: Study) -> None:
    """Random maps of a tiny model: projected and simulated KL agree in rank and size."""
    source, study = tiny_source(), tiny_study
    projector = study.projector
    assert projector is not None
    simulator = make_simulator(source, study.layers, MeasureOptions())
    baseline = simulator.run({}, source.selection.inputs)
    rng = np.random.default_rng(5)
    pairs = []
    for _ in range(12):
        narrow = study.precisions.index("INT8")
        codes = np.where(rng.random(len(study.layers)) < rng.random(), narrow, 0).astype(np.int8)
        codes[~study.layers.computes] = -1
        if not (codes > 0).any():
            continue
        assignment = assignment_of(
            (codes - 1).astype(np.int8), study.layers, MeasureOptions().precisions
        )
        simulated = simulator.run(assignment, source.selection.inputs) - baseline
        pairs.append(
            (projector.figures(projector.change(codes)).kl, projector.figures(simulated).kl)
        )

    projected, simulated_kl = np.array(pairs).T
    assert np.abs(np.log(projected / simulated_kl)).mean() < 0.5
    ranks = [np.argsort(np.argsort(v)) for v in (projected, simulated_kl)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_ranges_hold_their_value_and_widen_with_fewer_samples() -> None:
    """A projection lies in its own range; a quarter of the samples widens the range."""
    layers = synthetic_layers(10)
    many = synthetic_evidence(layers, samples=1200)
    few = replace(
        many, baseline=many.baseline[:300], targets=None if many.targets is None else many.targets[:300],
        perturbations=many.perturbations[:, :, :300], whole=many.whole[:, :300],
        probes=many.probes[:, :300],
    )  # fmt: skip
    codes = np.where(layers.computes, 2, -1).astype(np.int8)
    wide, narrow = (Projector(e, "FP32").project(codes) for e in (few, many))

    for projection in (wide, narrow):
        for figure in (projection.accuracy_drop_pts, projection.kl, projection.flips):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.value is not None
            assert figure.low <= figure.value <= figure.high

    def width(projection: object) -> float:
        drop = projection.accuracy_drop_pts  # type: ignore[attr-defined]
        return float(drop.high - drop.low)

    assert width(wide) > width(narrow)


def test_no_flip_does_not_pass_for_certainty() -> None:
    """A map that flips nothing still has a range, because the sample is finite."""
    layers = synthetic_layers(10)
    evidence = synthetic_evidence(layers)
    quiet = replace(
        evidence, perturbations=evidence.perturbations * 1e-6, whole=evidence.whole * 1e-6,
        probes=evidence.probes * 1e-6,
    )  # fmt: skip
    drop = Projector(quiet, "FP32").project(np.where(layers.computes, 2, -1).astype(np.int8))

    assert drop.accuracy_drop_pts.value == 0
    assert (drop.accuracy_drop_pts.high or 0) > 0


def test_a_forbidden_precision_projects_nothing() -> None:
    """A layer whose outputs were not finite makes every figure unknown, never 0."""
    layers = synthetic_layers(5)
    evidence = synthetic_evidence(layers)
    allowed = evidence.allowed.copy()
    allowed[1, 0] = False
    projection = Projector(replace(evidence, allowed=allowed), "FP32").project(
        np.array([2, 0, 0, 0, 0], np.int8)
    )

    assert projection.forbidden == (0,)
    assert projection.accuracy.value is None
    assert projection.kl.value is None


def test_without_evidence_accuracy_is_unknown() -> None:
    """Before anything was measured, accuracy is n/a and the confidence is prior only."""
    study = Study(synthetic_analysis(12, measured=False))
    found = outcome(study, answer.decide(study, Policy()))

    assert found.totals["accuracy"].value is None
    assert found.confidence == "prior only"
    assert (found.totals["size_bytes"].value or 0) > 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=8))
def test_kl_is_what_the_definition_says(rows: list[list[float]]) -> None:
    """KL equals the textbook sum, is 0 against itself and never negative."""
    p = np.array(rows)
    q = np.roll(p, 1, axis=1)
    log_p = log_softmax(p)

    def softmax(z: list[float]) -> list[float]:
        top = max(z)
        e = [math.exp(v - top) for v in z]
        return [v / sum(e) for v in e]

    for row, other, kl in zip(p.tolist(), q.tolist(), kl_per_sample(log_p, q), strict=True):
        a, b = softmax(row), softmax(other)
        expected = sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0 and y > 0)
        assert kl == pytest.approx(expected, abs=1e-6, rel=1e-6)
    assert np.abs(kl_per_sample(log_p, p)).max() < 1e-12


def test_a_format_without_kernels_makes_no_layer_faster(informer_study: Study) -> None:
    """Where a device has no kernels for a half precision, no layer is estimated faster in it than
    in FP32: its values are cast and its weights read as FP32.
    """
    model = informer_study.latency("server-cpu-vnni")
    own = model.own_ms()
    precisions = informer_study.precisions

    assert (own[precisions.index("FP16")] >= own[precisions.index("FP32")]).all()
    assert (own[precisions.index("BF16")] >= own[precisions.index("FP32")]).all()
