"""What `analyze` leaves while it measures: the analysis so far, in the folder that it will fill."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from core.analysis import store
from core.analysis.analysis import Analysis
from core.errors import AnalysisError
from core.evidence.evidence import Partial
from core.evidence.ranking import Ranking, ranking


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


def first_look(
    keep: Callable[[Analysis], None] | None, say: Callable[[str], None]
) -> Callable[[Analysis], None]:
    """Passes partial analyses on to `keep`, and tells `say` which layers cost most as soon as all of
    them, and whole maps, are measured on some of the samples.
    """
    told = False

    def look(analysis: Analysis) -> None:
        nonlocal told
        if keep is not None:
            keep(analysis)
        evidence, partial = analysis.evidence, analysis.partial
        if told or evidence is None or partial is None:
            return
        if evidence.measured is not None or partial.samples == partial.of_samples:
            return  # nothing to rank yet, or nothing left to wait for
        told = True
        found = ranking(analysis.layers, evidence)
        if found is not None:
            say(_in_words(found, partial))

    return look


def _in_words(found: Ranking, partial: Partial) -> str:
    each = ", ".join(f"{name} {cost:.2g}" for name, cost in found.worst)
    return (
        f"Measured on {partial.samples:,} of {partial.of_samples:,} samples so far, "
        f"{found.precision} costs most in {each} {found.unit}, each layer alone."
    )
