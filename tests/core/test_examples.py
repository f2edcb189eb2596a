"""The files under docs/examples run, briefly trained, through the whole analysis."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.analysis.analyze import analyze
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.study import Study
from core.evidence.options import MeasureOptions
from core.source import python_file
from core.source.contract import ModelSource, model_source
from tests.conftest import REPOSITORY
from tests.processors import own_notes

FOLDER = REPOSITORY / "docs" / "examples"
EXAMPLES = [
    ("denoiser", "load"),
    ("denoiser", "by_psnr"),
    ("letters", "load"),
    ("forecaster", "load"),
]


@pytest.fixture(autouse=True)
def _made_up_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series in place of the one that ships with statsmodels, which the tests do not need."""
    weeks = np.arange(1200)
    values = 315 + weeks / 40 + 3 * np.sin(weeks * 2 * np.pi / 52)
    values[7::90] = np.nan
    data = SimpleNamespace(data=pd.DataFrame({"co2": values}))
    datasets = ModuleType("statsmodels.datasets")
    datasets.co2 = SimpleNamespace(load_pandas=lambda: data)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "statsmodels", ModuleType("statsmodels"))
    monkeypatch.setitem(sys.modules, "statsmodels.datasets", datasets)


def _source(file: str, function: str) -> ModelSource:
    """The example's source after two steps of training: what it learns is not tested here."""
    module: Any = python_file._module(FOLDER / f"{file}.py")
    module.STEPS = 2
    return model_source(getattr(module, function)())


@pytest.mark.parametrize(("file", "function"), EXAMPLES)
@pytest.mark.slow
def test_examples_are_analyzed(file: str, function: str) -> None:
    """Every example yields figures of its task for a map, and a holdout figure."""
    analysis = analyze(_source(file, function), MeasureOptions(probes=2))
    study = Study(analysis)
    totals = outcome(study, uniform_map(study, "INT8", "server-cpu-vnni")).totals
    loss = "accuracy_drop_pts" if analysis.metric is None else "metric_loss_pct"
    held = analysis.holdout_accuracy if analysis.metric is None else analysis.metric.holdout

    assert totals[loss].value is not None
    assert held is not None
    assert own_notes(analysis) == ()


def test_no_two_parts_of_the_series_share_a_week() -> None:
    """Parts of the forecaster's series are a window apart, and gaps in the series are filled."""
    module: Any = python_file._module(FOLDER / "forecaster.py")
    module.STEPS = 0
    parts = module.load()
    past, future = module.windows()
    places = {
        name: [int((past == row).all(dim=1).nonzero()[0]) for row in rows[[0, -1]]]
        for name, rows in (("evaluation", parts["evaluation"][0]), ("holdout", parts["holdout"][0]))
    }

    assert bool(past.isfinite().all())
    assert bool(future.isfinite().all())
    span = module.PAST + module.AHEAD
    assert places["evaluation"][0] - int(0.6 * len(past)) >= span - 1
    assert places["holdout"][0] - places["evaluation"][1] >= span
    assert places["holdout"][1] == len(past) - 1


def test_every_example_is_in_the_table() -> None:
    """The README of the examples names each file and function."""
    text = (FOLDER / "README.md").read_text("utf-8")

    assert {path.stem for path in FOLDER.glob("*.py")} == {file for file, _ in EXAMPLES}
    for file, function in EXAMPLES:
        assert f"docs/examples/{file}.py:{function} --out" in text
