"""Figures and layers as text and tables: one place for units, ranges and "n/a"."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from core.decide.policy.scoring import LEVELS
from core.estimate.projection import RELATIVE
from core.evidence.scorers import SCORERS
from core.export.report.markdown import escape
from core.layers import Layer
from core.quantity import Quantity
from dashboard.session import state, studies
from dashboard.session.view import View

UNKNOWN = "n/a"
MINUS = "\N{MINUS SIGN}"
AUTO = "Auto"
UP, DOWN = "▲", "▼"

_SHORTCODE = re.compile(r":(?=[\w/+-]+(?::|\\\[))")
"""Begins an icon, an emoji or a colour."""

ROW_PX = 33
"""Height of a table row at the base font size of .streamlit/config.toml."""

BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
"""MB is 10^6 bytes."""

DECIMALS = {"%": 1, "pts": 1, "x": 2, "ms": 2, "layers": 0, "MB": 2}
FINER = {"ms": 0.1, "%": 1.0}
"""Below this a unit gets one more decimal."""

STATES = {
    "computes": "computes in integers",
    "stores": "stores integers, computes in float",
    "rounds output": "float, output rounded",
    "rounds input": "float, input rounded",
    "float": "stays in float",
    "nothing": "nothing at inference",
}


def state_of(layer: Layer) -> str:
    """What INT8 means for a layer, in words."""
    if layer.folded_into:
        return f"folded into {layer.folded_into}"
    return f"{STATES[layer.state]}{', ranges set while it runs' if layer.dynamic else ''}"


def format_bytes(size_bytes: float | None, *, signed: bool = False) -> str:
    """Bytes in the unit that suits them, MB = 10^6 bytes; "n/a" for None."""
    if size_bytes is None:
        return UNKNOWN
    sign = "+" if signed else ""
    for factor, unit in BYTE_UNITS:
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:{sign}.2f} {unit}"
    return f"{size_bytes:{sign}.0f} B"


def format_number(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A value with its unit, with the decimals that the unit deserves; "n/a" for None."""
    if value is None:
        return UNKNOWN
    if unit == "bytes":
        return format_bytes(value, signed=signed)
    sign = "+" if signed else ""
    if unit in {"nats", RELATIVE}:
        text = f"{value:{sign}.2g}"
    elif not unit:  # a metric's own, of any size
        text = f"{value:{sign}.4g}"
    else:
        decimals = DECIMALS.get(unit, 2)
        if unit in FINER and 0 < abs(value) < FINER[unit]:
            decimals += 1
        text = f"{value + 0.0:{sign}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # neither +0 nor -0
    return f"{text}×" if unit == "x" else f"{text} {unit}".rstrip()


def plain(text: str) -> str:
    """Other people's text so that Markdown shows it as it is."""
    return _SHORTCODE.sub(r"\\:", escape(text).replace("$", r"\$"))


def typeset(text: str) -> str:
    """Hyphens that stand for minus become minus signs."""
    return text.replace("-", MINUS)


def format_quantity(quantity: Quantity) -> str:
    """The value of a quantity with its unit."""
    return typeset(format_number(quantity.value, quantity.unit))


def format_range(quantity: Quantity) -> str:
    """The 90 % range as "1.26 to 2.88 ms", empty where there is none."""
    if quantity.low is None or quantity.high is None:
        return ""
    low = format_number(quantity.low, quantity.unit)
    if quantity.unit != "bytes":
        low = low.removesuffix("×").removesuffix(f" {quantity.unit}")
    return typeset(f"{low} to {format_number(quantity.high, quantity.unit)}")


def with_range(quantity: Quantity) -> str:
    """The value and, where there is one, its range in brackets."""
    span = format_range(quantity)
    return f"{format_quantity(quantity)} ({span})" if span else format_quantity(quantity)


def table_height(rows: int) -> int:
    """Pixels that show a table of `rows` rows without an empty one."""
    return ROW_PX * (rows + 1) + 3


def role_title(role: str) -> str:
    """A role as people write it."""
    return role.replace("_", " ")


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
    glyph = {0: "", 1: UP, -1: DOWN}
    layer = state.selected(view.study)
    data: dict[str, object] = {
        "order": range(1, len(layers) + 1),
        "layer": layers.names,
        "detail": ["● shown" if name == layer else "Show" for name in layers.names],
        "role": [role_title(role) for role in layers.roles],
        "group": _groups(view),
        "override": [overridden.get(name, AUTO) for name in layers.names],
        "precision": [[name] if name else [] for name in chosen.assigned],
        "changed": [glyph[directions.get(name, 0)] for name in layers.names],
        "score": chosen.scores,
        "level": [LEVELS[level] for level in chosen.levels],
        "params": layers.params,
        "size": found.layer_bytes / 1e6,
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
