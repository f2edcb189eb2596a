"""What the pages say of values, of a person's metric, of models without labels and of groups."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.task import Metric
from dashboard.display.text import format_number, plain
from tests.dashboard.by_task import ESCAPED, FIRST, HOSTILE
from tests.dashboard.conftest import Open, failures, said, walk
from tests.dashboard.test_policy import view

INT8 = {"strategy": "uniform", "uniform": "INT8"}
TASKS = ("values", "custom", "unlabelled", "values_unlabelled", "sequence")


@pytest.mark.parametrize("shape", TASKS)
def test_the_card_shows_the_first_of_the_losses(shape: str, open_app: Open) -> None:
    """The card's figure, range and kind are those of the total that core reads first."""
    app = open_app(shape, **INT8)
    found = view(app)
    total = found.now.found.totals[found.loss_labels.first]

    assert total.value is not None
    assert app.metric[2].label == f"{FIRST.get(shape, 'Accuracy loss')} · projected"
    number = format_number(total.value, total.unit).replace("-", "\N{MINUS SIGN}")
    assert app.metric[2].value == number.removesuffix(" of variance")
    assert any("90 % range" in caption.value for caption in app.caption)


@pytest.mark.parametrize(
    ("shape", "delta"),
    [
        ("values", "RMSE 0.0"),
        ("custom", f"{ESCAPED} "),
        ("sequence", "accuracy "),
        ("unlabelled", "accuracy n/a"),
        ("values_unlabelled", "RMSE n/a"),
    ],
)
def test_the_card_names_what_the_model_is_judged_by(shape: str, delta: str, open_app: Open) -> None:
    """Under the loss stands the metric by its name, with its direction where it is no accuracy."""
    app = open_app(shape, **INT8)

    assert app.metric[2].delta.startswith(delta)
    assert ("(lower is better)" in app.metric[2].delta) == delta.startswith("RMSE")


def test_the_sentence_speaks_of_the_metric(open_app: Open) -> None:
    """A loss of values is in percent of the metric, with its range."""
    app = open_app("values", **INT8)

    assert "projected loss in RMSE" in said(app)
    assert "% (90 % range" in said(app)
    assert "accuracy loss" not in said(app)


@pytest.mark.parametrize(
    ("shape", "moved", "unknown"),
    [("unlabelled", "KL divergence", "Accuracy"), ("values_unlabelled", "relative MSE", "RMSE")],
)
def test_without_labels_no_loss_is_claimed(
    shape: str, moved: str, unknown: str, open_app: Open
) -> None:
    """How far the outputs move stands for the loss, marked optimistic; the metric reads n/a."""
    app = open_app(shape, **INT8)
    text = said(app)

    assert f"projected {moved}" in text
    assert "no labels, so no loss is known" in text
    assert ":orange[optimistic]" in text
    assert "Optimistic: the samples that were measured also set the ranges" in text
    assert "for calibration and selection alike" in text
    assert "never overlapping" not in text
    assert f"- **{unknown} in FP32, holdout split" in text
    assert "holdout split**: n/a" in text.replace(" (lower is better)", "")


@pytest.mark.parametrize("shape", ["values", "sequence"])
def test_evaluation_data_of_its_own_is_not_optimistic(shape: str, open_app: Open) -> None:
    """Nothing is called optimistic where the samples measured set no ranges."""
    assert "optimistic" not in said(open_app(shape, **INT8)).lower()


def test_the_overview_holds_the_metric_against_the_mean_target(open_app: Open) -> None:
    """Facts name the metric on the holdout split with its direction, and the naive baseline."""
    app = open_app("values")
    metric = view(app).study.analysis.metric

    assert metric is not None
    assert f"RMSE in FP32, holdout split (lower is better)**: {metric.holdout:.4g} mea" in said(app)
    assert f"Always giving the mean target**: {metric.naive:.4g} measured" in said(app)


@pytest.mark.parametrize(
    ("shape", "offered"),
    [
        ("measured", ["KL divergence", "Accuracy", "Flips"]),
        ("sequence", ["KL divergence", "Accuracy", "Flips"]),
        ("values", ["Relative MSE", "RMSE"]),
        ("custom", ["Relative MSE", ESCAPED]),
        ("unlabelled", ["KL divergence", "Flips"]),
        ("values_unlabelled", ["Relative MSE"]),
    ],
)
def test_charts_offer_the_losses_that_are_known(
    shape: str, offered: list[str], open_app: Open
) -> None:
    """The chooser of Tune has the figures of the model, how far outputs move first."""
    app = open_app(shape, page="tune")

    labels = view(app).loss_labels
    assert app.segmented_control(key="curve_loss").options == offered
    assert all(
        labels.axis(name).endswith("optimistic") == labels.optimistic for name in labels.charted
    )
    assert labels.optimistic == shape.endswith("unlabelled")


def test_a_loss_that_another_model_has_is_given_up(open_app: Open) -> None:
    """A choice of flips does not survive a model of values, and charts are drawn there."""
    app = open_app("measured", "values", page="tune")
    app.segmented_control(key="curve_loss").set_value("flips_pct").run()

    app.selectbox(key="model").set_value("values").run()

    assert failures(app) == []
    assert app.segmented_control(key="curve_loss").value == "relative_mse"
    assert "nothing was measured" not in said(app)


