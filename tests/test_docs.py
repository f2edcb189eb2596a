"""Docs cannot drift from the code."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from typing import get_args

import msgspec

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
from core.export.map import session_file
from core.export.map.checklist import checks
from core.export.map.precision_map import MapFile, MapLayer, StoredLayer
from core.export.targets.registry import TARGETS, get
from core.layers import State
from core.quantity import Kind
from core.source.contract import OPTIONAL, REQUIRED
from core.task import TASKS
from dashboard.pages import PAGES
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text("utf-8")
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
RECIPES = ["A scorer", "A precision", "An exporter", "A page"]
METHOD = (REPOSITORY / "docs" / "method.md").read_text("utf-8")
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")
PINS = (
    "requirements*.txt",
    "tests/**/requirements.txt",
    "core/export/targets/*/requirements.txt",
)
TEXTS = ("*.md", "docs/**/*.md", "docs/**/*.py", "sample_models/**/*.md", "core/**/*.py",
         "core/**/*.t*ml", "core/**/*.tmpl", "core/**/*.css", "core/**/*.js",
         "dashboard/**/*.py", "sample_models/**/*.py", "tests/**/*.py", "Makefile", "*.toml", *PINS, ".streamlit/*.toml", ".ci/*")  # fmt: skip


def section(title: str) -> str:
    """The part of the method under the heading `title`, up to the next one of its level."""
    level = title.split(" ", maxsplit=1)[0]
    return f"{METHOD}\n".split(f"\n{title}\n")[1].split(f"\n{level} ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the first table in `text`, without its head."""
    lines = text[text.index("| ---") :].split("\n\n", maxsplit=1)[0].splitlines()[1:]
    return [[cell.strip() for cell in x.strip("| ").split(" | ")] for x in lines]


def line(start: str, text: str = METHOD) -> str:
    """The one line of `text` that begins with `start`."""
    (found,) = (x for x in text.splitlines() if x.startswith(start))
    return found


def ticked(text: str) -> set[str]:
    """What stands `between ticks`."""
    return set(re.findall(r"`([^`]+)`", text))


def fields(struct: type[msgspec.Struct]) -> set[str]:
    """The names of a struct's fields."""
    return {f.name for f in msgspec.structs.fields(struct)}


def test_every_scorer_is_documented() -> None:
    """Scorers and the rows of the method's table are the same, with the same names and kinds."""
    table = [(row[0].strip("`"), row[1]) for row in rows(section("## Scorers"))]

    assert table == [(name, scorer.kind) for name, scorer in SCORERS.items()]


def test_every_state_is_documented() -> None:
    """Each state of a layer has its row in the method's table."""
    assert {row[0] for row in rows(section("### States"))} == set(get_args(State))


def test_every_kind_of_figure_is_documented() -> None:
    """Each kind of figure has its row in the method's table."""
    assert {row[0] for row in rows(section("## Kinds of figures"))} == set(get_args(Kind))


def test_every_confidence_is_documented() -> None:
    """Each confidence is explained in the method's sentence on them."""
    named = re.findall(r"\*([\w ]+)\* \(", line("**Confidence**"))

    assert set(named) == set(get_args(Confidence))


def test_every_strategy_is_documented() -> None:
    """Each strategy is named in the method's sentence on them."""
    named = re.findall(r"\*([\w-]+)\*", line("Strategies:"))

    assert set(named) == set(STRATEGIES)


def test_feasibility_is_documented() -> None:
    """Each verdict has a row that says when it is given."""
    assert {row[0] for row in rows(section("## Feasibility"))} == set(get_args(Feasibility))


def test_cut_offs_are_the_codes() -> None:
    """The numbers in the feasibility section are those the code uses."""
    when = dict(rows(section("## Feasibility")))

    assert f"exceed {AVOID_DROP_PTS:g} points" in when["avoid"]
    assert f"exceed {PROCEED_DROP_PTS:g} point," in when["cautious"]
    assert f"less than {LEAST_REDUCTION_PCT:g} % of the size" in when["cautious"]
    assert f"at least {LEAST_QUANTIZABLE_PCT:g} % of" in line("Without measurements: cautious")
    uses = line("**Recommendations**")
    assert f"*production* the fastest within {PROCEED_DROP_PTS:g} point," in uses
    assert f"*edge* the smallest within {EDGE_DROP_PTS:g}," in uses
    assert f"*high precision* the smallest within {HIGH_PRECISION_DROP_PTS:g}." in uses


def test_every_key_of_a_map_is_documented() -> None:
    """Each key of `precision_map.json` is named where its part of the file is described."""
    text = section("## Files")

    assert fields(MapFile) <= ticked(line("`precision_map.json`:", text))
    assert fields(MapLayer) <= ticked(line("Each layer:", text))
    assert {f.name for f in dataclasses.fields(Policy)} <= ticked(line("Policy:", text))


def test_every_key_of_a_session_is_documented() -> None:
    """Each key of a session file is named where that file is described, with its limits."""
    top, entry = line("A session file, saved by"), line("An entry holds")

    assert fields(session_file._File) <= ticked(top)
    assert fields(session_file.KeptStrategy) | fields(StoredLayer) <= ticked(entry)
    assert f"up to {session_file.MAX_STRATEGIES} entries" in top


