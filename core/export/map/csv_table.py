"""The layer table of a map as CSV, one row per layer."""

from __future__ import annotations

import csv
import io
import re

import msgspec

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.map.precision_map import MapLayer, describe

COLUMNS = tuple(field.name for field in msgspec.structs.fields(MapLayer))
LINE_END = "\r\n"
"""As RFC 4180 has it; with any other a lone carriage return in a name would not be quoted."""

_FORMULA = re.compile(
    r"(?:^|(?<=[;\t\n\v\f\r\x85\u2028\u2029]))(?=[\s\"]*[=+\-@＝＋－−＠﹦﹢﹣﹫]|[\t\r\n])"
)
"""Where a spreadsheet may find a formula: at the start of a cell, and behind what parts cells or
rows elsewhere, since some countries part them by semicolons. Full-width signs count as signs.
"""


def to_csv(study: Study, chosen: PrecisionMap) -> bytes:
    """UTF-8 CSV with a header; an empty `precision` is a layer that does nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=LINE_END)
    writer.writerow(COLUMNS)
    for row in describe(study, chosen).layers:
        writer.writerow(safe_cell(getattr(row, column)) for column in COLUMNS)
    return buffer.getvalue().encode()


def safe_cell(value: object) -> object:
    """A value for CSV: what a spreadsheet would run as a formula gets an apostrophe before it."""
    if value is None:
        return ""
    return _FORMULA.sub("'", value) if isinstance(value, str) else value
