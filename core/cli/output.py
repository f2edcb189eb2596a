"""Where the command line's words go: the terminal, or a file written whole or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import MapError

PIPED_WIDTH = 180


def console() -> Console:
    """Tables fill a terminal; in a pipe or a file they get room for whole rows.

    Names of layers are printed as they are, whatever brackets and colons they hold.
    """
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, markup=False, emoji=False)


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
    print(json.dumps(msgspec.to_builtins(value), indent=2, allow_nan=False))


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path` by renaming; raises `MapError` where that cannot be done."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise MapError(
            f"{path} cannot be written: {error.strerror}.", "Choose a folder that exists."
        ) from error
