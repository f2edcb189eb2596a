"""What comes back from files: a map to look at, load or keep, and a saved session."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st

from core.decide.assess.difference import difference, in_words
from core.decide.policy.decision import BY_OVERRIDE
from core.export.map.checklist import named
from dashboard.display.text import COSTS, counts_in_words, format_quantity, plain, with_range
from dashboard.session import browser_store, exports, problems, state, strategies, studies, uploads
from dashboard.session.problems import MAP, SESSION
from dashboard.session.studies import Opened
from dashboard.session.uploads import MAX_MB, Imported, Waiting
from dashboard.session.view import View

MAP_UPLOADER, SESSION_UPLOADER = "import_map", "import_session"


def draw(view: View) -> None:
    """Read a map back."""
    st.markdown("**Import a map**")
    st.caption(
        "A precision_map.json of this model. Its precisions are taken over; its figures are "
        "recomputed, not believed."
    )
    _uploader("Precision map", MAP_UPLOADER, uploads.take_map, view)
    problems.show(MAP)
    found = uploads.kept(view.opened).imported
    if found is not None:
        _imported(view, found)


def _uploader(title: str, key: str, take: Callable[[str, Opened], None], view: View) -> None:
    st.file_uploader(
        f"{title} (JSON, at most {MAX_MB} MB)",
        type="json",
        key=key,
        max_upload_size=MAX_MB,
        on_change=take,
        args=(key, view.opened),
    )


def _imported(view: View, found: Imported) -> None:
    hardware = view.policy.hardware
    chosen, priced = studies.priced_on(view.opened, found.policy, hardware)
    by_hand = np.flatnonzero(found.chosen.origin == BY_OVERRIDE)
    changes = difference(view.now.chosen, chosen)
    labels = view.loss_labels
    titles = COSTS | {name: plain(labels.title(name)) for name in labels.foremost}
    rows = {
        "Layers": counts_in_words(chosen) or "none",
        **{
            title: f"{with_range(priced.totals[key])} {labels.kind(key, priced.totals[key].kind)}"
            if priced.totals[key].value is not None else format_quantity(priced.totals[key])
            for key, title in titles.items()
        },
        "Against the current map": in_words(changes),
        "Set by hand": f"{len(by_hand):,}: "
        + named([view.study.layers.names[i] for i in by_hand]) if len(by_hand) else "no layer",
        "Policy": state.describe(found.chosen.policy),
    }  # fmt: skip
    st.success(f"{plain(found.file)} fits this model.", icon=":material/check_circle:")
    st.markdown("\n".join(f"- **{name}**: {plain(text)}" for name, text in rows.items()))
    if found.chosen.policy.hardware != hardware:
        st.caption(
            f"The file's device is {found.chosen.policy.hardware}; the latency here is for "
            f"{hardware}, chosen in the sidebar."
        )
    with st.container(horizontal=True):
        st.button(
            "Load into the controls",
            on_click=uploads.load,
            args=(found.policy, view.study),
            type="primary",
            key="_import_load",
            help="The sidebar takes its policy over. Undo brings yours back.",
        )
        st.button(
            "Keep for Compare",
            on_click=uploads.keep,
            args=(view, found),
            key="_import_keep",
            help=f"Keep it as {plain(strategies.free_name(view, found.name))}.",
        )
        st.button("Dismiss", on_click=uploads.put_away, args=(view.opened,), type="tertiary",
                  key="_import_dismiss")  # fmt: skip


def session(view: View) -> None:
    """Save what a refresh would lose, and put it back."""
    kept, pinned = strategies.kept(), state.session().pinned.get(view.opened.name)
    study, policy = view.study, view.policy
    st.markdown("**Session**")
    st.caption(
        "A reload (F5) keeps the policy, which is in the link, and the pinned map and your "
        "strategies of this analysis, which are in this browser's own store and in no link. A file "
        "takes them elsewhere."
        if browser_store.fits(view.opened)
        else "The pinned map and your strategies are too much for this browser's store: a reload "
        "(F5) loses them. Save them in a file."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Save session",
            lambda: uploads.saved(study, policy, pinned, kept),
            file_name=exports.file_name(view.opened.name, "session.json"),
            mime="application/json",
            on_click="ignore",
            icon=":material/save:",
            key="_session_save",
        )
        st.caption(_holds(pinned is not None, len(kept)), width="content")
        st.button("Forget them", on_click=browser_store.forget, type="tertiary",
                  key="_forget", disabled=not kept and pinned is None,
                  help="Unpins, and lets go of your strategies of this analysis, here and in the "
                  "browser's store.")  # fmt: skip
    _uploader("Restore session", SESSION_UPLOADER, uploads.take_session, view)
    problems.show(SESSION)
    found = uploads.kept(view.opened).waiting
    if found is not None:
        _waiting(view, found, nothing_kept=not kept and pinned is None)


def _holds(pinned: bool, kept: int) -> str:
    if not pinned and not kept:
        return "Holds the policy; nothing is pinned or kept."
    parts = ["the policy"]
    parts += ["the pinned map"] if pinned else []
    parts += [f"{kept} strateg{'y' if kept == 1 else 'ies'}"] if kept else []
    return f"Holds {', '.join(parts[:-1])} and {parts[-1]}."


def _waiting(view: View, found: Waiting, *, nothing_kept: bool) -> None:
    names = f" Strategies: {named([one.name for one in found.kept])}." if found.kept else ""
    st.success(
        f"{plain(found.file)} fits this model. "
        f"{_holds(found.pinned is not None, len(found.kept))}{plain(names)}",
        icon=":material/check_circle:",
    )
    with st.container(horizontal=True):
        for title, merge, text in (
            ("Restore session" if nothing_kept else "Replace mine", False,
             "Policy, pinned map and strategies become those of the file."),
            ("Add to mine", True,
             "The policy becomes the file's; its strategies join yours, and your pin stays."),
        ):  # fmt: skip
            if nothing_kept and merge:
                continue
            st.button(
                title,
                on_click=uploads.restore,
                args=(view, found),
                kwargs={"merge": merge},
                type="secondary" if merge else "primary",
                key=f"_session_{'merge' if merge else 'replace'}",
                help=text,
            )
