"""The controls of budgets: a main one for size, latency and loss each, and what goes beside it.

Sizes are in MB and latencies in percent of the reference's on the same device; a loss is in
points of accuracy, in percent of a metric, or, where no labels tell a loss, a power of ten of how
far the outputs move.
"""

from __future__ import annotations

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
from dashboard.session.control import Control, Value, choice, number

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
LATENCY_STEP_PCT = 0.5


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


def size_ends(study: Study) -> tuple[float, float]:
    """The least and the greatest size in MB."""
    glue = study.glue_bytes
    if not len(study.layers):
        return 0.0, 1.0
    least = (int(study.size_bytes.min(axis=0).sum()) + glue) / 1e6
    most = (int(study.size_bytes[0].sum()) + glue) / 1e6
    return least, max(most, least + 1e-6)


def size_step(study: Study) -> float:
    """A step in MB of which a few hundred lie between the ends."""
    least, most = size_ends(study)
    step = 1e-6
    while (most - least) / step > 1_000:
        step = round(step * 10, 6)
    return step


def positions(axis: Axis, study: Study) -> tuple[float, float, float]:
    """Ends and step of the main control of a budget."""
    if axis == "size":
        return *size_ends(study), size_step(study)
    if axis == "latency":
        return *LATENCY_PCT, LATENCY_STEP_PCT
    scale = loss_scale(study)
    return scale.least, scale.most, scale.step


def decimals(step: float) -> int:
    """Decimal places of a step."""
    return len(f"{step:.6f}".rstrip("0").split(".")[1])


def listed(study: Study) -> list[Control]:
    """Every control of budgets."""
    least, most = size_ends(study)
    scale = loss_scale(study)
    return [
        Control("size_at", round(max(least, most / 2), 6), number(least - 1e-9, most + 1e-9)),
        Control("latency_at", 100.0, number(*LATENCY_PCT)),
        Control("loss_at", scale.usual, number(scale.least, scale.most)),
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
    said = _said(limited[main], study, policy.hardware) if main in limited else None
    if said is None and main in limited:
        rest.append(limited[main])
    elif said is not None:
        values[MAIN[main]] = said
    values["also"] = format_budgets(rest)
    return values


def _said(budget: Budget, study: Study, hardware: str) -> float | None:
    """The slider's value that gives `budget`; None where it has none."""
    least, most = size_ends(study)
    value = budget.amount
    if budget.axis == "size":
        if budget.unit == "fraction":
            value = study.derived(Solver).limit(budget, "")
            budget = replace(budget, amount=float(round(value)), unit="bytes")
        value = round(budget.amount) / 1e6
        return min(max(value, least), most) if least - 1e-6 <= value <= most + 1e-6 else None
    if budget.axis == "latency":
        whole = study.uniform_ms(hardware)[study.precisions[0]]
        value = 100 * (budget.amount if budget.unit == "fraction" else budget.amount / whole)
        return value if LATENCY_PCT[0] <= value <= LATENCY_PCT[1] else None
    scale = loss_scale(study)
    if budget.unit != scale.unit or scale.power:
        return None
    return value if scale.least <= value <= scale.most else None
