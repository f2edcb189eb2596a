"""Names of strategies, and maps turned back into policies."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.decide import answer
from core.decide.assess.policy_of import policy_of
from core.decide.policy.decision import BY_OVERRIDE
from core.decide.policy.names import MAX_NAME, check_name, fresh_name, is_name
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import PolicyError
from core.export.map import precision_map
from tests.core.synthetic import synthetic_analysis


@pytest.mark.parametrize("text", ["", "   ", "a\nb", "x" * (MAX_NAME + 1), "a\tb"])
def test_what_cannot_be_shown_on_one_line_is_no_name(text: str) -> None:
    """Empty, long and multi-line names are refused with a cause and a next step."""
    assert not is_name(text)
    with pytest.raises(PolicyError, match="cannot name a strategy"):
        check_name(text, ())


def test_a_taken_name_is_refused() -> None:
    """A second strategy cannot take the name of the first, blanks aside."""
    with pytest.raises(PolicyError, match="There is a strategy 'a' already"):
        check_name(" a ", {"a"})
    assert check_name(" b ", {"a"}) == "b"


@given(name=st.text("ab", min_size=1, max_size=MAX_NAME), count=st.integers(0, 12))
def test_a_fresh_name_is_new_and_a_name(name: str, count: int) -> None:
    """Numbering never gives a name that is taken or too long."""
    taken: set[str] = set()
    for _ in range(count):
        taken.add(fresh_name(name, taken))

    fresh = fresh_name(name, taken)

    assert len(taken) == count
    assert fresh not in taken
    assert is_name(fresh)


@given(seed=st.integers(0, 2**16))
@pytest.mark.slow
def test_a_map_edited_by_hand_becomes_a_policy_that_gives_it(seed: int) -> None:
    """Any codes read from a file come back from `policy_of`, layer by layer."""
    study = Study(synthetic_analysis(28, samples=4))
    rng = np.random.default_rng(seed)
    pinned = Policy(pins=(("block.1*", "FP16"),), overrides=(("block.0.attention", "FP32"),))
    data = precision_map.to_builtins(study, answer.decide(study, pinned))
    for row in data["layers"]:
        if row["precision"] is not None and rng.random() < 0.4:
            row["precision"] = str(rng.choice(study.precisions))
    read = precision_map.from_json(msgspec.json.encode(data), study)

    policy = policy_of(study, read)

    again = answer.decide(study, policy)
    assert again.assigned == read.assigned
    by_hand = {study.layers.names[i] for i in np.flatnonzero(read.origin == BY_OVERRIDE)}
    assert {name for name, _ in policy.overrides} == by_hand | {"block.0.attention"}


def test_a_map_of_its_own_policy_needs_no_override() -> None:
    """A decided map gives back the very policy that decided it."""
    study = Study(synthetic_analysis(28, samples=4))
    policy = Policy(strategy="top-k", top_k=5)

    assert policy_of(study, answer.decide(study, policy)) is policy
