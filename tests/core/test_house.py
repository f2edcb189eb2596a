"""The rules of the house: who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ROAD = ("source", "engines", "evidence", "records", "analysis", "estimate", "decide", "runtime",
        "export", "jobs", "cli")  # fmt: skip
SCREENS = {"streamlit", "plotly", "altair", "dashboard"}
FILES = sorted((REPOSITORY / "core").rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_core_knows_no_screen(path: Path) -> None:
    """No file of core imports streamlit, plotly, altair or the dashboard."""
    assert not {name.split(".")[0] for name in _imports(path)} & SCREENS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_the_road_runs_one_way(path: Path) -> None:
    """A room of core stands only on the rooms to its left."""
    room = path.relative_to(REPOSITORY / "core").parts[0]
    if room not in ROAD:
        return
    right = set(ROAD[ROAD.index(room) + 1 :])

    assert not {name.split(".")[1] for name in _imports(path) if name.startswith("core.")} & right


def test_reading_an_analysis_does_not_import_torch() -> None:
    """Deciding and pricing need NumPy alone, so that a page opens without loading torch or a runtime."""
    code = (
        "import sys, core.analysis.store, core.decide.study, core.jobs.jobs, core.decide.advise.advice, core.decide.advise.document, "
        "core.export.map.precision_map, core.export.map.csv_table, core.cli.main; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'scipy', 'onnx', 'onnxruntime')))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_no_file_unpickles() -> None:
    """Nothing in core, dashboard or the samples loads pickles."""
    for folder in ("core", "dashboard", "sample_models"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            for word in ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True"):
                assert word not in text, path
