"""What a report is made of, before anything is said about Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CellKind = Literal["text", "prose", "number", "name", "precision"]
FigureName = Literal["strip", "scores", "trade"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels with what they are."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. *prose* needs room, *number* is set flush right, *name* is an
    identifier that is never broken, *precision* is drawn in its colour where there are colours.
    """

    title: str
    kind: CellKind = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under columns. `key` names the table where something refers to it."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """An interactive figure, with what it shows in words for those who do not see it."""

    name: FigureName
    title: str
    takeaway: str


Block = Text | Bullets | Facts | Table | Code | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it. `key` is its anchor; level 1 is a chapter."""

    key: str
    title: str
    blocks: tuple[Block, ...] = ()
    level: Literal[1, 2] = 1


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report: `verdict` is one word, `summary` the sentence that goes with it."""

    title: str
    subtitle: str
    verdict: str
    summary: str
    sections: tuple[Section, ...]
