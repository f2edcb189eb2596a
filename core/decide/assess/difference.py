"""What changed between two maps of one model."""

from __future__ import annotations

from dataclasses import dataclass

from core.decide.policy.decision import PrecisionMap
from core.numerics import precision as registry


@dataclass(frozen=True, slots=True)
class Change:
    """A layer whose precision differs. `direction` is -1 towards fewer bits, +1 towards more."""

    layer: str
    before: str
    after: str
    direction: int


def difference(before: PrecisionMap, after: PrecisionMap) -> tuple[Change, ...]:
    """Layers that differ, in execution order. Both maps must be of the same layers."""
    changes = []
    for name, old, new in zip(after.layers.names, before.assigned, after.assigned, strict=True):
        if old is None or new is None or old == new:
            continue
        narrower = registry.width(new) < registry.width(old)
        changes.append(Change(name, old, new, -1 if narrower else 1))
    return tuple(changes)


def in_words(changes: tuple[Change, ...]) -> str:
    """As "3 layers → INT8, 1 → FP16", or "no layer differs"."""
    if not changes:
        return "no layer differs"
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.after] = counts.get(change.after, 0) + 1
    first, *rest = counts.items()
    noun = "layer" if first[1] == 1 else "layers"
    return ", ".join([f"{first[1]:,} {noun} → {first[0]}", *(f"{n:,} → {p}" for p, n in rest)])
