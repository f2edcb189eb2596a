"""Where the command line's words go: the terminal, or a file written whole or not at all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from core import files
from core.errors import MapError, printable

PIPED_WIDTH = 180
NEVER_WRAPPED = ("layer", "source", "role")
"""Names that a person copies into the next command."""


class Screen(Console):
    """A console for other people's names: whatever brackets and colons they hold is printed as it
    is, and no control character of theirs reaches the terminal.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print a sentence on one line, or what rich can render."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments whose text moves no cursor and turns no direction; lines end where rich ends
        them.
        """
        for segment in super().render(renderable, options):
            text = "\n".join(map(printable, segment.text.split("\n")))
            yield segment if segment.control else Segment(text, segment.style)


class Rows(Table):
    """A table whose cells are one line each, unless rich's own `Text` says otherwise."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row of `cells`."""
        super().add_row(*(printable(c) if isinstance(c, str) else c for c in cells), **options)


_answers: list[TextIO] = []


@contextmanager
def answers_alone() -> Iterator[None]:
    """Inside, stdout holds the command's answer alone: what a person's code prints goes to stderr.

    What a stream cannot say is written as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _answers.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _answers.pop().flush()


def answer() -> TextIO:
    """Where the command's answer goes."""
    return _answers[-1] if _answers else sys.stdout


def console(*, stderr: bool = False) -> Screen:
    """Tables fill a terminal; in a pipe or a file they get room for whole rows."""
    file = sys.stderr if stderr else answer()
    width = None if file.isatty() else PIPED_WIDTH
    return Screen(file=file, width=width, markup=False, emoji=False, highlight=not stderr)


def note(sentence: str) -> None:
    """A sentence on stderr, beside what the command prints."""
    complain(f"note: {sentence}")


def complain(sentence: str) -> None:
    """One line on stderr in the name of this program."""
    print(f"quantscape: {printable(sentence)}", file=sys.stderr)


def table(title: str, columns: Sequence[str], numeric: Sequence[str] = ()) -> Rows:
    """An empty table; the `numeric` ones of its columns are set flush right."""
    found = Rows(title=printable(title), title_justify="left", header_style="bold")
    for name in columns:
        found.add_column(
            printable(name),
            justify="right" if name in numeric else "left",
            no_wrap=name in NEVER_WRAPPED,
            overflow="fold",
        )
    return found


def progress_bar(aside: Console) -> Progress:
    """A bar with what is at hand, how many are done, and the time left."""
    columns = (
        TextColumn("{task.description:<44.44}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=aside)


def print_json(value: Any) -> None:
    """`value` as indented JSON."""
    print(json.dumps(msgspec.to_builtins(value), indent=2, allow_nan=False), file=answer())


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` by renaming; raises `MapError` where that cannot be done."""
    try:
        files.write(path, content)
    except OSError as error:
        raise MapError(
            f"{path} cannot be written: {files.reason(error)}.", files.what_to_do(error)
        ) from error
