"""Controls become a policy, the policy becomes figures, and every step can be taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map.precision_map import to_builtins
from dashboard.app_pages.tune.layer_table import take_edits
from dashboard.display.text import plain
from dashboard.session import state
from dashboard.session.controls import controls
from dashboard.session.tab import Tab, TableRound
from dashboard.session.view import VIEW, View
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open, failures, kpis, said

POOLING = next(name for name in synthetic_analysis(57).layers.names if name.endswith(".pooling"))


def view(app: AppTest) -> View:
    """What the app shows."""
    shown = app.session_state[VIEW]
    assert isinstance(shown, View)
    return shown


def test_a_slider_changes_the_kpis(open_app: Open) -> None:
    """A higher HIGH threshold puts more layers into INT8 and makes the file smaller."""
    app = open_app("measured")
    before = kpis(app)

    app.slider(key="high_at").set_value(1.0).run()

    assert failures(app) == []
    assert kpis(app) != before
    assert view(app).policy.high_threshold == 1.0


@pytest.mark.parametrize(("moved", "to", "other"), [
    ("high_at", 0.2, "medium_at"), ("medium_at", 0.9, "high_at"),
])  # fmt: skip
def test_medium_never_exceeds_high(moved: str, to: float, other: str, open_app: Open) -> None:
    """A threshold moved past the other one takes it along."""
    app = open_app("measured")

    app.slider(key=moved).set_value(to).run()

    assert app.slider(key=other).value == to
    assert failures(app) == []


def test_one_click_puts_fp32_in_place_of_fp16(open_app: Open) -> None:
    """Where FP16 gains no speed a button offers the same map with FP32, with its figures; one
    click loads it, and then there is nothing left to offer.
    """
    app = open_app("measured")
    before = view(app).now

    offer = app.button(key="use_fp32")
    assert "ms estimated" in offer.label
    offer.click().run()

    now = view(app).now
    assert failures(app) == []
    assert "FP16" not in now.chosen.assigned
    assert now.chosen.count("INT8") == before.chosen.count("INT8")
    assert (now.found.totals["latency_ms"].value or 0) < (
        before.found.totals["latency_ms"].value or 0
    )
    assert not [button for button in app.button if button.key == "use_fp32"]


def test_an_override_wins(open_app: Open) -> None:
    """An override beats a pin, which beats the strategy."""
    app = open_app("measured", pins="block.0.*=FP16", overrides="block.0.attention=FP32")

    layers = {
        row["name"]: row for row in to_builtins(view(app).study, view(app).now.chosen)["layers"]
    }

    assert layers["block.0.attention"]["precision"] == "FP32"
    assert layers["block.0.attention"]["set_by"] == "override"
    app.text_input(key="overrides").set_value("").run()
    assert view(app).now.chosen.by_layer["block.0.attention"] == "FP16"


def edit(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], rows: dict[int, str | None],
         overrides: Policy) -> str:  # fmt: skip
    """The overrides text after edits of the table's rows, as the browser reports them."""
    table = TableRound(base=overrides.overrides, names=names)
    tab = Tab(link={}, last=overrides, table=table)
    edits = {row: {"override": value} for row, value in rows.items()}
    stored = {state.SESSION: tab, "table": {"edited_rows": edits}, "overrides": ""}
    monkeypatch.setattr("streamlit.session_state", stored)
    take_edits("table", names)
    return str(stored["overrides"])


def test_an_edit_in_the_table_becomes_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    """The override column writes the shareable text, by the names of the rows that are shown."""
    shown = ("b", "d")  # a filtered table: row 1 is not the second layer of the model

    assert edit(monkeypatch, shown, {1: "FP32"}, Policy()) == "d=FP32"
    kept = Policy(overrides=(("a", "INT8"), ("d", "FP32")))
    assert edit(monkeypatch, shown, {0: "FP16"}, kept) == "a=INT8, b=FP16, d=FP32"


def test_auto_takes_an_override_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto, or a cleared cell, leaves the layer to the policy."""
    kept = Policy(overrides=(("a", "INT8"), ("b", "FP32")))

    assert edit(monkeypatch, ("a", "b"), {0: "Auto", 1: None}, kept) == ""


def test_an_edit_taken_back_restores_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser forgets an edit that equals the table's data; the override is back as it was."""
    kept = Policy(overrides=(("a", "INT8"),))

    assert edit(monkeypatch, ("a", "b"), {}, kept) == "a=INT8"