@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        ("values", ["Loss in RMSE", "Relative MSE", "Kind"]),
        ("unlabelled", ["KL divergence", "Flips", "Accuracy loss", "Kind"]),
        ("measured", ["Accuracy loss", "KL divergence", "Flips", "Kind"]),
    ],
)
def test_the_effect_of_a_layer_is_told_in_the_models_figures(
    shape: str, heads: list[str], open_app: Open
) -> None:
    """The effect table has a column for each figure of the task; unknown ones read n/a."""
    app = open_app(shape, page="tune", **INT8)
    first = view(app).study.layers.names[0]
    app.selectbox(key="layer_pick").set_value(first).run()
    table = next(t.value for t in app.table if "Only this layer" in t.value.index)

    assert failures(app) == []
    assert list(table.columns) == heads
    if shape == "unlabelled":
        assert set(table["Accuracy loss"]) == {"n/a"}
        assert "n/a: no labels, so no loss is known." in said(app)
    assert ("set the ranges of activations: optimistic" in said(app)) == (shape == "unlabelled")


@pytest.mark.parametrize(
    ("shape", "titles", "yardstick"),
    [
        ("values", ("Loss in RMSE", "Relative MSE"), "projected loss in RMSE (a gain counts as"),
        ("custom", (f"Loss in {ESCAPED}", "Relative MSE"), f"projected loss in {ESCAPED} (a gain"),
        ("unlabelled", ("KL (nats)", "Flips"), "projected KL divergence (no labels"),
        ("measured", ("Accuracy loss", "KL (nats)"), "projected accuracy loss (a gain counts as"),
    ],
)
def test_strategies_are_compared_in_the_models_figures(
    shape: str, titles: tuple[str, ...], yardstick: str, open_app: Open
) -> None:
    """Cards, and the sentence on who dominates whom, name the figures that decide."""
    app = open_app(shape, page="compare")
    app.session_state["compare_parallel_panel"] = True
    text = said(app.run())

    kind = "projected, optimistic" if shape == "unlabelled" else "projected"
    for title in titles:
        assert f":small[{title} · {kind}]" in text
    assert ":small[Size · exact]" in text
    assert yardstick in text
    assert ("KL projected, optimistic" in text) == (shape == "unlabelled")


def test_a_metrics_name_is_text_on_every_page(open_app: Open) -> None:
    """A name full of Markdown is never put on a page as it is."""
    app = open_app("custom", **INT8)

    for page in walk(app):
        if page == "compare":
            app.session_state["compare_parallel_panel"] = True
            app.run()
        assert failures(app) == [], page
        assert ESCAPED in app.metric[2].label, page
        rendered = "\n".join(m.value for m in (*app.markdown, *app.caption))
        assert HOSTILE not in rendered, page
    assert plain(HOSTILE) == ESCAPED


def test_layers_of_a_group_say_so(open_app: Open) -> None:
    """The detail names the layers that move together, and the table numbers their group."""
    app = open_app("grouped", page="tune", **INT8)
    app.selectbox(key="layer_pick").set_value("0").run()

    assert "Moves together with 4: they share one precision" in said(app)
    assert "splits this group" not in said(app)
    table = next(d.value for d in app.dataframe if "override" in d.value.columns)
    assert table.set_index("layer")["group"].to_dict() == {"0": "1", "1": "", "2": "", "3": "",
                                                           "4": "1"}  # fmt: skip


def test_an_override_that_splits_a_group_is_said_on_the_page(open_app: Open) -> None:
    """Detail, table and verdict say that layers that share one precision no longer do."""
    app = open_app("grouped", page="tune", overrides="4=FP32", **INT8)
    app.selectbox(key="layer_pick").set_value("0").run()

    assert "splits this group" in said(app)
    assert "A rule splits layers that have to share one precision: 0 INT8, 4 FP32." in said(app)
    table = next(d.value for d in app.dataframe if "override" in d.value.columns)
    assert table.set_index("layer")["group"]["4"] == "1 split"


def test_a_model_without_groups_has_no_column_for_them(open_app: Open) -> None:
    """Nothing is said of groups where there are none."""
    app = open_app("values", page="tune")
    table = next(d.value for d in app.dataframe if "override" in d.value.columns)

    assert table["group"].isna().all()
    assert "Moves together" not in said(app)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.16, "%", "0.16 %"),
        (-0.04, "%", "-0.04 %"),
        (12.34, "%", "12.34 %"),
        (0.0, "%", "0.00 %"),
        (0.000611, "of variance", "0.00061 of variance"),
        (0.22262, "", "0.2226"),
        (1234567.0, "", "1.235e+06"),
        (-0.0, "nats", "0 nats"),
        (None, "of variance", "n/a"),
    ],
)
def test_figures_of_values_are_written_with_their_units(
    value: float | None, unit: str, text: str
) -> None:
    """LossLabels below a percent get two decimals, metrics four figures and no trailing blank."""
    assert format_number(value, unit) == text


def test_a_long_name_leaves_room_for_the_number(open_app: Open) -> None:
    """A name that would fill the card is cut there, and is whole in its help, with its direction."""
    app = open_app("custom", **INT8)
    labels = replace(
        view(app).loss_labels,
        metric=Metric("mean absolute percentage error", higher_is_better=False),
    )

    assert labels.judged_in_brief("4.2") == "mean absolu… 4.2"
    assert labels.title("metric_loss_pct") == "Loss in mean absolu…"
    assert f"{ESCAPED} (higher is better)" in app.metric[2].help
