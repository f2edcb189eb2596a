"""The study that a command is about."""

from __future__ import annotations

from pathlib import Path

from core.analysis import store
from core.cli.output import note
from core.decide.study import Study
from core.errors import MAX_NAMED


def study_of(folder: Path) -> Study:
    """The study of the analysis in `folder`; modules that it never reached, and records
    that cannot be read, are noted on stderr.

    Raises `AnalysisError` where the folder cannot be read.
    """
    study = Study(store.load(folder))
    if study.layers.unreached:
        note(study.layers.unreached_in_words())
    for sentence in study.analysis.left_out[:MAX_NAMED]:
        note(f"left out: {sentence}")
    if len(study.analysis.left_out) > MAX_NAMED:
        note(
            f"left out: {len(study.analysis.left_out) - MAX_NAMED} more records, for like reasons."
        )
    return study
