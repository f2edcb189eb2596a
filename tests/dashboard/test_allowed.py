"""The control of allowed precisions: what it does to levels, links, undo and other models."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.conftest import Open, failures, go, said
from tests.dashboard.test_policy import view

ALL = ["FP32", "FP16", "INT8"]


def allow(app: AppTest, *names: str) -> AppTest:
    """Choose `names` in the control."""
    app.pills(key="allow").set_value(list(names)).run()
    return app


def used(app: AppTest) -> set[str]:
    """Precisions of the map on screen."""
    return {name for name in view(app).now.chosen.assigned if name is not None}


def link(app: AppTest) -> dict[str, list[str]]:
    """The parameters of the link that the app offers, each with all its values."""
    return parse_qs(urlsplit(app.code[0].value).query)


def test_everything_is_allowed_at_first(open_app: Open) -> None:
    """All that the analysis holds is chosen, the policy has no set, and the link says nothing of it."""
    app = open_app("measured")

    assert app.pills(key="allow").value == ALL
    assert view(app).policy.allowed == ()
    assert link(app) == {}


def test_a_smaller_set_is_all_that_levels_offer(open_app: Open) -> None:
    """Levels offer what is allowed; one that pointed elsewhere goes to the next wider, which is said, and
    comes back with what it pointed to.
    """
    app = allow(open_app("measured"), "FP32", "INT8")

    assert failures(app) == []
    assert app.selectbox(key="high").options == ["FP32", "INT8"]
    assert app.selectbox(key="high").value == "FP32"
    assert "HIGH layers go to FP32, since FP16 is not allowed." in said(app)
    assert view(app).policy.allowed == ("FP32", "INT8")
    assert view(app).now.label == "thresholds 0.70 / 0.40, FP32 and INT8 alone"
    assert used(app) == {"FP32", "INT8"}

    allow(app, *ALL)
    assert app.selectbox(key="high").value == "FP16"
    assert "is not allowed" not in said(app)
    assert view(app).policy.allowed == ()


def test_a_level_that_a_person_moved_stays(open_app: Open) -> None:
    """Once a person sends a level elsewhere, allowing more does not move it back."""
    app = allow(open_app("measured"), "FP32", "INT8")
    app.selectbox(key="high").set_value("INT8").run()
    assert "is not allowed" not in said(app)

    allow(app, *ALL)
    assert app.selectbox(key="high").value == "INT8"


@pytest.mark.parametrize("strategy", [
    "thresholds", "top-k", "size budget", "latency budget", "loss budget", "uniform", "manual",
])  # fmt: skip
def test_every_strategy_obeys_the_control(strategy: str, open_app: Open) -> None:
    """Whatever the strategy, no layer is in a precision that is not chosen."""
    app = allow(open_app("measured", strategy=strategy), "FP16", "INT8")

    assert failures(app) == []
    assert view(app).unkept is None
    assert used(app) <= {"FP16", "INT8"}


def test_an_empty_choice_allows_all(open_app: Open) -> None:
    """With nothing chosen everything is allowed, and that is said."""
    app = allow(open_app("measured"))

    assert failures(app) == []
    assert "None is chosen, so all are allowed." in said(app)
    assert view(app).policy.allowed == ()
    assert link(app) == {}


def test_a_link_carries_the_set(open_app: Open) -> None:
    """What one session copies, another opens: the set, and levels within it."""
    app = allow(open_app("measured"), "INT8", "FP32")
    app.selectbox(key="medium").set_value("FP32").run()
    found = link(app)
    assert found == {"allow": ["FP32", "INT8"], "medium": ["FP32"]}

    copy = open_app("measured", **found)

    assert failures(copy) == []
    assert not copy.toast
    assert view(copy).policy == view(app).policy
    assert copy.pills(key="allow").value == ["FP32", "INT8"]
    assert link(copy) == found


def test_a_link_to_nonsense_allows_all(open_app: Open) -> None:
    """A name that the analysis does not hold is ignored with a notice; so is a level outside of the set."""
    app = open_app("measured", allow="FP9")
    assert failures(app) == []
    assert "allow ignored" in str(app.toast[0].value)
    assert view(app).policy.allowed == ()

    app = open_app("measured", allow=["FP32", "INT8"], high="FP16")
    assert failures(app) == []
    assert "high ignored" in str(app.toast[0].value)
    assert view(app).policy.high == "FP32"


def test_undo_and_reset_take_the_set_back(open_app: Open) -> None:
    """Undo brings the set before, with its levels; redo and reset work as for other controls."""
    app = allow(open_app("measured"), "FP32", "INT8")

    app.button(key="_undo").click().run()
    assert app.pills(key="allow").value == ALL
    assert app.selectbox(key="high").value == "FP16"
    app.button(key="_redo").click().run()
    assert app.pills(key="allow").value == ["FP32", "INT8"]
    assert app.selectbox(key="high").value == "FP32"
    app.button(key="_reset").click().run()
    assert failures(app) == []
    assert app.pills(key="allow").value == ALL
    assert app.selectbox(key="high").value == "FP16"
    assert link(app) == {}


def test_the_set_follows_to_another_model(open_app: Open) -> None:
    """A model that holds less is allowed what it holds of the set, which is said; one that is opened while
    everything is allowed allows everything.
    """
    app = open_app("int8", "measured")
    assert app.pills(key="allow").value == ["FP32", "INT8"]
    app.selectbox(key="model").set_value("measured").run()
    assert app.pills(key="allow").value == ALL

    allow(app, "FP16", "INT8")
    app.selectbox(key="model").set_value("int8").run()
    assert failures(app) == []
    assert app.pills(key="allow").value == ["INT8"]
    assert any("int8 does not hold FP16" in str(toast.value) for toast in app.toast)
    assert used(app) == {"INT8"}


def test_an_override_beats_the_set_and_is_named(open_app: Open) -> None:
    """What a person sets by hand stays, with a sentence that names the layer."""
    name = "block.0.attention"
    app = allow(open_app("measured", overrides=f"{name}=FP32"), "FP16", "INT8")

    assert view(app).now.chosen.by_layer[name] == "FP32"
    assert f"beats the allowed FP16 and INT8: {name} FP32" in said(app)


@pytest.mark.parametrize("page", ["tune", "compare", "export", "method"])
def test_pages_show_a_smaller_set(page: str, open_app: Open) -> None:
    """Every page is drawn under a set of one precision."""
    app = go(allow(open_app("measured"), "INT8"), page)

    assert failures(app) == []
    assert used(app) == {"INT8"}
