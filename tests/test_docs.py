"""Docs cannot drift from the code."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import get_args

import msgspec
import pytest

from core.cli.main import parser
from core.decide import answer
from core.decide.advise.advice import (
    AVOID_DROP_PTS,
    EDGE_DROP_PTS,
    HIGH_PRECISION_DROP_PTS,
    LEAST_QUANTIZABLE_PCT,
    LEAST_REDUCTION_PCT,
    PROCEED_DROP_PTS,
    Feasibility,
)
from core.decide.assess.loss import VALUES
from core.decide.assess.outcome import Confidence, outcome
from core.decide.policy.policy import STRATEGIES, Policy
from core.decide.study import Study
from core.estimate import hardware
from core.estimate.projection import FEW_SAMPLES
from core.evidence.scorers import SCORERS
from core.export.map import session
from core.export.map.checklist import checks
from core.export.map.precision_map import MapFile, MapLayer
from core.export.targets.registry import TARGETS, get
from core.layers import State
from core.quantity import Kind
from core.source.contract import OPTIONAL, REQUIRED
from core.task import TASKS
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text("utf-8")
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
RECIPES = ["A scorer", "A precision", "An exporter", "A page"]
METHOD = (REPOSITORY / "docs" / "method.md").read_text("utf-8")
ALL = [
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.py", "sample_models/**/*.md", "core/**/*.py",
                    "dashboard/**/*.py", "sample_models/**/*.py", "tests/**/*.py", "Makefile",
                    "*.toml", "*.txt", ".streamlit/*.toml")
    for path in REPOSITORY.glob(pattern)
]  # fmt: skip


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_is_documented(name: str) -> None:
    """Each scorer has its row in the method's table."""
    assert f"| `{name}` |" in METHOD


@pytest.mark.parametrize(
    "word", [*STRATEGIES, *get_args(State), *get_args(Kind), *get_args(Confidence)]
)
def test_every_term_is_documented(word: str) -> None:
    """Strategies, states, kinds of figures and confidences are explained."""
    assert word in METHOD


@pytest.mark.parametrize("verdict", get_args(Feasibility))
def test_feasibility_is_documented(verdict: str) -> None:
    """Each verdict has a row that says when it is given."""
    assert f"| {verdict} |" in METHOD


def test_cut_offs_are_the_codes() -> None:
    """The numbers in the feasibility section are those the code uses."""
    section = METHOD.split("## Feasibility")[1].split("## Files")[0]
    for value in (PROCEED_DROP_PTS, AVOID_DROP_PTS, LEAST_REDUCTION_PCT, LEAST_QUANTIZABLE_PCT,
                  EDGE_DROP_PTS, HIGH_PRECISION_DROP_PTS):  # fmt: skip
        assert re.search(rf"\b{value:g}\b", section), value


@pytest.mark.parametrize(
    "field",
    [
        *(f.name for f in msgspec.structs.fields(MapFile)),
        *(f.name for f in msgspec.structs.fields(MapLayer)),
        *(f.name for f in dataclasses.fields(Policy)),
    ],
)
def test_every_key_of_a_map_is_documented(field: str) -> None:
    """Each key of `precision_map.json` is named in the method's file section."""
    assert f"`{field}`" in METHOD.split("## Files")[1]


@pytest.mark.parametrize(
    "field",
    [
        *(f.name for f in msgspec.structs.fields(session._File)),
        *(f.name for f in msgspec.structs.fields(session.KeptStrategy)),
        *(f.name for f in msgspec.structs.fields(session.Row)),
    ],
)
def test_every_key_of_a_session_is_documented(field: str) -> None:
    """Each key of a session file is named where that file is described, with its limits."""
    text = METHOD.split("A session file, saved by")[1].split("**Checklist**")[0]

    assert f"`{field}`" in text
    assert f"up to {session.MAX_STRATEGIES} entries" in text


