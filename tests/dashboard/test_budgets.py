"""Budgets on the pages: controls, links, words, the frontier and what happens to each class."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.decide import answer
from core.decide.assess.classes import by_class
from core.decide.assess.compare import Cost
from core.decide.assess.frontier import frontier
from core.decide.policy.budget import BYS, Axis, Budget, By, loss_by, parse_budgets
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import InfeasibleError
from dashboard.app_pages.tune import frontier as frontier_panel
from dashboard.charts.frontier import PICKED
from dashboard.display.text import plain
from dashboard.session import frontiers, state
from dashboard.session.budget_controls import (
    STRATEGIES,
    asked,
    budget_ends,
    listed,
    loss_scale,
    to_values,
)
from tests.core.interacting import interacting_analysis
from tests.dashboard.conftest import SHAPES, Open, failures, kpis, said
from tests.dashboard.test_links import link
from tests.dashboard.test_policy import view


@pytest.mark.parametrize("strategy", ["size budget", "latency budget", "loss budget"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_every_model_opens_with_every_budget(shape: str, strategy: str, open_app: Open) -> None:
    """A budget in a link is solved, or said to be impossible, on every kind of model."""
    app = open_app(shape, strategy=strategy, page="tune")

    assert not app.exception
    beside = [str(error.value) for error in app.sidebar.error]
    assert all("in " in e or "Measure" in e or "budget" in e for e in beside), beside


def test_the_size_slider_solves_a_budget(open_app: Open) -> None:
    """Its megabytes are the budget in bytes, what was found keeps it, and words say so."""
    app = open_app("measured", strategy="size budget")

    app.slider(key="size_at").set_value(1.2).run()

    policy = view(app).policy
    assert policy.budgets == (Budget("size", 1_200_000.0, "bytes"),)
    assert (view(app).now.found.totals["size_bytes"].value or 0) <= 1_200_000
    assert "Least loss with" in said(app)
    assert failures(app) == []


def test_a_loss_budget_makes_size_or_latency_least(open_app: Open) -> None:
    """The segmented control says which; the loss is checked by projection."""
    app = open_app(
        "measured", strategy="loss budget", loss_at="3.5", least="latency", loss_by="upper end"
    )

    policy = view(app).policy

    assert policy.minimise == "latency"
    assert policy.budgets == (Budget("loss", 3.5, "metric", "upper"),)
    assert (view(app).now.found.totals["accuracy_drop_pts"].high or 0) <= 3.5
    assert "by the upper end of the 90 % range, point " in said(app)


def test_the_choice_beside_the_slider_says_which_end_keeps_a_loss(open_app: Open) -> None:
    """The upper end comes first, a click makes it the point, and links say either."""
    app = open_app("measured")
    app.pills(key="strategy").set_value("loss budget").run()

    safer = view(app).policy.budgets
    app.segmented_control(key="loss_by").set_value("point").run()
    copy = open_app("measured", **link(app))

    assert safer[0].by == "upper"
    assert view(app).policy.budgets[0].by == "point"
    assert link(app)["loss_by"] == "point"
    assert "by the point, 90 % range up to " in said(app)
    assert view(copy).policy == view(app).policy


@pytest.mark.parametrize(
    "given",
    [{"strategy": "loss budget", "loss_at": "1"}, {"strategy": "size budget", "also": "loss=1"}],
    ids=["slider", "text"],
)
def test_an_older_link_keeps_its_loss_by_the_point(given: dict[str, str], open_app: Open) -> None:
    """A link that limits a loss without saying by what gives the map that it was made with; a new
    one says what it means, and other links open with the safer end.
    """
    old = open_app("measured", **given)
    again = open_app("measured", **link(old))
    other = open_app("measured", strategy="size budget")

    assert [b.by for b in view(old).policy.budgets if b.axis == "loss"] == ["point"]
    assert old.segmented_control(key="loss_by").value == "point"
    assert view(again).policy == view(old).policy
    assert other.session_state["loss_by"] == "upper end"
    assert "loss_by" not in link(other)


def test_further_budgets_and_groups_are_kept(open_app: Open) -> None:
    """Texts beside the slider add budgets and groups, and the link restores all of it."""
    app = open_app("measured", strategy="size budget", size_at="1.4")
    app.text_input(key="also").set_value("latency=1.2")
    app.text_input(key="groups").set_value("block.2*").run()

    policy = view(app).policy
    copy = open_app("measured", **link(app))

    assert {b.axis for b in policy.budgets} == {"size", "latency"}
    assert policy.groups == ("block.2*",)
    assert view(copy).policy == policy
    assert kpis(copy) == kpis(app)


def test_a_budget_that_cannot_be_kept_is_one_state(open_app: Open) -> None:
    """What was asked, the least that exists and what it goes to are said as core says them; the
    figures stay, are said to be those of the last map, and nothing "binds". A button asks for the
    least, which has a map.
    """
    app = open_app("measured", strategy="latency budget", latency_at="90")
    before, shown = kpis(app), view(app)
    assert "budget binds" in said(app)
    policy = replace(shown.policy, budgets=parse_budgets("latency=0.5"))
    with pytest.raises(InfeasibleError) as refused:
        answer.decide(shown.study, policy)

    app.text_input(key="also").set_value("latency=0.5").run()

    (beside, above) = app.sidebar.error[0].value, app.main.error[0].value
    assert plain(refused.value.cause) in beside
    assert refused.value.next_step in beside
    assert plain(refused.value.cause) in above
    assert f"the last map that there was: {plain(state.describe(shown.policy))}" in above
    assert "bind" not in said(app)
    assert kpis(app) == before

    app.button(key="use_least").click().run()

    assert failures(app) == []
    assert view(app).policy.budgets == (Budget("latency", refused.value.nearest, "fraction"),)
    assert "budget binds" in said(app)


def test_bad_text_of_further_budgets_is_said_beside_it(open_app: Open) -> None:
    """Half-typed budgets leave the rest alone."""
    app = open_app("measured", strategy="size budget")

    app.text_input(key="also").set_value("weight=3").run()

    assert "is not AXIS=AMOUNT" in said(app)
    assert view(app).policy.strategy == "budget"


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize(
    ("text", "minimise"),
    [("size=0.6", "loss"), ("latency=0.9", "loss"), ("loss=0.5", "size"), ("loss=1", "latency"),
     ("size=300000B, latency=1.1", "loss"), ("size=1.1, loss=0.5", "latency"),
     ("loss=0.001nats", "size")],
)  # fmt: skip
def test_controls_say_the_budgets_of_a_policy(text: str, minimise: str, by: By) -> None:
    """A policy with budgets goes into the controls and comes back with the same map."""
    study = Study(interacting_analysis(14))
    policy = Policy(strategy="budget", budgets=parse_budgets(text, by), minimise=minimise)  # type: ignore[arg-type]
    values = to_values(policy, study)

    again = Policy(strategy="budget", **asked(values, study))

    assert values["strategy"] in STRATEGIES
    assert again.minimise == minimise
    assert loss_by(again.budgets) == loss_by(policy.budgets)
    assert np.array_equal(answer.decide(study, again).codes, answer.decide(study, policy).codes)


def test_the_loss_is_set_in_the_models_own_unit() -> None:
    """Points for classes, percent for a metric, a power of ten where no labels tell a loss."""
    assert loss_scale(Study(interacting_analysis(5))).unit == "metric"
    assert loss_scale(Study(interacting_analysis(5, values=True))).power


def _wait(app: AppTest, axis: Cost) -> None:
    shown = view(app)
    end = time.monotonic() + 60
    while frontiers.ready(shown.opened, shown.policy, axis) is None and time.monotonic() < end:
        time.sleep(0.05)
    app.run()


def test_tune_shows_the_frontier_once_it_is_there(open_app: Open) -> None:
    """First a note, then the chart with what beats the map on screen in words."""
    app = open_app("measured", page="tune")

    _wait(app, "size")

    assert failures(app) == []
    assert "The map on screen is beaten by the frontier at" in said(app)


def test_a_point_of_the_frontier_becomes_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of the point that was clicked goes into the controls, and gives its map."""
    study = Study(interacting_analysis(14))
    found = frontier(study, Policy(), "size")
    stored: dict[str, Any] = {"chart": {"selection": {PICKED: [{"point": 3}]}}}
    monkeypatch.setattr("streamlit.session_state", stored)
    shown: Any = SimpleNamespace(policy=Policy(), study=study)

    frontier_panel.take("chart", found, shown)

    assert stored["strategy"] == "size budget"
    values = {**to_values(Policy(), study), **stored}
    policy = Policy(strategy="budget", **asked(values, study))
    assert np.array_equal(answer.decide(study, policy).codes, found.points[2].codes)
    assert stored[frontier_panel.ROUND] == 1


