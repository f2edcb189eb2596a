"""The map for the tool that a person deploys with: legality, names, preview, download, limits."""

from __future__ import annotations

import streamlit as st

from core.decide.policy.decision import PrecisionMap
from core.errors import MapError, QuantscapeError
from core.export.targets import registry
from core.export.targets.capability import Capability
from core.export.targets.contract import Exported
from core.export.targets.legality import Legality
from core.export.targets.schemes import measure_command, mismatch
from dashboard.app_pages.export import tools
from dashboard.app_pages.export.tools import MAX_MB, TYPES, Known
from dashboard.display.boundary import show_expected
from dashboard.display.text import file_size, plain
from dashboard.session import exports, launched, measure_form
from dashboard.session.view import Side, View

TOOL, NEAREST, NAMES = "export_tool", "export_nearest", "export_names"
PREVIEW_LINES = 30
PREVIEW_PX = 360
MAX_ROWS = 200
LANGUAGES = {"py": "python", "sh": "bash", "json": "json"}
PROVED = {"tool": "proved by the tool itself", "schema": "held against its documented form"}


def draw(view: View, side: Side) -> None:
    """The chosen tool's file of `side`, with everything that stands in its way."""
    st.markdown("**For another tool**")
    name = st.selectbox(
        "Tool",
        registry.TARGETS,
        format_func=lambda one: registry.get(one).title,
        key=TOOL,
        persist_state="session",
    ) or registry.TARGETS[0]  # fmt: skip
    target = registry.get(name)
    st.markdown(target.purpose)  # Markdown of our own
    st.caption(
        f"Written for {target.package} {target.version}; {PROVED[target.proved]}: "
        f"{plain(target.proof)}"
    )
    known = _names(view, target)
    if known is None:
        return
    found = tools.looked(view.opened, side.chosen.policy, name, known)
    _legality(found, target)
    _scheme(view, target, found.legal)
    nearest = bool(found.illegal) and st.checkbox(
        "Use the nearest legal map",
        key=NEAREST,
        persist_state="session",
        help="Every choice that the tool cannot run moves to the nearest precision that it can.",
    )
    if target.speaks == "nodes" and known.graph is None and not target.overlay:
        st.info(
            f"{target.title} names ONNX nodes, and none are known for this analysis. Give the "
            "exported model above, or keep its nodes with the analysis: `python -m core nodes DIR "
            "--onnx model.onnx`.",
            icon=":material/label:",
        )
        return
    try:
        made = tools.made(view.opened, side.chosen.policy, name, known, nearest=nearest)
    except MapError as error:
        if not found.illegal or nearest:  # what is illegal was told above
            show_expected(error)
        return
    _file(view, side, target, made)
    _limits(made)


def _names(view: View, target: Capability) -> Known | None:
    """The names to check against; None where what was given does not fit, which is shown."""
    what = "ONNX nodes" if target.speaks == "nodes" else "PyTorch modules"
    with st.expander(f"Names: {what}", icon=":material/label:"):
        given = st.file_uploader(
            f"The model you deploy (.onnx), its node table (.json) or its module paths (.txt), "
            f"at most {MAX_MB} MB",
            type=list(TYPES),
            key=NAMES,
            max_upload_size=MAX_MB,
            help="Names in it are compared with the map's; nothing in it is run.",
        )
        st.caption(
            "Module paths: write the keys of dict(model.named_modules()), one a line. Without a "
            "file the names kept with the analysis are used."
        )
    try:
        if given is not None:
            known = tools.read(given.name, given.getvalue(), view.opened)
        else:
            known = tools.kept(view.opened)
    except QuantscapeError as error:
        show_expected(error)
        return None
    if known.graph is not None if target.speaks == "nodes" else known.modules is not None:
        st.caption(f":material/check: Names checked: {plain(known.origin)}.")
    elif target.speaks == "modules":
        st.caption("Names are the analysis's module paths; the file checks them where it runs.")
    return known


def _legality(found: Legality, target: Capability) -> None:
    if not found.illegal:
        if not target.overlay:
            st.caption(f":material/check: {plain(found.said)}")
        return
    count = len(found.illegal)
    st.warning(
        f"**{target.title} cannot run {count:,} choice{'' if count == 1 else 's'} of this map.** "
        f"{plain(found.said)}",
        icon=":material/block:",
    )
    rows = [
        {"layer": one.layer, "asked": one.asked, "nearest": one.nearest, "why": one.why}
        for one in found.illegal[:MAX_ROWS]
    ]
    with st.expander("Which layers, and why"):
        st.dataframe(rows, hide_index=True, height="content" if count <= 8 else 300)
        if count > MAX_ROWS:
            st.caption(f"The first {MAX_ROWS} of {count:,}.")


def _file(view: View, side: Side, target: Capability, made: Exported) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            f"Download {target.file}",
            made.content,
            file_name=exports.file_name(view.opened.name, side.label, target.file),
            mime="application/json" if target.file.endswith("json") else "text/plain",
            on_click="ignore",
            type="primary",
            icon=":material/download:",
            key=f"_download_tool_{target.name}",
        )
        lines = made.content.count(b"\n")
        st.caption(f"{file_size(len(made.content))}, {lines:,} lines", width="content")
    shown = made.content.decode().splitlines()[:PREVIEW_LINES]
    said = (
        f"The first {len(shown)} of {lines:,} lines:" if lines > len(shown) else "The whole file:"
    )
    st.caption(said)
    language = LANGUAGES.get(target.file.rsplit(".", 1)[-1])
    st.code("\n".join(shown), language=language, height=PREVIEW_PX)


def _limits(made: Exported) -> None:
    if made.cannot:
        st.markdown("**What it cannot express**")
        st.markdown("\n".join(f"- {plain(sentence)}" for sentence in made.cannot))


def _scheme(view: View, target: Capability, chosen: PrecisionMap) -> None:
    """Where the evidence is of another scheme: what that means, and how to measure the target's."""
    said = mismatch(view.study, target, chosen)
    if said is None:
        return
    st.warning(plain(said), icon=":material/rule:")
    if target.scheme:
        _measure_anew(view, target, target.scheme)


def _measure_anew(view: View, target: Capability, scheme: str) -> None:
    st.caption("Measure it under the target's scheme:")
    if view.study.analysis.source in launched.sources():
        st.button(
            f"Measure under {scheme}",
            on_click=measure_form.fill,
            args=(view.study.analysis.source,),
            kwargs={"expanded_units": view.study.analysis.expanded_units, "scheme": scheme},
            icon=":material/science:",
            key="_measure_scheme",
            help="Opens Measure with this model and this scheme chosen; nothing starts by itself.",
        )
    st.code(measure_command(view.study, target), language="bash", wrap_lines=True)


def bundle(view: View, side: Side) -> None:
    """Everything in one file."""
    opened, policy = view.opened, side.chosen.policy
    st.markdown("**Everything in one file**")
    st.caption(
        "The map, the reports with the decision on record, a file for every tool (illegal choices "
        "moved to the nearest legal precision) and the data behind every chart."
    )

    def made() -> bytes:
        try:
            known = tools.kept(opened)
        except QuantscapeError:  # names that do not fit: files that need them say so inside
            known = Known("none", "")
        return tools.bundled(opened, policy, known)

    st.download_button(
        "Download the bundle",
        made,
        file_name=exports.file_name(opened.name, side.label, "decision.zip"),
        mime="application/zip",
        on_click="ignore",
        icon=":material/folder_zip:",
        key="_download_bundle",
    )
