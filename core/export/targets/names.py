"""Names that do not match are errors that list the nearest ones: no tool here says so itself."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from core.errors import MapError
from core.export.map.checklist import printable

MAX_NAMED = 5
NEAREST = 3


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """The names among `known` that look most like `name`, the likeliest first."""
    return tuple(difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.5))


def check(wanted: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise `MapError` naming what of `wanted` is not among `known`, each with the nearest."""
    there = set(known)
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    said = []
    for name in missing[:MAX_NAMED]:
        near = ", ".join(printable(n) for n in nearest(name, known))
        said.append(f"{printable(name)} (nearest: {near or 'nothing like it'})")
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    raise MapError(
        f"{where} has no {', no '.join(said)}{more}.",
        "Give the names of the model that the map was made for.",
    )


def read_module_names(text: str) -> tuple[str, ...]:
    """Module paths, one a line: what `dict(model.named_modules())` iterates over."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