def test_each_class_and_every_flip(open_app: Open) -> None:
    """The panel on Tune has a row for each class, and the answers that change."""
    app = open_app("measured", page="tune", strategy="uniform", uniform="INT8")
    app.session_state["classes_panel"] = True
    app.run()

    assert failures(app) == []
    assert "projected to change" in said(app)


def test_figures_by_class_are_those_of_the_projection() -> None:
    """Classes add up to the projected drop, flips to the projected flips, ranges hold the value."""
    study = Study(interacting_analysis(12, bent=0.5))
    codes = np.where(study.layers.computes, 2, -1).astype(np.int8)
    projection = study.project(codes)
    assert projection is not None

    found = by_class(study, codes)

    assert found is not None
    answers = sum(c.answers for c in found.classes)
    drop = sum((c.drop_pts.value or 0) * c.answers for c in found.classes) / answers
    assert drop == pytest.approx(projection.accuracy_drop_pts.value)
    assert 100 * len(found.flips) / answers == pytest.approx(projection.flips.value)
    for c in found.classes:
        assert c.accuracy.low is not None
        assert c.accuracy.high is not None
        assert c.accuracy.low <= (c.accuracy.value or 0) <= c.accuracy.high
    lost = sum(f.effect == "lost" for f in found.flips)
    won = sum(f.effect == "won" for f in found.flips)
    assert 100 * (lost - won) / answers == pytest.approx(projection.accuracy_drop_pts.value)
    assert by_class(Study(interacting_analysis(4, values=True)), codes[:4]) is None


