"""Names that people give to strategies."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from core.errors import PolicyError

MAX_NAME = 60
"""Characters of a name."""


def is_name(text: str) -> bool:
    """Whether `text` can name a strategy: 1 to `MAX_NAME` printable characters on one line."""
    return bool(text.strip()) and len(text) <= MAX_NAME and text.isprintable()


def check_name(text: str, taken: Collection[str]) -> str:
    """`text` without blanks around it; raises `PolicyError` if it is no name, or taken."""
    name = text.strip()
    if not is_name(name):
        raise PolicyError(
            f"{text[:MAX_NAME]!r} cannot name a strategy.",
            f"Names have 1 to {MAX_NAME} characters on one line.",
        )
    if name in taken:
        raise PolicyError(f"There is a strategy {name!r} already.", "Choose another name.")
    return name


def fresh_name(name: str, taken: Collection[str], separator: str = "-") -> str:
    """`name`, or `name-2`, `name-3` and so on where it is taken; never longer than `MAX_NAME`
    unless `name` is.
    """
    fresh, count = name, 2
    while fresh in taken:
        tail = f"{separator}{count}"
        room = max(MAX_NAME, len(name)) - len(tail)
        fresh, count = f"{name[:room]}{tail}", count + 1
    return fresh


def unique_names(names: Iterable[str]) -> list[str]:
    """`names`, the later of equal ones numbered: map, map-2, map-3."""
    given = list(names)
    found: list[str] = []
    for name in given:
        found.append(fresh_name(name, set(found) | (set(given) - {name})))
    return found
