"""Charts of strategies: one mark each, dominated ones dimmed and named, up is better."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from core.decide import answer
from core.decide.assess.compare import COSTS, Comparison, Cost, Strategy, compare, strategy
from core.decide.assess.curves import threshold_curve
from core.decide.assess.outcome import outcome
from core.decide.assess.parallel import axes
from core.decide.assess.strategies import named_strategies
from core.decide.policy.policy import Policy
from core.decide.study import Study
from dashboard.app_pages.compare.trade_off import DIMMED, trade
from dashboard.charts import parallel as parallel_chart
from dashboard.charts.labels import CHARACTER_PX, LINE_PX, PLOT_PX, _unit, spots
from dashboard.charts.template import Spec
from dashboard.display.loss_labels import loss_labels
from dashboard.display.strategy_marks import MARKS
from dashboard.display.theme import DARK, LIGHT, Theme
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open
from tests.dashboard.test_policy import view

STUDY = Study(synthetic_analysis(57, samples=60))
UNMEASURED = Study(synthetic_analysis(57, measured=False))
LABELS = loss_labels(STUDY.analysis, outcome(STUDY, answer.decide(STUDY, Policy())).totals)
NAMES = ("All FP32", "All INT8", "Document thresholds", "Top-k 50%")


def named(study: Study = STUDY, **more: Policy) -> list[Strategy]:
    """Strategies of `study`: those that are always there, or those given."""
    policies = more or {n: named_strategies(study, Policy())[n] for n in NAMES}
    maps = {name: answer.decide(study, policy) for name, policy in policies.items()}
    return [strategy(study, name, chosen) for name, chosen in maps.items()]


def drawn(
    sides: list[Strategy], found: Comparison, cost: Cost = "size", measure: str = "kl"
) -> Spec | None:
    """The chart in light."""
    points = threshold_curve(STUDY, Policy())
    return trade(points, sides, found, cost, measure, LABELS, LIGHT)


@pytest.mark.parametrize("measure", ["kl", "accuracy_drop_pts", "flips_pct"])
@pytest.mark.parametrize("cost", COSTS)
def test_one_mark_per_strategy_with_its_figures(cost: Cost, measure: str) -> None:
    """Marks carry the totals, a place of their own, and who dominates them."""
    sides = named()
    found = compare(sides, NAMES[0])
    spec = drawn(sides, found, cost, measure)
    assert spec is not None
    marks = spec["datasets"]["strategies"]

    assert marks["strategy"].tolist() == list(NAMES)
    assert marks["place"].nunique() == len(NAMES)
    assert marks[measure].tolist() == [s.outcome.totals[measure].value for s in sides]
    if cost == "latency":
        assert marks["latency_ms"].tolist() == [s.outcome.totals["latency_ms"].value for s in sides]
    for _, mark in marks.iterrows():
        winners = found.beaten(mark["strategy"])[cost]
        assert mark["opacity"] == (DIMMED if winners else 1)
        assert mark["dominated_by"] == (", ".join(winners) or "no one")


def test_marks_of_one_map_share_a_label() -> None:
    """Two strategies with the same map are named together, once."""
    uniform = Policy(strategy="uniform", uniform="INT8")
    sides = named(A=uniform, B=Policy(pins=(("*", "INT8"),)), C=Policy())
    spec = drawn(sides, compare(sides, "C"))
    assert spec is not None

    assert spec["datasets"]["strategies"]["label"].tolist() == ["A = B", "", "C"]


def test_labels_cover_no_other() -> None:
    """However near marks lie, each name has room of its own at the least width of the chart."""
    for x in ([1.0] * 4, [1.0, 1.001, 1.002, 1.003], [0.0, 1.0, 0.98, 0.99], [0.0, 0.0, 1.0, 1.0]):
        for y in ([2.0] * 4, [2.0, 2.01, 2.02, 9.0], [0.0, 1.0, 0.97, 0.99]):
            names = ["Current", "Document thresholds", "All INT8 = Top-k 25%", "All FP16"]
            boxes = []
            for spot, across, down, name in zip(
                spots(x, y, names), _unit(x), 1 - _unit(y), names, strict=True
            ):
                long = CHARACTER_PX * len(name)
                left = (
                    PLOT_PX[0] * across - {"left": 0, "center": 0.5, "right": 1}[spot.align] * long
                )
                boxes.append((left, left + long, PLOT_PX[1] * down + spot.dy))
            for i, (left, right, line) in enumerate(boxes):
                for other_left, other_right, other_line in boxes[:i]:
                    apart = abs(line - other_line) >= LINE_PX
                    assert apart or right <= other_left or other_right <= left, (x, y)


def test_labels_run_inwards_at_the_edges() -> None:
    """The name of the leftmost mark begins at it, that of the rightmost one ends there."""
    sides = named(**{f"All {name}": Policy(strategy="uniform", uniform=name)
                     for name in ("FP32", "INT8")})  # fmt: skip
    spec = drawn(sides, compare(sides, "All FP32"))
    assert spec is not None
    marks = spec["datasets"]["strategies"].set_index("strategy")

    assert marks.loc["All INT8", "align"] == "left"
    assert marks.loc["All FP32", "align"] == "right"


def test_nothing_measured_gives_no_chart() -> None:
    """Without a projected loss there is nothing to draw."""
    sides = named(UNMEASURED)

    assert trade((), sides, compare(sides, NAMES[0]), "size", "kl", LABELS, LIGHT) is None


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.mode)
def test_lines_are_told_apart_without_colour(look: Theme, open_app: Open) -> None:
    """Each line has its name at the first axis, its own dash and marker, and its own colour."""
    figure = parallel(open_app("measured", page="compare"), named(), look)

    lines = figure["data"]
    assert len({line["line"]["dash"] for line in lines}) == len(NAMES)
    assert len({line["marker"]["symbol"] for line in lines}) == len(NAMES)
    assert len({line["line"]["color"] for line in lines}) == len(NAMES)
    axis = figure["layout"]["yaxis"]
    labels = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    for mark, line, name in zip(MARKS, lines, NAMES, strict=True):
        assert name[:12] in labels[line["y"][0]]
        assert mark.glyph in labels[line["y"][0]]


def parallel(app: AppTest, sides: list[Strategy], look: Theme = LIGHT) -> Spec:
    """The figure of parallel coordinates."""
    found = axes(sides, "INT8")
    return parallel_chart._figure(view(app), sides, found, look)


def test_lines_go_through_the_places(open_app: Open) -> None:
    """Behind its name, a line goes through the place of every axis, and says value and kind."""
    sides = named()
    figure = parallel(open_app("measured", page="compare"), sides)
    found = axes(sides, "INT8")

    for i, line in enumerate(figure["data"]):
        assert line["y"][1:] == [axis.places[i] for axis in found]
        assert line["text"][1].startswith("Size ")
        assert line["text"][1].endswith(" exact")
        assert line["text"][2].endswith(" estimated")
        assert line["text"][3].endswith(" projected")


def test_a_name_is_no_markup_in_the_figure(open_app: Open) -> None:
    """Plotly reads HTML in text; a name with it is escaped wherever it stands."""
    name = "<a href='x'>b</a>"
    figure = parallel(
        open_app("measured", page="compare"), named(**{name: Policy(), "C": Policy()})
    )

    line = figure["data"][0]
    texts = [
        line["name"],
        line["hovertemplate"],
        *line["text"],
        figure["layout"]["yaxis"]["ticktext"][0],
    ]
    assert not [text for text in texts if "<a" in text]
    assert "&lt;a" in line["hovertemplate"]


def test_ends_of_an_axis_differ_where_the_lines_do(open_app: Open) -> None:
    """Figures that usual decimals would round to one text get more digits."""
    sides = named()
    figure = parallel(open_app("measured", page="compare"), sides)
    ends: dict[float, list[str]] = {}
    for note in figure["layout"]["annotations"]:
        ends.setdefault(note["x"], []).append(note["text"])

    assert ends
    assert all(len(set(texts)) == len(texts) for texts in ends.values())


def test_the_takeaway_names_the_best(open_app: Open) -> None:
    """What a screen reader gets says who is best on each axis."""
    sides = named()
    told = parallel_chart.takeaway(view(open_app("measured")), sides, axes(sides, "INT8"))

    assert "Size: All INT8;" in told
    assert "KL: All FP32" in told
