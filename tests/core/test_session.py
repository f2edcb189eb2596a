"""Session files: they round-trip, and bad ones name the entry that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError
from core.export.map import precision_map, session_file
from core.export.map.session_file import (
    MAX_NAME,
    MAX_STRATEGIES,
    Session,
    entry,
    from_json,
    restore,
    to_json,
)
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(14))
POLICY = Policy(
    medium="FP16", pins=(("block.1*", "FP32"),), overrides=(("block.0.attention", "INT8"),)
)


def _session(study: Study = STUDY) -> Session:
    return Session(
        study.analysis.identity,
        POLICY,
        entry(study, "pinned", answer.decide(study, Policy())),
        (
            entry(study, "Lean & mean", answer.decide(study, Policy(strategy="uniform"))),
            entry(study, "mine", answer.decide(study, POLICY)),
        ),
    )


def test_a_session_round_trips() -> None:
    """What is read equals what was written, entry by entry and map by map."""
    kept = _session()
    read = from_json(to_json(kept), STUDY)

    assert read == kept
    assert to_json(read) == to_json(kept)
    chosen = answer.decide(STUDY, POLICY)
    again = restore(read.strategies[1], STUDY)
    np.testing.assert_array_equal(again.codes, chosen.codes)
    np.testing.assert_array_equal(again.origin, chosen.origin)
    assert again.policy == POLICY


def test_an_empty_session_round_trips() -> None:
    """A policy alone is a session."""
    kept = Session(STUDY.analysis.identity, POLICY)

    assert from_json(to_json(kept), STUDY) == kept


def test_a_session_is_read_from_a_file(tmp_path: Path) -> None:
    """`read` opens a file and names one that is not there."""
    path = tmp_path / "session.json"
    path.write_bytes(to_json(_session()))

    assert session_file.read(path, STUDY) == _session()
    with pytest.raises(MapError, match=r"gone\.json cannot be read"):
        session_file.read(tmp_path / "gone.json", STUDY)


names = st.text(min_size=1, max_size=MAX_NAME).filter(
    lambda n: bool(n.strip()) and n.isprintable() and n.isascii() | n.isalnum()
)
precisions = st.sampled_from(["FP32", "FP16", "INT8"])


@settings(max_examples=50, deadline=None)
@given(st.lists(names, max_size=6, unique=True), st.data())
def test_any_maps_and_names_survive(given_names: list[str], data: st.DataObject) -> None:
    """Names and layer-by-layer precisions come back as they were."""
    kept = []
    for name in given_names:
        overrides = tuple(
            (layer, data.draw(precisions))
            for layer in STUDY.layers.names
            if data.draw(st.booleans())
        )
        kept.append(entry(STUDY, name, answer.decide(STUDY, Policy(overrides=overrides))))
    read = from_json(to_json(Session(STUDY.analysis.identity, POLICY, None, tuple(kept))), STUDY)

    assert read.strategies == tuple(kept)
    for one in read.strategies:
        assert restore(one, STUDY).assigned == tuple(row.precision for row in one.layers)


def _edited(edit: Any) -> bytes:
    data = json.loads(to_json(_session()))
    edit(data)
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema version 2; this program reads 1"),
        (lambda d: d.pop("strategies"), "no session file"),
        (lambda d: d.update(strategies={}), "no session file"),
        (lambda d: d["model"].update(name="resnet"),
         "'the policy' in the session belongs to model 'resnet'"),
        (lambda d: d["pinned"]["model"].update(weights_sha256="f" * 64),
         "'pinned' in the session was made for other weights"),
        (lambda d: d["strategies"][1]["model"].update(name="resnet"),
         "'mine' in the session belongs to model 'resnet', not to 'synthetic'"),
        (lambda d: d["strategies"][0]["layers"].pop(),
         "'Lean & mean' in the session does not fit the model: 1 missing layers"),
        (lambda d: d["strategies"][0]["layers"][0].update(name="ghost"), "1 unknown layers: ghost"),
        (lambda d: d["strategies"][1]["layers"][0].update(precision="FP4"),
         "'mine' in the session gives layer 'block.0.attention' the precision 'FP4'"),
        (lambda d: d["strategies"][1]["policy"].update(high_threshold=7),
         "bad policy: The high threshold is 7"),
        (lambda d: d["policy"].update(hardware="abacus"), "bad policy: Unknown hardware"),
        (lambda d: d["strategies"][1].update(name="Lean & mean"), "two strategies 'Lean & mean'"),
        (lambda d: d["strategies"][1].update(name=""), "names a strategy ''"),
        (lambda d: d["strategies"][1].update(name="  "), "1 to 60 characters"),
        (lambda d: d["strategies"][1].update(name="x" * 61), "1 to 60 characters"),
        (lambda d: d["strategies"][1].update(name="a\nb"), "on one line"),
        (lambda d: d.update(strategies=[{**d["strategies"][0], "name": str(i)} for i in range(51)]),
         "holds 51 strategies, more than 50"),
    ],
)  # fmt: skip
def test_bad_sessions_name_the_entry(edit: Any, message: str) -> None:
    """Whatever does not fit is a `MapError` that says where."""
    with pytest.raises(MapError, match=message):
        from_json(_edited(edit), STUDY)


def test_a_policy_without_its_evidence_is_refused() -> None:
    """A session that weighs a measured score does not open on an analysis without one."""
    bare = Study(synthetic_analysis(14, measured=False))
    kept = Session(bare.analysis.identity, Policy(weights=(("output_error", 1.0),)))

    with pytest.raises(MapError, match=r"'the policy' in the session: Scorer .* has no scores"):
        from_json(to_json(kept), bare)


def test_what_reading_refuses_is_not_written() -> None:
    """Names are checked on the way out as well."""
    one = entry(STUDY, "same", answer.decide(STUDY, Policy()))
    for strategies in ((one, one), (replace_name(one, ""),), (one,) * (MAX_STRATEGIES + 1)):
        with pytest.raises(MapError):
            to_json(Session(STUDY.analysis.identity, POLICY, None, strategies))


def replace_name(one: session_file.KeptStrategy, name: str) -> session_file.KeptStrategy:
    """`one` under another name."""
    return session_file.KeptStrategy(name, one.model, one.policy, one.layers)


def test_a_map_is_no_session_and_a_session_no_map() -> None:
    """The two kinds of file are told apart."""
    with pytest.raises(MapError, match="no session file"):
        from_json(precision_map.to_json(STUDY, answer.decide(STUDY, Policy())), STUDY)
    with pytest.raises(MapError, match="no precision map"):
        precision_map.from_json(to_json(_session()), STUDY)


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the limit is refused before it is decoded."""
    small = replace(session_file.SESSIONS, most_bytes=10)
    monkeypatch.setattr(session_file, "SESSIONS", small)

    with pytest.raises(MapError, match="larger than"):
        from_json(to_json(_session()), STUDY)


