"""Strategies side by side: choice, figures, actions, and what stands there where little differs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.decide.assess.compare import SAME_MAP, Strategy, compare
from core.decide.policy.names import MAX_NAME
from core.decide.policy.policy import Policy
from core.export.map.session_file import MAX_STRATEGIES
from dashboard.app_pages.compare import actions
from dashboard.app_pages.compare.cards import dominated
from dashboard.app_pages.compare.table import SELECTED, frame, take_row
from dashboard.display.strategy_marks import MARKS
from dashboard.display.text import plain, short
from dashboard.display.theme import DARK, LIGHT
from dashboard.session import state, strategies
from dashboard.session.strategies import CURRENT, PINNED
from dashboard.session.tab import Named, Tab
from tests.dashboard.conftest import Open, failures, go, kpis, said
from tests.dashboard.test_policy import view
from tests.dashboard.test_theme import MACHADO, contrast, delta_e, lab, linear


@pytest.fixture
def compared(open_app: Open) -> Callable[..., AppTest]:
    """The page opened on a model, with strategies of the person's own."""

    def opened(shape: str = "measured", *more: str, own: dict[str, Policy] | None = None,
               **parameters: str) -> AppTest:  # fmt: skip
        app = open_app(shape, *more, page="compare", **parameters)
        if own:
            tab(app).kept[shape] = tuple(Named(name, policy) for name, policy in own.items())
            app.run()
        return app

    return opened


Compared = Callable[..., AppTest]


def tab(app: AppTest) -> Tab:
    """What the session remembers."""
    found = app.session_state[state.SESSION]
    assert isinstance(found, Tab)
    return found


def shown(app: AppTest) -> list[str]:
    """Names side by side, as the cards have them."""
    glyphs = {mark.glyph for mark in MARKS}
    heads = [m.value for m in app.markdown if m.value[:1] in glyphs and "\n" not in m.value]
    return [head.split("**")[1].replace("\\", "") for head in heads]


def card(app: AppTest, name: str) -> str:
    """The figures on the card of `name`."""
    figures = [m.value for m in app.markdown if m.value.startswith(":small[Size")]
    return figures[shown(app).index(name)]


def table(app: AppTest) -> pd.DataFrame:
    """The layers that differ."""
    found = app.dataframe[0].value
    assert isinstance(found, pd.DataFrame)
    return found


def side_by_side(app: AppTest, *names: str) -> list[Strategy]:
    """Strategies of the app's model, made without the page."""
    now = view(app)
    policies = {CURRENT: now.policy, **strategies.named_strategies(now.study, now.policy)}
    return [Strategy(n, *strategies.studies.priced(now.opened, policies[n])) for n in names]


def keep(app: AppTest, name: str) -> None:
    """Type a name for the current map and press Keep."""
    app.text_input(key=actions.NEW_NAME).set_value(name)
    press(app, "Keep")


def press(app: AppTest, label: str) -> None:
    """Press the button called `label`."""
    next(button for button in app.button if button.label == label).click().run()


def test_a_newcomer_sees_several_strategies(compared: Compared) -> None:
    """Without a click the current map stands beside others that differ from it."""
    app = compared()

    assert failures(app) == []
    assert shown(app)[0] == CURRENT
    assert {"All INT8", "All FP16"} <= set(shown(app))
    assert 3 <= len(shown(app)) <= 4
    assert "Document thresholds" not in shown(app)  # it is the current map at first


def test_the_default_follows_pins_and_own_strategies(compared: Compared) -> None:
    """A pinned map and own strategies come first; the document's joins once it differs."""
    app = compared(high_at="0.9")
    assert "Document thresholds" in shown(app)

    app.button(key="_pin").click().run()
    keep(app, "Mine")

    assert shown(app)[:3] == [CURRENT, PINNED, "Mine"]
    assert failures(app) == []


