"""A report as one HTML file: works offline, loads nothing, and its figures can be used.

A content security policy forbids every request and every script but the page's own, which are
named by their hashes. Names of layers are other people's text and are escaped throughout.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files

from core.decide.assess.loss import loss_figures
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.map import words
from core.export.report import palette
from core.export.report.assemble import assemble
from core.export.report.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Figure,
    Report,
    Table,
    Text,
)
from core.export.report.html_data import figure_data, script_json
from core.export.report.material import Material, gather
from core.export.report.results import NOTHING
from core.numerics import precision as registry
from core.quantity import UNKNOWN, Quantity, written

SCRIPTS = ("shared.js", "strip.js", "scores.js", "trade.js", "table.js")
STYLES = ("page.css", "figures.css")
INTERACTIVE = "layers"
"""The table that can be sorted and filtered."""


def to_html(study: Study, chosen: PrecisionMap) -> bytes:
    """The report on `chosen` as UTF-8 HTML."""
    given = gather(study, chosen)
    return render(assemble(given), given).encode()


def render(report: Report, given: Material) -> str:
    """`report` as a whole page with the figures of `given`."""
    style, script = _style(given.study.precisions), _script()
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = "\n".join(
        f'<section id="{escape(s.key)}" class="level{s.level}">\n<h{s.level + 1}>{escape(s.title)}'
        f"</h{s.level + 1}>\n" + "\n".join(_block(block) for block in s.blocks) + "\n</section>"
        for s in report.sections
    )
    contents = "\n".join(
        f'<li><a href="#{escape(s.key)}">{escape(s.title)}</a></li>'
        for s in report.sections
        if s.level == 1
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#report">Skip to the report</a>
<header>
<p class="brand">Quantscape</p>
<h1>{escape(report.title)}</h1>
<p class="subtitle">{escape(report.subtitle)}</p>
<p class="verdict"><strong class="badge {escape(report.verdict)}">{escape(report.verdict)}</strong>
{escape(report.summary)}</p>
{_cards(given)}
</header>
<nav aria-label="Contents"><details open><summary>Contents</summary><ol>
{contents}
</ol></details></nav>
<main id="report">
{sections}
</main>
<div id="tip" role="tooltip" hidden></div>
<script type="application/json" id="data">{script_json(figure_data(given))}</script>
<script>{script}</script>
</body>
</html>
"""


def _cards(given: Material) -> str:
    totals, titles = given.found.totals, words.figures(given.study.analysis)
    cards = ("size_bytes", "latency_ms", loss_figures(totals).loss, "size_reduction_pct")

    def card(key: str, figure: Quantity) -> str:
        title = escape(titles[key])
        if figure.value is None:
            return f'<div class="card"><dt>{title}</dt><dd>{UNKNOWN}</dd></div>'
        value = escape(written(figure.value, figure.unit))
        more = escape(
            words.total(given.study.analysis, key, figure).removeprefix(
                written(figure.value, figure.unit)
            )
        )
        return f'<div class="card"><dt>{title}</dt><dd>{value} <small>{more}</small></dd></div>'

    body = "\n".join(card(key, totals[key]) for key in cards)
    return f'<dl class="cards">\n{body}\n</dl>'


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Facts(rows):
            body = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in rows)
            return f'<dl class="facts">{body}</dl>'
        case Table():
            return _table(block)
        case Code(lines):
            return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"
        case Figure(name, title, takeaway):
            return (
                f'<figure id="figure-{name}" data-title="{escape(title)}" '
                f'data-takeaway="{escape(takeaway)}"><figcaption><strong>{escape(title)}</strong>'
                f"<span>{escape(takeaway)}</span></figcaption>"
                "<noscript><p>The figure needs JavaScript; the tables hold its data.</p></noscript>"
                "</figure>"
            )


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col" class="cell-{column.kind}">{escape(column.title)}</th>'
        for column in table.columns
    )
    body = "\n".join(
        "<tr>" + "".join(
            _cell(column, cell, first=i == 0)
            for i, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        ) + "</tr>"
        for row in table.rows
    )  # fmt: skip
    key = f' id="table-{escape(table.key)}"' if table.key else ""
    label = escape(f"Table: {table.columns[0].title}, {table.columns[1].title} and more")
    return (
        f'<div class="scroll{" tall" if table.key == INTERACTIVE else ""}" tabindex="0" '
        f'role="region" aria-label="{label}"><table{key}><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(column: Column, cell: str, *, first: bool) -> str:
    text = escape(cell)
    if column.kind == "name":
        text = f"<code>{text}</code>"
    elif column.kind == "precision" and cell in (*registry.names(), NOTHING):
        text = f'<span class="precision" data-precision="{text}">{text}</span>'
    if first:
        return f'<th scope="row" class="cell-{column.kind}">{text}</th>'
    return f'<td class="cell-{column.kind}">{text}</td>'


@cache
def _asset(name: str) -> str:
    return files("core.export.report").joinpath("assets", name).read_text("utf-8")


@cache
def _style(precisions: tuple[str, ...]) -> str:
    return "\n".join((*(_asset(name) for name in STYLES), palette.css(precisions)))


@cache
def _script() -> str:
    body = "\n".join(_asset(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();\n'


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
