"""The table of layers on Tune: overrides, filters, what flipped, downloads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.decide.assess.difference import in_words
from core.decide.policy.scoring import LEVELS
from core.evidence.scorers import SCORERS
from core.export.map.csv_table import to_csv
from core.export.map.precision_map import to_json
from dashboard.display import theme
from dashboard.display.text import DOWN, UP, arrow, plain, role_title, state_of, table_height
from dashboard.session import state, studies
from dashboard.session.controls import precisions_offered
from dashboard.session.view import View

AUTO = "Auto"
"""Said of a layer that no override sets."""
MOST_ROWS_SHOWN = 14
MOST_CHANGES_LISTED = 40


def draw(view: View) -> None:
    """What flipped, the table with its filters, and the downloads."""
    with st.container(border=True, gap="small"):
        _header(view)
        _flips(view)
        frame = _filtered(layer_frame(view), view)
        if len(frame):
            _editor(frame, view)
        else:
            st.info("No layer passes the filters.", icon=":material/filter_alt_off:")


def _header(view: View) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Layers**", width="stretch")
        name = view.opened.name
        st.download_button(
            "Map (JSON)",
            lambda: to_json(view.study, view.now.chosen),
            file_name=f"{name}.precision_map.json",
            mime="application/json",
            on_click="ignore",
            icon=":material/download:",
            key="_json",
            help="precision_map.json: every layer with its precision and why, and the totals.",
        )
        st.download_button(
            "Table (CSV)",
            lambda: to_csv(view.study, view.now.chosen),
            file_name=f"{name}.layers.csv",
            mime="text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="_csv",
            help="One row per layer.",
        )


def _flips(view: View) -> None:
    if not view.pinned:
        st.caption("Pin a map (Alt+P) to see here which layers flip against it.")
        return
    st.markdown(f"Against the pinned map ({view.base.label}): **{in_words(view.changes)}**")
    if not view.changes:
        return
    listed = [
        f"{arrow(change.direction)} {plain(change.layer)} "
        f"{theme.badge(change.before)} → {theme.badge(change.after)}"
        for change in view.changes[:MOST_CHANGES_LISTED]
    ]
    more = len(view.changes) - len(listed)
    with st.expander(f"Flipped layers ({len(view.changes):,})", icon=":material/compare_arrows:"):
        st.markdown("  \n".join(listed) + (f"  \nand {more:,} more" if more else ""))


def _groups(view: View) -> list[str] | None:
    """Number of each layer's group, marked where a rule split it; None where there are none."""
    layers, split = view.study.layers, view.now.chosen.split_groups
    if not layers.groups:
        return None
    apart = {i for group in split for i in group}
    numbers = [layers.group_of.get(i) for i in range(len(layers))]
    return [
        "" if number is None else f"{number} split" if i in apart else f"{number}"
        for i, number in enumerate(numbers)
    ]


def layer_frame(view: View) -> pd.DataFrame:
    """One row per layer in execution order, for the table on Tune."""
    chosen, found, layers = view.now.chosen, view.now.found, view.study.layers
    overridden = dict(chosen.policy.overrides)
    directions = {change.layer: change.direction for change in view.changes}
    layer = state.selected(view.study)
    data: dict[str, object] = {
        "order": range(1, len(layers) + 1),
        "layer": layers.names,
        "detail": ["● shown" if name == layer else "Show" for name in layers.names],
        "role": [role_title(role) for role in layers.roles],
        "group": _groups(view),
        "override": [overridden.get(name, AUTO) for name in layers.names],
        "precision": [[name] if name else [] for name in chosen.assigned],
        "changed": [arrow(directions.get(name, 0)) for name in layers.names],
        "score": chosen.scores,
        "level": [LEVELS[level] for level in chosen.levels],
        "params": layers.params,
        "size": found.layer_bytes / 1e3,
        **{name: view.study.scores.get(name) for name in SCORERS},
        "state": [state_of(layer) for layer in layers],
        "reason": [chosen.reason(i) for i in range(len(layers))],
    }
    return pd.DataFrame(data)


