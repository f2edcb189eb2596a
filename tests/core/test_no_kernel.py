"""Where a target has nothing in integers for a layer, no strategy chooses them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.decide import answer
from core.decide.advise.explain import explain
from core.decide.assess.outcome import outcome
from core.decide.policy.budget import parse_budgets
from core.decide.policy.policy import Policy
from core.decide.stability.resampling import _decided
from core.decide.study import Study
from core.export.map import precision_map
from tests.core.synthetic import synthetic_analysis

FLOAT, BESIDE = 3, 10
"""A layer of the role output projection, and one with a kernel that shares its group."""


@pytest.fixture(scope="module")
def study() -> Study:
    """Twelve layers, one of which integers mean nothing for: its figures in them are those in FP32."""
    analysis = synthetic_analysis(12)
    evidence = analysis.evidence
    assert evidence is not None
    layers = analysis.layers
    found = list(layers.layers)
    spec = tuple(replace(t, kind="float", channels=1, operation=-1) for t in found[FLOAT].tensors)
    found[FLOAT] = replace(found[FLOAT], state="float", tensors=spec, activation_scales=0)
    perturbations = evidence.perturbations.copy()
    perturbations[1, FLOAT] = 0
    return Study(
        replace(
            analysis,
            layers=replace(layers, layers=tuple(found), groups=((FLOAT, BESIDE),)),
            evidence=replace(evidence, perturbations=perturbations),
        )
    )


POLICIES = {
    "thresholds": Policy(high="INT8", high_threshold=0.99, medium_threshold=0.98),
    "top-k": Policy(strategy="top-k", top_k=12),
    "uniform": Policy(strategy="uniform"),
    "manual": Policy(strategy="manual", high="INT8"),
    "size": Policy(strategy="budget", budgets=parse_budgets("size=0.3")),
    "loss": Policy(strategy="budget", minimise="size", budgets=parse_budgets("loss=50")),
}


@pytest.mark.parametrize("name", POLICIES)
def test_no_strategy_chooses_integers_without_a_kernel(name: str, study: Study) -> None:
    """The layer stays in a float format; the layer of its group that has a kernel goes to INT8."""
    chosen = answer.decide(study, POLICIES[name])

    assert chosen.assigned[FLOAT] != "INT8"
    assert chosen.assigned[BESIDE] == "INT8"
    assert chosen.split_groups == ()
    if name == "uniform":
        assert "no kernel" in chosen.reason(FLOAT)
        assert "no kernel" in explain(study, chosen, study.layers.names[FLOAT]).decided
        assert not any("stay in float" in said for said in outcome(study, chosen).warnings)


def test_resamples_follow_the_same_rule(study: Study) -> None:
    """Every draw of the scores leaves the layer where the decision leaves it."""
    rng = np.random.default_rng(0)
    for name in ("thresholds", "top-k", "uniform", "manual"):
        codes = _decided(study.layers, rng.random((5, 12)), POLICIES[name], study.precisions, None)
        assert not codes[:, FLOAT].any(), name


def test_a_persons_own_word_is_kept_and_named(study: Study, tmp_path: Path) -> None:
    """An override, a pin and a map from a file keep INT8 there; reason and warnings say that it is
    in vain, and bytes are those of FP32.
    """
    layer = study.layers.names[FLOAT]
    by_hand = answer.decide(
        study, Policy(strategy="manual", high="FP32", overrides=((layer, "INT8"),))
    )
    by_rule = answer.decide(study, Policy(strategy="manual", high="FP32", pins=((layer, "INT8"),)))
    path = tmp_path / "map.json"
    path.write_bytes(precision_map.to_json(study, by_hand))
    read = precision_map.read(path, study)
    plain = answer.decide(study, Policy(strategy="manual", high="FP32"))

    for chosen in (by_hand, by_rule, read):
        assert chosen.assigned[FLOAT] == "INT8"
        assert "runs in FP32" in chosen.reason(FLOAT)
        found = outcome(study, chosen)
        assert any(f"stay in float ({layer})" in said for said in found.warnings)
        assert found.layer_bytes.tolist() == outcome(study, plain).layer_bytes.tolist()
