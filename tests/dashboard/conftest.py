"""Analysis folders of many shapes, and the app opened on one of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core import store
from core.analysis import Analysis
from core.layers import LayerTable
from core.source import samples
from dashboard import FOLDERS_VARIABLE
from tests.conftest import REPOSITORY
from tests.core.synthetic import synthetic_analysis, synthetic_layers

Open = Callable[..., AppTest]
PAGES = ("overview", "tune", "compare", "method")
SHAPES = ("empty", "single", "measured", "unmeasured", "equal", "large")
TIMEOUT_S = 60


def equal_scores(count: int) -> Analysis:
    """Every layer of one role, hence one score by every rule."""
    layers = tuple(replace(layer, role="linear") for layer in synthetic_layers(count).layers)
    return replace(synthetic_analysis(count, measured=False), layers=LayerTable(layers))


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
    }
    root = tmp_path_factory.mktemp("analyses")
    for name, analysis in analyses.items():
        store.save(analysis, root / name)
    return {**{name: root / name for name in analyses},
            "informer": samples.get("informer").analysis}  # fmt: skip


@pytest.fixture
def open_app(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the app on the folders of the given shapes, with URL parameters, and run it once."""

    def opened(*shapes: str, page: str = "overview", **parameters: str) -> AppTest:
        named = [str(folders[shape]) for shape in shapes]
        monkeypatch.setenv(FOLDERS_VARIABLE, os.pathsep.join(named))
        app = AppTest.from_file(str(REPOSITORY / "dashboard" / "app.py"), default_timeout=TIMEOUT_S)
        for name, value in parameters.items():
            app.query_params[name] = value
        app.run()
        if page != "overview":
            app.switch_page(f"app_pages/{page}.py").run()
        return app

    return opened


def kpis(app: AppTest) -> dict[str, str]:
    """The KPI row: title -> value."""
    return {metric.label.split(" · ")[0]: metric.value for metric in app.metric[:4]}


def said(app: AppTest) -> str:
    """All text on the page."""
    kinds = (app.markdown, app.caption, app.info, app.error, app.warning, app.toast)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def failures(app: AppTest) -> list[str]:
    """Errors shown and exceptions raised."""
    return [str(e.value) for e in app.exception] + [str(e.value) for e in app.error]
