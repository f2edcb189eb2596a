"""Figures, layers and other people's words as text: one place for units, ranges and "n/a"."""

from __future__ import annotations

import re

from core.decide.assess.gains import Gain
from core.decide.policy.decision import PrecisionMap
from core.export.report.markdown import paragraph
from core.layers import Layer
from core.quantity import Quantity, digits, written, written_change

MINUS = "\N{MINUS SIGN}"
UP, DOWN = "▲", "▼"
COSTS = {"size_bytes": "Size", "latency_ms": "Latency"}
"""Titles of the totals that a map costs."""

_SHORTCODE = re.compile(r":(?=[\w/+-]+(?::|\\\[))")
"""Begins an icon, an emoji or a colour."""

ROW_PX = 33
"""Height of a table row at the base font size of .streamlit/config.toml."""

BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
"""MB is 10^6 bytes."""

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


def file_size(size_bytes: float) -> str:
    """Bytes of a file in the unit that suits them, MB = 10^6 bytes. Sizes of models are in MB."""
    for factor, unit in BYTE_UNITS:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.2f} {unit}"
    return f"{size_bytes:.0f} B"


def format_number(value: float | None, unit: str) -> str:
    """A value with its unit, with the decimals that the unit deserves; "n/a" for None."""
    text = written(value, unit)
    return f"{text[:-1]}×" if unit == "x" and value is not None else text


def format_gain(gain: Gain, unit: str) -> str | None:
    """A change with its sign and, where that says more, its percentage.

    None where it is unknown, empty where both figures are shown alike.
    """
    if gain.before is None or gain.after is None:
        return None
    return written_change(gain.before, gain.after, unit)


def plain(text: str) -> str:
    """Other people's text so that Markdown shows it as it is, wherever it stands on a line."""
    return _SHORTCODE.sub(r"\\:", paragraph(text).replace("$", r"\$"))


def short(name: str, most: int = 24) -> str:
    """A name in at most `most` characters."""
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


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
    low = digits(quantity.low, quantity.unit)
    return typeset(f"{low} to {format_number(quantity.high, quantity.unit)}")


def with_range(quantity: Quantity) -> str:
    """The value and, where there is one, its range in brackets."""
    span = format_range(quantity)
    return f"{format_quantity(quantity)} ({span})" if span else format_quantity(quantity)


def table_height(rows: int) -> int:
    """Pixels that show a table of `rows` rows without an empty one."""
    return ROW_PX * (rows + 1) + 3


def arrow(direction: int) -> str:
    """What stands for a layer that has more bits than before (1), or fewer (-1)."""
    return {1: UP, -1: DOWN}.get(direction, "")


def counts_in_words(chosen: PrecisionMap) -> str:
    """Layers by precision, as "33 FP16, 16 INT8"; empty where no layer computes."""
    counts = ((name, chosen.count(name)) for name in chosen.precisions)
    return ", ".join(f"{count:,} {name}" for name, count in counts if count)


def role_title(role: str) -> str:
    """A role as people write it."""
    return role.replace("_", " ")
