"""Files that come back: an imported map, a saved session.

What goes wrong in a callback is kept for the page to show beside the uploader that it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from core.decide import answer
from core.decide.assess.policy_of import policy_of
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.names import MAX_NAME, is_name
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError, PolicyError, QuantscapeError
from core.export.map import precision_map, session_file
from core.export.map.session_file import MAX_STRATEGIES, Session
from dashboard.display.text import plain
from dashboard.session import problems, state, strategies
from dashboard.session.controls import to_policy, to_values
from dashboard.session.exports import file_name
from dashboard.session.problems import MAP, SESSION
from dashboard.session.studies import Opened
from dashboard.session.tab import Named
from dashboard.session.view import View

MAX_MB = precision_map.MAX_BYTES // 10**6

UPLOADS = "_files"
DEFAULT_NAME = "Imported"


@dataclass(frozen=True, eq=False, slots=True)
class Imported:
    """A map from a file: what it was called, and the policy that gives it back."""

    file: str
    name: str
    chosen: PrecisionMap
    policy: Policy


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A session from a file, not yet put back."""

    file: str
    policy: Policy
    pinned: Policy | None
    kept: tuple[Named, ...]


@dataclass
class Uploads:
    """What was read from files in this browser tab, for the analysis under `key`."""

    key: str = ""
    imported: Imported | None = None
    waiting: Waiting | None = None


def kept(opened: Opened) -> Uploads:
    """This tab's files; another analysis begins with none."""
    found: Uploads = st.session_state.setdefault(UPLOADS, Uploads())
    if found.key != opened.key:
        found.key, found.imported, found.waiting = opened.key, None, None
        problems.solve(MAP, SESSION)
    return found


def strategy_name(file: str, model: str) -> str:
    """A name for the map in `file`: what `file_name` put around it is taken off."""
    stem = file.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".json")
    stem = stem.removeprefix(f"{file_name(model)}.").removesuffix(".precision_map")
    name = "".join(c if c.isprintable() else " " for c in stem)[:MAX_NAME].strip()
    return name if is_name(name) else DEFAULT_NAME


def take_map(uploader: str, opened: Opened) -> None:
    """Read the map that was chosen in the uploader. Run from its callback."""
    found, given = kept(opened), _chosen(uploader, MAP)
    found.imported = None
    if given is None:
        return
    file, raw = given
    try:
        chosen = precision_map.from_json(raw, opened.study, file)
        policy = policy_of(opened.study, chosen)
    except QuantscapeError as error:
        problems.keep(MAP, error)
    else:
        found.imported = Imported(file, strategy_name(file, opened.name), chosen, policy)


def take_session(uploader: str, opened: Opened) -> None:
    """Read the session that was chosen in the uploader. Run from its callback."""
    found, given = kept(opened), _chosen(uploader, SESSION)
    found.waiting = None
    if given is None:
        return
    file, raw = given
    with problems.attempt(SESSION):
        found.waiting = read_session(raw, opened.study, file)


def read_session(raw: bytes, study: Study, origin: str) -> Waiting:
    """The session that `raw` holds for `study`. Raises `MapError` where anything does not fit."""
    read = session_file.from_json(raw, study, origin)
    policies = [
        (one.name, policy_of(study, session_file.restore(one, study, origin)))
        for one in (*((read.pinned,) if read.pinned else ()), *read.strategies)
    ]
    pinned = policies.pop(0)[1] if read.pinned else None
    return Waiting(origin, read.policy, pinned, tuple(Named(*one) for one in policies))


def _chosen(uploader: str, where: str) -> tuple[str, bytes] | None:
    """Name and bytes of the file; an earlier problem of that uploader is over."""
    problems.solve(where)
    given = st.session_state.get(uploader)
    return None if given is None else (str(given.name), bytes(given.getvalue()))


def put_away(opened: Opened) -> None:
    """Forget the imported map. Run from a callback."""
    kept(opened).imported = None


def load(policy: Policy, study: Study, where: str = MAP) -> None:
    """Put `policy` into the controls, if they can say its map exactly. Run from a callback."""
    problems.solve(where)
    again, wrong = to_policy(to_values(policy, study), policy, study)
    if wrong or (answer.decide(study, again).codes != answer.decide(study, policy).codes).any():
        error = PolicyError(
            "The controls cannot say this map exactly.",
            "Keep it for Compare, where it stays as it is.",
        )
        problems.keep(where, error)
    else:
        state.load(policy, study)


def keep(view: View, found: Imported) -> None:
    """Keep the imported map among the person's strategies. Run from a callback."""
    problems.solve(MAP)
    name = strategies.free_name(view, found.name)
    with problems.attempt(MAP):
        strategies.keep(name, found.policy, strategies.reserved(view))
        state.session().notices.append(f"Kept as {plain(name)}.")


def saved(study: Study, policy: Policy, pinned: Policy | None, kept: tuple[Named, ...]) -> bytes:
    """A session file of the policy at hand, the pinned one and the strategies kept."""

    def entry(name: str, given: Policy) -> session_file.KeptStrategy:
        return session_file.entry(study, name, answer.decide(study, given))

    return session_file.to_json(Session(
        study.analysis.identity, policy,
        None if pinned is None else entry(strategies.PINNED, pinned),
        tuple(entry(one.name, one.policy) for one in kept),
    ))  # fmt: skip


def add(view: View, found: Waiting) -> None:
    """Add the strategies of a session that are not there already. Run from a callback."""
    for one in found.kept:
        if one not in strategies.kept():
            name = strategies.free_name(view, one.name)
            strategies.keep(name, one.policy, strategies.reserved(view))


def restore(view: View, found: Waiting, *, merge: bool) -> None:
    """Put a session back: in place of what is kept, or added to it. Run from a callback.

    Added strategies that are there already are left out, and a pin of one's own stays.
    """
    tab, mine = state.session(), strategies.kept() if merge else ()
    fresh = [one for one in found.kept if one not in mine]
    if len(mine) + len(fresh) > MAX_STRATEGIES:
        error = MapError(
            f"Together these are more than {MAX_STRATEGIES} strategies.",
            "Delete some, or replace yours.",
        )
        problems.keep(SESSION, error)
        return
    load(found.policy, view.study, SESSION)
    if problems.of(SESSION) is not None:
        return
    strategies.replace_all(mine)
    add(view, found)
    if found.pinned is not None and not (merge and view.pinned):
        tab.pinned[tab.model] = found.pinned
    elif not merge:
        tab.pinned.pop(tab.model, None)
    kept(view.opened).waiting = None
    tab.notices.append(f"Session restored from {plain(found.file)}. Undo brings your policy back.")