def test_the_table_starts_anew_when_overrides_change_elsewhere(open_app: Open) -> None:
    """After undo or typing, the table shows the new overrides and no edit of before."""
    app = open_app("measured", page="tune")
    first = app.data_editor[0].key

    app.text_input(key="overrides").set_value("block.0.attention=FP32").run()
    assert app.data_editor[0].key != first
    assert app.data_editor[0].value["override"][0] == "FP32"
    app.button(key="_undo").click().run()
    assert app.data_editor[0].value["override"][0] == "Auto"
    second = app.data_editor[0].key
    app.slider(key="high_at").set_value(0.9).run()
    assert app.data_editor[0].key == second


def test_filters_choose_rows(open_app: Open) -> None:
    """The search finds layers by name or role; the toggle keeps what was set by hand."""
    app = open_app("measured", page="tune", overrides=f"{POOLING}=FP32")
    assert len(app.data_editor[0].value) == 57

    app.text_input(key="filter_text").set_value("POOLing").run()
    layers = view(app).study.layers
    assert list(app.data_editor[0].value["layer"]) == [
        name for name, role in zip(layers.names, layers.roles, strict=True) if role == "pooling"
    ]
    app.toggle(key="filter_overridden").set_value(True).run()
    assert list(app.data_editor[0].value["layer"]) == [POOLING]
    app.text_input(key="filter_text").set_value("no such layer").run()
    assert "No layer passes the filters" in said(app)


def test_undo_and_redo_restore(open_app: Open) -> None:
    """Undo brings every control back, also after reset; redo makes the change again."""
    app = open_app("measured")
    start = kpis(app)
    app.slider(key="high_at").set_value(0.9).run()
    moved = kpis(app)
    app.button(key="_reset").click().run()
    assert kpis(app) == start

    app.button(key="_undo").click().run()
    assert (kpis(app), app.slider(key="high_at").value) == (moved, 0.9)
    app.button(key="_undo").click().run()
    assert (kpis(app), app.slider(key="high_at").value) == (start, 0.7)
    assert app.button(key="_undo").disabled
    app.button(key="_redo").click().run()
    assert kpis(app) == moved


def test_a_change_after_undo_forgets_the_redo(open_app: Open) -> None:
    """History has one line: a new change replaces what was undone."""
    app = open_app("measured")
    app.slider(key="high_at").set_value(0.9).run()
    app.button(key="_undo").click().run()

    app.slider(key="high_at").set_value(0.5).run()

    assert app.button(key="_redo").disabled


@pytest.mark.slow
def test_deltas_are_against_the_pinned_map(open_app: Open) -> None:
    """After pinning, deltas and flips are against the pinned map; unpinning goes back to FP32."""
    app = open_app("measured", page="tune")
    assert app.metric[0].delta_description == "vs FP32"
    app.button(key="_pin").click().run()
    assert app.metric[0].delta_description == "vs pinned"
    assert "no layer differs" in said(app)

    app.slider(key="high_at").set_value(1.0).run()

    assert view(app).changes
    assert any("▼" in str(m.value) for m in app.markdown)
    app.button(key="_unpin").click().run()
    assert app.metric[0].delta_description == "vs FP32"


@pytest.mark.parametrize("strategy", ["thresholds", "top-k", "uniform", "manual"])
def test_every_strategy_has_its_control(strategy: str, open_app: Open) -> None:
    """Each strategy decides, and shows the one control that steers it."""
    app = open_app("measured")

    app.pills(key="strategy").set_value(strategy).run()

    keys = {w.key for w in (*app.slider, *app.button_group, *app.selectbox)}
    assert failures(app) == []
    assert view(app).policy.strategy == strategy
    assert ("k" in keys) == (strategy == "top-k")
    assert ("uniform" in keys) == (strategy == "uniform")
    assert ("high_at" in keys) == (strategy == "thresholds")


def test_hidden_controls_keep_their_value(open_app: Open) -> None:
    """Thresholds come back as they were after a look at another strategy."""
    app = open_app("measured", high_at="0.55")
    app.pills(key="strategy").set_value("uniform").run()

    app.pills(key="strategy").set_value("thresholds").run()

    assert app.slider(key="high_at").value == 0.55


