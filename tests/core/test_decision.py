"""From controls to maps."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cli.tables import statistics_table
from core.decide import answer
from core.decide.assess.difference import difference, in_words
from core.decide.assess.statistics import statistics
from core.decide.policy.decision import BY_OVERRIDE, BY_PIN
from core.decide.policy.policy import (
    DOCUMENT_WEIGHTS,
    Policy,
    format_rules,
    parse_rules,
    parse_thresholds,
    parse_weights,
)
from core.decide.study import Study
from core.errors import PolicyError, QuantscapeError
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(42))
UNMEASURED = Study(synthetic_analysis(42, measured=False))

unit = st.floats(0, 1)
weights = st.lists(unit, min_size=3, max_size=3).filter(lambda w: sum(w) > 1e-6)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy over the priors."""
    low, high = sorted((draw(unit), draw(unit)))
    names = ("theory", "importance", "empirical")
    return Policy(
        strategy=draw(st.sampled_from(["thresholds", "top-k", "uniform", "manual"])),
        weights=tuple(zip(names, draw(weights), strict=True)),
        high_threshold=high,
        medium_threshold=low,
        medium=draw(st.sampled_from(["FP32", "FP16", "INT8"])),
        high=draw(st.sampled_from(["FP32", "FP16"])),
        top_k=draw(st.integers(0, 60)),
        pins=tuple(draw(st.lists(st.tuples(st.sampled_from(["*", "block.1*", "*norm", "no*"]),
                                           st.sampled_from(["FP32", "FP16", "INT8"])), max_size=3))),
        overrides=tuple(draw(st.lists(st.tuples(st.sampled_from(STUDY.layers.names),
                                                st.sampled_from(["FP32", "INT8"])), max_size=3,
                                      unique_by=lambda item: item[0]))),
    )  # fmt: skip


def _expected(policy: Policy, name: str, level: str, rank: int) -> str:
    """The precision of one layer by the rules as they are written, one layer at a time."""
    overrides = dict(policy.overrides)
    if name in overrides:
        return overrides[name]
    pinned = [p for pattern, p in policy.pins if fnmatchcase(name, pattern)]
    if pinned:
        return pinned[-1]
    by_level = {"HIGH": policy.high, "MEDIUM": policy.medium, "LOW": policy.low}
    return {
        "thresholds": by_level[level],
        "top-k": policy.low if rank < policy.top_k else policy.high,
        "uniform": policy.uniform,
        "manual": policy.high,
    }[policy.strategy]


@settings(max_examples=150, deadline=None)
@given(policies())
@pytest.mark.slow
def test_any_policy_gives_what_the_rules_say(policy: Policy) -> None:
    """The vectorised decision equals the rules applied to one layer at a time."""
    chosen = answer.decide(STUDY, policy)

    share = {k: v / sum(dict(policy.weights).values()) for k, v in policy.weights}
    scores = sum(share[name] * STUDY.scores[name] for name in share)
    computing = [i for i in range(len(STUDY.layers)) if STUDY.layers.computes[i]]
    ranked = sorted(computing, key=lambda i: (round(float(scores[i]), 9), i))
    for i, name in enumerate(STUDY.layers.names):
        if i not in computing:
            assert chosen.assigned[i] is None
            continue
        score = round(float(scores[i]), 9)
        level = (
            "HIGH" if score >= policy.high_threshold
            else "MEDIUM" if score >= policy.medium_threshold else "LOW"
        )  # fmt: skip
        assert chosen.assigned[i] == _expected(policy, name, level, ranked.index(i))


@settings(max_examples=60, deadline=None)
@given(unit, unit, unit)
def test_raising_a_threshold_never_turns_int8_into_fp16(a: float, b: float, c: float) -> None:
    """Decisions are monotone in the thresholds."""
    medium, low, high = sorted((a, b, c))
    before = answer.decide(STUDY, Policy(high_threshold=low, medium_threshold=medium))
    after = answer.decide(STUDY, Policy(high_threshold=high, medium_threshold=medium))

    assert all(change.direction < 0 for change in difference(before, after))


@settings(max_examples=60, deadline=None)
@given(policies(), st.floats(0.01, 100))
def test_only_the_ratio_of_weights_matters(policy: Policy, factor: float) -> None:
    """Weights are divided by their sum."""
    scaled = replace(policy, weights=tuple((n, w * factor) for n, w in policy.weights))

    np.testing.assert_allclose(
        answer.decide(STUDY, policy).scores, answer.decide(STUDY, scaled).scores, atol=2e-9
    )


def test_precedence_and_origin() -> None:
    """An override beats a pin, the last pin wins, and the map says what decided."""
    name = STUDY.layers.names[0]
    policy = Policy(pins=(("block.0.*", "INT8"), ("*", "FP32")), overrides=((name, "FP16"),))

    chosen = answer.decide(STUDY, policy)

    assert chosen.assigned[0] == "FP16"
    assert chosen.assigned[1] == "FP32"
    assert chosen.origin[0] == BY_OVERRIDE
    assert chosen.origin[1] == BY_PIN
    assert "by hand" in chosen.reason(0)


def test_unmatched_rules_are_listed() -> None:
    """Pins and overrides that match no layer are reported and change nothing."""
    chosen = answer.decide(
        STUDY, Policy(pins=(("nothing*", "FP32"),), overrides=(("gone", "INT8"),))
    )

    assert chosen.ignored == ("nothing*", "gone")
    assert chosen.assigned == answer.decide(STUDY, Policy()).assigned


