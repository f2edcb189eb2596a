"""Finished work, kept under the user's cache directory, so that a run can be taken up again.

SQLite knows what is finished, the arrays lie beside it. An array has its name before the
database knows it, and one transaction names all that is in it, so that a process killed at any
instant leaves finished work or none. Several processes may share a folder. Nothing here is
needed: whatever fails, the analysis goes on and measures.
"""

from __future__ import annotations

import errno
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs

from core import files
from core.evidence.measure.cache_store import (
    ARRAYS,
    FILE,
    SUFFIX,
    Floats,
    NewerCacheError,
    array_path,
    connect,
    forget,
    read,
    sha256,
    start_anew,
    sweep,
    transaction,
    write,
)

LIMIT_BYTES = 2 * 10**9
"""Most bytes of arrays in a folder. Beyond it the analyses used longest ago go."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """Outputs [n, K] on samples `start` to `stop` of one run, which `run` identifies.

    `finite` tells that all outputs were finite, also those that are not kept, `in_full` that it
    was a full pass although layers were replayed.
    """

    run: str
    start: int
    stop: int
    outputs: Floats
    finite: bool
    in_full: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """What the cache holds of one analysis; `used` in seconds since 1970."""

    key: str
    title: str
    units: int
    bytes: int
    used: float


def default_folder() -> Path:
    """The user's cache directory for this program."""
    return platformdirs.user_cache_path("quantscape")


