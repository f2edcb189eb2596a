"""Files and tables of the cache: what is written is whole, what is read is checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FILE = "cache.sqlite3"
ARRAYS = "arrays"
PARTIAL = ".partial"
WAIT_SECONDS = 30.0
"""How long one process waits for another's transaction."""
STALE_SECONDS = 3600.0
"""Older files that the database does not name were left by a process that was killed."""

_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, title TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS units (
    key TEXT NOT NULL, run TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    file TEXT NOT NULL, row INTEGER NOT NULL, sha256 TEXT NOT NULL,
    finite INTEGER NOT NULL, in_full INTEGER NOT NULL,
    PRIMARY KEY (key, run, start, stop)) WITHOUT ROWID;
"""


def connect(folder: Path) -> sqlite3.Connection:
    """The database of `folder`, made if there is none. Raises `OSError` or `sqlite3.Error`."""
    folder.mkdir(parents=True, exist_ok=True)
    is_new = not (folder / FILE).exists()
    db = sqlite3.connect(folder / FILE, timeout=WAIT_SECONDS, isolation_level=None)
    try:
        # A killed process loses nothing in this mode; a power cut at most the last transactions.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if is_new or not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'units'").fetchall():
            db.executescript(_TABLES)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is executed inside is kept, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def write(path: Path, block: Floats) -> None:
    """Write an array that is whole once it has its name, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(PARTIAL)
    try:
        with partial.open("wb") as file:
            np.save(file, block, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> Floats | None:
    """An array [U, n, K] as it lies on the disk; None where there is none or it is cut short."""
    try:
        block = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return block if block.ndim == 3 and block.dtype == np.float32 else None


def sha256(outputs: Floats) -> str:
    """SHA-256 of the bytes of one unit."""
    return hashlib.sha256(np.ascontiguousarray(outputs).tobytes()).hexdigest()


def sweep(db: sqlite3.Connection, folder: Path) -> None:
    """Remove files that were left by killed processes, once they are old."""
    named = {name for (name,) in db.execute("SELECT name FROM files").fetchall()}
    for path in (folder / ARRAYS).glob("*/*"):
        if path.relative_to(folder).as_posix() in named:
            continue
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
