"""Budgets as text and in files, and the commands that take them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.analysis import store
from core.cli.main import main
from core.decide import answer
from core.decide.policy.budget import (
    Budget,
    checked,
    format_budgets,
    in_words,
    parse_budget,
    parse_budgets,
)
from core.decide.policy.policy import Policy, parse_groups
from core.decide.study import Study
from core.errors import InfeasibleError, PolicyError
from core.export.map import precision_map, session_file
from tests.core.interacting import interacting_analysis

UNITS = [
    ("size", "fraction"), ("size", "bytes"), ("latency", "fraction"), ("latency", "ms"),
    ("loss", "metric"), ("loss", "percent"), ("loss", "divergence"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size=0.5", Budget("size", 0.5, "fraction")),
        ("size=4.8MB", Budget("size", 4.8e6, "bytes")),
        ("size = 12 kB", Budget("size", 12e3, "bytes")),
        ("latency=0.8", Budget("latency", 0.8, "fraction")),
        ("latency=0.8ms", Budget("latency", 0.8, "ms")),
        ("latency=250us", Budget("latency", 0.25, "ms")),
        ("loss=0.5", Budget("loss", 0.5, "metric")),
        ("loss=2%", Budget("loss", 2.0, "percent")),
        ("loss=1e-4nats", Budget("loss", 1e-4, "divergence")),
    ],
)
def test_budgets_are_read(text: str, expected: Budget) -> None:
    """Fractions of FP32, bytes, times and losses are told apart by their unit."""
    assert parse_budget(text, "point") == expected


@pytest.mark.parametrize(
    "text",
    ["", "size", "size=", "size=x", "weight=3", "size=4ms", "latency=3MB", "size=-1", "size=1e999"],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    """The part that means nothing is named, with an example."""
    with pytest.raises(PolicyError) as caught:
        parse_budget(text)

    assert "size=" in str(caught.value) or "not negative" in str(caught.value)


@given(st.sampled_from(UNITS), st.floats(0, 1e12, allow_nan=False))
def test_budgets_are_written_as_they_are_read(unit: tuple[str, str], amount: float) -> None:
    """The text of a budget is read back as the same budget."""
    budget = Budget(unit[0], amount, unit[1])  # type: ignore[arg-type]

    assert parse_budgets(format_budgets([budget]), "point") == (budget,)
    assert in_words(budget).startswith(f"{unit[0]} at most ")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text breaks the parser."""
    try:
        found = parse_budgets(text)
    except PolicyError:
        return
    assert checked(found) == found


def test_an_axis_has_one_budget() -> None:
    """Two budgets on one axis are refused, and so is a strategy without any."""
    with pytest.raises(PolicyError, match="two budgets on size"):
        parse_budgets("size=0.5, size=0.4")
    with pytest.raises(PolicyError, match="No budget"):
        Policy(strategy="budget")


def test_budgets_live_in_map_and_session_files() -> None:
    """A policy with budgets, groups and a goal is read back from both files as it was."""
    study = Study(interacting_analysis(12))
    policy = replace(
        Policy(), strategy="budget", budgets=parse_budgets("size=0.5, latency=1.2"),
        groups=parse_groups("block.2.*, block.3.*"), minimise="latency",
    )  # fmt: skip
    chosen = answer.decide(study, policy)

    again = precision_map.from_json(precision_map.to_json(study, chosen), study)
    kept = session_file.from_json(
        session_file.to_json(session_file.Session(study.analysis.identity, policy)), study
    )

    assert again.policy == policy == kept.policy
    assert np.array_equal(again.codes, chosen.codes)
    assert not (again.origin == 2).any()


def test_policies_of_older_files_have_no_budgets() -> None:
    """Fields that an older file lacks take their defaults."""
    fields = msgspec.to_builtins(Policy())
    for name in ("budgets", "groups", "minimise", "target"):
        del fields[name]

    assert msgspec.convert(fields, Policy) == Policy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small analysis on disk."""
    path = tmp_path_factory.mktemp("budget") / "analysis"
    store.save(interacting_analysis(12, seed=2), path)
    return path


@pytest.mark.slow
def test_plan_solves_budgets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan --budget` writes a map that keeps its budgets, with a bound and shares on demand."""
    out = tmp_path / "map.json"

    code = main(
        ["plan", str(folder), "--budget", "size=0.5", "--budget", "latency=1.3", "--group",
         "block.2.*", "--pin", "block.0.*=FP32", "--certify", "5", "--stability", "--json",
         "--out", str(out)]
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)

    assert code == 0
    rows = found["solution"]["budgets"]
    assert [row["budget"] for row in rows] == ["size=0.5", "latency=1.3"]
    assert all(row["used"] <= row["limit"] * (1 + 1e-9) for row in rows)
    assert found["policy"]["strategy"] == "budget"
    assert 0 <= found["solution"]["certificate"]["gap"] < 1
    assert found["solution"]["stability"]["agreement"]["block.0.attention"] == 1.0
    assert found["layers"][0]["precision"] == "FP32"
    assert json.loads(out.read_text())["policy"] == found["policy"]


@pytest.mark.slow
def test_plan_prints_what_it_solved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: each budget with what is used of it, the bound and the shares."""
    assert main(["plan", str(folder), "--budget", "size=0.5", "--certify", "5", "--stability"]) == 0

    printed = capsys.readouterr().out
    assert "Budget size=0.5: " in printed
    assert "proven in" in printed
    assert "resamples" in printed


def test_a_loss_budget_minimises_size_unless_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget on loss makes size the goal, or what `--minimise` says."""
    assert main(["plan", str(folder), "--budget", "loss=0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]["minimise"] == "size"
    options = ["--budget", "loss=0.5", "--minimise", "latency", "--json"]
    assert main(["plan", str(folder), *options]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]["minimise"] == "latency"


def test_an_infeasible_budget_ends_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was asked and the least that exists are said on one line, as everywhere."""
    assert main(["plan", str(folder), "--budget", "size=0.01"]) == 2

    said = capsys.readouterr().err
    with pytest.raises(InfeasibleError) as caught:
        answer.decide(
            Study(store.load(folder)), Policy("budget", budgets=parse_budgets("size=0.01"))
        )
    assert str(caught.value) in said
    assert "binds" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("options", [["--minimise", "size"], ["--certify", "3"]])
def test_goals_without_budgets_are_refused(
    folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A goal or a bound without a budget says that one is missing."""
    assert main(["plan", str(folder), *options]) == 2
    assert "No budget is given" in capsys.readouterr().err


@pytest.mark.slow
def test_frontier_lists_points(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each point has its figures, its map, and the budget that gives it."""
    assert main(["frontier", str(folder), "--axis", "size", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    sizes = [point["size_bytes"] for point in found["points"]]
    assert sizes == sorted(sizes)
    assert all(point["budget"].startswith("size=") for point in found["points"])
    assert all(sum(p["precisions"].values()) == 11 for p in found["points"])
    assert main(["frontier", str(folder), "--axis", "latency"]) == 0
    assert "latency=" in capsys.readouterr().out


def test_explain_prints_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explain` says it in one line, or as data."""
    out = tmp_path / "map.json"
    assert main(["plan", str(folder), "--budget", "size=0.4", "--out", str(out)]) == 0
    capsys.readouterr()

    assert main(["explain", str(folder), str(out), "block.0.attention"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("block.0.attention: ")
    assert main(["explain", str(folder), str(out), "block.0.attention", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["explanation"]["layer"] == "block.0.attention"
    assert main(["explain", str(folder), str(out), "nowhere"]) == 2
