"""A tool is one folder: put there, it is listed, written and proved, and nothing else names it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.analysis import store
from core.export.map import precision_map
from core.export.targets.registry import TARGETS, get
from tests.conftest import REPOSITORY
from tests.core import deployable

TOOLS = REPOSITORY / "core" / "export" / "targets"
TABLE = """\
title = "Pencil"
order = 75
package = "pencil"
version = "2.0"
file = "pencil.txt"
purpose = "The modules in INT8, one a line."
speaks = "modules"
floats = "one"
precisions = ["FP32", "FP16", "INT8"]
computes = ["Linear"]
scheme = ""
rounding = "weights and activations"
proved = "schema"
proof = "Read by eye."
sources = ["pencil 2.0"]
"""
MODULE = '''\
"""Pencil: names, one a line."""

from core.export.targets.contract import ExportRequest
from core.export.targets.script import python


def render(request: ExportRequest) -> str:
    """The template with the names of INT8 modules."""
    return python(request, __name__, {"NAMES": request.integers})
'''


def test_what_a_tool_proves_is_proved_with_the_release_that_is_named() -> None:
    """Beside each format that the tool itself proves lie its test and a pin of that release."""
    offenders = []
    for name in TARGETS:
        table = get(name)
        (path,) = TOOLS.glob(f"*/{name.replace('-', '_')}.toml")
        pins = path.with_name("requirements.txt")
        given = pins.read_text("utf-8").splitlines() if pins.is_file() else []
        test = path.with_name(f"test_{path.parent.name}.py").is_file()
        if table.proved == "tool" and not (test and f"{table.package}=={table.version}" in given):
            offenders.append(name)

    assert not offenders


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with one folder more, for a tool with two formats."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(
        REPOSITORY / "core", root / "core", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "Makefile", root)
    shutil.copytree(REPOSITORY / "tests" / "interop", root / "tests" / "interop")
    folder = root / "core" / "export" / "targets" / "pencil_case"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Pencil."""\n', "utf-8")
    (folder / "requirements.txt").write_text("pencil==2.0\n", "utf-8")
    for stem, order in (("pencil_case", 75), ("pencil_case_soft", 175)):
        (folder / f"{stem}.toml").write_text(TABLE.replace("75", str(order)), "utf-8")
        (folder / f"{stem}.py").write_text(MODULE, "utf-8")
        (folder / f"{stem}.py.tmpl").write_text(f"# CONSTANTS\n# by {stem}\n", "utf-8")
    return root


def core(repository: Path, *options: str) -> str:
    """What `python -m core` of that repository prints."""
    done = subprocess.run(
        [sys.executable, "-m", "core", *options],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_formats_are_listed(repository: Path) -> None:
    """Both formats stand among the others where their tables ask for it, with dashes in names."""
    names = [row["name"] for row in json.loads(core(repository, "targets", "--json"))]

    assert names == [*TARGETS[:7], "pencil-case", *TARGETS[7:], "pencil-case-soft"]


def test_its_file_is_written(repository: Path, tmp_path: Path) -> None:
    """The command line takes the format, and the folder's own template is filled in."""
    study = deployable.study()
    store.save(study.analysis, tmp_path / "a")
    map_ = precision_map.to_json(study, deployable.chosen(study))
    (tmp_path / "map.json").write_bytes(map_)
    core(
        repository, "export", str(tmp_path / "a"), str(tmp_path / "map.json"),
        "--format", "pencil-case-soft", "--nearest", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    written = (tmp_path / "out").read_text("utf-8")

    assert written.startswith("# Written for pencil 2.0")
    assert written.endswith(
        "NAMES = ['mixer.linear1', 'mixer.linear2', 'head']\n# by pencil_case_soft\n"
    )


def test_make_proves_it(repository: Path) -> None:
    """`make test-interop` installs the folder's requirements and runs its test, for this tool too."""
    plan = subprocess.run(
        ["make", "-n", "test-interop"],  # noqa: S607 (make is what runs the tests)
        cwd=repository, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert "-r core/export/targets/pencil_case/requirements.txt" in plan
    assert (
        ".venv-interop/pencil-case/bin/python -m pytest core/export/targets/pencil_case\n" in plan
    )
    assert ".venv-interop/torchao/bin/python -m pytest core/export/targets/torchao\n" in plan


def test_a_damaged_table_names_its_file(repository: Path) -> None:
    """A key that is missing is said with the file that lacks it."""
    table = repository / "core" / "export" / "targets" / "pencil_case" / "pencil_case.toml"
    text = table.read_text("utf-8")
    table.write_text(text.replace('title = "Pencil"\n', ""), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "core", "targets"],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    table.write_text(text, "utf-8")

    assert done.returncode != 0
    assert "pencil_case.toml: Object missing required field `title`" in done.stderr
