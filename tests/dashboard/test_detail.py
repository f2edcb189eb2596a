"""One layer is selected everywhere at once, and its detail says what it does."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.app_pages.tune.layer_table import show_row
from dashboard.charts import weights
from dashboard.charts.figure import to_csv
from dashboard.display.theme import LIGHT
from dashboard.session import selection
from dashboard.session.state import SESSION
from dashboard.session.tab import ChartRound, Tab
from tests.dashboard.conftest import Open, failures, go, said
from tests.dashboard.test_policy import view

LAYER = "block.0.attention"


def detail(app: AppTest) -> str:
    """All tables of the page as text; those of the detail are the only static ones."""
    return "\n".join(table.value.to_string() for table in app.table)


def test_a_chosen_layer_shows_its_effect(open_app: Open) -> None:
    """Choosing a layer shows it alone (measured) and all but it (projected), with its costs."""
    app = open_app("measured", page="tune")
    assert detail(app) == ""

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert failures(app) == []
    shown = detail(app)
    assert "Only this layer" in shown
    assert "measured" in shown
    assert "projected" in shown
    assert "MB" in shown or "kB" in shown
    app.button(key="_close_layer").click().run()
    assert detail(app) == ""
    assert app.selectbox(key="layer_pick").value is None


def test_how_sure_a_layer_is(open_app: Open) -> None:
    """The detail says how often resamples agree, with an interval for each measured score."""
    app = open_app("measured", page="tune", w_kl="1")

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert failures(app) == []
    assert "of resamples" in said(app)
    scores = next(t.value for t in app.table if "Interval" in t.value.columns)
    assert set(scores.index[scores["Interval"] != "n/a"]) == {
        "Output error", "Divergence", "Flips", "Task loss",
    }  # fmt: skip
    assert (scores["Score"] != "n/a").all()


@pytest.mark.slow
def test_why_a_layer_is_sensitive(open_app: Open) -> None:
    """The detail names the main cause and lists the measured gain of each remedy."""
    app = open_app("measured", page="tune")

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert "Main cause in INT8: channel imbalance." in said(app)
    gains = next(t.value for t in app.table if "Gain (measured)" in t.value.columns)
    assert len(gains) == 5
    assert gains["Gain (measured)"].str.startswith("+").all()


def test_a_cause_that_was_not_measured_is_na(open_app: Open) -> None:
    """Without local statistics the detail says n/a."""
    app = open_app("unmeasured", page="tune")

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert "Why it is sensitive: n/a" in said(app)


def test_rules_alone_are_not_resampled(open_app: Open) -> None:
    """Under the document's weights the detail says that no sample can change a rule."""
    app = open_app("measured", page="tune")

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert "no sample can change" in said(app)


def test_the_table_has_frequencies_on_demand(open_app: Open) -> None:
    """The toggle adds the share of resamples; a layer that does nothing has none."""
    app = open_app("measured", page="tune", w_kl="1")
    assert "frequency" not in app.data_editor[0].value.columns

    app.toggle(key="filter_frequency").set_value(True).run()

    assert failures(app) == []
    shown = app.data_editor[0].value.set_index("layer")["frequency"]
    assert shown.isna().sum() == 4
    assert ((shown.dropna() > 0) & (shown.dropna() <= 100)).all()


def test_keep_force_and_auto_are_overrides(open_app: Open) -> None:
    """Force and Keep set the layer by hand, Auto leaves it to the policy, Undo takes it back."""
    app = open_app("measured", page="tune")
    app.selectbox(key="layer_pick").set_value(LAYER).run()
    assert app.button(key="_force_auto").disabled
    assert app.button(key="_force_FP16").label == "Keep FP16"

    app.button(key="_force_INT8").click().run()
    assert view(app).policy.overrides == ((LAYER, "INT8"),)
    assert app.button(key="_force_INT8").label == "Keep INT8"
    assert app.button(key="_force_INT8").disabled
    app.button(key="_force_auto").click().run()
    assert view(app).policy.overrides == ()
    app.button(key="_undo").click().run()
    assert view(app).now.chosen.by_layer[LAYER] == "INT8"


def test_the_selection_stays(open_app: Open) -> None:
    """Moving a threshold and changing pages keeps the layer; another model does not have it."""
    app = open_app("measured", "single", page="tune")
    app.selectbox(key="layer_pick").set_value("block.3.output_projection").run()

    app.slider(key="high_at").set_value(0.9).run()
    assert app.selectbox(key="layer_pick").value == "block.3.output_projection"
    go(app, "overview")
    go(app, "tune")
    assert app.selectbox(key="layer_pick").value == "block.3.output_projection"
    shown = app.data_editor[0].value
    assert list(shown.loc[shown["detail"] != "Show", "layer"]) == ["block.3.output_projection"]
    app.selectbox(key="model").set_value("single").run()
    assert failures(app) == []
    assert app.selectbox(key="layer_pick").value is None


