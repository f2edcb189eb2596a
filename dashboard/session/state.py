"""What a session remembers: the link it came by, the history of its policy, the pinned policy.

The bound widgets are the state of the policy; this module reads and writes them by key. They may
be written before they are drawn (a callback, or the start of a run), never after.
"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from core.decide import answer
from core.decide.policy.allowed import allowed_in_words, format_allowed
from core.decide.policy.budget import bounds_in_words
from core.decide.policy.policy import Policy, format_rules
from core.decide.study import Study
from core.errors import PolicyError
from dashboard.session import fit_allowed, links, studies
from dashboard.session.allowed_control import ALLOW, as_drawn, as_value
from dashboard.session.budget_controls import AXIS_OF, LOSS_BY, MAIN, budget_ends
from dashboard.session.control import Clamped, Control, Value
from dashboard.session.controls import controls, to_policy, to_values
from dashboard.session.give_way import give_way
from dashboard.session.studies import Opened
from dashboard.session.switch_model import SetAside, switch_model
from dashboard.session.tab import SESSION, Tab, TableRound

MAX_HISTORY = 200
ROUNDED = 1e-5
"""Share of a number that an address may round away."""


def session() -> Tab:
    """This tab's session; made on the first run, before any widget, to keep the raw link."""
    if SESSION not in st.session_state:
        link = st.query_params.to_dict()
        if ALLOW in link:  # one parameter for each name
            link[ALLOW] = format_allowed(st.query_params.get_all(ALLOW))
        st.session_state[SESSION] = Tab(link=link)
    found: Tab = st.session_state[SESSION]
    return found


def begin(opened: Opened) -> dict[str, Control]:
    """Make the controls of `opened` ready to draw: repairs, the link's values, legal ranges."""
    tab = session()
    for key, value in tab.repairs.items():
        st.session_state[key] = as_drawn(key, value)
    tab.repairs.clear()
    if not tab.link_read:
        links.take_allowed(tab.link, opened.study)
    allowed = fit_allowed.fit(tab, opened.study, opened.name)
    known = controls(opened.study, allowed)
    if not tab.link_read:
        tab.link_read = True
        found = links.read(tab.link, known, opened.study)
        for key, value in found.values.items():
            st.session_state[key] = as_drawn(key, value)
        tab.repairs.update(found.repairs)
        tab.fitted.update(found.fitted)
        tab.notices.extend(found.notices)
        if found.fitted:
            links.correct({key: one.value for key, one in found.fitted.items()})
    fit_allowed.redirect(tab, opened.study, allowed)
    if tab.model != opened.name:
        if tab.model:
            _switch_model(tab, opened, known)
        tab.model, tab.history, tab.place = opened.name, [], -1
        tab.last = studies.fallback(opened, tab.last)
    for key, control in known.items():
        if key in st.session_state:
            _legalise(key, control)
    for key in (*MAIN.values(), "least", LOSS_BY, "also"):
        # Streamlit writes a value that a callback gave to a control into the URL only if the
        # control was known in the run before, drawn or not.
        st.session_state.setdefault(key, known[key].default)
    return known


def _switch_model(tab: Tab, opened: Opened, known: dict[str, Control]) -> None:
    """Fit the policy to another model, and leave a notice of what could not come along."""
    back = tab.set_aside.pop(opened.name, SetAside())
    values = values_of(known)
    found = switch_model(values, known, opened.study, back, old=tab.model, new=opened.name)
    tab.set_aside[tab.model] = found.set_aside
    write(found.writes)
    if found.notice:
        tab.notices.append(found.notice)


def _legalise(key: str, control: Control) -> None:
    """A value kept from another model may not exist here."""
    held = as_value(key, st.session_state[key], control.default)
    try:
        value = control.read(str(held))
        if not isinstance(value, str) and value != held:
            st.session_state[key] = value
            session().fitted[key] = Clamped(float(held), value)
    except ValueError:
        if key not in {
            "pins",
            "overrides",
            "also",
        }:  # half-typed rules stay on screen with their message
            st.session_state[key] = as_drawn(key, control.default)


def fitted(key: str) -> str:
    """What is to be said of a number that was asked for and did not fit; empty once it was moved."""
    found = session().fitted.get(key)
    return "" if found is None or st.session_state.get(key) != found.value else found.in_words()


def values_of(known: dict[str, Control]) -> dict[str, Value]:
    """What every control holds, drawn or not."""
    return {
        key: as_value(key, st.session_state.get(key, c.default), c.default)
        for key, c in known.items()
    }


