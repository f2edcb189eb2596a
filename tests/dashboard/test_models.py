"""Another model: what goes along, what is put aside, and what comes back."""

from __future__ import annotations

from dataclasses import replace

from tests.dashboard.conftest import Open, failures, said
from tests.dashboard.test_policy import view


def test_rules_of_one_model_wait_for_it(open_app: Open) -> None:
    """Overrides and pins that mean nothing elsewhere are named, set_aside and come back."""
    app = open_app(
        "measured", "single", pins="block.4*=FP32", overrides="block.3.output_projection=FP16"
    )
    policy = view(app).policy

    app.selectbox(key="model").set_value("single").run()

    assert failures(app) == []
    assert view(app).policy.overrides == view(app).policy.pins == ()
    notice = said(app)
    assert "1 override (block.3.output_projection=FP16)" in notice
    assert "1 pin (block.4*=FP32)" in notice
    app.selectbox(key="model").set_value("measured").run()
    assert view(app).policy == policy
    assert "2 rules of measured put back" in said(app)


def test_what_both_models_know_stays(open_app: Open) -> None:
    """Thresholds, weights, hardware and rules that match go along without a word."""
    app = open_app(
        "measured", "single", high_at="0.9", overrides="block.0.attention=FP32",
        hardware="datacenter-gpu-t4",
    )  # fmt: skip
    policy = view(app).policy

    app.selectbox(key="model").set_value("single").run()

    assert replace(view(app).policy, top_k=policy.top_k) == policy
    assert not app.toast


def test_a_count_that_is_too_large_is_said(open_app: Open) -> None:
    """top-k of more layers than the other model has becomes all that it has, which is said."""
    app = open_app("measured", "single", strategy="top-k", k="30")

    app.selectbox(key="model").set_value("single").run()

    assert failures(app) == []
    assert "30 was asked for; the most here is 1, which is set." in said(app)
    assert view(app).policy.top_k == 1


def test_weights_without_scores_are_dropped_and_said(open_app: Open) -> None:
    """A measured scorer's weight cannot go to a model without measurements."""
    app = open_app("measured", "unmeasured", w_output_error="0.5")

    app.selectbox(key="model").set_value("unmeasured").run()

    assert failures(app) == []
    assert "the weight of output error" in said(app)
    assert dict(view(app).policy.weights).keys() == {"theory", "importance", "empirical"}


def test_a_half_typed_rule_stays_on_screen(open_app: Open) -> None:
    """A text that cannot be read is neither set_aside nor lost."""
    app = open_app("measured", "single")
    app.text_input(key="pins").set_value("half typed").run()

    app.selectbox(key="model").set_value("single").run()

    assert app.text_input(key="pins").value == "half typed"
    assert "is not LAYER=PRECISION" in said(app)