def test_the_choice_survives_page_and_model_switches(compared: Compared) -> None:
    """A choice and a reference stay for their model while other pages and models are open."""
    app = compared("measured", "single")
    app.multiselect[0].set_value(["All FP16", "All FP32"]).run()
    app.radio[0].set_value("All FP32").run()

    go(app, "tune")
    go(app, "compare")
    assert shown(app) == ["All FP16", "All FP32"]
    assert app.radio[0].value == "All FP32"

    app.selectbox(key="model").set_value("single").run()
    assert failures(app) == []
    assert shown(app)[0] == CURRENT
    app.selectbox(key="model").set_value("measured").run()
    assert shown(app) == ["All FP16", "All FP32"]
    assert app.radio[0].value == "All FP32"


def test_differences_follow_the_reference(compared: Compared) -> None:
    """Every card's differences are this less the reference, and the reference has none."""
    app = compared()
    app.multiselect[0].set_value(["All FP16", "All INT8"]).run()
    assert "(−4" in card(app, "All INT8")
    assert "↓ −" in card(app, "All INT8")
    assert "↓" not in card(app, "All FP16")

    app.radio[0].set_value("All INT8").run()

    assert "↑ +" in card(app, "All FP16")
    assert "↓" not in card(app, "All INT8").split("Accuracy")[0]
    assert app.dataframe[0].value.columns.tolist().count("size_0") == 1
    assert "size_1" not in table(app).columns


def test_every_figure_says_what_it_is(compared: Compared) -> None:
    """Size is exact, latency estimated with a range, losses projected with a range."""
    figures = card(compared(), "All INT8")

    for title in ("Size · exact", "Latency · estimated", "Accuracy loss · projected",
                  "KL (nats) · projected"):  # fmt: skip
        assert title in figures
    assert figures.count(" to ") == 3


def test_dominated_strategies_are_named(compared: Compared) -> None:
    """The card and the caption say by whom a strategy is dominated and in what."""
    app = compared("informer")
    app.multiselect[0].set_value(["All FP16", "All FP32"]).run()
    sides = side_by_side(app, "All FP16", "All FP32")
    expected = dominated("All FP16", compare(sides, "All FP32"))

    assert expected == "dominated by All FP32 (latency)"
    assert "Dominated by All FP32 (latency)" in said(app)
    assert "All FP16 is dominated by All FP32" in said(app)


def test_load_into_tune_gives_the_same_map(compared: Compared) -> None:
    """The strategy of a card goes into the controls, Tune opens, and undo brings the old back."""
    app = compared(own={"Mine": Policy(pins=(("block.3*", "FP32"),), high_threshold=0.55)})
    before = view(app).policy
    wanted = strategies.studies.priced(view(app).opened, tab(app).kept["measured"][0].policy)[0]

    app.button(key="_compare_load_Mine").click().run()

    assert failures(app) == []
    assert (view(app).now.chosen.codes == wanted.codes).all()
    assert "Score of each layer" in said(app)
    app.button(key="_undo").click().run()
    assert view(app).policy == before


def test_loading_keeps_the_device(compared: Compared) -> None:
    """A strategy kept on another device is priced and loaded on the one on screen."""
    app = compared(own={"Mine": Policy(strategy="uniform", hardware="datacenter-gpu-t4")})
    device = view(app).policy.hardware
    figures = card(app, "Mine")

    app.button(key="_compare_load_Mine").click().run()

    assert view(app).policy.hardware == device
    assert kpis(app)["Latency"] in figures


def test_a_map_is_kept_under_a_name(compared: Compared) -> None:
    """Keep makes an own strategy of the current policy, shows it and clears the name."""
    app = compared()

    keep(app, "  Mine ")

    assert failures(app) == []
    assert tab(app).kept["measured"] == (Named("Mine", view(app).policy),)
    assert "Mine" in shown(app)
    assert app.text_input(key=actions.NEW_NAME).value == ""


