"""Which controls cannot change the map as things stand, and why: said beside each of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.decide.policy.budget import parse_budgets
from core.decide.policy.decision import BY_KERNEL, BY_LACK, BY_STRATEGY
from core.decide.policy.scoring import LEVELS
from core.errors import PolicyError
from core.evidence.scorers import SCORERS
from dashboard.session.budget_controls import AXIS_OF, MAIN, budget_ends
from dashboard.session.control import Value
from dashboard.session.controls import movable_layers, weight_key
from dashboard.session.view import View

WEIGHTS = "weights"
"""Key of what is said of all scorer weights."""
STEERS: Mapping[str, tuple[str, ...]] = {
    "thresholds": ("high_at", "medium_at", "high", "medium", "low", WEIGHTS),
    "top-k": ("k", "high", "low", WEIGHTS),
    "uniform": ("uniform",),
    "manual": ("high",),
    **{strategy: (MAIN[axis],) for strategy, axis in AXIS_OF.items()},
}
"""What steers each strategy, by key."""


def reasons(view: View, values: Mapping[str, Value]) -> dict[str, str]:
    """Why a control changes nothing, by key, of those that do not: `values` are what controls hold.

    Of what cannot be decided, nothing is said but what the controls themselves say.
    """
    strategy, study = str(values["strategy"]), view.study
    found: dict[str, str] = {}
    if WEIGHTS not in STEERS[strategy]:
        found[WEIGHTS] = f"Scores decide nothing under {strategy}."
    if strategy == "uniform" or (strategy == "manual" and study.unknown is None):
        found["groups"] = f"Under {strategy} the layers of a group have one precision anyway."
    if strategy not in AXIS_OF:
        found["also"] = "Kept by the strategies with a budget alone."
    elif (said := _beaten(values)) is not None:
        found[MAIN[AXIS_OF[strategy]]] = said
    if view.unkept is not None:
        return found
    free = study.layers.computes & np.isin(
        view.now.chosen.origin, (BY_STRATEGY, BY_LACK, BY_KERNEL)
    )
    if not free.any():
        why = "Pins and overrides decide every layer."
        if not movable_layers(study):
            why = "No layer of this model computes."
        return found | dict.fromkeys(STEERS[strategy], why)
    if strategy in AXIS_OF:
        return _of_budgets(view, strategy) | found
    if WEIGHTS in STEERS[strategy]:
        found |= _of_levels(view, free)
        found |= _of_weights(view, values)
    return found


def _beaten(values: Mapping[str, Value]) -> str | None:
    """What is said of a budget's slider where a text beats it."""
    try:
        also = parse_budgets(str(values["also"]))
    except PolicyError:
        return None
    axis = AXIS_OF[str(values["strategy"])]
    return (
        f"Further budgets set the {axis}, which beats this."
        if axis in {b.axis for b in also}
        else None
    )


def _of_budgets(view: View, strategy: str) -> dict[str, str]:
    axis = AXIS_OF[strategy]
    least, most = budget_ends(view.study, view.policy, axis)
    if most > least:
        return {}
    if axis != "loss":
        return {
            MAIN[
                axis
            ]: f"There is nothing to choose: the map with the least loss has the least {axis}."
        }
    goal = view.policy.minimise
    return {MAIN[axis]: f"The map with the least {goal} loses no more than that: no budget of the "
            "loss changes it."}  # fmt: skip


def _of_levels(view: View, free: np.ndarray) -> dict[str, str]:
    """Of thresholds and top-k: precisions that are the same, and levels that no layer has."""
    policy, chosen = view.policy, view.now.chosen
    goes = {"HIGH": policy.high, "MEDIUM": policy.medium, "LOW": policy.low}
    found: dict[str, str] = {}

    def same(key: str, *levels: str) -> None:
        if len({goes[level] for level in levels}) == 1:
            found[key] = f"{_and(levels)} go to {goes[levels[0]]}: no layer changes between them."

    if policy.strategy == "top-k":
        same("k", "HIGH", "LOW")
        same(WEIGHTS, "HIGH", "LOW")
        if policy.top_k == 0:
            found["low"] = "No layer is LOW: k is 0."
        if policy.top_k >= movable_layers(view.study):
            found["high"] = "No layer is HIGH: k takes all."
        return found
    same("high_at", "HIGH", "MEDIUM")
    same("medium_at", "MEDIUM", "LOW")
    same(WEIGHTS, "HIGH", "MEDIUM", "LOW")
    # A group goes where its widest member would, so that one with a rule counts as well.
    counted = view.study.layers.computes if policy.groups else free
    for level, name in enumerate(LEVELS):
        if not (chosen.levels[counted] == level).any():
            found[name.lower()] = f"No layer is {name}."
    return found


def _and(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _of_weights(view: View, values: Mapping[str, Value]) -> dict[str, str]:
    """Of a scorer: alone in having a weight, without scores, or with the same for every layer."""
    study, found = view.study, dict[str, str]()
    weighed = [name for name in SCORERS if float(values[weight_key(name)]) > 0]
    for name in SCORERS:
        key = weight_key(name)
        if name not in study.scores:
            found[key] = f"n/a: it needs {_needs(view, name)}."
        elif weighed == [name]:
            found[key] = "The only one with a weight: how large it is changes nothing."
        else:
            scores = study.scores[name][study.layers.computes]
            if view.policy.strategy == "top-k" and np.ptp(scores) == 0:
                found[key] = f"Every layer scores {scores[0]:.2f}: it changes no order."
    return found


def _needs(view: View, name: str) -> str:
    if view.study.unknown is not None and SCORERS[name].per_sample is not None:
        return "every layer measured, and some are not yet"
    return SCORERS[name].needs
