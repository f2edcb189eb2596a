"""Why a layer has its precision: what it saves, what it costs, what decided, what would flip it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from core.decide.advise.budget_words import loss_amount, unit_of
from core.decide.policy.allowed import allowed_in_words
from core.decide.policy.budget import AXES, BY_IN_WORDS, Axis, Budget, loss_budget
from core.decide.policy.decision import BY_KERNEL, BY_OVERRIDE, BY_PIN, NO_PRECISION, PrecisionMap
from core.decide.policy.kernels import NO_KERNEL
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import LEVELS
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import PolicyError
from core.evidence.diagnose.causes import TO_HALF, Diagnosis, Remedy, diagnose
from core.quantity import Quantity, written

Figures = tuple[float, float, float, float | None]
"""Bytes, milliseconds, projected divergence, and what a loss budget holds of the loss."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """The map with the layer (and those that move with it) in `precision` instead.

    Changes are against the map at hand: positive = more bytes, slower, more loss. `held` is what a
    loss budget would hold of its loss, in the budget's unit, None where there is none. `exceeds`
    names the budgets that it would break.
    """

    precision: str
    size_bytes: int
    latency_ms: float
    loss: float
    held: float | None = None
    exceeds: tuple[Axis, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """One layer of a map. `saves_bytes`, `saves_ms` and `costs` are against the reference
    precision for this layer alone, with the rest of the map as it is. `alternatives` are those that
    are `allowed`, which is empty where all are.
    """

    layer: str
    precision: str | None
    together: tuple[str, ...]
    saves_bytes: Quantity
    saves_ms: Quantity
    costs: Quantity
    decided: str
    flip: str
    alternatives: tuple[Alternative, ...] = ()
    allowed: tuple[str, ...] = ()

    def in_words(self) -> str:
        """All of it in one line."""
        if self.precision is None:
            return f"{self.layer}: {self.decided[0].lower()}{self.decided[1:]}"
        saved = self.saves_bytes.value or 0.0
        faster = self.saves_ms.value or 0.0
        beside = f" (with {', '.join(self.together)})" if self.together else ""
        parts = [
            f"saves {saved / 1e3:,.3f} kB" if saved >= 0 else f"takes {-saved / 1e3:,.3f} kB more",
            f"{written(abs(faster), 'ms')} {'faster' if faster >= 0 else 'slower'} (estimated)",
        ]
        if self.costs.value is not None:
            parts.append(f"costs {written(self.costs.value, self.costs.unit)} (projected)")
        return (
            f"{self.layer}{beside}: {self.precision} {', '.join(parts)}; "
            f"{self.decided}; {self.flip}{self._allowed()}."
        )

    def _allowed(self) -> str:
        return f"; {allowed_in_words(self.allowed)} alone may be chosen" if self.allowed else ""


def explain(study: Study, chosen: PrecisionMap, layer: str) -> Explanation:
    """Why `layer` has its precision in `chosen`; raises `PolicyError` for an unknown layer.

    Losses are unknown before anything was measured.
    """
    if layer not in study.layers.index:
        raise PolicyError(f"No layer is called {layer!r}.", "`show` lists the names.")
    i = study.layers.index[layer]
    nothing = Quantity(None, "bytes", "exact")
    if chosen.codes[i] < 0:
        unknown = Quantity(None, "ms", "estimated")
        return Explanation(layer, None, (), nothing, unknown, unknown, chosen.reason(i), "")
    members = _moving(study, chosen, i)
    here = _figures(study, chosen, members, int(chosen.codes[i]))
    rows = {
        name: _figures(study, chosen, members, code)
        for code, name in enumerate(study.precisions)
        if code != chosen.codes[i]
    }
    reference = rows.get(study.precisions[0], here)
    rows = {name: figures for name, figures in rows.items() if chosen.policy.allows(name)}
    limits = _limits(study, chosen)
    alternatives = tuple(
        Alternative(
            name, int(size - here[0]), ms - here[1], loss - here[2], held,
            _exceeds(limits, size, ms, held),
        )
        for name, (size, ms, loss, held) in rows.items()
    )  # fmt: skip
    loss = here[2] - reference[2]
    unit = "nats" if study.analysis.metric is None else "of variance"
    return Explanation(
        layer=layer,
        precision=chosen.assigned[i],
        together=tuple(study.layers.names[m] for m in members if m != i),
        saves_bytes=Quantity(reference[0] - here[0], "bytes", "exact"),
        saves_ms=Quantity(reference[1] - here[1], "ms", "estimated"),
        costs=Quantity(None if np.isnan(loss) else loss, unit, "projected"),
        decided=_decided(chosen, i, alternatives),
        flip=_flip(study, chosen, i, alternatives, limits, here),
        alternatives=alternatives,
        allowed=chosen.policy.allowed,
    )


def diagnosis_of(study: Study, i: int, policy: Policy) -> Diagnosis | None:
    """Why layer `i` is sensitive, and of what would help that which `policy` allows; None where the
    layer does not compute or was not looked at by itself.
    """
    evidence = study.analysis.evidence
    if evidence is None or not study.layers.layers[i].computes_at_inference:
        return None
    found = diagnose(evidence, i)
    if found is None:
        return None
    gone = {name for name, precision in TO_HALF.items() if not policy.allows(precision)}
    remedies = tuple(remedy for remedy in found.remedies if remedy.name not in gone)
    return replace(found, remedies=remedies, half="" if gone else found.half)


def why_sensitive(study: Study, i: int, policy: Policy) -> tuple[str, ...]:
    """The main cause of layer `i`'s error, and what would help with its measured gain."""
    found = diagnosis_of(study, i, policy)
    if found is None:
        return ()
    cause = f"Main cause in {study.score_precision}: {found.cause}. {found.sentence} {found.half}"
    said = [" ".join(f"{cause} {found.advice}".split())]
    if found.remedies:
        listed = "; ".join(f"{r.title}: {gain_in_words(r)}" for r in found.remedies)
        said.append(f"What would help, measured at its own output: {listed}.")
    return tuple(said)


