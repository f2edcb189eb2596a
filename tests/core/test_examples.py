"""The files under docs/examples run, briefly trained, through the whole analysis."""

from __future__ import annotations

from typing import Any

import pytest

from core.decide.outcome import outcome, uniform_map
from core.evidence.analyze import analyze
from core.source import python_file
from core.source.contract import ModelSource, model_source
from core.study import Study
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "docs" / "examples"
EXAMPLES = [("denoiser", "load"), ("denoiser", "by_psnr"), ("letters", "load")]


def _source(file: str, function: str) -> ModelSource:
    """The example's source after two steps of training: what it learns is not tested here."""
    module: Any = python_file._module(FOLDER / f"{file}.py")
    module.STEPS = 2
    return model_source(getattr(module, function)())


@pytest.mark.parametrize(("file", "function"), EXAMPLES)
def test_examples_are_analyzed(file: str, function: str) -> None:
    """Every example yields figures of its task for a map, and a holdout figure."""
    analysis = analyze(_source(file, function), probes=2)
    study = Study(analysis)
    totals = outcome(study, uniform_map(study, "INT8", "server-cpu-vnni")).totals
    loss = "accuracy_drop_pts" if analysis.metric is None else "metric_loss_pct"
    held = analysis.holdout_accuracy if analysis.metric is None else analysis.metric.holdout

    assert totals[loss].value is not None
    assert held is not None
    assert analysis.notes == ()


def test_every_example_is_in_the_table() -> None:
    """The README of the examples names each file and function."""
    text = (FOLDER / "README.md").read_text("utf-8")

    assert {path.stem for path in FOLDER.glob("*.py")} == {file for file, _ in EXAMPLES}
    for file, function in EXAMPLES:
        assert f"docs/examples/{file}.py:{function} --out" in text
