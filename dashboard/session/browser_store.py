"""The pinned map and the kept strategies in the browser's own store, so that a reload keeps them.

Each analysis has a place of its own, named by its folder and its model, which holds a session file,
compressed: nothing of it is in a link, and the server keeps nothing. Tabs share a place: each adds
what another wrote there to its own before it writes. What comes back from the browser is checked
like an uploaded session, since any page script or person can have written it.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import streamlit as st

from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError, QuantscapeError
from core.export.map.precision_map import MAX_BYTES
from dashboard.display.text import plain
from dashboard.session import state, strategies, uploads, view
from dashboard.session.studies import Opened
from dashboard.session.tab import Named

PREFIX = "quantscape/"
MOST_ANALYSES = 16
MOST_CHARACTERS = 250_000
"""Of one analysis; a browser gives a site some five million in all."""
READ = "held"
ORIGIN = "The session that this browser kept"

_STORE = st.components.v2.component(
    "quantscape_browser_store", js=(Path(__file__).parent / "browser_store.js").read_text()
)


def place_of(opened: Opened) -> str:
    """The name of an analysis's place in the store; nothing can be read from it."""
    folder = opened.key.rpartition("@")[0]
    model = msgspec.json.encode(opened.study.analysis.identity)
    return PREFIX + sha256(folder.encode() + b"|" + model).hexdigest()[:24]


def pack(session: bytes) -> str:
    """A session file as text for the store."""
    return base64.b64encode(zlib.compress(session, 9)).decode()


def unpack(text: object) -> bytes:
    """The session file behind what the store gave. Raises `MapError` for anything else."""
    broken = MapError(f"{ORIGIN} cannot be read.", "Pin and keep anew.")
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise broken
    try:
        unpacking = zlib.decompressobj()
        raw = unpacking.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise broken from error
    if not unpacking.eof:  # cut off, or larger than any session
        raise broken
    return raw


def sync(opened: Opened) -> None:
    """Read the place of `opened` once in the life of a tab; from then on keep it up to date."""
    tab, place = state.session(), place_of(opened)
    text = _text(opened)
    if text != "" or place in tab.in_browser:
        tab.in_browser[place] = text or ""
    if text:
        tab.forgotten.discard(place)
    _STORE(
        key=_key(place),
        data={"place": place, "prefix": PREFIX, "most": MOST_ANALYSES,
              "text": tab.in_browser.get(place), "forget": place in tab.forgotten},
        on_held_change=take,
    )  # fmt: skip


def fits(opened: Opened) -> bool:
    """Whether a reload keeps what is pinned and kept."""
    return _text(opened) is not None


def _key(place: str) -> str:
    return f"_{place}"


def _text(opened: Opened) -> str | None:
    """What the store should hold: empty for nothing, None for what does not fit into it."""
    pinned, kept = state.session().pinned.get(opened.name), strategies.kept()
    if pinned is None and not kept:
        return ""
    text = _packed(opened.key, repr((pinned, kept)), opened.study, pinned, kept)
    return text if text is not None and len(text) <= MOST_CHARACTERS else None


@st.cache_data(max_entries=64, show_spinner=False)
def _packed(
    key: str, what: str, _study: Study, _pinned: Policy | None, _kept: tuple[Named, ...]
) -> str | None:
    policy = _pinned or _kept[0].policy  # the one on screen is in the link
    try:
        return pack(uploads.saved(_study, policy, _pinned, _kept))
    except QuantscapeError:  # a map that this analysis cannot give any more
        return None


def take() -> None:
    """Take over what the browser sent, or drop it with a sentence. Run as the callback.

    What another tab kept is added to what this one keeps; its pin, where this tab has another, as a
    strategy.
    """
    shown, tab = view.current(), state.session()
    place = place_of(shown.opened)
    sent = st.session_state.get(_key(place))
    text = None if sent is None else sent.get(READ)
    if text is None or text == tab.in_browser.get(place):
        return
    of_another_tab, before = place in tab.in_browser, len(strategies.kept())
    try:
        found = uploads.read_session(unpack(text), shown.study, ORIGIN)
    except QuantscapeError as error:
        tab.in_browser.setdefault(place, "")
        tab.notices.append(f"{plain(error.cause)} It was dropped.")
        return
    theirs = found.pinned
    if (
        theirs is not None
        and tab.pinned.setdefault(tab.model, theirs) != theirs
        and theirs not in [one.policy for one in strategies.kept()]
    ):
        found = replace(found, kept=(*found.kept, Named(strategies.PINNED, theirs)))
    try:
        uploads.add(shown, found)
    except QuantscapeError as error:
        tab.notices.append(f"Not all that another tab kept has room here. {plain(error.cause)}")
    tab.in_browser.setdefault(place, str(text))
    more = len(strategies.kept()) - before
    if of_another_tab and more:
        tab.notices.append(f"Another tab kept {more} more of this model: they are here too now.")


def forget() -> None:
    """Unpin, and let go of all strategies of the model on screen, here and in the browser.

    Run from a callback.
    """
    place = place_of(view.current().opened)
    state.unpin()
    strategies.replace_all(())
    strategies.forget_deleted()
    state.session().in_browser[place] = ""
    state.session().forgotten.add(place)
