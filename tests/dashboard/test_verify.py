"""The page Verify: what it offers to run, and what it shows of what was run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import precision_map
from core.export.report import markdown
from core.jobs import job_folder, jobs
from core.records import machine_profile, user_folders, verification
from dashboard import FOLDERS_VARIABLE, SOURCES_VARIABLE
from dashboard.app_pages.verify import actions
from dashboard.display.text import with_range
from dashboard.pages import PAGES
from tests.conftest import REPOSITORY
from tests.core import verified
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import failures, go, kpis, said, walk

MINE = "/models/mine.py:load"
Opened = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jobs folder for one test, and one function named at launch."""
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "jobs" / "all"))
    monkeypatch.setenv(SOURCES_VARIABLE, json.dumps({"sources": [MINE], "cwd": str(tmp_path)}))
    return tmp_path


@pytest.fixture
def study(home: Path) -> Study:
    """A made-up analysis of a function named at launch, written to a folder."""
    analysis = replace(synthetic_analysis(24, samples=200), source=MINE)
    store.save(analysis, home / "run")
    return Study(analysis)


@pytest.fixture
def opened(home: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Open the page on that analysis, all in INT8 unless said otherwise."""

    def at(page: str = "verify", **parameters: str) -> AppTest:
        monkeypatch.setenv(FOLDERS_VARIABLE, str(home / "run"))
        app = AppTest.from_file(str(REPOSITORY / "dashboard" / "app.py"), default_timeout=60)
        for name, value in {"strategy": "uniform", "uniform": "INT8", **parameters}.items():
            app.query_params[name] = value
        app.run()
        return app if PAGES[page].is_first else go(app, page)

    return at


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, Any]]]:
    """What is started, in place of starting it."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(jobs, "start", lambda request, files: found.append((request, files)))
    return found  # type: ignore[return-value]


def _uniform(study: Study) -> Any:
    return answer.decide(study, Policy(strategy="uniform", uniform="INT8"))


def test_a_scheme_that_no_file_is_built_for_is_said_before_anything_runs(
    home: Path, study: Study, opened: Opened
) -> None:
    """The buttons are off and the page names the scheme and the one to analyze with."""
    store.save(replace(study.analysis, scheme="openvino"), home / "run")
    app = opened()

    assert any("Scheme openvino" in one.value and "--scheme ort-cpu" in one.value
               for one in app.info)  # fmt: skip
    assert all(b.disabled for b in app.button if b.label.startswith("Verify"))


def test_nothing_was_run_yet(opened: Opened) -> None:
    """Before the first run the page says so, and offers to run this map and the frontier."""
    app = opened()

    assert failures(app) == []
    assert "This map was not run yet" in said(app)
    assert "nothing says how far its projection holds" in said(app)
    assert [b.disabled for b in app.button if b.label.startswith("Verify")] == [False, False]


def test_this_map_is_started(
    opened: Opened, study: Study, started: list[tuple[Any, Any]], home: Path
) -> None:
    """Verify this map starts a job with the map on screen and the folder on screen."""
    app = opened()
    next(b for b in app.button if b.label == "Verify this map").click().run()

    ((request, maps),) = started
    assert (request.source, request.verify) == (MINE, str((home / "run").resolve()))
    (content,) = maps.values()
    assert precision_map.from_json(content, study).assigned == _uniform(study).assigned
    words = job_folder.command(request, home / "job")
    assert words[4:6] == ["verify", str((home / "run").resolve())]
    assert "--skip-verified" in words


def test_the_frontier_is_started_in_one_job(
    opened: Opened, study: Study, started: list[tuple[Any, Any]]
) -> None:
    """Verify the frontier starts as many distinct maps as asked for, both ends among them."""
    app = opened()
    app.number_input(key=actions.POINTS).set_value(4).run()
    next(b for b in app.button if b.label == "Verify the frontier").click().run()

    ((request, maps),) = started
    read = [precision_map.from_json(content, study).assigned for content in maps.values()]
    assert 2 <= len(set(read)) == len(request.maps) <= 4


@pytest.mark.parametrize(("length", "count"), [(3, 8), (28, 8), (28, 2), (1, 4), (0, 4)])
def test_places_are_spread(length: int, count: int) -> None:
    """Places are distinct, in order, no more than asked for, and hold both ends."""
    found = actions.spread(length, count)

    assert found == sorted(set(found))
    assert len(found) == min(length, count)
    if length > 1:
        assert (found[0], found[-1]) == (0, length - 1)


def test_a_source_that_was_not_named_is_not_run(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model's code was not named at launch the buttons are off, and the page says what to
    type.
    """
    monkeypatch.setenv(SOURCES_VARIABLE, json.dumps({"sources": []}))
    app = opened()

    assert [b.disabled for b in app.button if b.label.startswith("Verify")] == [True, True]
    assert f"--source {MINE}" in said(app)


def test_measured_numbers_take_the_place_of_projected_ones(
    opened: Opened, study: Study, home: Path
) -> None:
    """Once a map was run, every page shows its loss as measured, and the confidence with it."""
    run = verified.verification(study, _uniform(study))
    verification.save(home / "run", run)

    app = opened("overview")

    for page in walk(app):
        assert failures(app) == [], page
        assert app.metric[2].label.endswith("· measured"), page
        assert "Confidence: **measured**" in said(app), page


def test_measured_stands_beside_projected(opened: Opened, study: Study, home: Path) -> None:
    """The page shows every measured figure, what every layer got, and the residuals."""
    run = verified.verification(study, _uniform(study), factor=2.0)
    verification.save(home / "run", run)
    app = opened()

    figures, layers, maps = (frame.value for frame in app.dataframe)
    assert list(figures["Figure"][:3]) == ["Accuracy", "Accuracy loss", "KL divergence"]
    assert len(layers) == len(study.layers)
    assert list(maps["measured ÷ projected"]) == ["2.00"]
    assert "there are 1" in said(app)


def test_measured_and_projected_stand_side_by_side_of_one_split(
    opened: Opened, study: Study, home: Path
) -> None:
    """Beside a projection stands what was measured on its split, and every measured column names
    its own; where layers ran otherwise all of it is of what ran, and no second projection of the
    map stands on the page.
    """
    chosen = answer.decide(study, Policy(strategy="uniform", uniform="FP16"))
    names = [layer.name for layer in study.layers if layer.computes_at_inference]
    run = verified.verification(study, chosen, got=dict.fromkeys(names[::2], "FP32"))
    elsewhere = {name: replace(q, value=q.value + 1) for name, q in run.same_samples.items()}  # type: ignore[operator]
    verification.save(home / "run", msgspec.structs.replace(run, same_samples=elsewhere))
    app = opened(uniform="FP16")

    figures, _, maps = (frame.value for frame in app.dataframe)
    holdout, selection, projected = list(figures.columns)[1:]
    assert (holdout, selection) == ("Measured, holdout split", "Measured, selection split")
    assert "selection split" in projected
    rows = figures.set_index("Figure")
    for name, title in (("accuracy", "Accuracy"), ("kl", "KL divergence")):
        assert rows.loc[title, holdout] == with_range(run.figures[name])
        assert rows.loc[title, selection] == with_range(elsewhere[name])
    assert rows.loc["KL divergence", projected].startswith(maps["Divergence, projected"][0])
    assert rows.loc["Accuracy loss", projected] == maps["Loss, projected"][0]


def test_a_measured_figure_says_its_split_on_every_page(
    opened: Opened, study: Study, home: Path
) -> None:
    """The verdict of a map that was run names the split of its loss, Compare beside the projected
    ones of others too, and so do tables and reports.
    """
    run = verified.verification(study, _uniform(study))
    verification.save(home / "run", run)
    app = opened("overview")

    for page in walk(app):
        assert "holdout split" in said(app), page
    assert "measured, holdout split" in said(go(app, "compare"))
    now = Study(store.load(home / "run"))
    report = markdown.to_markdown(now, _uniform(now)).decode()
    assert "measured on the holdout split" in report
    assert "Projected, selection split" in report


def test_half_precision_that_gains_nothing_has_a_way_out(
    opened: Opened, study: Study, home: Path
) -> None:
    """Where layers in FP16 ran in FP32 the page says so and offers the better map."""
    chosen = answer.decide(study, Policy(strategy="uniform", uniform="FP16"))
    names = [layer.name for layer in study.layers if layer.computes_at_inference]
    run = verified.verification(study, chosen, got=dict.fromkeys(names, "FP32"))
    verification.save(home / "run", run)
    app = opened(uniform="FP16")

    assert "gained no speed" in said(app)
    assert kpis(app)["Layers in INT8"].startswith("0 of")
    next(b for b in app.button if b.label.startswith("Use FP32")).click().run()
    assert app.session_state["uniform"] == "FP32"


def test_a_profiled_machine_is_the_default_device(opened: Opened, study: Study, home: Path) -> None:
    """With a profile, latency is estimated on this machine unless the link says otherwise."""
    machine_profile.save(home / "run", verified.profile(study.analysis))

    assert opened().selectbox(key="hardware").value == "this-machine"
    app = opened(hardware="server-cpu-vnni")
    assert app.selectbox(key="hardware").value == "server-cpu-vnni"


def test_a_record_that_cannot_be_read_is_said_quietly(
    opened: Opened, study: Study, home: Path
) -> None:
    """One broken record takes nothing from the page: the sidebar counts it and its help names it."""
    verification.save(home / "run", verified.verification(study, verified.narrowed(study, 3)))
    (home / "run" / verification.FOLDER / "bad.json").write_bytes(b'{"label": "\xff"}')
    app = opened()

    assert failures(app) == []
    (line,) = [c for c in app.sidebar.caption if "1 record left out" in c.value]
    assert "bad.json" in line.help.replace("\\", "")


def test_a_correction_is_shown_from_eight_maps_on(opened: Opened, study: Study, home: Path) -> None:
    """With eight verified maps the page shows the fit with its error on maps left out."""
    for i in range(8):
        run = verified.verification(study, verified.narrowed(study, 3 + 2 * i), factor=3.0,
                                    created=f"2026-01-01T00:00:0{i}")  # fmt: skip
        verification.save(home / "run", run)
    app = opened()

    assert "Fitted on 8 maps" in said(app)
    assert "On maps left out in turn the mean error is 0 %" in said(app)
    assert "Corrected, " in said(app)
