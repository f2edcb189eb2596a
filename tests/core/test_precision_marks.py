"""How precisions are drawn: one table, read by pages, reports and exported files."""

from __future__ import annotations

import re
import subprocess
import sys
from unittest.mock import patch

import pytest

from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.report import palette
from core.export.report.blocks import Column
from core.export.report.html import _cell, to_html
from core.numerics import precision as registry
from core.numerics import precision_marks
from tests.conftest import REPOSITORY
from tests.core.synthetic import synthetic_analysis

MARKS = precision_marks.marks()


def test_labels_fit_where_they_are_drawn() -> None:
    """A short label has one to four characters, also that of a name that is not in the table."""
    shorts = [mark.short for mark in (*MARKS.values(), precision_marks.of("MXFP6-something"))]

    assert all(1 <= len(short) <= precision_marks.LONGEST_SHORT == 4 for short in shorts)


def test_every_marker_has_an_outline_within_reach() -> None:
    """Corners of markers lie where the report's swatches have room for them."""
    outlines = precision_marks.outlines()

    assert {mark.marker for mark in MARKS.values()} <= set(outlines)
    assert max(abs(at) for corners in outlines.values() for corner in corners for at in corner) <= (
        precision_marks.REACH
    )


def test_words_behind_a_name_change_nothing() -> None:
    """What follows a space only explains a name: FP8 (E4M3) is drawn as FP8."""
    assert precision_marks.of("FP8 (E4M3)") == precision_marks.of("FP8") == MARKS["FP8"]


def test_an_unknown_name_looks_the_same_in_every_process() -> None:
    """The spare mark of a name does not depend on how a process hashes text."""
    code = "from core.numerics import precision_marks as m; print(m.of('NF4'), m.of('INT3-g64'))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert seen == {f"{precision_marks.of('NF4')} {precision_marks.of('INT3-g64')}\n"}


@pytest.mark.parametrize(
    ("fill", "text"), [("#000000", "#FFFFFF"), ("#FFFFFF", "#000000"), ("#FFFF00", "#000000")]
)
def test_text_on_a_fill_is_the_more_readable_one(fill: str, text: str) -> None:
    """White stands on dark fills, black on light ones."""
    assert precision_marks.readable_on(fill) == text


def test_the_report_draws_precisions_as_the_palette_says() -> None:
    """The HTML report has a rule with colour and shape for each precision of the study, in light
    and dark, and no colour of a precision beside them.
    """
    study = Study(synthetic_analysis(6, samples=20))
    page = to_html(study, answer.decide(study, Policy())).decode()
    rules = palette.css(study.precisions)

    assert rules in page
    light, dark = rules.split("@media screen and (prefers-color-scheme: dark)")
    for name in study.precisions:
        mark = MARKS[name]
        assert f'[data-precision="{name}"] {{ --fill: {mark.light};' in light
        assert f'[data-precision="{name}"] {{ --fill: {mark.dark};' in dark
    style = page[page.index("<style>") : page.index("</style>")].replace(rules, "")
    assert not re.search(r"--(fill|on): ?#|data-precision=.(?!none)", style)


@pytest.mark.parametrize(
    ("cell", "drawn"), [("INT8-W", True), ("none", True), ("3 INT8-W", False), ("mixed", False)]
)
def test_cells_of_one_precision_are_drawn(cell: str, drawn: bool) -> None:
    """A cell that is a precision's name, whatever its characters, or none at all, has a swatch."""
    with patch.object(registry, "names", return_value=("FP32", "INT8-W")):
        made = _cell(Column("precision", "precision"), cell, first=False)

    assert (f'data-precision="{cell}"' in made) == drawn


def test_a_name_with_quotes_stays_inside_its_selector() -> None:
    """A precision whose name holds quotes or backslashes ends no selector."""
    rule = palette.css(['a"] * { } \\'])

    assert rule.count('"') == 4
    assert r"\22 ]" in rule
    assert r"\5c " in rule
