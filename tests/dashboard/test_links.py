"""Links carry the whole policy; what they cannot carry is said, not guessed."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from streamlit.testing.v1 import AppTest

from core.evidence.scorers import SCORERS
from tests.dashboard.conftest import Open, failures, kpis, said
from tests.dashboard.test_policy import view


def link(app: AppTest) -> dict[str, str]:
    """The parameters of the link that the app offers."""
    return dict(parse_qsl(urlsplit(app.code[0].value).query))


def test_a_link_restores_every_control(open_app: Open) -> None:
    """What one session copies, another opens to the same policy and figures."""
    app = open_app("measured", "unmeasured")
    app.slider(key="high_at").set_value(0.85)
    app.slider(key="medium_at").set_value(0.3)
    app.slider(key="w_output_error").set_value(0.5)
    app.selectbox(key="medium").set_value("FP32")
    app.selectbox(key="hardware").set_value("datacenter-gpu-t4")
    app.text_input(key="pins").set_value("*pooling=FP16")
    app.text_input(key="overrides").set_value("block.3.output_projection=FP32").run()

    copy = open_app("measured", "unmeasured", **link(app))

    assert failures(copy) == []
    assert not copy.toast
    assert view(copy).policy == view(app).policy
    assert kpis(copy) == kpis(app)


def test_a_link_carries_hidden_controls(open_app: Open) -> None:
    """Thresholds that another strategy hides still travel, since levels depend on them."""
    app = open_app("measured", strategy="uniform", high_at="0.5", uniform="FP16")

    assert failures(app) == []
    assert view(app).policy.high_threshold == 0.5
    assert link(app) == {"strategy": "uniform", "high_at": "0.5", "uniform": "FP16"}


def test_a_link_names_the_second_model(open_app: Open) -> None:
    """The model is part of the link unless it is the default one."""
    app = open_app("measured", "single", model="single")

    assert link(app)["model"] == "single"


def test_nonsense_in_every_parameter_falls_back(open_app: Open) -> None:
    """Defaults, no error, and one notice that names what was ignored."""
    keys = ["model", "strategy", "high_at", "medium_at", "k", "uniform", "high", "medium", "low",
            "pins", "overrides", "hardware", *(f"w_{name}" for name in SCORERS)]  # fmt: skip
    plain = open_app("measured")

    app = open_app("measured", **dict.fromkeys(keys, "b\u00e4nana;<script>=1"), zebra="1")

    assert failures(app) == []
    assert kpis(app) == kpis(plain)
    assert view(app).policy == view(plain).policy
    notice = str(app.toast[0].value)
    assert all(key in notice for key in [*keys, "zebra"])


def test_numbers_that_are_not_finite_are_nonsense(open_app: Open) -> None:
    """NaN and infinity fall back like any other nonsense; what is finite becomes what exists, and
    that is said.
    """
    app = open_app("measured", high_at="nan", medium_at="-1", k="1e999", w_theory="inf")

    assert failures(app) == []
    assert all(key in str(app.toast[0].value) for key in ("high_at", "k", "w_theory"))
    assert "-1 was asked for; the least here is 0" in said(app)


def test_a_medium_threshold_above_the_high_one_is_lowered(open_app: Open) -> None:
    """A link with crossed thresholds opens with MEDIUM at HIGH, and says so."""
    app = open_app("measured", high_at="0.3", medium_at="0.6")
    assert "0.6 was asked for; the most here is 0.3, which is set." in said(app)

    assert failures(app) == []
    assert view(app).policy.medium_threshold == view(app).policy.high_threshold == 0.3
    assert app.slider(key="medium_at").value == 0.3


def test_a_stale_link_counts_the_layers_it_does_not_find(open_app: Open) -> None:
    """Overrides of another model are ignored, and the person is told how many."""
    app = open_app("measured", overrides="gone.1=FP16,block.0.attention=INT8,gone.2=FP32")

    assert "Link had layer names that are not in this model: 2 ignored" in said(app)
    assert view(app).now.chosen.by_layer["block.0.attention"] == "INT8"


def test_a_weight_for_a_score_that_is_not_there(open_app: Open) -> None:
    """A link that weighs a measured scorer opens on an unmeasured model with a message."""
    app = open_app("unmeasured", w_output_error="1")

    assert not app.exception
    assert "has no scores" in said(app)
    assert kpis(app)["Size"] != "n/a"