def test_compare_stands_with_strategies_of_different_kinds(open_app: Open) -> None:
    """Thresholds, a size budget, a latency budget and a map by hand, side by side."""
    app = open_app("measured", page="compare")
    tab = app.session_state[state.SESSION]
    from dashboard.session.tab import Named

    tab.kept["measured"] = (
        Named("Small", Policy(strategy="budget", budgets=parse_budgets("size=0.4"))),
        Named(
            "Fast", Policy(strategy="budget", budgets=parse_budgets("loss=1"), minimise="latency")
        ),
        Named("By hand", Policy(strategy="manual", overrides=(("block.0.attention", "INT8"),))),
    )
    app.run()
    for axis in ("size", "latency"):
        _wait(app, axis)  # type: ignore[arg-type]

    assert failures(app) == []
    assert all(name in said(app) for name in ("Small", "Fast", "By hand"))
    assert "Line: the frontier of budgets." in said(app)


def _twice() -> None:
    """A script that is asked for another run while it works."""
    import streamlit as st
    from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

    from dashboard.session.give_way import give_way

    runs = st.session_state.setdefault("runs", [])
    runs.append("begun")
    st.text("first" if len(runs) == 1 else "second")
    assert not give_way()
    context = get_script_run_ctx()
    assert context is not None
    assert context.script_requests is not None
    if len(runs) == 1:
        context.script_requests.request_rerun(RerunData(widget_states=None))
    give_way()
    runs.append("ended")


def test_work_gives_way_to_the_next_run() -> None:
    """A run that Streamlit was asked to repeat ends at the next question whether to go on."""
    app = AppTest.from_function(_twice).run()

    assert not app.exception
    assert app.session_state["runs"] == ["begun", "begun", "ended"]
    assert [one.value for one in app.text] == ["second"]


