"""Files and tables of the cache: what is written is whole, what is read is checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core import files

Floats = NDArray[np.float32]

FILE = "cache.sqlite3"
ARRAYS = "arrays"
SUFFIX, PARTIAL = ".npy", ".partial"
FORMAT = 1
"""Of the tables and names here; a database of an older version says 0."""
MAX_FILE_BYTES = 8 * 10**9
WAIT_SECONDS = 30.0
"""How long one process waits for another's transaction."""
STALE_SECONDS = 3600.0
"""Older files that the database does not name were left by a process that was killed."""

_KEY = re.compile("[0-9a-f]{64}")
_NAME = re.compile(rf"{ARRAYS}/([0-9a-f]{{64}})/([0-9a-f]{{32}}{re.escape(SUFFIX)})")
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


class NewerCacheError(OSError):
    """The folder is of a version of this program that this one does not know."""


def connect(folder: Path) -> sqlite3.Connection:
    """The database of `folder`, made if there is none, for its owner alone. Raises `OSError` or
    `sqlite3.Error`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / FILE
    if files.is_there(path):
        files.opened(path, links=False).close()
    db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
    try:
        version = _version(db, path)
        # A killed process loses nothing in this mode; a power cut at most the last transactions.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_TABLES)
        if version < FORMAT:
            db.execute(f"PRAGMA user_version = {FORMAT}")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if found > FORMAT:
        what = f"it has format {found}, and this program reads {FORMAT}"
        raise NewerCacheError(errno.EINVAL, what, str(path))
    return int(found)


def is_key(key: object) -> bool:
    """Whether this can name an analysis here: what a database says else leads anywhere."""
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def home(folder: Path, key: str) -> Path | None:
    """The folder of the arrays of an analysis, where it is one and no link leads out of it."""
    place = folder / ARRAYS / key
    is_inside = is_key(key) and not (folder / ARRAYS).is_symlink() and not place.is_symlink()
    return place if is_inside else None


def array_path(folder: Path, name: object) -> Path | None:
    """Where the array called `name` lies; None for a name that is none of ours, or leads out."""
    given = _NAME.fullmatch(name) if isinstance(name, str) else None
    place = None if given is None else home(folder, given[1])
    return None if given is None or place is None else place / given[2]


def forget(folder: Path, key: str) -> None:
    """Delete the arrays of an analysis."""
    place = home(folder, key)
    if place is not None:
        shutil.rmtree(place, ignore_errors=True)


def start_anew(folder: Path) -> None:
    """Delete the database and all arrays, and nothing that is not ours."""
    for end in ("", "-wal", "-shm", "-journal"):
        (folder / f"{FILE}{end}").unlink(missing_ok=True)
    for place in (folder / ARRAYS).glob("*"):
        forget(folder, place.name)


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
        block = files.mapped(path, MAX_FILE_BYTES, links=False)
    except OSError:
        return None
    return block if block.ndim == 3 and block.dtype == np.float32 else None


def sha256(outputs: Floats) -> str:
    """SHA-256 of the bytes of one unit."""
    return hashlib.sha256(np.ascontiguousarray(outputs).tobytes()).hexdigest()


def sweep(db: sqlite3.Connection, folder: Path) -> None:
    """Remove files that were left by killed processes, once they are old."""
    named = {name for (name,) in db.execute("SELECT name FROM files").fetchall()}
    for path in (folder / ARRAYS).glob("*/*"):
        name = path.relative_to(folder).as_posix()
        if name in named or array_path(folder, name.replace(PARTIAL, SUFFIX)) is None:
            continue
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                path.unlink()