def with_frequency(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """`frame` of all layers with the share of resamples that give each its precision, in %."""
    found = np.full(len(frame), np.nan)  # a solved budget is resampled when somebody asks
    if studies.resampled_already(view.opened, view.policy):
        found = studies.stability(view.opened, view.policy).of(view.now.chosen)
    wider = frame.copy()
    wider.insert(list(frame.columns).index("level") + 1, "frequency", found * 100)
    return wider


def _filtered(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    with st.container(horizontal=True, vertical_alignment="center"):
        text = st.text_input(
            "Search",
            key="filter_text",
            type="search",
            placeholder="Layer or role",
            label_visibility="collapsed",
            persist_state="session",
            width=260,
        )
        changed = st.toggle(
            "Changed only" if view.pinned else "Changed only (nothing is pinned)",
            key="filter_changed",
            persist_state="session",
            disabled=not view.pinned,
            help="Layers that differ from the pinned map.",
        )
        overridden = st.toggle(
            "Overridden only",
            key="filter_overridden",
            persist_state="session",
            help="Layers that were set by hand.",
        )
        sure = st.toggle(
            "In resamples",
            key="filter_frequency",
            persist_state="session",
            help="A column with the share of resamples of the samples that give each layer its "
            "precision. Only scores measured on samples vary.",
        )
    if sure:
        frame = with_frequency(frame, view)
    keep = pd.Series(data=True, index=frame.index)
    if text:
        wanted = text.strip().lower()
        keep &= frame["layer"].str.lower().str.contains(wanted, regex=False) | frame[
            "role"
        ].str.contains(wanted, regex=False)
    if changed and view.pinned:
        keep &= frame["changed"] != ""
    if overridden:
        keep &= frame["override"] != AUTO
    return frame[keep]


def _editor(frame: pd.DataFrame, view: View) -> None:
    names = tuple(frame["layer"])
    current = state.table_round(names)
    base = dict(current.base)
    frame = frame.assign(override=[base.get(name, AUTO) for name in names])
    key = f"layers_{view.opened.name}_{current.number}"
    st.data_editor(
        frame,
        key=key,
        num_rows="fixed",
        hide_index=True,
        disabled=[column for column in frame.columns if column != "override"],
        column_config=_columns(view, f"{key}_show", names),
        column_order=[column for column in frame.columns if not frame[column].isna().all()],
        height=table_height(min(len(frame), MOST_ROWS_SHOWN)),
        on_change=take_edits,
        args=(key, names),
        alt="Every layer with its score, level, precision and override",
    )
    st.caption(
        "Choose a precision under Override to set a layer by hand; it goes into the link. "
        "Layers that do nothing at inference ignore it."
    )


def take_edits(key: str, names: tuple[str, ...]) -> None:
    """Turn the edits of table `key`, whose rows are `names`, into overrides. Run as a callback."""
    edits = {
        names[int(row)]: None if cells["override"] in {AUTO, None} else str(cells["override"])
        for row, cells in st.session_state[key]["edited_rows"].items()
        if "override" in cells
    }
    state.set_overrides(edits)


def show_row(key: str, names: tuple[str, ...]) -> None:
    """Select the layer whose Show was pressed. Run as a callback."""
    state.select(names[int(st.session_state[key]["row"])])


def _columns(view: View, show: str, names: tuple[str, ...]) -> dict[str, Any]:
    column = st.column_config
    offered = precisions_offered(view.study)
    scorers = {
        name: column.NumberColumn(scorer.title, format="%.2f", help=scorer.description)
        for name, scorer in SCORERS.items()
    }
    return {
        "order": column.NumberColumn("#", width=48, help="Place in execution order."),
        "layer": column.TextColumn("Layer", width=230, pinned=True),
        "detail": column.ButtonColumn(
            "Detail", key=show, on_click=show_row, args=(show, names), type="tertiary", width=72,
            help="Show this layer above, and mark it in the charts.",
        ),
        "role": column.TextColumn("Role", width=120),
        "group": column.TextColumn(
            "Group", width=72,
            help="Layers with one number share one precision: the widest that the strategy gives "
            "any of them. Split: a pin or an override took one out.",
        ),
        "override": column.SelectboxColumn(
            "Override", options=[AUTO, *offered], required=True, width=92,
            help="Auto follows the policy; a precision beats it.",
        ),
        "precision": column.MultiselectColumn(
            "Precision", options=list(offered), width=92,
            color=[theme.LIGHT.of(name).badge for name in offered],
            help="Empty for a layer that does nothing at inference.",
        ),
        "changed": column.TextColumn(
            "Changed", width=72, help=f"{UP} more bits than the pinned map, {DOWN} fewer."
        ),
        "score": column.ProgressColumn(
            "Score", format="%.3f", min_value=0, max_value=1, width=120,
            help="Weighted sum of the scores; higher = more sensitive.",
        ),
        "level": column.TextColumn("Level", width=80),
        "frequency": column.NumberColumn(
            "In resamples", format="%.0f %%", width=96,
            help="Share of the resamples that give the layer this precision; empty where it has "
            "none.",
        ),
        "params": column.NumberColumn("Parameters", format="localized", width=100),
        "size": column.NumberColumn("Size (kB)", format="%.3f", width=92, help="Exact."),
        **scorers,
        "state": column.TextColumn(
            "In INT8 it", width=190, help="What an integer precision means for this layer."
        ),
        "reason": column.TextColumn("Reason", width=420),
    }  # fmt: skip
