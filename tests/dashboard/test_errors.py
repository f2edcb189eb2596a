"""What is expected becomes a cause and a next step; what is not, an id and a log line."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dashboard.__main__ import main
from tests.conftest import REPOSITORY
from tests.dashboard.conftest import Open, failures, go, kpis, said


def test_an_unexpected_error_gives_an_id_and_keeps_navigation(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect on one page shows an error id that is also in the log; other pages still open."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("dashboard.app_pages.tune.layer_table.draw", broken)
    with caplog.at_level(logging.ERROR, logger="quantscape.dashboard"):
        app = open_app("measured", page="tune")

    shown = failures(app)
    assert len(shown) == 1
    assert "secret detail" not in shown[0]
    identifier = shown[0].split("`")[1]
    assert identifier in caplog.text
    assert "secret detail" in caplog.text
    assert kpis(app)["Size"]
    go(app, "overview")
    assert failures(app) == []


def test_a_damaged_folder_names_cause_and_next_step(
    open_app: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """A folder that breaks after launch is named with what to do, and another model opens."""
    damaged = tmp_path / "damaged"
    shutil.copytree(folders["measured"], damaged)
    (damaged / "arrays" / "baseline.npy").write_bytes(b"nonsense")
    folders["damaged"] = damaged

    app = open_app("damaged", "single")
    del folders["damaged"]

    assert not app.exception
    assert "baseline.npy" in said(app)
    assert "analyze the model again" in said(app)
    app.selectbox(key="model").set_value("single").run()
    assert failures(app) == []
    assert kpis(app)


def test_method_opens_without_a_model(
    open_app: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The Method page needs no analysis."""
    folders["missing"] = tmp_path / "missing"
    app = open_app("missing", page="method")
    del folders["missing"]

    assert "does not exist" in said(app)
    assert any("Hardware profiles" in s.value for s in app.subheader)


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "nonsense"])
def test_a_bad_folder_at_launch_is_one_clear_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m dashboard DIR` ends with code 2 and one line that names folder and next step."""
    folder = tmp_path / "analysis"
    if kind in {"empty", "nonsense"}:
        folder.mkdir()
    if kind == "nonsense":
        (folder / "analysis.json").write_text("{]")
    if kind == "file":
        folder.write_text("text")

    code = main([str(folder)])

    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert error.startswith("error: ")
    assert str(folder) in error


@pytest.mark.parametrize("argument", ["--port=0.5", "--port=70000", "--nonsense"])
def test_bad_arguments_are_usage_errors(argument: str) -> None:
    """Arguments that mean nothing end with code 2."""
    with pytest.raises(SystemExit) as stopped:
        main([argument])

    assert stopped.value.code == 2


@pytest.mark.slow
def test_the_dashboard_never_imports_torch(folders: dict[str, Path]) -> None:
    """Every page runs without torch in the process."""
    code = f"""
import os, sys
os.environ["QUANTSCAPE_ANALYSES"] = {str(folders["measured"])!r}
from streamlit.testing.v1 import AppTest
from dashboard.pages import PAGES
app = AppTest.from_file("dashboard/app.py", default_timeout=60).run()
for page in PAGES.values():
    app.switch_page(page.script).run()
    assert not app.exception and not app.error and len(app.metric) >= 4, page
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_one_chart_alone_draws_with_plotly() -> None:
    """Plotly would cost other cold pages most of their time budget."""
    users = [
        path.name
        for path in (REPOSITORY / "dashboard").rglob("*.py")
        if "plotly" in path.read_text("utf-8").lower()
    ]

    assert users == ["parallel.py"]
