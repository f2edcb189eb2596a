"""A report as Markdown (GitHub's dialect: tables, code spans).

Names come from other people's models; everything that Markdown or HTML would act on is escaped.
"""

from __future__ import annotations

import re

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import printable
from core.export.report.assemble import build
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

_ACTIVE = re.compile(r"[\\`*\[\]<>|&~]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^(\s*\d*)([#+\-.)])(?=\s|$|[#-])")


def to_markdown(study: Study, chosen: PrecisionMap) -> bytes:
    """The report on `chosen` as UTF-8 Markdown."""
    return render(build(study, chosen)).encode()


def render(report: Report) -> str:
    """`report` as Markdown. Of a figure there is what it shows; tables hold its data."""
    parts = [f"# {escape(report.title)}", paragraph(report.subtitle)]
    parts.append(f"**{escape(report.verdict)}**: {escape(report.summary)}")
    for section in report.sections:
        parts.append(f"{'#' * (section.level + 1)} {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return paragraph(text)
        case Bullets(items):
            return "\n".join(f"- {paragraph(item)}" for item in items)
        case Facts(rows):
            return _table((Column("what"), Column("value")), rows)
        case Table(columns, rows):
            return _table(columns, rows)
        case Code(lines):
            fence = _fence("\n".join(lines), least=3)
            return "\n".join([fence + "sh", *lines, fence])
        case Figure(title=title, takeaway=takeaway):
            return paragraph(f"{title}: {takeaway}")


def _table(columns: tuple[Column, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    head = [escape(column.title) for column in columns]
    rule = ["---:" if column.kind == "number" else "---" for column in columns]
    body = [
        [
            code(cell) if column.kind == "name" else escape(cell)
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *body])


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line."""
    return _ACTIVE.sub(r"\\\g<0>", printable(text))


def paragraph(text: str) -> str:
    """`escape` for text that begins a line, where a heading or a list could begin as well."""
    return _LINE_START.sub(r"\1\\\2", escape(text))


def code(text: str) -> str:
    """`text` as a code span that also stands in a table's cell."""
    if not text:
        return ""
    fence = _fence(text)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{printable(text)}{pad}{fence}".replace("|", "\\|")


def _fence(text: str, least: int = 1) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(least, longest + 1)
