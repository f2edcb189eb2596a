"""The reference document's results, held against the shipped Informer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from core.decide import answer
from core.decide.advise.document import comparisons
from core.decide.assess.statistics import statistics
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import HIGH, LEVELS
from core.decide.study import Study
from core.evidence.scorers import priors

# The document's table, typed from it: role -> (count, level, total to three digits).
TABLE = {
    "embedding": (1, "MEDIUM", 0.481),
    "positional_encoding": (1, "LOW", 0.143),
    "attention": (8, "HIGH", 1.000),
    "feed_forward": (8, "HIGH", 0.829),
    "layer_norm": (16, "HIGH", 0.771),
    "dropout": (8, "LOW", 0.011),
    "output_projection": (1, "HIGH", 0.714),
    "activation": (8, "MEDIUM", 0.424),
    "convolution": (4, "MEDIUM", 0.447),
    "pooling": (2, "LOW", 0.011),
}


def test_the_inventory_is_the_documents(informer_study: Study) -> None:
    """The Informer has the document's 57 layers, role by role."""
    counts = {role: count for role, (count, _, _) in TABLE.items()}

    assert dict(Counter(informer_study.layers.roles)) == counts
    assert len(informer_study.layers) == 57


def test_totals_and_levels_are_the_documents(informer_study: Study) -> None:
    """Every layer has its role's total and level under the document's weights."""
    chosen = answer.decide(informer_study, Policy())

    for role, score, level in zip(
        informer_study.layers.roles, chosen.scores, chosen.levels, strict=True
    ):
        assert (LEVELS[level], round(float(score), 3)) == TABLE[role][1:]


def test_statistics_are_the_documents(informer_study: Study) -> None:
    """33 / 13 / 11 layers, 42.1 % quantizable, 33 FP16 + 24 INT8; and the honest count."""
    stats = statistics(answer.decide(informer_study, Policy()))

    assert [(c.level, c.layers, round(c.share_pct or 0, 1)) for c in stats.levels] == [
        ("HIGH", 33, 57.9), ("MEDIUM", 13, 22.8), ("LOW", 11, 19.3),
    ]  # fmt: skip
    assert round(stats.quantizable_pct or 0, 1) == 42.1
    assert stats.document_precisions == {"FP16": 33, "INT8": 24}
    used = {name: count for name, count in stats.precisions.items() if count}
    assert used == {"FP16": 33, "INT8": 16}
    assert (stats.computing_layers, stats.layers) == (49, 57)


def test_dropout_has_no_precision_but_a_document_precision(informer_study: Study) -> None:
    """Dropout computes nothing: null for us, INT8 for the document; pooling keeps a precision."""
    chosen = answer.decide(informer_study, Policy())

    assert {"dropout", "pooling"} <= set(informer_study.layers.roles)
    for i, role in enumerate(informer_study.layers.roles):
        if role == "dropout":
            assert chosen.assigned[i] is None
            assert chosen.document_precision(i) == "INT8"
        if role == "pooling":
            assert chosen.assigned[i] == "INT8"


def test_the_size_is_the_documents(informer_study: Study) -> None:
    """FP32 tensors come to 19.39 MB within two percent."""
    assert informer_study.size_bytes[0].sum() / 1e6 == pytest.approx(19.39, rel=0.02)


def test_every_stated_figure_stands_beside_a_recomputed_one(informer_study: Study) -> None:
    """No row of the Document column is empty, and stated counts equal recomputed ones."""
    rows = {row.figure: row for row in comparisons(informer_study, "server-cpu-vnni")}

    for row in rows.values():
        assert isinstance(row.recomputed, str) or row.recomputed.value is not None
    for figure in ("Layers", "FP16 layers", "INT8 layers"):
        recomputed = rows[figure].recomputed
        assert not isinstance(recomputed, str)
        assert recomputed.value == float(rows[figure].stated)
    assert rows["Feasibility"].recomputed == "cautious"


def test_golden_table(informer_study: Study, golden: Callable[[str, str], None]) -> None:
    """The whole 57-layer table under the document's policy stays as it was reviewed."""
    chosen = answer.decide(informer_study, Policy())
    rows = [
        {
            "name": name,
            "role": role,
            "score": round(float(score), 6),
            "level": LEVELS[level],
            "precision": assigned,
            "document_precision": chosen.document_precision(i),
        }
        for i, (name, role, score, level, assigned) in enumerate(
            zip(
                informer_study.layers.names, informer_study.layers.roles, chosen.scores,
                chosen.levels, chosen.assigned, strict=True,
            )
        )
    ]  # fmt: skip

    golden("informer_document.json", json.dumps(rows, indent=1) + "\n")


def test_only_the_stated_reading_reproduces_the_table() -> None:
    """Raw importance, or MEDIUM activations rated LOW, would not give the document's levels."""
    importance = {r: e["weight"] for r, e in priors.table()["importance"].items()}
    theory, rules = priors.scores("theory"), priors.scores("empirical")

    def level(role: str, scaled: float, tier: float) -> str:
        total = 0.4 * tier + 0.4 * importance[role] / scaled + 0.2 * tier
        return "HIGH" if total >= 0.7 else "MEDIUM" if total >= 0.4 else "LOW"

    raw = {role: level(role, 1.0, theory[role]) for role in TABLE}
    assert raw["output_projection"] != "HIGH"
    assert level("activation", 0.35, 0.2) == "LOW"
    scaled = {role: level(role, 0.35, theory[role]) for role in TABLE}
    assert scaled == {role: row[1] for role, row in TABLE.items()}
    assert all(theory[role] == rules[role] for role in TABLE)


def test_levels_follow_from_scores_alone(informer_study: Study) -> None:
    """HIGH layers are those at or above 0.7, re-derived from the scores."""
    chosen = answer.decide(informer_study, Policy())

    np.testing.assert_array_equal(chosen.levels == HIGH, chosen.scores >= 0.7)
