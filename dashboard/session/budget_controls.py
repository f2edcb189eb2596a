"""The controls of budgets: a main one for size, latency and loss each, and what goes beside it.

Sizes are in MB and latencies in percent of the reference's on the same device; a loss is in
points of accuracy, in percent of a metric, or, where no labels tell a loss, a power of ten of how
far the outputs move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.decide.policy.budget import (
    Axis,
    Budget,
    By,
    Unit,
    checked,
    format_budgets,
    loss_by,
    parse_budgets,
)
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver, projector_reference
from core.decide.study import Study
from core.errors import PolicyError
from core.estimate.loss_function import TARGETS
from dashboard.session.control import Control, Ends, Value, choice, number

AXIS_OF: dict[str, Axis] = {
    "size budget": "size",
    "latency budget": "latency",
    "loss budget": "loss",
}
STRATEGIES = ("thresholds", "top-k", *AXIS_OF, "uniform", "manual")
"""Strategies as people choose them, and as links name them: a budget by what is limited."""
MAIN: dict[Axis, str] = {"size": "size_at", "latency": "latency_at", "loss": "loss_at"}
"""Key of the main control of each budget."""
LEAST: tuple[Axis, ...] = ("size", "latency")
"""What can be made least within a loss."""
LOSS_BY = "loss_by"
"""Key of the control that says which end of a loss keeps its budget."""
ENDS: dict[str, By] = {"upper end": "upper", "point": "point"}
"""Ends of a loss's range as people choose them, and as links name them; the first is the usual one."""
UNSAID = "point"
"""What links that limit a loss without saying by what were made with, so that they give their map."""
LATENCY_PCT = (10.0, 150.0)
ANY = 1e12
"""More than anybody asks for."""
MOST_POSITIONS = 1_000
PLACES = 1e4
"""Latencies in percent, and losses, are told apart to one part in this many."""


@dataclass(frozen=True, slots=True)
class LossScale:
    """How a loss is set: the slider's title, ends, step and first value, and the unit behind it.

    With `power` the slider holds the exponent of ten.
    """

    title: str
    least: float
    most: float
    step: float
    usual: float
    unit: Unit
    power: bool = False


def loss_scale(study: Study) -> LossScale:
    """The scale of the loss that `study` is judged by."""
    evidence, metric = study.analysis.evidence, study.analysis.metric
    if evidence is not None and evidence.outputs.kind == "logits" and evidence.targets is not None:
        return LossScale("Accuracy loss at most (points)", 0.0, 5.0, 0.05, 0.5, "metric")
    if evidence is not None and metric is not None and projector_reference(study):
        return LossScale("Loss of the metric at most (%)", 0.0, 20.0, 0.1, 1.0, "percent")
    return LossScale("Outputs move at most 10^x", -8.0, 0.0, 0.1, -4.0, "divergence", power=True)


def budget_ends(study: Study, policy: Policy, axis: Axis) -> Ends:
    """Between which values the slider of a budget lies under the rules of `policy`: from the least
    that exists to the most that changes anything, which is what the map with the least loss takes;
    of a loss, what the map with the least of what is minimised loses.

    Before anything was measured, and where rules leave nothing to project, what could be asked of
    any model.
    """
    scale, solver = loss_scale(study), study.derived(Solver)
    unit: Unit = scale.unit if axis == "loss" else "bytes" if axis == "size" else "ms"
    last: Axis = "loss"
    kept: By = loss_by(policy.budgets) if axis == "loss" else "point"
    if axis == "loss":
        last = policy.minimise if policy.minimise in LEAST else LEAST[0]
    try:
        lowest, highest = (
            solver.taken(policy, Budget(axis, 0.0, unit, kept), solver.least(policy, goal))
            for goal in (axis, last)
        )
    except PolicyError:
        return {"size": _sizes(study), "latency": LATENCY_PCT, "loss": (scale.least, scale.most)}[
            axis
        ]
    # A loss that is projected jumps from map to map: the map that moves outputs least may lose more.
    lowest = min(lowest, highest)
    if axis == "size":
        return lowest / 1e6, highest / 1e6
    if axis == "latency":
        whole = study.uniform_ms(policy.hardware)[study.precisions[0]]
        return _up(100 * lowest / whole), _up(100 * highest / whole)
    if scale.power:
        lowest, highest = (math.log10(max(x, 10**scale.least)) for x in (lowest, highest))
    lowest = max(_up(lowest), scale.least)
    steps = max(math.ceil(round((highest - lowest) / scale.step, 6)), 0)
    return lowest, round(lowest + steps * scale.step, 6)


def _up(value: float) -> float:
    """Rounded towards enough, to what an address keeps."""
    return math.ceil(round(value * PLACES, 6)) / PLACES


def _sizes(study: Study) -> Ends:
    """The least and the greatest size in MB, whatever precisions layers may have."""
    if not len(study.layers):
        return 0.0, 1.0
    least, most = study.size_bytes.min(axis=0).sum(), study.size_bytes[0].sum()
    return (int(least) + study.glue_bytes) / 1e6, (int(most) + study.glue_bytes) / 1e6


