"""One layer alone, and all but one, against figures worked out from the evidence itself."""

from __future__ import annotations

import numpy as np
import pytest

from core.decide import answer
from core.decide.assess.layer_effect import by_precision, integer_precisions, layer_effect
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.estimate import hardware
from core.estimate.metrics import kl_per_sample
from core.evidence.scorers.logits import log_softmax
from tests.core.synthetic import synthetic_analysis

DEVICE = hardware.DEFAULT


def test_alone_is_what_was_measured(informer_study: Study) -> None:
    """The figures of one layer alone are those of its stored perturbation, called measured."""
    evidence = informer_study.analysis.evidence
    assert evidence is not None
    assert evidence.targets is not None
    i = informer_study.layers.index["embedding"]

    effect = layer_effect(informer_study, "embedding", "INT8", DEVICE)

    assert effect is not None
    outputs = evidence.baseline + evidence.perturbations[evidence.precisions.index("INT8"), i]
    kl = kl_per_sample(log_softmax(evidence.baseline), outputs)
    before = (evidence.baseline.argmax(1) == evidence.targets).mean()
    after = (outputs.argmax(1) == evidence.targets).mean()
    assert effect.alone["kl"].value == pytest.approx(kl.mean())
    assert effect.alone["accuracy_drop_pts"].value == pytest.approx(100 * (before - after))
    assert {effect.alone[name].kind for name in ("kl", "accuracy", "flips_pct")} == {"measured"}
    for name in ("kl", "accuracy_drop_pts", "flips_pct", "accuracy"):
        figure = effect.alone[name]
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= (figure.value or 0.0) <= figure.high


def test_all_but_one_is_the_map_with_that_override(informer_study: Study) -> None:
    """Leaving one layer out gives the totals of the uniform map with that layer by hand."""
    name = "blocks.0.attention"
    policy = Policy(strategy="uniform", uniform="INT8", overrides=((name, "FP32"),))
    expected = outcome(informer_study, answer.decide(informer_study, policy)).totals

    effect = layer_effect(informer_study, name, "INT8", DEVICE)

    assert effect is not None
    for figure, found in effect.all_but.items():
        assert found == expected[figure]
    everything = outcome(informer_study, uniform_map(informer_study, "INT8", DEVICE)).totals
    assert effect.everything["kl"] == everything["kl"]
    assert effect.everything["size_bytes"] == everything["size_bytes"]


def test_a_layer_that_does_nothing_has_no_effect(informer_study: Study) -> None:
    """Dropout has neither effect nor time."""
    idle = informer_study.layers.names[int(np.flatnonzero(~informer_study.layers.computes)[0])]

    assert layer_effect(informer_study, idle, "INT8", DEVICE) is None
    assert all(ms == 0 for _, ms in by_precision(informer_study, idle, DEVICE).values())


def test_unmeasured_effects_are_unknown() -> None:
    """Before anything was measured accuracy is unknown, and bytes are exact all the same."""
    study = Study(synthetic_analysis(14, measured=False))

    effect = layer_effect(study, "block.0.attention", "INT8", DEVICE)

    assert effect is not None
    assert effect.alone["kl"].value is None
    assert effect.alone["kl"].kind == "measured"
    assert effect.alone["size_bytes"].kind == "exact"


def test_an_overflow_is_unknown_not_zero() -> None:
    """A pair whose outputs were not finite has no figures."""
    study = Study(synthetic_analysis(14, samples=20))
    evidence = study.analysis.evidence
    assert evidence is not None
    evidence.allowed[0, 0] = False

    effect = layer_effect(study, "block.0.attention", "FP16", DEVICE)

    assert effect is not None
    assert effect.alone["accuracy_drop_pts"].value is None


def test_rows_of_one_layer_add_up(informer_study: Study) -> None:
    """Bytes and milliseconds by precision are those that the uniform maps list for the layer."""
    name = "blocks.1.feed_forward"
    i = informer_study.layers.index[name]

    rows = by_precision(informer_study, name, DEVICE)

    assert list(rows) == list(informer_study.precisions)
    for precision, (size, ms) in rows.items():
        found = outcome(informer_study, uniform_map(informer_study, precision, DEVICE))
        assert size == found.layer_bytes[i]
        assert ms == pytest.approx(found.layer_ms[i])
    assert integer_precisions(informer_study) == ("INT8",)