def test_every_check_is_documented(tiny_study: Study) -> None:
    """The checklist's table has the rows of the code in its order, and the same limit."""
    chosen = answer.decide(tiny_study, Policy())
    table = METHOD.split("**Checklist**")[1].split("An analysis folder")[0]
    titles = re.findall(r"^\| ([A-Z][\w ]+) \|", table, re.MULTILINE)

    assert titles == [c.title for c in checks(tiny_study, chosen, outcome(tiny_study, chosen))]
    assert f"fewer than {FEW_SAMPLES}" in table


def test_every_page_is_documented() -> None:
    """README's table has a row for each page of the navigation, in its order."""
    app = (REPOSITORY / "dashboard" / "app.py").read_text("utf-8")
    table = README.split("| page | question |")[1].split("\n\n")[0]

    assert re.findall(r"^\| (\w+) \|", table, re.MULTILINE) == re.findall(
        r'st\.Page\([^)]*title="(\w+)"', app
    )


def test_every_total_is_documented(tiny_study: Study) -> None:
    """Each total that a map carries is named."""
    totals = outcome(tiny_study, answer.decide(tiny_study, Policy())).totals

    assert all(f"`{name}`" in METHOD for name in totals)


def test_every_figure_of_values_is_documented() -> None:
    """Totals that only values have are named, with what they mean."""
    assert all(f"`{name}`" in METHOD.split("## Files")[1] for name in VALUES.every)


@pytest.mark.parametrize("key", [*REQUIRED, *OPTIONAL, *TASKS])
def test_every_key_of_a_source_is_documented(key: str) -> None:
    """Each key of the dict that a source returns, and each task, is in the method's table."""
    section = METHOD.split("## Sources")[1].split("## Layers")[0]

    assert key in section if key in TASKS else f"`{key}`" in section


def test_every_command_is_documented_and_described() -> None:
    """README shows each command, and each option of each command has help text."""
    top = parser()
    (commands,) = (a for a in top._actions if a.choices and a.dest != "help")
    assert commands.choices is not None
    for name, sub in dict(commands.choices).items():
        assert f"python -m core {name}" in README, name
        for action in sub._actions:
            assert action.help, f"{name} {action.dest}"


def test_every_export_format_is_documented() -> None:
    """README's table has each target with how it is proved, as the target's own table says."""
    section = README.split("## Export formats")[1].split("## How it is built")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    for name in TARGETS:
        (row,) = (r for r in rows if f"`{name}`" in r.split("|")[1])
        assert ("the tool" in row.split("|")[5]) == (get(name).proved == "tool"), name