def step_between(ends: Ends, axis: Axis, study: Study) -> float:
    """A step of a budget's slider: some hundred to a thousand lie between the ends."""
    if axis == "loss":
        return loss_scale(study).step
    step = 1e-6 if axis == "size" else 1e-3
    while (ends[1] - ends[0]) / step > MOST_POSITIONS:
        step = round(step * 10, 6)
    return step


def decimals(step: float) -> int:
    """Decimal places of a step."""
    return len(f"{step:.6f}".rstrip("0").split(".")[1])


def listed(study: Study) -> list[Control]:
    """Every control of budgets."""
    least, most = _sizes(study)
    scale = loss_scale(study)
    # What exists depends on rules and device: `budget_ends` is asked when those are known.
    return [
        Control("size_at", round(max(least, most / 2), 6), number(0, ANY)),
        Control("latency_at", 100.0, number(0, ANY)),
        Control("loss_at", scale.usual, number(scale.least, 0 if scale.power else ANY)),
        Control("least", LEAST[0], choice(LEAST)),
        Control(LOSS_BY, next(iter(ENDS)), choice(ENDS)),
        Control("target", TARGETS[0], choice(TARGETS)),
        Control("also", "", _budgets),
    ]


def _budgets(text: str) -> str:
    try:
        parse_budgets(text)
    except PolicyError as error:
        raise ValueError(text) from error
    return text


def limits_loss(values: Mapping[str, Value]) -> bool:
    """Whether controls limit a loss: by its slider, or in the text of further budgets."""
    axis = AXIS_OF.get(str(values.get("strategy", "")))
    try:
        also = parse_budgets(str(values.get("also", "")))
    except PolicyError:
        also = ()
    return axis is not None and "loss" in {axis, *(b.axis for b in also)}


def asked(values: Mapping[str, Value], study: Study) -> dict[str, Any]:
    """The fields of a policy that the controls of a budget give. Raises `PolicyError`.

    A budget in the text "also" beats the slider of the same axis.
    """
    axis = AXIS_OF[str(values["strategy"])]
    by = ENDS[str(values[LOSS_BY])]
    also = parse_budgets(str(values["also"]), by)
    main = _main(axis, float(values[MAIN[axis]]), study, by)
    budgets = {axis: main, **{b.axis: b for b in also}}
    return {
        "budgets": checked(budgets.values()),
        "minimise": str(values["least"]) if axis == "loss" else "loss",
        "target": str(values["target"]),
    }


def _main(axis: Axis, value: float, study: Study, by: By) -> Budget:
    if axis == "size":
        return Budget("size", float(round(value * 1e6)), "bytes")
    if axis == "latency":
        return Budget("latency", value / 100, "fraction")
    scale = loss_scale(study)
    return Budget("loss", round(10**value, 12) if scale.power else value, scale.unit, by)


def to_values(policy: Policy, study: Study) -> dict[str, Value]:
    """The value of every budget control that gives `policy`, and the strategy's own name.

    What no slider can say exactly goes into the text of further budgets.
    """
    values: dict[str, Value] = {control.key: control.default for control in listed(study)}
    values["target"] = policy.target
    if policy.strategy != "budget":
        return values
    limited = {b.axis: b for b in policy.budgets}
    values[LOSS_BY] = next(n for n, by in ENDS.items() if by == loss_by(policy.budgets))
    by_loss = policy.minimise in LEAST and "loss" in limited
    main: Axis = "loss" if by_loss else next((a for a in LEAST if a in limited), "loss")
    strategy = next(name for name, axis in AXIS_OF.items() if axis == main)
    values |= {"strategy": strategy, "least": policy.minimise if by_loss else LEAST[0]}
    rest = [b for b in policy.budgets if b.axis != main]
    said = _said(limited[main], study, policy) if main in limited else None
    if said is None and main in limited:
        rest.append(limited[main])
    elif said is not None:
        values[MAIN[main]] = said
    values["also"] = format_budgets(rest)
    return values


def _said(budget: Budget, study: Study, policy: Policy) -> float | None:
    """The slider's value that gives `budget`; None where it has none."""
    value, solver, scale = budget.amount, study.derived(Solver), loss_scale(study)
    if budget.axis == "size":
        value = round(solver.limit(budget, policy.hardware)) / 1e6
    elif budget.axis == "latency":
        whole = solver.limit(replace(budget, amount=1.0, unit="fraction"), policy.hardware)
        value = 100 * (value if budget.unit == "fraction" else value / whole)
    elif budget.unit != scale.unit or scale.power:
        return None
    least, most = budget_ends(study, policy, budget.axis)
    rounded = 2 / PLACES if budget.axis == "latency" else 1e-6
    return min(max(value, least), most) if least - rounded <= value <= most + rounded else None
