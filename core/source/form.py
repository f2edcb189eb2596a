"""Functions that tell Python of a tensor's form and nothing of its content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ABOUT_LAYOUT = frozenset(("stride", "storage_offset", "is_contiguous", "_is_view", "data_ptr"))
"""Functions that tell Python how a tensor lies in memory."""

_ABOUT_FORM = ABOUT_LAYOUT | frozenset((
    "size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "is_complex",
    "is_signed", "element_size", "get_device", "type", "__len__", "__hash__", "has_names",
    "is_inference", "is_same_size", "is_pinned", "is_shared", "is_conj", "is_neg", "is_tensor",
    "result_type", "can_cast", "promote_types", "broadcast_shapes",
))  # fmt: skip
"""Functions that tell Python of a tensor's form and nothing of its content."""


def is_about_form(func: Callable[..., Any]) -> bool:
    """Whether what `func` tells Python is a tensor's form (attributes are, all of them)."""
    name = getattr(func, "__name__", "")
    return name == "__get__" or name in _ABOUT_FORM
