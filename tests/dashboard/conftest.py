"""Analysis folders of many shapes, and the app opened on one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.evidence.evidence import Partial
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import FP16, INT8
from core.onnx_graph.read_model import from_bytes
from core.source import samples
from core.source.contract import ModelSource, model_source
from core.source.onnx_model import OnnxModel
from dashboard import FOLDERS_VARIABLE
from dashboard.pages import PAGES
from tests.conftest import REPOSITORY
from tests.core.partial import partial_analysis
from tests.core.synthetic import synthetic_analysis, synthetic_layers
from tests.dashboard import by_task
from tests.zoo.graphs import opset_11
from tests.zoo.models import TiedWeights
from tests.zoo.sources import source_of, tiny_source

Open = Callable[..., AppTest]
TASKS = ("values", "unlabelled", "sequence", "custom", "grouped", "values_unlabelled")
SHAPES = ("empty", "single", "measured", "unmeasured", "equal", "large", "tied", "overflow",
          "partial", "few", "int8", "half", "file", *TASKS)  # fmt: skip
SAMPLES = tuple(samples.names())
TIMEOUT_S = 60


def equal_scores(count: int) -> Analysis:
    """Every layer of one role, hence one score by every rule."""
    layers = tuple(replace(layer, role="linear") for layer in synthetic_layers(count).layers)
    return replace(synthetic_analysis(count, measured=False), layers=LayerTable(layers))


def of_file() -> ModelSource:
    """A source that is an ONNX file."""
    made, arrays = opset_11()
    x = torch.from_numpy(arrays["x"])
    model = OnnxModel(from_bytes(made.SerializeToString(), "model.onnx"))
    return model_source(
        {"model": model, "calibration": x, "evaluation": (x, torch.arange(len(x)) % 5),
         "task": "classification", "reference": "model.onnx --calibration=c.npz --task=classification"}
    )  # fmt: skip


def overflowing(count: int) -> Analysis:
    """A model whose first layer overflows in FP16 and whose second does so in INT8."""
    analysis = synthetic_analysis(count, samples=20)
    evidence = analysis.evidence
    assert evidence is not None
    allowed = evidence.allowed.copy()
    allowed[0, 0] = allowed[1, 1] = False
    return replace(analysis, evidence=replace(evidence, allowed=allowed))


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Analysis folders by shape."""
    analyses = {
        "empty": synthetic_analysis(0, samples=20),
        "single": synthetic_analysis(1, samples=20),
        "measured": synthetic_analysis(57, samples=60),
        "unmeasured": synthetic_analysis(57, measured=False),
        "equal": equal_scores(30),
        "large": synthetic_analysis(2000, samples=12),
        "tied": analyze(source_of(TiedWeights(), (5,), name="tied"), MeasureOptions(probes=2)),
        "overflow": overflowing(28),
        "int8": analyze(tiny_source(), MeasureOptions(precisions=(INT8,), probes=2)),
        "half": analyze(tiny_source(), MeasureOptions(precisions=(FP16,), probes=2)),
        "file": analyze(of_file(), MeasureOptions(precisions=(INT8,), probes=2)),
        "partial": partial_analysis(28, 15),
        "few": replace(synthetic_analysis(12, samples=20), partial=Partial(11, 11, 20, 200)),
        **by_task.analyses(),
    }
    root = tmp_path_factory.mktemp("analyses")
    for name, analysis in analyses.items():
        store.save(analysis, root / name)
    shipped = {name: samples.get(name).analysis for name in SAMPLES}
    return {**{name: root / name for name in analyses}, **shipped}


def _new_app(
    folders: dict[str, Path], shapes: Iterable[str], patch: pytest.MonkeyPatch, **parameters: str
) -> AppTest:
    """The app on the folders of the given shapes, with URL parameters; not run yet."""
    named = [str(folders[shape]) for shape in shapes]
    patch.setenv(FOLDERS_VARIABLE, os.pathsep.join(named))
    app = AppTest.from_file(str(REPOSITORY / "dashboard" / "app.py"), default_timeout=TIMEOUT_S)
    for name, value in parameters.items():
        app.query_params[name] = value
    return app


@pytest.fixture
def open_app(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the app on the folders of the given shapes, with URL parameters, and run it once."""

    def opened(*shapes: str, page: str = "overview", **parameters: str) -> AppTest:
        app = _new_app(folders, shapes, monkeypatch, **parameters).run()
        return app if PAGES[page].is_first else go(app, page)

    return opened


@pytest.fixture(scope="session")
def registered(folders: dict[str, Path]) -> dict[Any, Any]:
    """The app's pages as a run tells them to `AppTest`, which finds none before its first."""
    with pytest.MonkeyPatch.context() as patch:
        return dict(_new_app(folders, ["single"], patch).run()._registered_pages)


@pytest.fixture
def open_page(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, registered: dict[Any, Any]
) -> Open:
    """Open a page by a link to it: the first page is not run before, as `open_app` does."""

    def opened(*shapes: str, page: str, **parameters: str) -> AppTest:
        app = _new_app(folders, shapes, monkeypatch, **parameters)
        app._registered_pages = dict(registered)
        return app.switch_page(PAGES[page].script).run()

    return opened


def go(app: AppTest, page: str) -> AppTest:
    """Open another page of a running app."""
    app.switch_page(PAGES[page].script).run()
    return app


def walk(app: AppTest, pages: Iterable[str] = PAGES) -> Iterator[str]:
    """Go through `pages` in one app that stands on the first; each is open while it is yielded."""
    for i, page in enumerate(pages):
        if i:
            go(app, page)
        yield page


def kpis(app: AppTest) -> dict[str, str]:
    """The KPI row: title -> value."""
    return {metric.label.split(" · ")[0]: metric.value for metric in app.metric[:4]}


def said(app: AppTest) -> str:
    """All text on the page."""
    kinds = (app.markdown, app.caption, app.info, app.error, app.warning, app.success, app.toast)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def failures(app: AppTest) -> list[str]:
    """Errors shown and exceptions raised."""
    return [str(e.value) for e in app.exception] + [str(e.value) for e in app.error]