def test_every_check_is_documented(tiny_study: Study) -> None:
    """The checklist's table has the rows of the code in its order, and the same limit."""
    chosen = answer.decide(tiny_study, Policy())
    table = METHOD.split("**Checklist**")[1].split("An analysis folder")[0]
    titles = re.findall(r"^\| ([A-Z][\w ]+) \|", table, re.MULTILINE)

    assert titles == [c.title for c in checks(tiny_study, chosen, outcome(tiny_study, chosen))]
    assert f"fewer than {FEW_SAMPLES}" in table


def test_every_page_is_documented() -> None:
    """README's tables have a row for each page of the navigation, in its order: what it answers,
    and how it looks.
    """
    answers = README.split("| page | question |")[1].split("\n\n")[0]
    looks = README.split("| | light | dark |")[1].split("\n\n")[0]

    for table in (answers, looks):
        titles = re.findall(r"^\| (\w+) \|", table, re.MULTILINE)
        assert titles == [page.title for page in PAGES.values()]
    assert re.findall(r"docs/images/(\w+)-light.png", looks) == list(PAGES)


def test_every_total_is_documented(tiny_study: Study) -> None:
    """Each total that a map carries is named, and those that only values have."""
    totals = outcome(tiny_study, answer.decide(tiny_study, Policy())).totals

    assert set(totals) <= ticked(line("Totals:"))
    assert set(VALUES.every) <= ticked(line("Values add"))


def test_every_key_of_a_source_is_documented() -> None:
    """Each key of the dict that a source returns, and each task, is in the method's table."""
    table = rows(section("## Sources"))

    assert {key for row in table for key in ticked(row[0])} == {*REQUIRED, *OPTIONAL}
    (tasks,) = (row[1] for row in table if row[0] == "`task`")
    assert ticked(tasks) == set(TASKS)


def test_every_command_is_documented_and_described() -> None:
    """README shows each command, and each option of each command has help text."""
    top = parser()
    (commands,) = (a for a in top._actions if a.choices and a.dest != "help")
    assert commands.choices is not None
    given = dict(commands.choices)

    assert set(given) == set(re.findall(r"python -m core ([a-z]+)", README))
    assert not [
        f"{name} {action.dest}"
        for name, sub in given.items()
        for action in sub._actions
        if not action.help
    ]


def test_every_export_format_is_documented() -> None:
    """README's table has each target with how it is proved, as the target's own table says."""
    part = README.split("## Export formats")[1].split("## How it is built")[0]
    table = {name: row[-1] for row in rows(part) for name in ticked(row[0])}

    assert {name: "the tool" in proof for name, proof in table.items()} == {
        name: get(name).proved == "tool" for name in TARGETS
    }


def test_make_targets_of_the_readme_are_the_makefiles() -> None:
    """README shows each target that a person runs; no text shows one that the Makefile lacks."""
    shown, told = (
        set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
        for text in (README, CONTRIBUTING)
    )
    tools = [
        path.parent.name.replace("_", "-")
        for path in REPOSITORY.glob("core/export/targets/*/requirements.txt")
    ]
    there = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))

    assert shown | told <= there | {f"test-interop-{tool}" for tool in tools}
    assert shown >= there - {
        "setup", "setup-test", "clean", "check-tools", "chromium", "every-test", "fast-test"
    }  # fmt: skip


def test_links_and_pictures_of_the_docs_exist() -> None:
    """Every relative link leads to a file of the repository."""
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]

    assert not [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]


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


def test_every_hardware_profile_states_its_source() -> None:
    """Profiles say where their numbers come from, and each file that is shipped is one."""
    shipped = {p.stem for p in (REPOSITORY / "core/estimate/profiles").iterdir()}

    assert set(hardware.profiles()) == shipped
    assert not [name for name, p in hardware.profiles().items() if len(p.source.split()) < 5]


def test_pins_are_exact() -> None:
    """Every requirement is pinned to one release, torch to the one that brings no CUDA."""
    pin = re.compile(r"-r .*|[a-zA-Z0-9_.-]+==[0-9a-z.]+")
    given = {
        str(path.relative_to(REPOSITORY)): [
            entry.split("#")[0].strip() for entry in path.read_text("utf-8").splitlines()
        ]
        for pattern in PINS
        for path in REPOSITORY.glob(pattern)
    }

    assert not [f"{n}: {x}" for n, all_ in given.items() for x in filter(None, all_)
                if not pin.fullmatch(x)]  # fmt: skip
    assert "torch==2.13.0" in given["requirements.txt"]


def test_every_lint_exception_has_a_reason() -> None:
    """An ignored rule stands beside a comment that says why."""
    text = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    tomllib.loads(text)
    ignores = (
        text.split("ignore = [")[1].split("]")[0]
        + text.split("per-file-ignores]")[1].split("[tool.ruff.lint.pydocstyle]")[0]
    )
    rules = [entry for entry in ignores.splitlines() if re.match(r'\s+"[A-Z0-9]+",?', entry)]

    assert len(rules) > 20
    assert not [rule for rule in rules if not re.search(r"# .*\w", rule)]


def test_the_project_speaks_of_itself_alone() -> None:
    """No file names a path of somebody's machine or leaves work marked as unfinished."""
    words = ("/" + "work/", "/" + "root/", "TO" + "DO", "FIX" + "ME")
    texts = {
        path: path.read_text("utf-8") for pattern in TEXTS for path in REPOSITORY.glob(pattern)
    }

    assert len(texts) > 500
    assert not [
        f"{path.relative_to(REPOSITORY)}: {word}"
        for path, text in texts.items()
        for word in words
        if word in text
    ]