@pytest.mark.parametrize(("name", "cause"), [
    ("", "cannot name a strategy"), (CURRENT, "already"), ("All INT8", "already"),
    ("Mine", "already"), ("x" * (MAX_NAME + 1), "cannot name a strategy"),
])  # fmt: skip
def test_a_bad_name_is_explained_and_nothing_is_lost(
    name: str, cause: str, compared: Compared
) -> None:
    """Cause and next step are shown once, and the text stays to be mended."""
    app = compared(own={"Mine": Policy()})

    keep(app, name)

    assert len(failures(app)) == 1
    assert cause in failures(app)[0]
    assert app.text_input(key=actions.NEW_NAME).value == name
    assert [one.name for one in tab(app).kept["measured"]] == ["Mine"]
    app.run()
    assert failures(app) == []


def test_rename_follows_the_choice_and_the_reference(compared: Compared) -> None:
    """A renamed strategy stays side by side and stays the reference."""
    app = compared(own={"Mine": Policy(high_threshold=0.9)})
    app.multiselect[0].set_value(["All INT8", "Mine"]).run()
    app.radio[0].set_value("Mine").run()

    app.text_input(key="_compare_name_Mine").set_value("Ours")
    press(app, "Rename")

    assert failures(app) == []
    assert shown(app) == ["All INT8", "Ours"]
    assert app.radio[0].value == "Ours"


def test_rename_to_a_taken_name_is_refused(compared: Compared) -> None:
    """Names are unique among all on offer; the old one stays and the typed one is kept."""
    app = compared(own={"Mine": Policy(high_threshold=0.9)})

    app.text_input(key="_compare_name_Mine").set_value("All INT8")
    press(app, "Rename")

    assert "There is a strategy 'All INT8' already" in failures(app)[0]
    assert "Mine" in shown(app)
    assert app.text_input(key="_compare_name_Mine").value == "All INT8"


def test_delete_is_undone(compared: Compared) -> None:
    """A deleted strategy leaves, is named, and comes back in its place and in the comparison."""
    app = compared(own={"One": Policy(high_threshold=0.9), "Two": Policy(high_threshold=0.5)})
    app.multiselect[0].set_value(["One", "Two", "All INT8"]).run()

    app.button(key="_compare_delete_One").click().run()
    assert shown(app) == ["Two", "All INT8"]
    assert "Deleted 'One'" in said(app)

    app.button(key="_compare_restore").click().run()
    assert failures(app) == []
    assert shown(app) == ["One", "Two", "All INT8"]
    assert [one.name for one in tab(app).kept["measured"]] == ["One", "Two"]
    assert "Deleted" not in said(app)


def test_a_deletion_can_be_dismissed(compared: Compared) -> None:
    """Dismiss takes the notice away and the strategy for good."""
    app = compared(own={"One": Policy(high_threshold=0.9)})
    app.button(key="_compare_delete_One").click().run()

    app.button(key="_compare_forget").click().run()

    assert "Deleted" not in said(app)
    assert not [b for b in app.button if b.key == "_compare_restore"]
    assert strategies_of(app) == []


def strategies_of(app: AppTest) -> list[str]:
    """Names of the person's own strategies."""
    return [one.name for one in tab(app).kept["measured"]]


def test_no_room_to_bring_one_back(compared: Compared) -> None:
    """Where the list has filled up since, undo says so and keeps what was deleted."""
    own = {f"s{i}": Policy(high_threshold=0.9) for i in range(MAX_STRATEGIES)}
    app = compared(own=own)
    app.button(key="_compare_delete_s0").click().run()
    keep(app, "new")
    assert len(strategies_of(app)) == MAX_STRATEGIES

    app.button(key="_compare_restore").click().run()

    assert "Delete some first" in failures(app)[0]
    assert "Deleted 's0'" in said(app)
    assert len(strategies_of(app)) == MAX_STRATEGIES


@pytest.mark.parametrize("name", [CURRENT, "All INT8"])
def test_any_strategy_can_be_duplicated(name: str, compared: Compared) -> None:
    """A copy is the person's own, with a name that is free and the same policy."""
    app = compared()
    policy = strategies_policy(app, name)

    app.button(key=f"_compare_copy_{name}").click().run()
    app.button(key=f"_compare_copy_{name}").click().run()

    assert failures(app) == []
    kept = tab(app).kept["measured"]
    assert [one.name for one in kept] == [f"{name} copy", f"{name} copy 2"]
    assert {one.policy for one in kept} == {policy}


