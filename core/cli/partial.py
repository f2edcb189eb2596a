"""What `analyze` leaves while it measures: the analysis so far, in the folder that it will fill."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from core.analysis import store
from core.analysis.analysis import Analysis
from core.errors import AnalysisError


def keeper(
    options: argparse.Namespace, say: Callable[[str], None]
) -> Callable[[Analysis], None] | None:
    """Writes partial analyses to the folder of `--out`; None where a whole one lies there, which
    stays until the new one is done. What goes wrong is told to `say`, once, and ends it.

    Raises `AnalysisError` if the folder holds something else.
    """
    store.check_target(options.out)
    there = (options.out / store.FILE).exists()
    if there and store.partial_of(options.out) is None:
        return None
    problems: list[str] = []

    def keep(analysis: Analysis) -> None:
        if problems:
            return
        try:
            store.save(analysis, options.out)
        except AnalysisError as error:
            problems.append(error.cause)
            say(f"Partial results are not kept: {error.cause}")

    return keep
