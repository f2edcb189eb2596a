"""Which precisions a strategy may choose from, and where a layer waits that it cannot serve.

A person may allow some of what an analysis holds. A strategy then chooses among these alone. A layer
that what was chosen does not serve (no kernel, not measured yet) waits in the widest allowed precision
that does, and in the reference where none does: it is always there, and the layers are named that
need it though it was left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from core.decide.policy.kernels import leading
from core.errors import PolicyError
from core.layers import LayerTable
from core.numerics import precision as registry

Flags = NDArray[np.bool_]


def parse_allowed(text: str) -> tuple[str, ...]:
    """`FP16, int8` as names; empty, which allows everything, for an empty text."""
    return in_order(registry.as_named(part) for part in text.split(",") if part.strip())


def format_allowed(names: Iterable[str]) -> str:
    """The text that `parse_allowed` reads back as `names`."""
    return ",".join(names)


def allowed_in_words(names: Iterable[str]) -> str:
    """As "FP16", "FP16 and INT8" or "FP32, FP16 and INT8"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names once each, the widest first; those that nobody knows last, as they came."""
    given = dict.fromkeys(names)
    known = registry.names()
    return (*(n for n in known if n in given), *(n for n in given if n not in known))


def stand_in(name: str, among: Collection[str], otherwise: str) -> str:
    """`name` where it is among some, else the narrowest of them that is as wide, else `otherwise`."""
    if name in among:
        return name
    wide = [p for p in among if registry.width(p) >= registry.width(name)]
    return min(wide, key=registry.width, default=otherwise)


def within(name: str, allowed: tuple[str, ...]) -> str:
    """Where what pointed to `name` goes under `allowed`: the next wider, else the widest there is."""
    known = [p for p in allowed if p in registry.names()]
    return stand_in(name, known, known[0]) if known else name


def check_allowed(allowed: tuple[str, ...], precisions: tuple[str, ...]) -> Flags:
    """[P]: which of `precisions` may be chosen. Raises `PolicyError` for a name that is none of them."""
    for name in allowed:
        if name not in precisions:
            measure = f", or analyze the model with {name}" if name in registry.names() else ""
            raise PolicyError(
                f"{name!r} cannot be allowed: this analysis holds no evidence for it.",
                f"It holds {', '.join(precisions)}; name some of them{measure}.",
            )
    return np.array([not allowed or name in allowed for name in precisions], np.bool_)


def served(may: Flags, lacking: Flags, unknown: Flags | None = None) -> Flags:
    """[P, L]: precisions that may be chosen and serve a layer: neither `lacking` nor `unknown`."""
    found = np.logical_and(may[:, None], ~lacking)
    return found if unknown is None else np.logical_and(found, ~unknown)


def homes(
    layers: LayerTable, precisions: tuple[str, ...], open_to: Flags,
    groups: Iterable[tuple[int, ...]],
) -> NDArray[np.int8]:  # fmt: skip
    """Where each layer waits (L,): the widest precision that is `open_to` it [P, L], one for the leading
    layers of a group, and the reference where there is none.
    """
    open_to = open_to.copy()
    for group in groups:
        lead = leading(group, layers)
        if lead:
            open_to[:, lead] = open_to[:, lead].all(axis=1, keepdims=True)
    order = sorted(
        range(len(precisions)), key=lambda i: registry.width(precisions[i]), reverse=True
    )
    widest_first = np.array(order)
    first = widest_first[open_to[widest_first].argmax(axis=0)]
    return np.where(open_to.any(axis=0), first, 0).astype(np.int8)