def strategies_policy(app: AppTest, name: str) -> Policy:
    """The policy of a strategy that is always there, or of the current map."""
    now = view(app)
    return {CURRENT: now.policy, **strategies.named_strategies(now.study, now.policy)}[name]


def test_a_long_name_can_be_duplicated(compared: Compared) -> None:
    """The copy of a name of full length is shortened, not refused."""
    name = "n" * MAX_NAME
    app = compared(own={name: Policy(high_threshold=0.9)})

    app.button(key=f"_compare_copy_{name}").click().run()

    assert failures(app) == []
    assert [len(one) for one in strategies_of(app)] == [MAX_NAME, MAX_NAME]


def test_a_fifth_strategy_waits(compared: Compared) -> None:
    """With four side by side a kept map is not pushed in; a notice says where it is."""
    app = compared()
    four = ["All FP32", "All FP16", "All INT8", "Document thresholds"]
    app.multiselect[0].set_value(four).run()

    keep(app, "Mine")

    assert shown(app) == four
    assert "4 are shown already" in said(app)


def test_the_same_map_is_said_in_words(compared: Compared) -> None:
    """Strategies with one map give a sentence and their policies, no table and no chart."""
    app = compared(own={"A": Policy(strategy="uniform", uniform="INT8")})
    app.multiselect[0].set_value(["A", "All INT8"]).run()

    assert failures(app) == []
    assert SAME_MAP in app.info[0].value
    assert "**A**: all INT8" in app.info[0].value
    assert len(app.dataframe) == 0
    assert "same map as All INT8" in said(app)


def test_one_strategy_asks_for_another(compared: Compared) -> None:
    """A single one is shown with its figures and a sentence; none offers the usual ones."""
    app = compared()
    app.multiselect[0].set_value(["All INT8"]).run()
    assert shown(app) == ["All INT8"]
    assert "Choose another strategy" in app.info[0].value
    assert len(app.radio) == 0

    app.multiselect[0].set_value([]).run()
    assert "No strategy is chosen" in app.info[0].value
    app.button(key="_compare_usual").click().run()
    assert shown(app)[0] == CURRENT
    assert failures(app) == []


def test_nothing_measured_is_na(compared: Compared) -> None:
    """Without measurements losses read n/a and a sentence stands for the charts of loss."""
    app = compared("unmeasured")

    assert failures(app) == []
    figures = card(app, "All INT8")
    assert figures.count("**n/a**") == 2
    assert "difference n/a" in figures
    assert "nothing was measured, so no loss is projected" in said(app)
    assert "KL projected" not in said(app)
    assert len(table(app)) > 0


def test_unpinning_takes_the_column_away(compared: Compared) -> None:
    """A chosen strategy that is gone leaves the others as they are."""
    app = compared()
    app.button(key="_pin").click().run()
    app.multiselect[0].set_value([PINNED, "All INT8", "All FP16"]).run()
    app.radio[0].set_value(PINNED).run()

    tab(app).pinned.clear()
    app.run()

    assert failures(app) == []
    assert shown(app) == ["All INT8", "All FP16"]
    assert app.radio[0].value == "All INT8"


def test_the_table_holds_the_layers_that_differ(compared: Compared) -> None:
    """Exactly those, with precision and differences; the filter narrows by layer or role."""
    app = compared("informer")
    app.multiselect[0].set_value(["Document thresholds", "All INT8"]).run()
    found = compare(side_by_side(app, "Document thresholds", "All INT8"), "Document thresholds")

    assert table(app)["layer"].tolist() == [row.layer for row in found.layers]
    assert table(app)["precision_1"].map(list).tolist() == [["INT8"]] * len(found.layers)
    assert table(app)["size_1"].sum() * 1e3 == pytest.approx(
        sum(row.size_changes(0)[1] for row in found.layers)
    )
    assert found.headline in said(app)

    app.text_input(key="compare_filter").set_value("NORM").run()
    assert 0 < len(table(app)) < len(found.layers)
    assert (
        table(app)["layer"].str.contains("norm").all()
        or table(app)["role"].str.contains("norm").all()
    )
    app.text_input(key="compare_filter").set_value("no such layer").run()
    assert "No layer passes the filter" in said(app)