def test_an_override_can_be_set_and_taken_back() -> None:
    """`with_override` replaces, adds and removes without touching the original."""
    policy = Policy()
    once = policy.with_override("a", "FP16")

    assert once.with_override("a", "INT8").overrides == (("a", "INT8"),)
    assert once.with_override("a", None) == policy
    assert policy.overrides == ()


def test_statistics_add_up() -> None:
    """Counts by level and by precision both add up to the layers they speak of."""
    stats = statistics(answer.decide(STUDY, Policy()))

    assert sum(c.layers for c in stats.levels) == stats.layers == 42
    assert sum(stats.precisions.values()) == stats.computing_layers
    assert sum(stats.document_precisions.values()) == stats.layers
    assert sum(stats.params_share_pct.values()) == pytest.approx(100)


def test_the_column_of_all_layers_counts_the_precisions_that_the_map_gives() -> None:
    """Three layers in INT8 by hand are 3 under all layers; what the document writes is apart."""
    computing = [n for n, c in zip(STUDY.layers.names, STUDY.layers.computes, strict=True) if c]
    by_hand = tuple((name, "INT8") for name in computing[:3])
    chosen = answer.decide(STUDY, Policy(strategy="uniform", uniform="FP32", overrides=by_hand))

    table = statistics_table(chosen)
    cells = {str(c.header): [str(cell) for cell in c.cells] for c in table.columns}
    row = {name: i for i, name in enumerate(cells["level"])}

    assert cells["all layers"][row["in INT8"]] == "3"
    assert cells["all layers"][row["in FP32"]] == str(len(computing) - 3)
    idle = len(STUDY.layers) - len(computing)
    assert not idle or cells["all layers"][row["in no precision"]] == str(idle)
    document = statistics(chosen).document_precisions["INT8"]
    assert document > 3
    assert cells["document"][row["in INT8"]] == str(document)


def test_an_empty_model_has_no_shares() -> None:
    """Shares of nothing are unknown, not zero."""
    stats = statistics(answer.decide(Study(synthetic_analysis(0)), Policy()))

    assert stats.quantizable_pct is None
    assert all(c.share_pct is None for c in stats.levels)


def test_difference_in_words() -> None:
    """Differences are counted by where layers went."""
    before = answer.decide(STUDY, Policy(strategy="uniform", uniform="FP16"))
    names = STUDY.layers.names
    after = answer.decide(STUDY,
        Policy(strategy="uniform", uniform="FP16", overrides=((names[0], "INT8"), (names[1], "FP32")))
    )  # fmt: skip

    changes = difference(before, after)

    assert [(c.after, c.direction) for c in changes] == [("INT8", -1), ("FP32", 1)]
    assert in_words(changes) == "1 layer → INT8, 1 → FP32"
    assert in_words(difference(after, after)) == "no layer differs"


def test_a_weighted_scorer_without_scores_is_refused() -> None:
    """LossFunction a measured scorer before anything was measured says what to do."""
    with pytest.raises(PolicyError, match="no measurements"):
        answer.decide(UNMEASURED, Policy(weights=(("output_error", 1.0),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "guess"}, "Unknown strategy"),
        ({"weights": (("magic", 1.0),)}, "Unknown scorer"),
        ({"weights": (("theory", -1.0),)}, "not negative"),
        ({"weights": (("theory", float("nan")),)}, "not negative"),
        ({"weights": (("theory", 0.0),)}, "All scorer weights are 0"),
        ({"weights": (("theory", 1.0), ("theory", 2.0))}, "twice"),
        ({"high_threshold": 1.5}, "high threshold is 1.5"),
        ({"medium_threshold": float("nan")}, "medium threshold is nan"),
        ({"high_threshold": 0.2}, "lies above"),
        ({"top_k": -1}, "top-k is -1"),
        ({"medium": "INT3"}, "Unknown precision 'INT3'"),
        ({"hardware": "abacus"}, "Unknown hardware 'abacus'"),
        ({"pins": (("*", "FP99"),)}, "Unknown precision 'FP99'"),
    ],
)
def test_impossible_policies_are_refused(changes: dict[str, object], message: str) -> None:
    """Each impossible control is named, with a next step."""
    with pytest.raises(QuantscapeError, match=message) as caught:
        Policy(**changes)  # type: ignore[arg-type]

    assert caught.value.next_step


def test_weights_text_is_read() -> None:
    """The command line's weights become the document's pairs."""
    assert parse_weights("theory=0.4, importance=0.4,empirical=0.2") == DOCUMENT_WEIGHTS
    assert parse_thresholds("0.7,0.4") == (0.7, 0.4)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Parsers of links and options never fail in another way than a `PolicyError`."""
    for parse in (parse_weights, parse_rules, parse_thresholds):
        try:
            parse(text)
        except PolicyError as error:
            assert error.next_step  # noqa: PT017 (either outcome is right)


names = st.text("abc.*?[0-9]_-", min_size=1, max_size=10).map(str.strip).filter(bool)


@given(st.lists(st.tuples(names, st.sampled_from(["FP32", "FP16", "INT8"])), max_size=5))
def test_rules_round_trip(rules: list[tuple[str, str]]) -> None:
    """Rules written as text are read back as they were."""
    assert parse_rules(format_rules(rules)) == tuple(rules)
