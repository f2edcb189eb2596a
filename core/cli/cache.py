"""The cache of finished work on the command line: where it is, what it holds, clearing it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.cli.output import console, print_json
from core.cli.output import table as new_table
from core.errors import PolicyError
from core.evidence.measure import cache as caching


def add_options(sub: argparse.ArgumentParser) -> None:
    """`--cache DIR` of every command that uses the cache."""
    sub.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of finished work; default: quantscape in the user's cache directory",
    )


def opened(options: argparse.Namespace, say: Callable[[str], None]) -> caching.Cache | None:
    """The cache that the options ask for; None with `--no-cache`."""
    if options.no_cache:
        return None
    return caching.Cache(options.cache or caching.default_folder(), say=say)


def cache(options: argparse.Namespace) -> None:
    """Show what the cache holds, or clear it."""
    said: list[str] = []
    held = caching.Cache(options.cache or caching.default_folder(), say=said.append)
    if options.clear:
        held.clear()
    entries = held.entries()
    if held.problem:
        raise PolicyError(
            f"The cache in {held.folder} cannot be used: {held.problem}.",
            held.next_step,
        )
    if options.json:
        print_json({"folder": str(held.folder), "limit_bytes": held.limit_bytes,
                    "entries": entries, "notes": said})  # fmt: skip
        return
    for sentence in said:
        console().print(sentence)
    console().print(_table(held, entries))


def _table(held: caching.Cache, entries: list[caching.Kept]) -> Any:
    total = sum(entry.bytes for entry in entries)
    title = f"{held.folder}: {total / 1e6:,.1f} of at most {held.limit_bytes / 1e6:,.0f} MB"
    numeric = ("runs of a batch", "MB", "last used")
    table = new_table(title, ("analysis of", *numeric), numeric)
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(entry.title, f"{entry.units:,}", f"{entry.bytes / 1e6:,.1f}", used)
    return table