@pytest.mark.parametrize(
    "target", ["run", "test", "test-interop", "lint", "bench", "screenshots", "samples"]
)
def test_make_targets_of_the_readme_exist(target: str) -> None:
    """README speaks only of targets that the Makefile has."""
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")

    assert f"make {target}" in README
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_and_pictures_of_the_docs_exist() -> None:
    """Every relative link leads to a file of the repository."""
    for path in (REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md")):
        for link in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: {link}"


def _tree(text: str) -> dict[str, str]:
    """Path -> what is said of it, of a tree drawn by indentation; folders end with "/"."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"( *)(\S+)\s*(.*)", line)
        if match is None:
            continue
        depth, name, said = len(match[1]), match[2], match[3]
        above = [(d, path) for d, path in above if d < depth]
        path = (above[-1][1] if above else "") + name
        found[path] = said
        if name.endswith("/"):
            above.append((depth, path))
    return found


def _drawn(text: str) -> dict[str, str]:
    return _tree("core/" + text.split("```\ncore/")[1].split("```", maxsplit=1)[0])


def _packages(top: str) -> set[str]:
    """Folders with code below `top`, as paths that end with "/"."""
    return {
        f"{path.parent.relative_to(REPOSITORY)}/"
        for path in (REPOSITORY / top).rglob("__init__.py")
    }


def _is_there(path: str) -> bool:
    pattern = re.sub(r"<\w+>", "*", path)
    return any(True for _ in REPOSITORY.glob(pattern.rstrip("/")))


def test_the_tree_of_contributing_is_the_tree_on_disk() -> None:
    """Every folder of core and dashboard is drawn with a word on it, and nothing else is."""
    drawn = _drawn(CONTRIBUTING)
    patterns = [re.compile(re.sub(r"<\w+>", "[^/]+", path)) for path in drawn if "<" in path]
    real = {
        folder
        for folder in _packages("core") | _packages("dashboard")
        if not any(pattern.fullmatch(folder) for pattern in patterns)
    }
    folders = {p for p in drawn if p.startswith(("core/", "dashboard/")) and p.endswith("/")}

    assert {p for p in folders if "<" not in p} == real
    assert not [path for path in drawn if not _is_there(path)]
    assert not [path for path, said in drawn.items() if not said]
    assert {p for p in drawn if re.fullmatch(r"core/\w+\.py", p)} == {
        str(p.relative_to(REPOSITORY))
        for p in (REPOSITORY / "core").glob("*.py")
        if not p.name.startswith("__")
    }


def test_the_tree_of_the_readme_is_the_tree_on_disk() -> None:
    """README draws the rooms of core and the dashboard, and no room that is not there."""
    drawn = _drawn(README)
    rooms = {p for p in drawn if re.fullmatch(r"(core|dashboard)/\w+/", p)}

    assert rooms == {p for p in _packages("core") | _packages("dashboard") if p.count("/") == 2}
    assert not [path for path in drawn if not _is_there(path)]


def test_recipes_and_answers_name_files_that_exist() -> None:
    """Each recipe of CONTRIBUTING names its files, and every path that it names is there."""
    text = CONTRIBUTING.split("**Where is …?**")[1]
    named = re.findall(r"`((?:core|dashboard|tests|docs|sample_models)/[\w./<>-]+)`", text)
    recipes = text.split("## Recipes")[1].split("### ")[1:]

    assert not [path for path in named if not _is_there(path)]
    assert [recipe.splitlines()[0] for recipe in recipes] == RECIPES
    for recipe in recipes:
        steps = re.findall(r"^\d+\. (.*)", recipe, re.MULTILINE)
        assert steps, recipe
        assert all(re.match(r"`[\w./<>-]+`", step) for step in steps), recipe


def test_hardware_profiles_are_in_the_help_and_have_sources() -> None:
    """Profiles shipped as data are the ones the program offers."""
    shipped = {p.stem for p in (REPOSITORY / "core/estimate/profiles").glob("*.toml")}

    assert set(hardware.profiles()) == shipped


def test_pins_are_exact() -> None:
    """Every requirement is pinned to one release, torch to the one that brings no CUDA."""
    for path in REPOSITORY.glob("requirements*.txt"):
        lines = [line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
        for line in filter(None, lines):
            assert line.startswith("-r ") or re.fullmatch(r"[a-zA-Z0-9_.-]+==[0-9a-z.]+", line), (
                line
            )
    assert "torch==2.13.0" in (REPOSITORY / "requirements.txt").read_text("utf-8").splitlines()


def test_every_lint_exception_has_a_reason() -> None:
    """An ignored rule stands beside a comment that says why."""
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    tomllib.loads(text)
    ignores = (
        text.split("ignore = [")[1].split("]")[0]
        + text.split("per-file-ignores]")[1].split("[tool.ruff.lint.pydocstyle]")[0]
    )
    for line in ignores.splitlines():
        if re.match(r'\s+"[A-Z0-9]+",?', line):
            assert re.search(r"# .*\w", line), line


@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_the_project_speaks_of_itself_alone(path: object) -> None:
    """No file names a path of somebody's machine or leaves work marked as unfinished."""
    text = path.read_text("utf-8")  # type: ignore[attr-defined]
    for word in ("/" + "work/", "/" + "root/", "TO" + "DO", "FIX" + "ME"):
        assert word not in text, word
