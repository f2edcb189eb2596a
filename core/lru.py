"""The values of the last few keys: the one way in which made tables are kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRU(Generic[K, V]):
    """Values by key, of the `most` keys asked for last. Safe to share between threads.

    `drop` is given every value that is let go, as one that is still being made has to be told.
    """

    def __init__(self, most: int, drop: Callable[[V], object] = lambda value: None) -> None:
        self._most, self._drop = most, drop
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is kept under `key`, or else what `make` gives, kept from now on.

        What `make` raises is not kept. It runs outside the lock, so that one value may be made
        from others; threads that make the same value at once all get the first that was ready.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            kept = self._kept.setdefault(key, made)
            gone = [] if kept is made else [made]
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                gone.append(self._kept.popitem(last=False)[1])
        for value in gone:
            self._drop(value)
        return kept

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._kept

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)
