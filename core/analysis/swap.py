"""A folder put in the place of another, so that there is a whole one at every instant.

Linux exchanges two names in one step (renameat2 with RENAME_EXCHANGE, Linux 3.15, man 2 rename).
Where a file system cannot, the old folder steps aside for a moment; a process killed in that
moment leaves it under a hidden name, from which `recover` takes it back.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ASIDE = ".old"
STALE_S = 3600.0
"""What is older was left by a process that was killed while it wrote."""

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE."""
_TRIES = 3


def beside(folder: Path) -> Path:
    """A hidden name next to `folder` that nothing has, for what will take its place."""
    return folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"


def put(fresh: Path, folder: Path) -> None:
    """Make `fresh` the folder `folder`, and delete what was there. Raises `OSError`."""
    for left in range(_TRIES, 0, -1):
        if not folder.exists():
            try:
                fresh.replace(folder)
            except OSError as error:  # another process has taken the name back meanwhile
                if left == 1 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                continue
            return
        if exchange(fresh, folder):
            shutil.rmtree(fresh, ignore_errors=True)
            return
        old = fresh.with_name(fresh.name + ASIDE)
        folder.replace(old)
        with suppress(OSError):
            fresh.replace(folder)
            shutil.rmtree(old, ignore_errors=True)
            return
        old.replace(folder)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step. False where the system cannot."""
    rename = _renameat2()
    return rename is not None and not rename(
        _HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE
    )


@cache
def _renameat2() -> Any:
    try:
        found = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # another system, or a C library from before 2018
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found.restype = ctypes.c_int
    return found


def recover(folder: Path) -> None:
    """Take back a folder that had stepped aside when a process was killed; else do nothing."""
    if folder.exists():
        return
    aside = [(path.stat().st_mtime, path) for path in _left(folder) if path.name.endswith(ASIDE)]
    if aside:
        with suppress(OSError):  # read-only, or another process was faster
            max(aside)[1].rename(folder)


def sweep(folder: Path) -> None:
    """Delete what killed processes left beside `folder`, once it is old and not needed."""
    for path in _left(folder):
        with suppress(OSError):
            if folder.exists() and time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path)


def _left(folder: Path) -> list[Path]:
    pattern = f".{glob.escape(folder.name)}.{'[0-9a-f]' * 8}"
    return [path for end in ("", ASIDE) for path in folder.parent.glob(pattern + end)]
