"""Loss against size and against latency: one mark per strategy over the sweep of thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import altair as alt
import pandas as pd
import streamlit as st

from core.decide.assess.compare import COSTS, TOTAL_OF, Comparison, Cost, Strategy
from core.decide.assess.curves import CurvePoint
from core.decide.assess.frontier import Frontier
from core.quantity import Quantity
from dashboard.app_pages.compare.cards import dominated
from dashboard.charts import figure
from dashboard.charts.curve import choose_loss
from dashboard.charts.frontier import AXES, amount, called
from dashboard.charts.labels import spots, written
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display import theme
from dashboard.display.loss_labels import NO_LABELS, LossLabels, axis_format
from dashboard.display.strategy_marks import MARKS
from dashboard.display.text import format_quantity, plain, short
from dashboard.display.theme import Mode, Theme, by_mode
from dashboard.session import frontiers, studies
from dashboard.session.view import View

HEIGHT = 330
CHART_PX = 320
"""Labels would overlap in a narrower chart; the second one goes below the first before."""
FIELDS: dict[Cost, str] = {"size": "size_mb", "latency": "latency_ms"}
SAID = ("cost_said", "loss_said")
CLOUD, STRATEGIES, FRONTIER = "thresholds", "strategies", "frontier"
DIMMED = 0.45


def draw(view: View, sides: Sequence[Strategy], found: Comparison) -> None:
    """Both charts with the choice of the loss, and who is dominated in words."""
    labels = view.loss_labels
    with st.container(border=True, gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("**Loss against what it saves**", width="content")
            measure = choose_loss(labels)
        look = theme.current()
        points = studies.curve(view.opened, view.policy)
        fronts = {cost: frontiers.ready(view.opened, view.policy, cost) for cost in COSTS}
        drawn = {
            cost: trade(points, sides, found, cost, measure, labels, look, fronts[cost])
            for cost in COSTS
        }
        if None in drawn.values():
            st.info("n/a: nothing was measured, so no loss is projected.", icon=":material/info:")
            return
        title = labels.chooser(measure)
        with st.grid(2, min_column_width=CHART_PX, gap="medium"):
            for cost, spec in drawn.items():
                with st.container(gap="xsmall"):
                    figure.draw(
                        spec or {},
                        key=f"compare_{cost}",
                        alt=f"{title} against {cost}. Not dominated: "
                        f"{', '.join(found.fronts[cost])}",
                        file=f"{view.opened.name}.loss_{cost}",
                    )
        beaten = [(s.name, dominated(s.name, found)) for s in sides]
        said = "; ".join(f"{name} is {by}" for name, by in beaten if by)
        st.caption(
            f"{plain(said) if said else 'None is dominated'}. One dominates another where "
            f"{_yardstick(labels)} and cost are no worse and one is better; dominated ones are pale. "
            "Small points: the sweep of the HIGH threshold."
            + _run_said(sides)
            + _front_said(sides, fronts)
        )


def _run_said(sides: Sequence[Strategy]) -> str:
    """Where maps stand whose figures on the cards are of another split than those beside them."""
    run = [plain(s.name) for s in sides if s.outcome.confidence == "measured"]
    if not run:
        return ""
    stand = "stands" if len(run) == 1 else "stand"
    return f" {' and '.join(run)} {stand} where projected, like all: what was measured is of another split."


def _front_said(sides: Sequence[Strategy], fronts: Mapping[Cost, Frontier | None]) -> str:
    """Whether the best maps that budgets give beat what is shown."""
    if None in fronts.values():
        return " The frontier of budgets is drawn here once it was made."
    beaten = [
        f"{plain(s.name)} by {plain(called(point, cost))}"
        for cost, front in fronts.items()
        for s in sides
        if front is not None and (point := front.dominating(s.outcome.comparable)) is not None
    ]
    said = f" It beats {'; '.join(beaten)}." if beaten else " It beats none of them."
    return f" Line: the frontier of budgets.{said}"


def _yardstick(labels: LossLabels) -> str:
    """What dominance looks at beside the cost."""
    moved = plain(labels.titles[labels.figures.divergence])
    if not labels.labelled:
        return f"projected {moved} ({NO_LABELS})"
    lost = plain(labels.titles[labels.figures.loss])
    return f"projected {lost} (a gain counts as none; {moved} between equal losses)"


def trade(
    points: Sequence[CurvePoint],
    sides: Sequence[Strategy],
    found: Comparison,
    cost: Cost,
    measure: str,
    labels: LossLabels,
    look: Theme,
    front: Frontier | None = None,
) -> Spec | None:
    """The chart of `measure` against `cost`; None where nothing is projected."""
    field = FIELDS[cost]
    cloud: list[dict[str, object]] = [
        {
            field: amount(p.totals, cost),
            measure: loss,
            "threshold": p.high_threshold,
            **_said(labels, p.totals, cost, measure),
        }
        for p in points
        if (loss := p.totals[measure].value) is not None
    ]
    marks = [
        {
            field: amount(s.outcome.comparable, cost),
            measure: s.outcome.comparable[measure].value,
            "strategy": s.name,
            "place": str(place),
            "opacity": DIMMED if found.beaten(s.name)[cost] else 1.0,
            "dominated_by": ", ".join(found.beaten(s.name)[cost]) or "no one",
            **_said(labels, s.outcome.comparable, cost, measure),
        }
        for place, s in enumerate(sides)
        if s.outcome.comparable[measure].value is not None
    ]
    if not marks:
        return None
    data = _labelled(
        pd.DataFrame(marks), [amount(p.totals, cost) for p in points], field, measure, found
    )
    columns = [field, measure, *SAID, "threshold"]
    best = [
        {
            field: amount(p.totals, cost),
            measure: p.totals[measure].value,
            **_said(labels, p.totals, cost, measure),
        }
        for p in (() if front is None else front.points)
    ]
    return filled(
        _trade(look.mode, cost, measure, labels.axis(measure)),
        thresholds=pd.DataFrame(cloud, columns=columns),
        frontier=pd.DataFrame(best, columns=columns[:-1]),
        strategies=data,
    )


def _said(
    labels: LossLabels, totals: Mapping[str, Quantity], cost: Cost, measure: str
) -> dict[str, str]:
    """Both figures of a mark, written as everywhere."""
    texts = (format_quantity(totals[TOTAL_OF[cost]]), labels.figure(measure, totals[measure]))
    return dict(zip(SAID, texts, strict=True))


def _labelled(
    data: pd.DataFrame, others: Sequence[float], field: str, measure: str, found: Comparison
) -> pd.DataFrame:
    """`data` with one label for marks of the same map, each where it covers no other."""
    names, said = list[str](), set[str]()
    for name in data["strategy"]:
        group = [name, *found.same_as(name)]
        names.append("" if said & set(group) else " = ".join(short(one, 20) for one in group))
        said.add(name)
    places = spots(data[field].tolist(), data[measure].tolist(), names, others)
    return data.assign(label=names, align=[p.align for p in places], dy=[p.dy for p in places])


@lru_cache(maxsize=16)
def _trade(mode: Mode, cost: Cost, measure: str, title_y: str) -> Spec:
    look = by_mode(mode)
    field, title = FIELDS[cost], AXES[cost]
    x = alt.X(
        f"{field}:Q",
        title=title,
        scale=alt.Scale(zero=False, nice=True, padding=12),
        axis=alt.Axis(labelFlush=True, tickCount=6, format=".4~g"),
    )
    y = alt.Y(
        f"{measure}:Q",
        title=title_y,
        scale=alt.Scale(padding=22),
        axis=alt.Axis(tickCount=5, format=axis_format(measure)),
    )
    places = [str(place) for place in range(len(MARKS))]
    colours = alt.Scale(domain=places, range=[mark.colour(mode) for mark in MARKS])
    shapes = alt.Scale(domain=places, range=[mark.shape for mark in MARKS])
    said = [
        alt.Tooltip("strategy:N", title="Strategy"),
        alt.Tooltip("cost_said:N", title=title),
        alt.Tooltip("loss_said:N", title=title_y),
        alt.Tooltip("dominated_by:N", title="Dominated by"),
    ]
    swept = [
        alt.Tooltip("threshold:Q", title="Sweep: HIGH from score", format=".3f"),
        *said[1:3],
    ]
    cloud = named(CLOUD).mark_point(filled=True, size=22, opacity=0.5, color=look.muted)
    marks = named(STRATEGIES).mark_point(filled=True, size=200, strokeWidth=1)
    text = written(named(STRATEGIES)).encode(
        x=x,
        y=y,
        color=alt.condition("datum.opacity < 1", alt.value(look.muted), alt.value(look.text)),
    )
    return template(
        alt.layer(
            named(FRONTIER)
            .mark_line(
                color=look.muted,
                strokeWidth=2,
                interpolate="step-after",
                point=alt.OverlayMarkDef(color=look.muted),
            )
            .encode(x=x, y=y, order=alt.Order(f"{field}:Q"), tooltip=said[1:3]),
            cloud.encode(x=x, y=y, tooltip=swept),
            marks.encode(
                x=x,
                y=y,
                color=alt.Color("place:N", scale=colours, legend=None),
                shape=alt.Shape("place:N", scale=shapes, legend=None),
                opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
                tooltip=said,
            ),
            text,
        ).properties(height=HEIGHT)
    )
