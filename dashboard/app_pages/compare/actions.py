"""Which strategies are side by side, and what can be done to them from there.

The choice is kept by model and by name in the session. Until a person makes one it follows the
pinned map and the person's own strategies. Everything that changes something is a callback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import streamlit as st

from core.decide.assess.strategies import DOCUMENT
from core.decide.policy.names import MAX_NAME
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.numerics import precision as registry
from dashboard.display.strategy_marks import MOST
from dashboard.display.text import plain
from dashboard.session import problems, state, strategies
from dashboard.session.strategies import CURRENT, PINNED, Offer
from dashboard.session.view import View, current

NEW_NAME = "compare_new_name"
"""Key of the widget with the name for the map on screen."""
KEEPING, RESTORING = "keeping", "restoring"
"""Places of a problem on the page, beside the card of a strategy: "card:NAME"."""
_CHOICES, _LOADED = "_compare_choices", "_compare_loaded"


@dataclass(slots=True)
class Round:
    """One life of a widget, which begins when anything but the person changes what it shows.

    With a key that stayed, a browser that has not yet drawn the change would send what it shows
    in its next message, and that would pass for a person's choice. What it sends under a key of
    an earlier life is ignored.
    """

    number: int = 0
    key: str = ""
    holds: tuple[object, ...] = ()

    def settle(self, kind: str, holds: tuple[object, ...]) -> str:
        """The widget's key, a new one where it does not hold `holds` or is not on screen.

        What a new one shows at first must be its default: a value put into the session for it
        reaches the browser with one run only, and that run may be cut short.
        """
        if holds != self.holds or self.key not in st.session_state:
            self.number, self.holds = self.number + 1, holds
            self.key = f"compare_{kind}_{state.session().model}_{self.number}"
        return self.key


@dataclass(slots=True)
class Choice:
    """Names side by side, None for the default, and the one that others are held against, each
    with the life of its widget.
    """

    names: tuple[str, ...] | None = None
    reference: str = ""
    names_round: Round = field(default_factory=Round)
    reference_round: Round = field(default_factory=Round)


def choice() -> Choice:
    """The choice for the model on screen."""
    by_model: dict[str, Choice] = st.session_state.setdefault(_CHOICES, {})
    return by_model.setdefault(state.session().model, Choice())


def chosen(view: View, offers: Mapping[str, Offer]) -> tuple[str, ...]:
    """Names to show, all of them on offer."""
    names = choice().names
    if names is None:
        return _default(view, offers)
    return tuple(name for name in names if name in offers)[:MOST]


def _default(view: View, offers: Mapping[str, Offer]) -> tuple[str, ...]:
    """The map on screen, the pinned one and the person's own; then, of those that are always
    there, the ones that give another map than the one on screen, formats that a first visit does
    not measure last.
    """
    mine = [CURRENT, PINNED, *(offer.name for offer in offers.values() if offer.own)]
    narrow_first = sorted(
        view.study.precisions,
        key=lambda name: (
            name not in (*registry.FIRST_VISIT, registry.REFERENCE),
            registry.width(name),
        ),
    )
    names = [name for name in mine if name in offers][:MOST]
    for name in (DOCUMENT, *(f"All {precision}" for precision in narrow_first)):
        if len(names) < MOST and name in offers and name not in names:
            other = strategies.side(view, offers[name]).chosen
            if (other.codes != view.now.chosen.codes).any():
                names.append(name)
    return tuple(names)


def reference(names: tuple[str, ...]) -> str:
    """The one of `names` that the others are held against: the person's, or the first."""
    wanted = choice().reference
    return wanted if wanted in names else names[0]


def names_key(names: tuple[str, ...]) -> str:
    """Key of the widget that chooses strategies; its default are `names`."""
    return choice().names_round.settle("names", names)


def reference_key(names: tuple[str, ...]) -> str:
    """Key of the widget that chooses among `names`; its default is the reference."""
    return choice().reference_round.settle("reference", (names, reference(names)))


def take_names(key: str) -> None:
    """Remember what the widget `key` holds."""
    one = choice()
    names = tuple(st.session_state[key])
    if key == one.names_round.key and names != one.names_round.holds:
        one.names = one.names_round.holds = names


def take_reference(key: str, names: tuple[str, ...]) -> None:
    """Remember what the widget `key`, which offers `names`, holds."""
    one = choice()
    if key == one.reference_round.key:
        one.reference = str(st.session_state[key])
        one.reference_round.holds = (names, one.reference)


def usual() -> None:
    """Go back to the default choice."""
    choice().names = None


def load(policy: Policy, study: Study) -> None:
    """Put `policy` into the controls; the page then opens Tune."""
    state.load(policy, study)
    st.session_state[_LOADED] = True


def loaded() -> bool:
    """Whether a strategy was loaded; asked once. A button would forget it when the sidebar has to
    run again.
    """
    return bool(st.session_state.pop(_LOADED, False))


def keep() -> None:
    """Keep the map on screen under the name that was typed, which stays if it cannot be."""
    with problems.attempt(KEEPING):
        name = str(st.session_state.get(NEW_NAME, ""))
        _add(name, current().policy)
        st.session_state[NEW_NAME] = ""


def duplicate(offer: Offer) -> None:
    """Make an own copy of `offer`."""
    tail = " copy"
    wanted = f"{offer.name[: MAX_NAME - len(tail)].rstrip()}{tail}"
    with problems.attempt(card(offer.name)):
        _add(strategies.free_name(current(), wanted), offer.policy)


def rename(name: str, key: str) -> None:
    """Give an own strategy the name typed into the widget `key`; the choice follows."""
    with problems.attempt(card(name)):
        text = str(st.session_state.get(key, ""))
        fresh = strategies.rename(name, text, strategies.reserved(current()))
        kept = choice()
        if kept.names is not None:
            kept.names = tuple(fresh if one == name else one for one in kept.names)
        if kept.reference == name:
            kept.reference = fresh


def delete(name: str) -> None:
    """Take an own strategy away, and say where it can be brought back."""
    strategies.delete(name)
    state.session().notices.append(f"Deleted '{plain(name)}'. Undo is below the cards.")


def restore() -> None:
    """Bring the strategy back that was deleted last."""
    with problems.attempt(RESTORING):
        strategies.restore_deleted(strategies.reserved(current()))


def card(name: str) -> str:
    """The place of problems with the strategy `name`."""
    return f"card:{name}"


def _add(name: str, policy: Policy) -> None:
    """Keep a strategy and show it where there is room."""
    view, name = current(), name.strip()
    strategies.keep(name, policy, strategies.reserved(view))
    offers = strategies.offers(view)
    names = chosen(view, offers)
    if name not in names and len(names) < MOST:
        choice().names = names = (*names, name)
    more = "" if name in names else f" {MOST} are shown already: take one away to see it here."
    state.session().notices.append(f"Kept as '{plain(name)}'.{more}")
