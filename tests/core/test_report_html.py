"""The HTML report as text: it loads nothing, and names stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.report.html import SCRIPTS, STYLES, _asset, to_html
from core.export.report.html_data import LAYER_FIELDS
from tests.core.hostile import EVIL, named
from tests.core.synthetic import synthetic_analysis

STUDY = Study(synthetic_analysis(40, samples=100))
LOADING = ("src", "srcset", "action", "data", "poster", "background", "ping", "manifest")


class _Reader(HTMLParser):
    """Collects tags with their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.raw.append((self._inside, data))


def test_the_page_loads_nothing() -> None:
    """No element names a resource, no style or script reaches out, and the policy forbids it."""
    read = _Reader(to_html(STUDY, answer.decide(STUDY, Policy())).decode())

    for tag, attributes in read.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not set(attributes) & set(LOADING)
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    for kind, text in read.raw:
        if not text.lstrip().startswith("{"):
            assert not re.search(
                r"https?://|url\(\s*[^#]|@import|fetch\(|XMLHttp|import\(|eval\(", text
            ), kind
    policy = next(a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_names_are_text_and_never_markup() -> None:
    """A name that tries to end a script or begin a tag does neither."""
    study = named(EVIL)
    page = to_html(study, answer.decide(study, Policy(overrides=((EVIL, "FP32"),)))).decode()
    read = _Reader(page)

    assert "img" not in {tag for tag, _ in read.tags}
    assert sum(tag == "script" for tag, _ in read.tags) == 2
    data = json.loads(next(text for kind, text in read.raw if kind == "script"))
    assert data["layers"][0][0] == EVIL
    assert tuple(data["layer_fields"]) == LAYER_FIELDS


def test_assets_are_files_of_one_subject() -> None:
    """Scripts and styles stay short, and every one is used."""
    folder = Path(__file__).parents[2] / "core" / "export" / "report" / "assets"

    assert sorted(p.name for p in folder.iterdir()) == sorted((*SCRIPTS, *STYLES))
    for name in (*SCRIPTS, *STYLES):
        assert len(_asset(name).splitlines()) < 250