def test_a_layer_that_does_nothing_says_so(open_app: Open) -> None:
    """Dropout has no precision to choose and no effect."""
    app = open_app("measured", page="tune")

    app.selectbox(key="layer_pick").set_value("block.8.dropout").run()

    assert failures(app) == []
    assert "no precision to choose" in said(app)
    assert "no precision has an effect" in said(app)


def test_unmeasured_effects_are_na(open_app: Open) -> None:
    """Before anything was measured the effects read n/a, and bytes are exact."""
    app = open_app("unmeasured", page="tune")

    app.selectbox(key="layer_pick").set_value(LAYER).run()

    assert failures(app) == []
    assert "n/a" in detail(app)
    assert "Weights: n/a, this analysis was written before weights were counted" in said(app)


def test_weights_of_a_sample_are_drawn(open_app: Open) -> None:
    """The Informer's attention offers its weight tensors, each with its levels and channels."""
    app = open_app("informer", page="tune")

    app.selectbox(key="layer_pick").set_value("blocks.0.attention").run()

    assert failures(app) == []
    assert "of 255 levels; effective" in said(app)
    assert "channels; the widest has" in said(app)
    app.selectbox(key="layer_pick").set_value("blocks.0.norm1").run()
    assert "owns no weights that an integer precision rounds" in said(app)


def fake(monkeypatch: pytest.MonkeyPatch, **stored: Any) -> Tab:
    """A session outside of Streamlit, with `stored` in its state."""
    tab = Tab(link={})
    monkeypatch.setattr("streamlit.session_state", {SESSION: tab, **stored})
    return tab


def picked(layer: str | None, low: float | None = None) -> dict[str, Any]:
    """A chart's state as Streamlit reports it."""
    brush = {} if low is None else {"score": [low, 1.06]}
    return {"selection": {"pick": [] if layer is None else [{"layer": layer}], "brush": brush}}


def test_a_click_in_a_chart_selects_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer of the clicked mark is selected; a click beside the marks changes nothing."""
    tab = fake(monkeypatch, scores_0=picked(LAYER))
    selection.take("scores")
    assert tab.layer == LAYER

    monkeypatch.setitem(__import__("streamlit").session_state, "scores_0", picked(None))
    selection.take("scores")

    assert tab.layer == LAYER
    assert tab.rounds["scores"].layer == ""


@pytest.mark.parametrize(("low", "high_at", "medium_at"), [
    (0.7312, 0.73, 0.4), (0.2, 0.2, 0.2), (-0.3, 0.0, 0.0), (1.05, 1.0, 0.4),
])  # fmt: skip
def test_a_brush_moves_the_thresholds(
    low: float, high_at: float, medium_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lower end of the brush becomes HIGH on the slider's grid; MEDIUM never lies above."""
    fake(monkeypatch, scores_0=picked(None, low), high_at=0.7, medium_at=0.4)

    selection.take("scores")

    stored = __import__("streamlit").session_state
    assert (stored["high_at"], stored["medium_at"]) == (high_at, medium_at)


def test_a_stale_chart_gets_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart whose own selection no longer holds starts anew, so that it can be clicked again."""
    tab = fake(monkeypatch)
    tab.rounds["scores"] = ChartRound(3, LAYER, 0.5)

    assert selection.chart_key("scores", LAYER, 0.5) == "scores_3"
    assert selection.chart_key("scores", "another", 0.5) == "scores_4"
    tab.rounds["scores"] = ChartRound(3, LAYER, 0.5)
    assert selection.chart_key("scores", LAYER, 0.6) == "scores_4"
    assert tab.rounds["scores"] == ChartRound(4)


def test_show_in_a_row_selects_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The button of a filtered table's row selects the layer that stands there."""
    tab = fake(monkeypatch, show={"row": 1, "label": "Show"})

    show_row("show", ("b", "d"))

    assert tab.layer == "d"


def test_a_chart_gives_all_its_data(open_app: Open) -> None:
    """The CSV of a chart has every row of every dataset and quotes formulas."""
    profile = view(open_app("informer")).study.analysis.weights[0]
    data = weights.channels(profile, LIGHT)["datasets"]
    assert len(to_csv(data).splitlines()) == len(profile.low) + 1

    frame = data["channels"].assign(name="=1+1").head(2)
    both = to_csv({"a": frame, "b": frame[["low"]]}).decode().splitlines()
    assert both[0].split(",")[0] == "dataset"
    assert len(both) == 5
    assert "'=1+1" in both[1]