def test_a_layer_selected_elsewhere_is_marked(compared: Compared) -> None:
    """The selected layer is marked in the table and named below it."""
    app = compared()
    layer = table(app)["layer"][3]

    tab(app).layer = layer
    app.run()

    marked = table(app)[table(app)["selected"] == SELECTED]
    assert marked["layer"].tolist() == [layer]
    assert "Selected: " in said(app)


def test_a_row_selects_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A selected row is the layer of that name, and a row given up is none."""
    one = Tab(link={})
    stored = {state.SESSION: one, "table": {"selection": {"rows": [1]}}}
    monkeypatch.setattr("streamlit.session_state", stored)

    take_row("table", ("a", "b"))
    assert one.layer == "b"
    stored["table"] = {"selection": {"rows": []}}
    take_row("table", ("a", "b"))
    assert one.layer == ""


def test_equal_precisions_have_no_difference(compared: Compared) -> None:
    """Where a strategy treats a layer as the reference does, its differences are empty."""
    app = compared("informer")
    names = ("Document thresholds", "All INT8", "All FP16")
    found = compare(side_by_side(app, *names), "Document thresholds")

    rows = frame(found, found.layers, "")

    same = rows["precision_1"].map(tuple) == rows["precision_0"].map(tuple)
    assert same.any()
    assert rows["size_1"].isna().tolist() == rows["latency_1"].isna().tolist() == same.tolist()


def test_a_name_is_shown_as_it_is(compared: Compared) -> None:
    """A name with Markdown, a link or HTML in it is text everywhere."""
    name = ":red[x] **b** [l](http://e) <b>$y$"
    app = compared(own={name: Policy(high_threshold=0.9)})

    assert failures(app) == []
    assert shown(app)[1] == name
    escaped = plain(name)
    assert "\\:red\\[x\\]" in escaped
    assert f"**{escaped}**" in said(app)


def test_a_late_message_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a browser sends for a widget that was replaced, or without a change, is ignored."""
    stored: dict[str, object] = {state.SESSION: Tab(link={}, model="m")}
    monkeypatch.setattr("streamlit.session_state", stored)
    old = actions.names_key(("a", "b"))
    stored[old] = ["a", "b"]
    assert actions.names_key(("a", "b")) == old
    new = actions.names_key(("a", "c"))
    stored[new] = ["a", "c"]
    assert old != new

    actions.take_names(old)
    actions.take_names(new)
    assert actions.choice().names is None

    stored[new] = ["c"]
    actions.take_names(new)
    assert actions.choice().names == ("c",)
    assert actions.names_key(("c",)) == new


def test_a_short_name_is_no_longer_than_asked() -> None:
    """A long name ends in an ellipsis, a short one is unchanged."""
    assert short("Current") == "Current"
    assert len(short("n" * 60, 16)) == 16
    assert short("n" * 60, 16).endswith("…")


def test_marks_differ_for_every_eye() -> None:
    """Shapes and dashes are unique; colours stand out and differ for colour-blind eyes."""
    for cue in ("glyph", "shape", "symbol", "dash"):
        assert len({getattr(mark, cue) for mark in MARKS}) == len(MARKS) == actions.MOST
    for look in (LIGHT, DARK):
        fills = [mark.colour(look.mode) for mark in MARKS]
        assert min(contrast(fill, look.background) for fill in fills) >= 3
        for i, first in enumerate(fills):
            for second in fills[:i]:
                a, b = linear(first), linear(second)
                assert delta_e(lab(a), lab(b)) >= 15
                for matrix in MACHADO.values():
                    seen = [lab(np.array(matrix) @ colour) for colour in (a, b)]
                    assert delta_e(*seen) >= 15