def test_weights_of_zero_keep_the_last_valid_policy(open_app: Open) -> None:
    """All weights at 0 is said, and the figures stay."""
    app = open_app("measured")
    before = kpis(app)

    for name in ("theory", "importance", "empirical"):
        app.slider(key=f"w_{name}").set_value(0.0)
    app.run()

    assert "All scorer weights are 0" in said(app)
    assert kpis(app) == before
    assert not app.exception


def expander(app: AppTest, label: str) -> Any:
    """An expander of the sidebar."""
    (found,) = (one for one in app.sidebar.expander if one.label == label)
    return found


def test_weights_of_zero_are_said_among_the_weights(open_app: Open) -> None:
    """The sentence stands with the sliders, whose expander is open also from a link, and stays
    open when a weight is given again.
    """
    app = open_app("measured", w_theory="0", w_importance="0", w_empirical="0")

    weights = expander(app, "Scorer weights")
    assert ["All scorer weights are 0" in str(e.value) for e in weights.error] == [True]
    assert weights.proto.expanded
    app.slider(key="w_theory").set_value(0.5).run()
    assert not expander(app, "Scorer weights").error
    assert expander(app, "Scorer weights").proto.expanded


@pytest.mark.parametrize(("key", "text", "name"), [
    ("pins", "heda*=FP16, *=INT8", "heda*"), ("overrides", "heda=FP16", "heda"),
    ("groups", "heda.*, block.0.*", "heda.*"),
])  # fmt: skip
def test_a_pattern_that_matches_no_layer_is_said_below_its_text(
    key: str, text: str, name: str, open_app: Open
) -> None:
    """The next thing below the text names the pattern, and no other one."""
    app = open_app("measured", **{key: text})

    rules = expander(app, "Pins, overrides, further budgets")
    assert rules.proto.expanded
    below = list(rules)
    place = next(i for i, one in enumerate(below) if getattr(one, "key", None) == key)
    assert str(below[place + 1].value).endswith(f"No layer matches {plain(name)}.")
    assert sum("No layer matches" in str(one.value) for one in rules.caption) == 1


def test_bad_pins_are_named_and_the_last_valid_ones_stay(open_app: Open) -> None:
    """A rule that cannot be read is quoted; the pins before it still hold."""
    app = open_app("measured", pins="*=FP32")
    before = kpis(app)

    app.text_input(key="pins").set_value("what is this").run()

    assert "'what is this' is not LAYER=PRECISION" in said(app)
    assert kpis(app) == before


def test_what_is_to_stay_precise_stays_so_without_half_precisions() -> None:
    """An analysis of INT8 alone sends HIGH layers to FP32 at first, not to INT8 with the rest."""
    analysis = synthetic_analysis(12, samples=20)
    evidence = analysis.evidence
    assert evidence is not None
    assert evidence.precisions[-1] == "INT8"
    alone = replace(
        evidence, precisions=("INT8",), perturbations=evidence.perturbations[-1:],
        whole=evidence.whole[-1:], weight_sqnr_db=evidence.weight_sqnr_db[-1:],
        allowed=evidence.allowed[-1:], probe_codes=evidence.probe_codes[:0],
        probes=evidence.probes[:0], local=None,
    )  # fmt: skip

    known = controls(Study(replace(analysis, evidence=alone)))

    assert [known[key].default for key in ("high", "medium", "low")] == ["FP32", "INT8", "INT8"]


def test_a_recommendation_loads_its_policy(open_app: Open) -> None:
    """Load puts the recommended strategy into the controls, and undo brings mine back."""
    app = open_app("measured", high_at="0.55")

    app.button(key="_load_edge").click().run()
    assert view(app).policy.strategy in {"uniform", "top-k", "thresholds"}
    assert failures(app) == []
    app.button(key="_undo").click().run()

    assert view(app).policy.high_threshold == 0.55


def test_changing_the_model_starts_a_new_history(open_app: Open) -> None:
    """The other model is decided under the same policy, and undo does not cross models."""
    app = open_app("measured", "unmeasured")
    app.slider(key="high_at").set_value(0.9).run()

    app.selectbox(key="model").set_value("unmeasured").run()

    assert failures(app) == []
    assert app.slider(key="high_at").value == 0.9
    assert app.button(key="_undo").disabled


def test_a_policy_in_few_words() -> None:
    """Labels of pinned maps say the strategy and count the rules."""
    policy = Policy(pins=(("a*", "FP16"), ("b*", "INT8")))

    assert state.describe(policy) == "thresholds 0.70 / 0.40 + 2 rules"
