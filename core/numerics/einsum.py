"""What an einsum of two operands multiplies and which axis of a weight only the output keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ELLIPSIS = "..."


def _terms(equation: str, operands: Sequence[Any]) -> tuple[list[list[str]], list[str]]:
    """Axis names of each operand and of the output; axes under an ellipsis count from the right,
    so that broadcasting lines them up.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    named = left.split(",")
    found: list[list[str]] = []
    widest = 0
    for term, tensor in zip(named, operands, strict=True):
        before, dots, after = term.partition(ELLIPSIS)
        hidden = tensor.ndim - len(before) - len(after) if dots else 0
        widest = max(widest, hidden)
        found.append([*before, *(f"#{hidden - i}" for i in range(hidden)), *after])
    if not arrow:
        letters = [name for term in found for name in term if not name.startswith("#")]
        right = ELLIPSIS + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    before, dots, after = right.partition(ELLIPSIS)
    hidden_names = [f"#{widest - i}" for i in range(widest)] if dots else []
    return found, [*before, *hidden_names, *after]


def products(equation: str, operands: Sequence[Any]) -> int:
    """Multiply-accumulates: the product of the lengths of all axes."""
    terms, _ = _terms(equation, operands)
    lengths: dict[str, int] = {}
    for names, tensor in zip(terms, operands, strict=True):
        for name, length in zip(names, tensor.shape, strict=True):
            lengths[name] = max(lengths.get(name, 1), int(length))
    total = 1
    for length in lengths.values():
        total *= length
    return total


def channel_axis(equation: str, which: int, operands: Sequence[Any]) -> int | None:
    """The one axis of operand `which` that the output keeps and the other operand lacks.

    None where there is none or several: such a weight gets one scale.
    """
    terms, output = _terms(equation, operands)
    other = terms[1 - which]
    own = [i for i, name in enumerate(terms[which]) if name in output and name not in other]
    return own[0] if len(own) == 1 else None
