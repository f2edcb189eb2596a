"""Which layers change precision if one scorer is trusted alone."""

from __future__ import annotations

from dataclasses import replace

from core.decide import answer
from core.decide.assess.by_scorer import trusting
from core.decide.policy.policy import Policy
from core.decide.study import Study
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(28, samples=60))


def test_each_scorer_alone_is_decided() -> None:
    """The changes are those between the map and the policy with one weight, pins kept."""
    names = STUDY.layers.names
    policy = Policy(medium="FP16", low="INT8", pins=(("block.0.*", "FP32"),))
    chosen = answer.decide(STUDY, policy)

    found = {one.scorer: one for one in trusting(STUDY, chosen)}

    assert set(found) == set(STUDY.scores)
    for name, one in found.items():
        alone = answer.decide(STUDY, replace(policy, weights=((name, 1.0),)))
        different = [n for n in names if chosen.by_layer[n] != alone.by_layer[n]]
        assert [change.layer for change in one.changes] == different
        assert one.wider + one.narrower == len(different)
        assert names[0] not in different
    assert any(one.changes for one in found.values())


def test_the_scorer_that_decides_changes_nothing() -> None:
    """Trusting the only scorer in use alone gives the same map."""
    chosen = answer.decide(STUDY, Policy(weights=(("kl", 1.0),)))

    assert {one.scorer: one.changes for one in trusting(STUDY, chosen)}["kl"] == ()
