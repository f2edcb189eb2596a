"""What the browser keeps over a reload: bounded, of one analysis, and checked when it comes back."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from core.analysis import store
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError
from core.export.map.precision_map import MAX_BYTES
from dashboard.session import browser_store, studies, uploads
from dashboard.session.browser_store import MOST_CHARACTERS, pack, place_of, unpack
from dashboard.session.studies import ModelEntry, Opened
from dashboard.session.tab import Named
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open, failures, said

LEAN = Policy(strategy="top-k", top_k=30, high="FP32")


def test_a_session_comes_back_to_equality() -> None:
    """What is packed is unpacked to the same pinned map and strategies."""
    study = Study(synthetic_analysis(57, samples=60))
    text = pack(uploads.saved(study, LEAN, LEAN, (Named("Lean", LEAN),)))

    found = uploads.read_session(unpack(text), study, browser_store.ORIGIN)

    assert (found.pinned, found.kept) == (LEAN, (Named("Lean", LEAN),))


@pytest.mark.parametrize("sent", [
    None, 7, {"text": "x"}, "", "%%%", "eA==", "A" * (MOST_CHARACTERS + 4),
    base64.b64encode(zlib.compress(b"x" * 100)[:-6]).decode(),
    pack(b" " * (MAX_BYTES + 1)),
], ids=["none", "number", "object", "empty", "no-base64", "no-zlib", "too-long", "cut-off", "bomb"])  # fmt: skip
def test_what_is_no_session_is_refused_before_it_is_read(sent: object) -> None:
    """Other types, other bytes, too much, and what would grow beyond any session file."""
    with pytest.raises(MapError):
        unpack(sent)


def test_every_analysis_has_a_place_of_its_own(tmp_path: Path) -> None:
    """Another folder and another model are other places; a new measurement of one is the same."""
    analysis = synthetic_analysis(5, samples=20)
    for name in ("one", "two"):
        store.save(analysis, tmp_path / name)

    def place(name: str) -> str:
        return place_of(studies.open_entry(ModelEntry("shown", tmp_path / name)))

    first = place("one")
    assert first != place("two")
    store.save(replace(analysis, seconds=7.0), tmp_path / "one")
    assert place("one") == first
    stranger = replace(analysis, identity=replace(analysis.identity, weights_sha256="other"))
    assert place_of(Opened("shown", f"{tmp_path / 'one'}@1.2", Study(stranger))) != first
    assert str(tmp_path) not in first


def test_the_page_says_where_a_session_is_kept(open_app: Open) -> None:
    """Export says what a reload keeps, and that a file takes it elsewhere."""
    app = open_app("measured", page="export")

    assert "in this browser's own store and in no link" in said(app)
    assert not failures(app)


def test_too_much_for_the_store_is_said(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is not kept, and Export says so rather than losing it without a word."""
    monkeypatch.setattr(browser_store, "MOST_CHARACTERS", 10)
    app = open_app("measured", page="export")
    app.button(key="_pin").click().run()

    assert "too much for this browser's store" in said(app)