@pytest.mark.parametrize("axis", ["size", "latency", "loss"])
def test_sliders_run_over_what_exists(axis: Axis) -> None:
    """A budget at the least end has a map and one below has none; one at the most end gives what
    no budget at all gives, and a little less gives another map.
    """
    study = Study(interacting_analysis(14))
    pins = () if axis == "loss" else (("block.0.*", "FP16"),)
    rules = Policy(pins=pins, minimise="size" if axis == "loss" else "loss")
    least, most = budget_ends(study, rules, axis)
    key = {"size": "size_at", "latency": "latency_at", "loss": "loss_at"}[axis]
    values = {control.key: control.default for control in listed(study)}

    def codes(at: float) -> np.ndarray:
        given = asked(values | {"strategy": f"{axis} budget", key: at}, study)
        return answer.decide(study, replace(rules, strategy="budget", **given)).codes

    assert least < most
    codes(least)
    free = study.derived(Solver).least(rules, rules.minimise).codes
    assert np.array_equal(codes(most), free)
    assert not np.array_equal(codes(least + 0.9 * (most - least)), free)
    if axis != "loss" or least > 0:
        with pytest.raises(InfeasibleError):
            codes(least * (1 - 1e-3))


@pytest.mark.parametrize(
    ("strategy", "key", "asked_for", "end"),
    [("latency budget", "latency_at", "13", "least"), ("latency budget", "latency_at", "140", "most"),
     ("size budget", "size_at", "0.001", "least"), ("top-k", "k", "4000", "most"),
     ("thresholds", "high_at", "1.5", "most")],
)  # fmt: skip
def test_a_number_of_a_link_that_does_not_exist_is_said_beside_its_slider(
    strategy: str, key: str, asked_for: str, end: str, open_app: Open
) -> None:
    """The nearest value that exists is set, the next thing below says so and what was asked for,
    and it is gone once the slider moves.
    """
    app = open_app("measured", strategy=strategy, **{key: asked_for})
    assert failures(app) == []
    value = app.slider(key=key).value

    def below() -> str:
        shown = list(app.sidebar)
        place = next(i for i, one in enumerate(shown) if getattr(one, "key", None) == key)
        return str(getattr(shown[place + 1], "value", ""))

    assert f"{asked_for} was asked for; the {end} here is {value:g}, which is set." in below()
    moved = (app.slider(key=key).min + app.slider(key=key).max) / 2
    app.slider(key=key).set_value(type(value)(moved)).run()
    assert "was asked for" not in said(app)


def test_rules_that_move_the_ends_say_so(open_app: Open) -> None:
    """A pin that makes the slider's place impossible moves it to the least there is, with a word."""
    app = open_app("measured", strategy="size budget", size_at="1.2")
    assert view(app).policy.budgets[0].amount == 1_200_000

    app.text_input(key="pins").set_value("*=FP16").run()

    assert failures(app) == []
    assert "1.2 was asked for; the least here is" in said(app)
    assert app.slider(key="size_at").disabled
    app.text_input(key="pins").set_value("block.0.*=FP16").run()
    assert failures(app) == []
    assert not app.slider(key="size_at").disabled
    assert app.slider(key="size_at").value == pytest.approx(
        view(app).policy.budgets[0].amount / 1e6
    )


def test_a_value_of_another_model_is_said_beside_its_slider(open_app: Open) -> None:
    """A size and a k that the other model does not have become the nearest that it has."""
    app = open_app(
        "large", "measured", model="large", strategy="size budget", size_at="60", k="900"
    )
    assert failures(app) == []

    app.selectbox(key="model").set_value("measured").run()

    assert failures(app) == []
    most = app.slider(key="size_at").max
    assert f"60 was asked for; the most here is {most:g}, which is set." in said(app)
    app.pills(key="strategy").set_value("top-k").run()
    assert "900 was asked for; the most here is" in said(app)