def gain_in_words(remedy: Remedy) -> str:
    """The gain of a remedy in dB; below 0 it harms."""
    return "no error left" if math.isinf(remedy.gain_db) else f"{remedy.gain_db:+.1f} dB"


def _moving(study: Study, chosen: PrecisionMap, i: int) -> list[int]:
    """Layer `i` and those that share its precision by a group."""
    from core.decide.policy.grouping import groups_of

    if chosen.origin[i] in {BY_PIN, BY_OVERRIDE}:
        return [i]
    for group in groups_of(study.layers, chosen.policy.groups)[0]:
        if i in group:
            return [m for m in group if chosen.codes[m] == chosen.codes[i] and not chosen.origin[m]]
    return [i]


def _figures(study: Study, chosen: PrecisionMap, members: list[int], code: int) -> Figures:
    """Those of the map with `members` in `code`."""
    codes = chosen.codes.copy()
    codes[members] = code
    rows = np.maximum(codes, 0)
    size = float(study.size_bytes[rows, np.arange(len(codes))].sum()) + study.glue_bytes
    ms = float(study.latency(chosen.policy.hardware).times_ms(codes[None])[0])
    projection = study.project(codes)
    if projection is None:
        return size, ms, float("nan"), None
    moved = projection.kl if projection.kl.value is not None else projection.relative_mse
    budget = _loss_budget(chosen)
    held = None
    if budget is not None and moved.value is not None:
        held = study.derived(Solver).held(codes, budget)
    return size, ms, float("nan") if moved.value is None else moved.value, held


def _loss_budget(chosen: PrecisionMap) -> Budget | None:
    if chosen.policy.strategy != "budget":
        return None
    return loss_budget(chosen.policy.budgets)


def _limits(study: Study, chosen: PrecisionMap) -> dict[Axis, float] | None:
    """The budgets in bytes, milliseconds, and the loss budget's own unit; None for other strategies."""
    policy = chosen.policy
    if policy.strategy != "budget":
        return None
    return {b.axis: study.derived(Solver).limit(b, policy.hardware) for b in policy.budgets}


def _exceeds(
    limits: dict[Axis, float] | None, size: float, ms: float, held: float | None
) -> tuple[Axis, ...]:
    given: dict[Axis, float] = {"size": size, "latency": ms}
    if held is not None:
        given["loss"] = held
    most = limits or {}
    return tuple(a for a in AXES if a in most and a in given and given[a] > most[a] * (1 + 1e-9))


