"""The layers that differ between strategies, with counts on top."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pandas as pd
import streamlit as st

from core.decide.assess.compare import Comparison, DifferingLayer
from core.decide.assess.difference import in_words
from dashboard.charts import figure
from dashboard.display import theme
from dashboard.display.strategy_marks import MARKS
from dashboard.display.text import plain, role_title, short, table_height, typeset
from dashboard.session import state
from dashboard.session.view import View

MOST_ROWS_SHOWN = 12
SELECTED = "▶"
Rows = Sequence[DifferingLayer]


def draw(view: View, found: Comparison) -> None:
    """Counts, the filter, and the table."""
    with st.container(border=True, gap="small"):
        st.markdown(f"**Layers that differ** · {found.headline}")
        st.markdown("  \n".join(_counts(found)))
        rows = _filtered(found.layers)
        if rows:
            _table(view, found, rows)
        else:
            st.info("No layer passes the filter.", icon=":material/filter_alt_off:")


def _counts(found: Comparison) -> list[str]:
    lines = []
    for mark, column in zip(MARKS, found.columns, strict=False):
        counts = ", ".join(
            f"{count:,} {name}" for name, count in column.precisions.items() if count
        )
        against = (
            "the reference"
            if column.name == found.reference
            else f"{in_words(column.changes)} against {plain(found.reference)}"
        )
        lines.append(f"{mark.glyph} **{plain(column.name)}**: {counts}; {column.part}; {against}")
    return lines


def _filtered(rows: Rows) -> Rows:
    text = st.text_input(
        "Filter the layers that differ",
        key="compare_filter",
        type="search",
        placeholder="Layer or role",
        label_visibility="collapsed",
        persist_state="session",
        width=260,
    )
    wanted = (text or "").strip().lower()
    return [r for r in rows if wanted in r.layer.lower() or wanted in role_title(r.role)]


def frame(found: Comparison, rows: Rows, selected: str) -> pd.DataFrame:
    """One row per layer: its precision under each strategy, and bytes and milliseconds less
    those of the reference, empty where the precision is the reference's.
    """
    data: dict[str, object] = {
        "selected": [SELECTED if row.layer == selected else "" for row in rows],
        "layer": [row.layer for row in rows],
        "role": [role_title(row.role) for row in rows],
    }
    sizes = [row.size_changes(found.place) for row in rows]
    times = [row.latency_changes(found.place) for row in rows]
    for i, column in enumerate(found.columns):
        data[f"precision_{i}"] = [[p] if (p := row.precisions[i]) else [] for row in rows]
        if column.name != found.reference:
            same = [row.precisions[i] == row.precisions[found.place] for row in rows]
            amounts = zip(same, sizes, times, strict=True)
            shown = [(None, None) if s else (size[i] / 1e3, time[i]) for s, size, time in amounts]
            data[f"size_{i}"], data[f"latency_{i}"] = zip(*shown, strict=True)
    return pd.DataFrame(data)


def _table(view: View, found: Comparison, rows: Rows) -> None:
    selected = state.selected(view.study)
    names = tuple(row.layer for row in rows)
    # The browser remembers a selection by row number: other rows are another table.
    key = f"compare_layers_{sha256(repr((view.opened.name, names)).encode()).hexdigest()[:12]}"
    st.dataframe(
        frame(found, rows, selected),
        key=key,
        hide_index=True,
        height=table_height(min(len(rows), MOST_ROWS_SHOWN)),
        column_config=_columns(view, found),
        on_select=lambda: take_row(key, names),
        selection_mode="single-row",
        placeholder="",
        alt=f"Precision of {len(rows)} layers under each strategy",
    )
    chosen = f" Selected: {plain(selected)}." if selected else ""
    st.caption(
        f"Select a row to look at the layer on every page.{chosen} "
        f"Δ: less {plain(found.reference)}; kB exact, ms estimated, boundaries between precisions "
        "left out."
    )
    figure.offer_data(
        {"layers": _readable(found, rows)}, key="compare_layers", file=f"{view.opened.name}.differ"
    )


def take_row(key: str, names: tuple[str, ...]) -> None:
    """Make the row selected in table `key`, whose rows are `names`, the layer of every page."""
    places = st.session_state[key]["selection"]["rows"]
    state.select(names[places[0]] if places else "")


def _readable(found: Comparison, rows: Rows) -> pd.DataFrame:
    """The table for a file: names of strategies in the head, plain precisions."""
    table = frame(found, rows, "").drop(columns="selected")
    heads = {"layer": "layer", "role": "role"}
    for i, column in enumerate(found.columns):
        table[f"precision_{i}"] = [row.precisions[i] or "" for row in rows]
        heads[f"precision_{i}"] = column.name
        heads[f"size_{i}"] = f"{column.name}: kB less {found.reference}"
        heads[f"latency_{i}"] = f"{column.name}: ms less {found.reference}"
    return table.rename(columns=heads)


def _columns(view: View, found: Comparison) -> dict[str, Any]:
    column = st.column_config
    offered = view.study.precisions
    columns: dict[str, Any] = {
        "selected": column.TextColumn("", width=28, help="The layer selected on every page."),
        "layer": column.TextColumn("Layer", width=220, pinned=True),
        "role": column.TextColumn("Role", width=110),
    }
    for i, (mark, one) in enumerate(zip(MARKS, found.columns, strict=False)):
        columns |= {
            f"precision_{i}": column.MultiselectColumn(
                f"{mark.glyph} {short(one.name, 16)}",
                options=list(offered),
                color=[theme.LIGHT.of(name).badge for name in offered],
                width=118,
                help=plain(one.name),
            ),
            f"size_{i}": column.NumberColumn(
                f"{mark.glyph} Δ kB", format="%+.3f", width=92,
                help=typeset(f"Stored bytes of {plain(one.name)} less the reference's, exact."),
            ),
            f"latency_{i}": column.NumberColumn(
                f"{mark.glyph} Δ ms", format="%+.3g", width=88,
                help=f"Estimated time of {plain(one.name)} less the reference's.",
            ),
        }  # fmt: skip
    return columns
