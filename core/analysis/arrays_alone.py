"""Arrays of an analysis folder that speak of each layer on its own; every one is optional."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import AnalysisError
from core.evidence.layer_alone import AXES, MAY_BE_UNKNOWN, LocalStatistics

Read = Callable[..., NDArray[Any]]
PREFIX = "local_"


def arrays(local: LocalStatistics | None) -> dict[str, NDArray[Any]]:
    """What to write, by name; only what was measured."""
    if local is None:
        return {}
    named = {name: getattr(local, name) for name in AXES}
    return {PREFIX + name: array for name, array in named.items() if array is not None}


def read_local(read: Read, folder: Path, precisions: int, layers: int) -> LocalStatistics | None:
    """Local statistics where there are any; None in a folder of an older version.

    Raises `AnalysisError` for an array of another shape, or with NaN where that means nothing.
    """
    sizes = {"P": precisions, "L": layers}
    found: dict[str, NDArray[np.float64]] = {}
    for name, axes in AXES.items():
        path = folder / f"{PREFIX}{name}.npy"
        if not path.is_file():
            continue
        shape = tuple(sizes[axis] if axis in sizes else int(axis) for axis in axes)
        array = read(PREFIX + name, np.float64, shape, finite=False)
        if name not in MAY_BE_UNKNOWN and (np.isnan(array).any() or (array < 0).any()):
            raise AnalysisError(
                f"{path} holds NaN or a negative number.",
                "Restore the file, or analyze the model again.",
            )
        found[name] = array
    return LocalStatistics(**found) if found else None
