"""A map as a file in each format, and its checklist: made once, kept for the next run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import streamlit as st

from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import precision_map
from core.export.map.checklist import Check, checks
from core.export.map.csv_table import to_csv
from core.export.report import html, markdown
from dashboard.session.studies import POLICIES, Opened


@dataclass(frozen=True, slots=True)
class Format:
    """A format of a map. `make` is given the study and the map; `tail` ends the file's name."""

    title: str
    make: Callable[[Study, PrecisionMap], bytes]
    tail: str
    mime: str
    language: str | None
    purpose: str


FORMATS: Mapping[str, Format] = {
    "json": Format(
        "JSON", precision_map.to_json, "precision_map.json", "application/json", "json",
        "For programs, and to come back here: every layer with its precision and why, the policy, "
        "totals, and the model's fingerprint.",
    ),
    "csv": Format(
        "CSV", to_csv, "layers.csv", "text/csv", None,
        "For a spreadsheet: one row per layer, the same columns as the JSON.",
    ),
    "markdown": Format(
        "Markdown report", markdown.to_markdown, "report.md", "text/markdown", "markdown",
        "For a wiki or a pull request: method, results, advice and every layer, in words.",
    ),
    "html": Format(
        "HTML report", html.to_html, "report.html", "text/html", "html",
        "For people: one file that opens offline, with charts and a table to sort and filter.",
    ),
}  # fmt: skip
"""By the name that `python -m core export --format` knows."""


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=POLICIES)
def _made(key: str, policy: Policy, form: str, _study: Study) -> bytes:
    return FORMATS[form].make(_study, answer.decide(_study, policy))


def made(opened: Opened, policy: Policy, form: str) -> bytes:
    """The file of `policy`'s map in a format of `FORMATS`."""
    return _made(opened.key, policy, form, opened.study)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _checked(key: str, policy: Policy, _study: Study) -> tuple[Check, ...]:
    chosen = answer.decide(_study, policy)
    return checks(_study, chosen, outcome(_study, chosen))


def checked(opened: Opened, policy: Policy) -> tuple[Check, ...]:
    """The checklist of `policy`'s map."""
    return _checked(opened.key, policy, opened.study)


def file_name(*parts: str) -> str:
    """A name for a download: what a file system might choke on becomes a dash."""
    slugs = (re.sub(r"[^\w.]+", "-", part).strip("-.").lower() for part in parts)
    return ".".join(slug for slug in slugs if slug)