def test_an_edited_policy_keeps_the_stored_precisions() -> None:
    """A strategy stays what it was, even where its policy would decide otherwise by now."""

    def edit(data: Any) -> None:
        data["strategies"][0]["policy"]["uniform"] = "FP32"

    read = from_json(_edited(edit), STUDY)

    assert set(restore(read.strategies[0], STUDY).assigned) == {"INT8", None}


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(
        st.sampled_from(["schema_version", "tool", "tool_version", "model", "policy", "pinned",
                         "strategies", "name", "layers"]), c, max_size=6),
    max_leaves=20).map(lambda v: json.dumps(v).encode())))  # fmt: skip
def test_junk_is_never_a_session(raw: bytes) -> None:
    """Any bytes that are no session give a `MapError` and nothing else."""
    with pytest.raises(MapError):
        from_json(raw, STUDY)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_session_is_read_or_refused(data: st.DataObject) -> None:
    """A file with any one value replaced is either a session or a `MapError`."""
    content = json.loads(to_json(_session()))
    at: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(
        st.none() | st.integers(-2, 2) | st.text(max_size=3) | st.just([]) | st.just({})
    )
    try:
        read = from_json(json.dumps(content).encode(), STUDY)
    except MapError as error:
        assert error.next_step  # noqa: PT017 (either outcome is right)
    else:
        assert from_json(to_json(read), STUDY) == read


def test_deep_nesting_is_refused() -> None:
    """A file of brackets is no session."""
    with pytest.raises(MapError, match="no session file"):
        from_json(b"[" * 100_000, STUDY)


def test_entries_are_values() -> None:
    """Sessions compare by content, so that an undo history can hold them."""
    assert _session() == _session()
    assert hash(_session()) == hash(_session())
    assert _session() != replace(_session(), policy=Policy())
