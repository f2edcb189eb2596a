"""A folder that belongs to somebody else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unwritable(
    mode: int = 0o555, fill: Callable[[Path], object] = lambda folder: None
) -> Iterator[Path]:
    """A folder, filled before, that this process may read but not write, also where tests run as
    root; with another `mode` not even that.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder)
        folder.chmod(mode)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
