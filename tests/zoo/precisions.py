"""Precisions that the registry does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from core.numerics import precision as registry
from core.numerics.precision import Precision


@contextmanager
def registered(precision: Precision) -> Iterator[None]:
    """The registry knows `precision` for the length of the block, by its one entry alone."""
    with patch.dict(registry._REGISTRY, {precision.name: precision}):
        yield
