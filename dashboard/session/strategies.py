"""The strategies a person keeps: named policies of one model, in this tab and in its browser's store.

All functions that change something are made to be called from a widget's callback.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.decide.assess.strategies import named_strategies
from core.decide.policy.names import check_name, fresh_name
from core.decide.policy.policy import Policy
from core.errors import PolicyError
from core.export.map.session_file import MAX_STRATEGIES
from dashboard.session import state, studies
from dashboard.session.tab import Named
from dashboard.session.view import Side, View

CURRENT, PINNED = "Current", "Pinned"
"""Names of the map on screen and of the pinned one; no strategy of a person's can take them."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A strategy on offer: its name, its policy, and whether it is the person's own."""

    name: str
    policy: Policy
    own: bool = False


def kept() -> tuple[Named, ...]:
    """The person's own strategies of the model on screen, the oldest first."""
    tab = state.session()
    return tab.kept.get(tab.model, ())


def offers(view: View) -> dict[str, Offer]:
    """Everything that can be compared or exported, by name: the map on screen, the pinned one,
    the person's own, and the named strategies that are always there.
    """
    found = {CURRENT: Offer(CURRENT, view.policy)}
    if view.pinned:
        found[PINNED] = Offer(PINNED, view.base.chosen.policy)
    found |= {one.name: Offer(one.name, one.policy, own=True) for one in kept()}
    for name, policy in named_strategies(view.study, view.policy).items():
        found.setdefault(name, Offer(name, policy))
    return found


def side(view: View, offer: Offer) -> Side:
    """The map of `offer` with its figures, on the device of the map on screen."""
    if offer.name == CURRENT:
        return Side(CURRENT, view.now.chosen, view.now.found)
    return Side(offer.name, *studies.priced_on(view.opened, offer.policy, view.policy.hardware))


def reserved(view: View) -> tuple[str, ...]:
    """Names that a strategy of a person's own cannot take."""
    return (CURRENT, PINNED, *named_strategies(view.study, view.policy))


def free_name(view: View, wanted: str) -> str:
    """`wanted`, numbered where it is taken."""
    return fresh_name(wanted, {*reserved(view), *(one.name for one in kept())}, " ")


def keep(name: str, policy: Policy, taken: Iterable[str] = ()) -> None:
    """Add a strategy. Raises `PolicyError` for a name that is taken or no name, or one too many."""
    mine = kept()
    _check_room(mine)
    checked = check_name(name, {*taken, *(one.name for one in mine)})
    _put((*mine, Named(checked, policy)))


def rename(old: str, new: str, taken: Iterable[str] = ()) -> str:
    """Give a strategy another name and return it. Raises `PolicyError` if that cannot be."""
    mine = kept()
    others = {one.name for one in mine if one.name != old}
    checked = check_name(new, {*taken, *others})
    _put(tuple(Named(checked, one.policy) if one.name == old else one for one in mine))
    return checked


def delete(name: str) -> None:
    """Take a strategy away; `restore_deleted` brings the last one back."""
    mine, tab = kept(), state.session()
    place = next((i for i, one in enumerate(mine) if one.name == name), None)
    if place is None:
        return
    tab.deleted[tab.model] = (place, mine[place])
    _put((*mine[:place], *mine[place + 1 :]))


def deleted() -> Named | None:
    """What `restore_deleted` would bring back."""
    tab = state.session()
    found = tab.deleted.get(tab.model)
    return None if found is None else found[1]


def restore_deleted(taken: Iterable[str] = ()) -> None:
    """Put the strategy that was deleted last back in its place, renamed if its name is taken.

    Raises `PolicyError` where there is no room any more; it can still be brought back later.
    """
    tab, mine = state.session(), kept()
    found = tab.deleted.get(tab.model)
    if found is None:
        return
    _check_room(mine)
    forget_deleted()
    place, one = found
    name = fresh_name(one.name, {*taken, *(other.name for other in mine)}, " ")
    _put((*mine[:place], Named(name, one.policy), *mine[place:]))


def forget_deleted() -> None:
    """Give up what `restore_deleted` would bring back."""
    tab = state.session()
    tab.deleted.pop(tab.model, None)


def replace_all(strategies: Iterable[Named]) -> None:
    """Put `strategies` in place of the person's own."""
    _put(tuple(strategies))


def _check_room(mine: tuple[Named, ...]) -> None:
    if len(mine) >= MAX_STRATEGIES:
        raise PolicyError(f"There are {MAX_STRATEGIES} strategies already.", "Delete some first.")


def _put(strategies: tuple[Named, ...]) -> None:
    tab = state.session()
    tab.kept[tab.model] = strategies