def settle(opened: Opened, known: dict[str, Control]) -> dict[str, PolicyError]:
    """Take the controls over: policy and history. Returns what was wrong, by key.

    Run before the controls are drawn, so that the figures need not wait for them. What is wrong
    keeps its last valid value, so that figures never vanish under a typo.
    """
    tab = session()
    values = values_of(known)
    if float(values["medium_at"]) > float(values["high_at"]):  # only a link can cross them
        tab.repairs["medium_at"] = values["high_at"]
        tab.fitted["medium_at"] = Clamped(float(values["medium_at"]), float(values["high_at"]))
    policy, problems = to_policy(values, tab.last, opened.study)
    if _between_ends(opened.study, policy, known):
        values = values_of(known)
        policy, problems = to_policy(values, tab.last, opened.study)
    tab.unkept = None
    try:
        answer.decide(opened.study, policy, give_way)
    except PolicyError as error:
        problems["policy"] = error
        tab.unkept = policy, error
        policy = studies.fallback(opened, replace(tab.last, hardware=policy.hardware))
    tab.last = policy
    _record(tab, values)
    return problems


def _between_ends(study: Study, policy: Policy, known: dict[str, Control]) -> bool:
    """Keep the slider of a budget between what exists under the rules of `policy`. Returns whether
    it was moved.
    """
    tab = session()
    strategy = str(st.session_state.get("strategy", known["strategy"].default))
    if strategy not in AXIS_OF:
        return False
    axis = AXIS_OF[strategy]
    key, ends = MAIN[axis], budget_ends(study, policy, axis)
    held = float(st.session_state.get(key, known[key].default))
    value = min(max(held, ends[0]), ends[1])
    drawn, tab.ends[key] = tab.ends.get(key), ends
    if drawn != ends:  # another widget for the browser, which knows no value yet
        st.session_state[key] = value
    if value == held:
        return False
    if held != known[key].default and abs(held - value) > ROUNDED * abs(held):
        tab.fitted[key] = Clamped(held, value)
    if drawn is None and key in st.query_params:
        links.correct({key: value})
    return True


def confirm(known: dict[str, Control], settled: dict[str, Value]) -> None:
    """Run again where drawing the controls changed them: repairs, or the browser's Back."""
    if session().repairs or values_of(known) != settled:
        st.rerun()


def _record(tab: Tab, values: dict[str, Value]) -> None:
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
        if as_value(key, st.session_state.get(key, ()), "") != value:
            st.session_state[key] = as_drawn(key, value)


def reset(study: Study) -> None:
    """All controls of the policy to their defaults; the model stays. Run from a callback."""
    write({key: control.default for key, control in controls(study).items()})


def load(policy: Policy, study: Study) -> None:
    """Put `policy` into the controls. Run from a callback."""
    write(to_values(policy, study))


def select(layer: str) -> None:
    """Make `layer` the one that every page speaks of; an empty name is none."""
    session().layer = layer


def selected(study: Study) -> str:
    """The selected layer, empty where none is, or where it belongs to another model."""
    layer = session().layer
    return layer if layer in study.layers.index else ""


def pin() -> None:
    """Make the current policy the one that others are held against."""
    tab = session()
    tab.pinned[tab.model] = tab.last


def unpin() -> None:
    """Compare with the reference precision again."""
    tab = session()
    tab.pinned.pop(tab.model, None)


def table_round(names: tuple[str, ...]) -> TableRound:
    """The table's round: a new one where its rows differ, or overrides changed elsewhere."""
    tab = session()
    text = str(st.session_state.get("overrides", ""))
    if tab.table.names != names or tab.table.text != text:
        tab.table = TableRound(tab.table.number + 1, tab.last.overrides, names, text)
    return tab.table


def set_overrides(edits: dict[str, str | None]) -> None:
    """Write the table's edits, by layer (None = automatic), into the shareable text.

    `edits` are all edits since the round began. Run from a callback.
    """
    tab = session()
    policy = replace(tab.last, overrides=tab.table.base)
    for layer, precision in edits.items():
        policy = policy.with_override(layer, precision)
    text = format_rules(policy.overrides)
    tab.table = replace(tab.table, text=text)
    st.session_state["overrides"] = text


def force(layer: str, precision: str | None) -> None:
    """Override one layer, or leave it to the policy again for None. Run from a callback."""
    policy = session().last.with_override(layer, precision)
    st.session_state["overrides"] = format_rules(policy.overrides)


def describe(policy: Policy) -> str:
    """A policy in a few words."""
    extra = len(policy.pins) + len(policy.overrides) + len(policy.groups)
    text = {
        "thresholds": f"thresholds {policy.high_threshold:.2f} / {policy.medium_threshold:.2f}",
        "top-k": f"top-k {policy.top_k}",
        "uniform": f"all {policy.uniform}",
        "manual": "manual",
        "budget": bounds_in_words(policy.budgets),
    }[policy.strategy]
    if policy.allowed and policy.strategy != "uniform":
        text += f", {allowed_in_words(policy.allowed)} alone"
    return f"{text} + {extra} rule{'s' if extra > 1 else ''}" if extra else text
