"""The sidebar: the whole policy, every control bound to the URL."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.decide.policy.decision import sides
from core.decide.study import Study
from core.errors import MAX_NAMED, InfeasibleError, PolicyError, QuantscapeError, listed
from core.estimate import hardware as hardware_profiles
from core.estimate.size import fixed_bytes
from core.evidence.scorers import SCORERS
from core.export.map.words import count
from core.quantity import written
from dashboard.charts.layers import in_words
from dashboard.display.boundary import show_expected
from dashboard.display.text import format_number, plain
from dashboard.frame import actions, budgets
from dashboard.frame.budgets import beside
from dashboard.session import allowed_control, fit_allowed, idle, state, studies
from dashboard.session.allowed_control import ALLOW
from dashboard.session.budget_controls import AXIS_OF, STRATEGIES
from dashboard.session.control import Control
from dashboard.session.controls import MODEL, movable_layers, precisions_offered, weight_key
from dashboard.session.studies import ModelEntry
from dashboard.session.view import View

IN_VIEW = ("theory", "importance", "empirical", "output_error", "kl")
"""Scorers whose sliders come first; the others are behind an expander of their own."""
RULES = ("pins", "overrides", "groups", "also")
"""Keys of the texts with rules."""
MOST_NAMED = 5
WHOLE_IN_THREE = 4
"""Characters of a precision that three selects side by side show whole."""
STRATEGY_HELP = (
    "**Thresholds**: each layer's level (HIGH, MEDIUM, LOW) decides.  \n"
    "**Top-k**: the k least sensitive layers go to the LOW precision, the rest to HIGH's.  \n"
    "**Size, latency, loss budget**: the map with the least projected loss within a size or a "
    "latency, or the smallest or fastest within a loss, with interactions between layers.  \n"
    "**Uniform**: one precision everywhere.  \n"
    "**Manual**: everything in HIGH's precision until you override it."
)


def choose_model() -> ModelEntry:
    """The model select."""
    entries = studies.entries()
    name = st.selectbox(
        "Model",
        list(entries),
        key=MODEL,
        bind="query-params",
        help="Analyses named at launch come first, then the bundled samples, then what you "
        "measured.",
    )
    return entries[name or next(iter(entries))]


def model_line(study: Study) -> None:
    """Size of the model, what is known of it, and which records could not be read."""
    st.caption(_model_line(study), help=_left_out(study))


def _model_line(study: Study) -> str:
    size = format_number(int(study.size_bytes[0].sum()) + study.glue_bytes, "bytes")
    evidence = study.analysis.evidence
    how = "nothing measured" if evidence is None else f"{evidence.samples:,} samples"
    if study.analysis.partial is not None:
        how += f" · :orange[{study.analysis.partial.in_words()}]"
    if study.layers.unreached:
        how += f" · :orange[never reached: {plain(listed(study.layers.unreached))}]"
    left_out = len(study.analysis.left_out)
    if left_out:
        how += f" · :orange[{count(left_out, 'record')} left out]"
    fixed = written(fixed_bytes(study.layers), "bytes")
    return (
        f"{count(len(study.layers), 'layer')} · {size} in {study.precisions[0]} "
        f"(in no layer: {fixed}) · {how}"
    )


def _left_out(study: Study) -> str | None:
    """What is wrong with each record that was left out; None where none was."""
    said = study.analysis.left_out[:MAX_NAMED]
    return "Left out:\n" + "\n".join(f"- {plain(one)}" for one in said) if said else None


def draw(view: View, known: dict[str, Control], problems: dict[str, PolicyError]) -> None:
    """Every control of the policy, what was wrong with them, and what can be done to it."""
    study = view.study
    actions_slot = st.container()
    why = idle.reasons(view, state.values_of(known))
    said_slot = _strategy(view, known, why).empty()
    _allowed(view)
    _weights(study, known, problems.get("weights"), why)
    weights_slot = st.container()
    _rules(view, problems, why)
    profiles = dict(hardware_profiles.profiles())
    here = hardware_profiles.THIS_MACHINE
    if study.analysis.profile is not None or st.session_state.get("hardware") == here:
        profiles = {here: hardware_profiles.get(here), **profiles}
    device = st.selectbox(
        "Hardware",
        list(profiles),
        key="hardware",
        bind="query-params",
        help="Latency is estimated from this device's published peaks; Method lists the sources.",
    )
    if device in profiles:
        st.caption(profiles[device].title)
    if "policy" in problems:
        of_budgets = isinstance(problems["policy"], InfeasibleError)
        with said_slot.container() if of_budgets else weights_slot:
            _wrong(problems["policy"])
            budgets.offer(view)
    elif view.policy.strategy == "thresholds":
        counts = sides(view.now.chosen)
        said_slot.caption(" · ".join(f"{counts[k]:,} {k}" for k in ("HIGH", "MEDIUM", "LOW")))
    elif view.policy.strategy == "budget":
        budgets.found(view, said_slot)
    else:
        said_slot.caption(f"Gives {in_words(view)}.")
    with actions_slot:
        actions.draw(known, study)


def _strategy(view: View, known: dict[str, Control], why: Mapping[str, str]) -> DeltaGenerator:
    """The strategy with its main control. Returns where what it gives is said."""
    study = view.study
    strategy = st.pills(
        "Strategy",
        STRATEGIES,
        default=known["strategy"].default,
        key="strategy",
        bind="query-params",
        required=True,
        help=STRATEGY_HELP,
    )
    if strategy in AXIS_OF:
        return budgets.slider(view, known, AXIS_OF[strategy], why)
    slot = None
    if strategy == "thresholds":
        slot = _thresholds(known, why)
    elif strategy == "top-k" and movable_layers(study):
        st.slider(
            "Layers to narrow (k)",
            0,
            movable_layers(study),
            int(known["k"].default),
            key="k",
            bind="query-params",
            help="The k layers with the lowest scores go to the precision of LOW.",
        )
        beside("k", why)
    elif strategy == "top-k":
        st.caption(why.get("k", ""))
    elif strategy == "uniform":
        st.segmented_control(
            "Precision of every layer",
            precisions_offered(study, allowed_control.current(study)),
            default=known["uniform"].default,
            key="uniform",
            bind="query-params",
            required=True,
            help="Layers that do nothing at inference get none.",
        )
        beside("uniform", why)
    if strategy != "uniform":
        _destinations(study, known, str(strategy), why)
    return slot or st.container()


def _thresholds(known: dict[str, Control], why: Mapping[str, str]) -> DeltaGenerator:
    for key, other, title, meaning in (
        ("high_at", "medium_at", "HIGH from score", "HIGH: keep it precise"),
        ("medium_at", "high_at", "MEDIUM from score", "MEDIUM, below it LOW"),
    ):
        st.slider(
            title,
            0.0,
            1.0,
            float(known[key].default),
            0.01,
            key=key,
            bind="query-params",
            on_change=_push,
            args=(key, other),
            help=f"A layer whose score reaches this is {meaning}. Scores run from 0 to 1, higher "
            "= more sensitive. MEDIUM never lies above HIGH: one slider takes the other along.",
        )
        beside(key, why)
    return st.container()


def _push(moved: str, other: str) -> None:
    """Keep MEDIUM at or below HIGH: the slider that was moved takes the other along."""
    at, rest = st.session_state[moved], st.session_state.get(other)
    if rest is not None and (at < rest if moved == "high_at" else at > rest):
        st.session_state[other] = at


def _destinations(
    study: Study, known: dict[str, Control], strategy: str, why: Mapping[str, str]
) -> None:
    needed = {"thresholds": ("high", "medium", "low"), "top-k": ("high", "low")}
    keys = needed.get(strategy, ("high",))
    offered = precisions_offered(study, allowed_control.current(study))
    is_long = max(map(len, offered)) > WHOLE_IN_THREE
    grid = st.grid(len(keys), min_column_width=112 if is_long else 64, gap="xsmall")
    for key in keys:
        grid.selectbox(
            f"{key.upper()} to",
            offered,
            index=offered.index(str(known[key].default)),
            key=key,
            bind="query-params",
        )
    if said := " ".join(dict.fromkeys(why[key] for key in keys if key in why)):
        st.caption(said)


def _allowed(view: View) -> None:
    """Which precisions may be chosen, and which levels go elsewhere since theirs may not."""
    study = view.study
    every = precisions_offered(study)
    chosen = st.pills(
        "Allowed precisions",
        every,
        selection_mode="multi",
        default=every,
        key=ALLOW,
        bind="query-params",
        help="Strategies choose among these alone, budgets and the frontier too. A pin or an override "
        "may name another. A layer that none of them serves stays in FP32 and is named.",
    )
    if not chosen:
        st.caption("None is chosen, so all are allowed.")
    for sentence in fit_allowed.said(state.session(), view.policy):
        st.caption(f":orange[:material/warning:] {sentence}")


def _opens(name: str, said: bool) -> bool:
    """Whether an expander opens by itself: it does once something in it is wrong, and then stays
    as the person leaves it, or mending the fault would close it under their hands.
    """
    opened = state.session().opened
    if said:
        opened.add(name)
    return name in opened


def _wrong(error: PolicyError) -> None:
    show_expected(QuantscapeError(error.cause, f"{error.next_step} Last valid kept."))


def _weights(
    study: Study, known: dict[str, Control], wrong: PolicyError | None, why: Mapping[str, str]
) -> None:
    values: dict[str, float] = {}
    with st.expander(
        "Scorer weights", icon=":material/balance:", expanded=_opens("weights", wrong is not None)
    ):
        beside(idle.WEIGHTS, why)
        for name in IN_VIEW:
            values[name] = _weight(study, known, name, why)
        shares = st.container()
    with st.expander("More scorers", icon=":material/balance:"):
        beside(idle.WEIGHTS, why)
        for name in SCORERS:
            if name not in IN_VIEW:
                values[name] = _weight(study, known, name, why)
    total = sum(values.values())
    if wrong is not None:
        with shares:
            _wrong(wrong)
    elif total > 0:
        parts = (f"{SCORERS[n].title} {values[n] / total:.0%}" for n in SCORERS if values[n])
        shares.caption("Shares: " + " · ".join(parts))


def _weight(study: Study, known: dict[str, Control], name: str, why: Mapping[str, str]) -> float:
    scorer = SCORERS[name]
    value: float = st.slider(
        scorer.title,
        0.0,
        1.0,
        float(known[weight_key(name)].default),
        0.05,
        key=weight_key(name),
        bind="query-params",
        disabled=name not in study.scores,
        help=f"{scorer.description} Source: {scorer.source}.",
    )
    beside(weight_key(name), why)
    return value


def _rules(view: View, problems: dict[str, PolicyError], why: Mapping[str, str]) -> None:
    """Texts with rules, and below each what is wrong with it: the expander then opens by itself."""
    unmatched = _unmatched(view)

    def below(key: str) -> None:
        if key in problems:
            _wrong(problems[key])
        elif unmatched.get(key):
            names = plain(", ".join(unmatched[key][:MOST_NAMED]))
            st.caption(f":orange[:material/warning:] No layer matches {names}.")
        elif key in why:
            st.caption(why[key])

    said = any(unmatched.values()) or any(key in problems for key in RULES)
    with st.expander(
        "Pins, overrides, further budgets",
        icon=":material/push_pin:",
        expanded=_opens("rules", said),
    ):
        st.text_input(
            "Pins",
            key="pins",
            bind="query-params",
            placeholder="head*=FP16, blocks.0.*=INT8",
            help="Wildcard=precision, separated by commas; the last that matches wins. A pin beats "
            "the strategy.",
        )
        below("pins")
        st.text_input(
            "Overrides",
            key="overrides",
            bind="query-params",
            placeholder="head=FP16",
            help="Layer=precision, separated by commas. An override beats a pin. The table on Tune "
            "writes here, and the link carries it.",
        )
        below("overrides")
        budgets.groups()
        below("groups")
        budgets.further()
        below("also")


def _unmatched(view: View) -> dict[str, list[str]]:
    """Wildcards and names of each text that match no layer of the model."""
    policy, ignored = view.policy, view.now.chosen.ignored
    written = {
        "pins": [pattern for pattern, _ in policy.pins],
        "overrides": [layer for layer, _ in policy.overrides],
        "groups": list(policy.groups),
    }
    return {key: [n for n in names if n in ignored] for key, names in written.items()}
