"""The layer table of a map as CSV, one row per layer."""

from __future__ import annotations

import csv
import io

import msgspec

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.map.precision_map import MapLayer, describe

COLUMNS = tuple(field.name for field in msgspec.structs.fields(MapLayer))
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(study: Study, chosen: PrecisionMap) -> bytes:
    """UTF-8 CSV with a header; an empty `precision` is a layer that does nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in describe(study, chosen).layers:
        writer.writerow(safe_cell(getattr(row, column)) for column in COLUMNS)
    return buffer.getvalue().encode()


def safe_cell(value: object) -> object:
    """A value for CSV: text that a spreadsheet would run as a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
