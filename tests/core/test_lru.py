"""Values that are made once and kept for the last few keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from core.lru import LRU


def test_a_value_is_made_once() -> None:
    """The second answer is the very object that the first call made."""
    kept: LRU[str, list[int]] = LRU(2)

    first = kept.get("a", lambda: [1])

    assert kept.get("a", lambda: [2]) is first


def test_the_key_not_asked_for_longest_goes() -> None:
    """Of three keys in a cache of two, the one whose last question lies furthest back is gone."""
    kept: LRU[str, int] = LRU(2)
    for key in ("a", "b", "a", "c"):
        kept.get(key, lambda: 0)

    assert len(kept) == 2
    assert "a" in kept
    assert "b" not in kept


def test_what_is_let_go_is_told() -> None:
    """A value that gives way to others is handed to `drop`, and none that is still kept."""
    gone: list[str] = []
    kept: LRU[str, str] = LRU(1, gone.append)
    for key in ("a", "a", "b"):
        kept.get(key, key.upper)

    assert gone == ["A"]


def test_an_error_is_not_kept() -> None:
    """What could not be made is tried again."""
    kept: LRU[str, float] = LRU(2)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 / 0)

    assert kept.get("a", lambda: 3.0) == 3.0


def test_threads_share_one_value() -> None:
    """Threads that make the same value at once all get the same object, and none waits for ever;
    the others' are let go.
    """
    gone: list[object] = []
    kept: LRU[str, object] = LRU(2, gone.append)
    together = Barrier(4)

    def make() -> object:
        together.wait(10)
        return object()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kept.get("a", make), range(4)))

    assert len({id(one) for one in found}) == 1
    assert len(gone) == 3
    assert found[0] not in gone


def test_a_value_may_be_made_from_another() -> None:
    """Making a value may ask for another one of the same cache."""
    kept: LRU[int, int] = LRU(4)

    def factorial(n: int) -> int:
        return kept.get(n, lambda: n * factorial(n - 1) if n else 1)

    assert factorial(3) == 6
