"""The chosen map as a file: its formats, a preview of each, and the checklist."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape
from pathlib import Path

import streamlit as st

from core.estimate import hardware
from core.export.map.checklist import Check, Status
from core.export.map.reproduce import FOLDER, file_commands
from dashboard.display.text import file_size, plain
from dashboard.session import exports, studies
from dashboard.session.exports import FORMATS, Format
from dashboard.session.view import Side, View

PREVIEW_LINES = 30
RENDERED_LINES = 150
PREVIEW_PX = 440
LIVE_PX = 620
MOST_LIVE_BYTES = 1_000_000
"""A larger page is not sent to the browser twice."""

STATUS = {
    "passed": ("green", ":material/check:"),
    "warning": ("orange", ":material/warning:"),
    "failed": ("red", ":material/close:"),
}
ORDER: tuple[Status, ...] = ("failed", "warning", "passed")


def draw(view: View, side: Side) -> None:
    """The file of `side` in the chosen format."""
    form = st.segmented_control(
        "Format",
        list(FORMATS),
        default="json",
        format_func=lambda name: FORMATS[name].title,
        key="export_format",
        required=True,
        persist_state="session",
    ) or "json"  # fmt: skip
    kind = FORMATS[form]
    st.markdown(kind.purpose)
    content = exports.made(view.opened, side.chosen.policy, form)
    with st.container(horizontal=True, vertical_alignment="center"):
        _button(view, side, form, main=True)
        lines = content.count(b"\n")
        st.caption(f"{file_size(len(content))}, {lines:,} lines", width="content")
    _preview(kind, form, content)
    _commands(view, side, form)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.caption("Also, made when pressed:", width="content")
        for other in FORMATS:
            if other != form:
                _button(view, side, other, main=False)


def _button(view: View, side: Side, form: str, *, main: bool) -> None:
    kind, opened, policy = FORMATS[form], view.opened, side.chosen.policy
    st.download_button(
        f"Download {kind.title}" if main else kind.title,
        lambda: exports.made(opened, policy, form),
        file_name=exports.file_name(opened.name, side.label, kind.tail),
        mime=kind.mime,
        on_click="ignore",
        type="primary" if main else "tertiary",
        icon=":material/download:",
        key=f"_download_{form}",
        help=None if main else kind.purpose,
    )


def _preview(kind: Format, form: str, content: bytes) -> None:
    text = content.decode()
    shown, total = text.splitlines()[:PREVIEW_LINES], content.count(b"\n")
    first = f"The first {len(shown)} of {total:,} lines" if total > len(shown) else "The whole file"
    views = {"markdown": ("Rendered", "Text"), "html": ("Live", "Text")}.get(form, ())
    view = "Text"
    if views:
        view = st.segmented_control(
            "Preview", views, default=views[0], key=f"export_preview_{form}",
            label_visibility="collapsed", required=True, persist_state="session",
        ) or views[0]  # fmt: skip
    if view == "Text":
        st.caption(f"{first}:")
        st.code("\n".join(shown), language=kind.language, height=PREVIEW_PX)
    elif form == "markdown":
        _rendered(text)
    else:
        _live(text, content)


def _rendered(text: str) -> None:
    lines = text.splitlines()
    if len(lines) > RENDERED_LINES:
        st.caption(f"The first {RENDERED_LINES} of {len(lines):,} lines, rendered:")
    with st.container(border=True, height=LIVE_PX):
        # A dollar sign begins a formula here, and nowhere else that Markdown is read. Headings
        # are set smaller, so that the report does not outshout the page it is shown on.
        shown = "\n".join(lines[:RENDERED_LINES]).replace("$", "&#36;")
        st.markdown(re.sub(r"(?m)^(?=#{1,3} )", "##", shown))


def _live(text: str, content: bytes) -> None:
    title = unescape(text.partition("<title>")[2].partition("</title>")[0])
    st.caption(f"{plain(title)}, as the file opens:")
    if len(content) > MOST_LIVE_BYTES:
        st.info(
            f"The page has {file_size(len(content))}; download it to look at it.",
            icon=":material/info:",
        )
        return
    # Names in the report are escaped, and its own policy allows no script but the page's.
    st.iframe(text, height=LIVE_PX, alt=f"Preview of the report: {title}")


def _commands(view: View, side: Side, form: str) -> None:
    folder = _folder(view)
    out = exports.file_name(view.opened.name, side.label, FORMATS[form].tail)
    lines = file_commands(side.chosen, form, out, folder)
    with st.expander("The same from the command line", icon=":material/terminal:"):
        if lines:
            st.code("\n".join(lines), language="bash", wrap_lines=True)
        if folder == FOLDER:
            st.caption(f"{FOLDER} is the analysis folder of {plain(view.opened.name)}.")
        if len(lines) < 1 + (form != "json"):
            st.caption(
                "This map has more choices than a command line can say: download the JSON as "
                "map.json, which holds them."
            )


def _folder(view: View) -> str:
    """The analysis as a command run in the project's folder would name it, or a stand-in."""
    folder = studies.entries()[view.opened.name].folder
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return FOLDER


def checklist(view: View, side: Side) -> None:
    """What was checked of the map of `side`."""
    found = exports.checked(view.opened, side.chosen.policy)
    st.markdown(f"**Checklist** · {_summary(found)}")
    worst_first = sorted(found, key=lambda check: ORDER.index(check.status))
    st.markdown("\n\n".join(_line(check) for check in worst_first))
    device = hardware.get(side.chosen.policy.hardware).title
    st.caption(f"Latency in every file is estimated for {device}, chosen in the sidebar.")


def _summary(found: tuple[Check, ...]) -> str:
    counts = Counter(check.status for check in found)
    said = [f"{counts['passed']} of {len(found)} passed"]
    if counts["failed"]:
        said.append(f"{counts['failed']} failed")
    if counts["warning"]:
        said.append(f"{counts['warning']} warning{'s' if counts['warning'] > 1 else ''}")
    return ", ".join(said)


def _line(check: Check) -> str:
    colour, icon = STATUS[check.status]
    mark = f":{colour}-badge[{icon} {check.status}]"
    return f"{mark} **{check.title}**: {plain(check.detail)}"
