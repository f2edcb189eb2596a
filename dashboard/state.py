"""What a session remembers: the link it came by, the history of its policy, the pinned policy.

The bound widgets are the state of the policy; this module reads and writes them by key. They may
be written before they are drawn (a callback, or the start of a run), never after.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

import streamlit as st

from core.decide.policy import Policy, format_rules, parse_rules
from core.errors import PolicyError
from core.study import Study
from dashboard import studies
from dashboard.controls import MODEL, Control, Value, controls, to_policy, to_values
from dashboard.studies import Opened

SESSION = "_session"
MAX_HISTORY = 200


@dataclass
class Session:
    """One browser tab. `link` is the text of the URL's parameters when it was opened."""

    link: dict[str, str]
    link_read: bool = False
    model: str = ""
    history: list[dict[str, Value]] = field(default_factory=list)
    place: int = -1
    pinned: dict[str, Policy] = field(default_factory=dict)
    last: Policy = field(default_factory=Policy)
    repairs: dict[str, Value] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    table_overrides: str = ""
    table_round: int = 0
    hint_seen: bool = False


def session() -> Session:
    """This tab's session; made on the first run, before any widget, to keep the raw link."""
    if SESSION not in st.session_state:
        st.session_state[SESSION] = Session(link=st.query_params.to_dict())
    found: Session = st.session_state[SESSION]
    return found


def begin(opened: Opened) -> dict[str, Control]:
    """Make the controls of `opened` ready to draw: repairs, the link's values, legal ranges."""
    tab = session()
    known = controls(opened.study)
    for key, value in tab.repairs.items():
        st.session_state[key] = value
    tab.repairs.clear()
    if not tab.link_read:
        tab.link_read = True
        _read_link(tab, known, opened.study)
    for key, control in known.items():
        if key in st.session_state:
            _legalise(key, control)
    if tab.model != opened.name:
        tab.model, tab.history, tab.place = opened.name, [], -1
        tab.last = studies.fallback(opened, tab.last)
    return known


def _legalise(key: str, control: Control) -> None:
    """A value kept from another model may not exist here."""
    try:
        control.read(str(st.session_state[key]))
    except ValueError:
        if key not in {"pins", "overrides"}:  # half-typed rules stay on screen with their message
            st.session_state[key] = control.default


def _read_link(tab: Session, known: dict[str, Control], study: Study) -> None:
    ignored = [key for key in tab.link if key not in known and key != MODEL]
    for key, control in known.items():
        if key not in tab.link:
            continue
        try:
            st.session_state[key] = control.read(tab.link[key])
        except ValueError:
            ignored.append(key)
            tab.repairs[key] = control.default
    if MODEL in tab.link and tab.link[MODEL] not in studies.entries():
        ignored.append(MODEL)
    if ignored:
        tab.notices.append(
            f"Link had values that mean nothing here: {', '.join(sorted(ignored))} ignored, "
            "defaults used."
        )
    strangers = _strangers(tab.link.get("overrides", ""), study)
    if strangers:
        tab.notices.append(
            f"Link had layer names that are not in this model: {len(strangers)} ignored"
        )


def _strangers(text: str, study: Study) -> list[str]:
    try:
        rules = parse_rules(text)
    except PolicyError:
        return []
    return [name for name, _ in rules if name not in study.layers.index]


def values_of(known: dict[str, Control]) -> dict[str, Value]:
    """What every control holds, drawn or not."""
    return {key: st.session_state.get(key, c.default) for key, c in known.items()}


def settle(opened: Opened, known: dict[str, Control]) -> dict[str, PolicyError]:
    """Take the controls over: policy and history. Returns what was wrong, by key.

    Run before the controls are drawn, so that the figures need not wait for them. What is wrong
    keeps its last valid value, so that figures never vanish under a typo.
    """
    tab = session()
    values = values_of(known)
    if float(values["medium_at"]) > float(values["high_at"]):  # only a link can cross them
        tab.repairs["medium_at"] = values["high_at"]
    policy, problems = to_policy(values, tab.last)
    try:
        opened.study.decide(policy)
    except PolicyError as error:
        problems["policy"] = error
        policy = replace(studies.fallback(opened, tab.last), hardware=policy.hardware)
    tab.last = policy
    _record(tab, values)
    return problems


def confirm(known: dict[str, Control], settled: dict[str, Value]) -> None:
    """Run again where drawing the controls changed them: repairs, or the browser's Back."""
    if session().repairs or values_of(known) != settled:
        st.rerun()


def _record(tab: Session, values: dict[str, Value]) -> None:
    if tab.place >= 0 and tab.history[tab.place] == values:
        return
    del tab.history[tab.place + 1 :]
    tab.history.append(values)
    del tab.history[:-MAX_HISTORY]
    tab.place = len(tab.history) - 1


def move(step: int) -> None:
    """Undo (-1) or redo (+1): write the controls that differ. Run from a callback."""
    tab = session()
    target = tab.place + step
    if 0 <= target < len(tab.history):
        tab.place = target
        write(tab.history[target])


def write(values: dict[str, Value]) -> None:
    """Write controls that differ from what they hold. Run before they are drawn."""
    for key, value in values.items():
        if st.session_state.get(key) != value:
            st.session_state[key] = value


def reset(known: dict[str, Control]) -> None:
    """All controls of the policy to their defaults; the model stays. Run from a callback."""
    write({key: control.default for key, control in known.items()})


def load(policy: Policy, study: Study) -> None:
    """Put `policy` into the controls. Run from a callback."""
    write(to_values(policy, study))


def pin() -> None:
    """Make the current policy the one that others are held against."""
    tab = session()
    tab.pinned[tab.model] = tab.last


def unpin() -> None:
    """Compare with the reference precision again."""
    tab = session()
    tab.pinned.pop(tab.model, None)


def set_override(edits: dict[str, str | None]) -> None:
    """Override layers by name (None = automatic) in the shareable text. Run from a callback."""
    tab = session()
    policy = tab.last
    for layer, precision in edits.items():
        policy = policy.with_override(layer, precision)
    tab.table_overrides = format_rules(policy.overrides)
    st.session_state["overrides"] = tab.table_overrides


def describe(policy: Policy) -> str:
    """A policy in a few words."""
    extra = len(policy.pins) + len(policy.overrides)
    text = {
        "thresholds": f"thresholds {policy.high_threshold:.2f} / {policy.medium_threshold:.2f}",
        "top-k": f"top-k {policy.top_k}",
        "uniform": f"all {policy.uniform}",
        "manual": "manual",
    }[policy.strategy]
    return f"{text} + {extra} rule{'s' if extra > 1 else ''}" if extra else text


def link(known: dict[str, Control]) -> str:
    """The full URL of what is on screen; values at their default are left out."""
    values = values_of(known)
    changed = {k: _text(v) for k, v in values.items() if v != known[k].default}
    model = st.session_state.get(MODEL)
    if model and model != next(iter(studies.entries())):
        changed = {MODEL: model, **changed}
    address = (st.context.url or "").rstrip("/") or "http://localhost:8501"
    return f"{address}/?{urlencode(changed)}" if changed else address


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