def _decided(chosen: PrecisionMap, i: int, alternatives: tuple[Alternative, ...]) -> str:
    policy = chosen.policy
    if chosen.codes[i] == NO_PRECISION:
        return chosen.reason(i)
    if chosen.origin[i] == BY_OVERRIDE:
        return "set by hand"
    if chosen.origin[i] == BY_PIN:
        return "pinned by a rule"
    if chosen.origin[i] == BY_KERNEL:
        return NO_KERNEL
    if policy.strategy == "thresholds":
        return f"its score {chosen.scores[i]:.3f} is {LEVELS[chosen.levels[i]]}"
    if policy.strategy == "top-k":
        return f"its score {chosen.scores[i]:.3f} decided its place among the layers"
    if policy.strategy != "budget":
        return f"the {policy.strategy} strategy decided"
    better = [a for a in alternatives if _improves(policy.minimise, a)]
    blocked = {axis for a in better for axis in a.exceeds}
    if not better:
        return f"no other precision gives less {policy.minimise}"
    if blocked:
        names = " and ".join(axis for axis in AXES if axis in blocked)
        return f"the {names} budget decided"
    return "what it leaves of the budgets serves other layers better"


def _improves(minimise: Axis, a: Alternative) -> bool:
    return {"loss": a.loss, "size": a.size_bytes, "latency": a.latency_ms}[minimise] < 0


def _flip(
    study: Study, chosen: PrecisionMap, i: int, alternatives: tuple[Alternative, ...],
    limits: dict[Axis, float] | None, here: Figures,
) -> str:  # fmt: skip
    """What it would take to give the layer another precision, the cheapest way first."""
    policy = chosen.policy
    if chosen.origin[i] in {BY_OVERRIDE, BY_PIN}:
        return "taking the rule away would let the strategy decide"
    if chosen.origin[i] == BY_KERNEL:
        return "a float precision by hand, or a target that has a kernel"
    if policy.strategy == "thresholds":
        return _threshold_flip(chosen, i)
    if policy.strategy == "top-k":
        place = int((chosen.scores < chosen.scores[i]).sum()) + 1
        return f"top-k {'below' if place <= policy.top_k else 'of at least'} {place} would flip it"
    if policy.strategy != "budget" or limits is None:
        return "setting it by hand would flip it"
    better = [a for a in alternatives if _improves(policy.minimise, a)]
    if not alternatives:
        return "allowing another precision could flip it"
    if not better:
        nearest = min(alternatives, key=lambda a: abs(a.loss))
        return f"only a rule would make it {nearest.precision}"
    a = min(better, key=lambda a: (len(a.exceeds), abs(a.size_bytes)))
    missing = []
    if "size" in a.exceeds:
        missing.append(f"{(here[0] + a.size_bytes - limits['size']) / 1e3:,.3f} kB more room")
    if "latency" in a.exceeds:
        missing.append(f"{written(here[1] + a.latency_ms - limits['latency'], 'ms')} more time")
    budget = _loss_budget(chosen)
    if "loss" in a.exceeds and budget is not None and a.held is not None:
        more = loss_amount(budget, a.held - limits["loss"])
        missing.append(
            f"{more} {unit_of(study, budget)} more loss allowed (by the {BY_IN_WORDS[budget.by]})"
        )
    if not missing:
        return f"another layer giving way would make it {a.precision}"
    return f"{' and '.join(missing)} would let it be {a.precision}"


def _threshold_flip(chosen: PrecisionMap, i: int) -> str:
    policy, score = chosen.policy, float(chosen.scores[i])
    borders = [
        (abs(policy.high_threshold - score), "high", policy.high_threshold,
         policy.high != policy.medium),
        (abs(policy.medium_threshold - score), "medium", policy.medium_threshold,
         policy.medium != policy.low),
    ]  # fmt: skip
    moving = [b for b in borders if b[3]]
    if not moving:
        return "no threshold would flip it, since all levels go to one precision"
    _, name, at, _ = min(moving)
    side = "above" if score >= at else "down to"
    return f"a {name} threshold {side} {score:.3f} (now {at:g}) would flip it"