class Cache:
    """A folder of finished work. `say` is told, in a sentence, of anything that goes wrong; after
    an error of the disk nothing more is read or kept, `problem` says why and `next_step` what to do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = LIMIT_BYTES,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder, self.limit_bytes, self.say = folder, limit_bytes, say
        self.problem, self.next_step = "", ""
        self._is_full = False

    def begin(self, key: str, title: str) -> set[tuple[str, int, int]]:
        """(run, start, stop) of every finished unit of an analysis, which counts as used now."""

        def begin(db: sqlite3.Connection) -> set[tuple[str, int, int]]:
            sweep(db, self.folder)
            _use(db, key, title)
            query = "SELECT run, start, stop FROM units WHERE key = ?"
            return set(db.execute(query, (key,)).fetchall())

        return self._try(begin, set())

    def find(self, key: str, start: int, stop: int) -> dict[str, Unit]:
        """Finished units of samples `start` to `stop`, by run. Damaged ones are thrown away."""

        def find(db: sqlite3.Connection) -> dict[str, Unit]:
            rows = db.execute(
                "SELECT run, file, row, sha256, finite, in_full FROM units"
                " WHERE key = ? AND start = ? AND stop = ? ORDER BY file",
                (key, start, stop),
            ).fetchall()
            found: dict[str, Unit] = {}
            damaged: set[str] = set()
            name, block = "", None
            for run, file, row, expected, finite, in_full in rows:
                if file != name:
                    name, path = file, array_path(self.folder, file)
                    block = None if path is None else read(path)
                is_there = block is not None and isinstance(row, int) and 0 <= row < len(block)
                outputs = np.array(block[row]) if block is not None and is_there else None
                if outputs is None or sha256(outputs) != expected:
                    damaged.add(file)
                else:
                    found[run] = Unit(run, start, stop, outputs, bool(finite), bool(in_full))
            if damaged:
                self.say(f"{len(damaged)} files of the cache in {self.folder} are damaged or gone; "
                         "what they held is measured again.")  # fmt: skip
                with transaction(db):
                    for file in damaged:
                        db.execute("DELETE FROM files WHERE name = ?", (file,))
                        db.execute("DELETE FROM units WHERE key = ? AND file = ?", (key, file))
                for path in filter(None, (array_path(self.folder, file) for file in damaged)):
                    path.unlink(missing_ok=True)
                found = {run: u for run, file, *_ in rows
                         if file not in damaged and (u := found.get(run))}  # fmt: skip
            return found

        return self._try(find, {})

    def put(self, key: str, title: str, units: Sequence[Unit]) -> None:
        """Keep `units`, all of the same samples."""

        def put(db: sqlite3.Connection) -> None:
            block = np.stack([unit.outputs for unit in units])
            if not self._make_room(db, key, block.nbytes):
                self._is_full = True
                self.say(f"The cache in {self.folder} holds {self.limit_bytes / 1e6:,.0f} MB at "
                         "most: the rest of this analysis is not kept.")  # fmt: skip
                return
            name = f"{ARRAYS}/{key}/{uuid.uuid4().hex}{SUFFIX}"
            path = array_path(self.folder, name)
            if path is None:
                raise OSError(errno.ELOOP, "a link leads out of it", str(self.folder / ARRAYS))
            write(path, block)
            rows = [
                (key, u.run, u.start, u.stop, name, row, sha256(u.outputs), u.finite, u.in_full)
                for row, u in enumerate(units)
            ]
            with transaction(db):
                _use(db, key, title)
                db.execute("INSERT INTO files VALUES (?, ?, ?)", (name, key, block.nbytes))
                db.executemany(
                    "INSERT OR IGNORE INTO units VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
                )

        if units and not self._is_full:
            self._try(put, None)

    def entries(self) -> list[Kept]:
        """What is kept, the latest used first."""

        def entries(db: sqlite3.Connection) -> list[Kept]:
            rows = db.execute(
                "SELECT key, title, (SELECT count(*) FROM units u WHERE u.key = e.key),"
                " (SELECT coalesce(sum(bytes), 0) FROM files f WHERE f.key = e.key), used"
                " FROM entries e ORDER BY used DESC"
            ).fetchall()
            return [Kept(*row) for row in rows]

        return self._try(entries, []) if (self.folder / FILE).exists() else []

    def clear(self) -> None:
        """Throw away everything that is kept."""
        for entry in self.entries():
            self._try(lambda db, key=entry.key: self._drop(db, key), None)  # type: ignore[misc]

    # ---- room and failures

    def _make_room(self, db: sqlite3.Connection, key: str, need: int) -> bool:
        """Drop other analyses, the longest unused first, until `need` bytes fit; whether they do."""
        others = db.execute("SELECT key FROM entries WHERE key <> ? ORDER BY used DESC", (key,))
        waiting = [name for (name,) in others.fetchall()]
        while True:
            (total,) = db.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()
            if total + need <= self.limit_bytes:
                return True
            if not waiting:
                return False
            self._drop(db, waiting.pop())

    def _drop(self, db: sqlite3.Connection, key: str) -> None:
        with transaction(db):
            for table in ("units", "files", "entries"):
                db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608 (own names)
        forget(self.folder, key)

    def _try(self, action: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `action` gives. An error of the disk is said once and ends all use."""
        if self.problem:
            return otherwise
        try:
            return self._on_database(action)
        except (OSError, sqlite3.Error) as error:
            self.problem, self.next_step = _said(error)
            self.say(f"The cache in {self.folder} cannot be used ({self.problem}): the analysis goes on "
                     f"without it, as with --no-cache. {self.next_step}")  # fmt: skip
            return otherwise

    def _on_database(self, action: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._once(action)
        except sqlite3.OperationalError:
            raise  # locked, read-only, full: no fault of the file
        except sqlite3.DatabaseError:
            self.say(f"The database of the cache in {self.folder} is damaged: it starts empty.")
            start_anew(self.folder)
            return self._once(action)

    def _once(self, action: Callable[[sqlite3.Connection], T]) -> T:
        db = connect(self.folder)
        try:
            return action(db)
        finally:
            db.close()


_LIKE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES, sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}  # fmt: skip
"""Errors of the database -> what the system would have said of a file."""
ANOTHER = "another folder with --cache DIR"


def _said(error: OSError | sqlite3.Error) -> tuple[str, str]:
    """What is wrong with the folder, and what to do about it."""
    if isinstance(error, NewerCacheError):
        return files.reason(error), f"Update Quantscape, or choose {ANOTHER}."
    if isinstance(error, OSError):
        return files.reason(error), files.what_to_do(error, ANOTHER)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return str(error), f"Another process holds it: wait for that one, or choose {ANOTHER}."
    return str(error), files.what_to_do(OSError(_LIKE.get(code, 0), ""), ANOTHER)


def _use(db: sqlite3.Connection, key: str, title: str) -> None:
    db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, title, time.time()))
