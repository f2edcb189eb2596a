"""Feasibility, recommendation and considerations: what the figures come to in words.

Cut-offs are stated in docs/method.md, "Feasibility".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.decide import answer
from core.decide.advise.explain import diagnosis_of
from core.decide.assess.loss import loss_at_most, loss_figures
from core.decide.assess.outcome import Outcome, outcome
from core.decide.assess.statistics import statistics
from core.decide.assess.strategies import named_strategies
from core.decide.policy.budget import BY_IN_WORDS, BYS, loss_budget, loss_by
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import HIGH
from core.decide.solve.solver import worse_by
from core.decide.study import Study
from core.layers import ROLES
from core.numerics import precision as registry
from core.quantity import RELATIVE, Quantity, digits, written

Feasibility = Literal["proceed", "cautious", "avoid"]

PROCEED_DROP_PTS = 1.0
AVOID_DROP_PTS = 5.0
LEAST_REDUCTION_PCT = 10.0
LEAST_QUANTIZABLE_PCT = 25.0
HIGH_PRECISION_DROP_PTS = 0.5
EDGE_DROP_PTS = 2.0
GLUE_NAMED = 3
"""Containers that one sentence names."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`feasibility` of a map with the reasons for it."""

    feasibility: Feasibility
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A named strategy for a use, with its policy and why."""

    use: str
    strategy: str
    policy: Policy
    why: str


def feasibility(study: Study, chosen: PrecisionMap, found: Outcome) -> Verdict:
    """Whether to ship `chosen`: *avoid*, *cautious* or *proceed*, with reasons.

    A loss is read by its upper end, or by its point where the loss budget of `chosen` is.
    """
    if found.forbidden:
        return Verdict(
            "avoid",
            (
                f"{len(found.forbidden)} layer{'s overflow' if len(found.forbidden) > 1 else ' overflows'}.",
            ),
        )
    figures = loss_figures(found.totals)
    drop, reach = found.totals[figures.loss], loss_at_most(found.totals)
    by = loss_by(chosen.policy.budgets) if chosen.policy.strategy == "budget" else BYS[0]
    by_point = by == "point" and drop.value is not None
    most = drop.value if by_point else reach
    if study.projector is None:
        share = statistics(chosen).computing_quantizable_pct or 0.0
        reason = f"Nothing is measured; by rule {share:.0f} % of computing layers are quantizable."
        return Verdict("cautious" if share >= LEAST_QUANTIZABLE_PCT else "avoid", (reason,))
    if study.unknown is not None:
        return Verdict("cautious", ("Not every layer is measured yet, so nothing bounds a loss.",))
    if most is None:
        change = found.totals[figures.divergence].value
        moved = (
            ""
            if change is None
            else f"; the outputs change by {digits(change, RELATIVE)} of their variance"
        )
        return Verdict("cautious", (f"Without labels no loss is known{moved}.",))
    # Without labels the changed predictions bound the loss.
    unit = drop.unit
    known = by_point or drop.high is not None
    what = f"{drop.kind} loss" if known else "loss, unknown without labels,"
    reaches = f"The {what} {'is' if by_point else 'may reach'} {written(most, unit)}"
    if most > AVOID_DROP_PTS:
        return Verdict("avoid", (f"{reaches}.",))
    doubts = _broken_budget(study, chosen, found)
    if most > PROCEED_DROP_PTS:
        doubts.append(f"{reaches}{_most_sensitive(study, chosen)}.")
    speedup = found.totals["speedup"].value
    if speedup is not None and speedup < 1:
        doubts.append(f"Estimated slower than {registry.REFERENCE} ({written(speedup, 'x')}).")
    reduction = found.totals["size_reduction_pct"].value
    if reduction is not None and reduction < LEAST_REDUCTION_PCT:
        doubts.append(f"Saves only {written(reduction, '%')} of the size.")
    if doubts:
        return Verdict("cautious", tuple(doubts))
    kept = _limit(PROCEED_DROP_PTS, unit)
    if by_point:
        beyond = "is not known" if reach is None else f"reaches {written(reach, unit)}"
        return Verdict(
            "proceed",
            (f"The point of the {what} stays below {kept}; its 90 % range {beyond}.",),
        )
    return Verdict("proceed", (f"The {what} stays below {kept} in its 90 % range.",))


def _broken_budget(study: Study, chosen: PrecisionMap, found: Outcome) -> list[str]:
    """A sentence where the figures of `chosen`, of which some may be measured, break its loss budget
    by the end that has to keep it.
    """
    policy = chosen.policy
    budget = loss_budget(policy.budgets)
    if policy.strategy != "budget" or budget is None:
        return []
    figures = loss_figures(found.totals)
    name = figures.divergence if budget.unit == "divergence" else figures.loss
    given = found.totals[name]
    if budget.unit == "metric" and figures.judged == "metric":
        now = found.totals[figures.judged]
        if now.kind != "projected":
            return []  # what was measured is of another split than the reference's metric
        given = worse_by(study, now)
    end = given.high if budget.by == "upper" else given.value
    if end is None or end <= budget.amount * (1 + 1e-9):
        return []
    said = (
        f"The {given.kind} loss breaks its budget: {written(end, given.unit)} by the "
        f"{BY_IN_WORDS[budget.by]}, {written(budget.amount, given.unit)} allowed."
    )
    return [said]


def _limit(value: float, unit: str) -> str:
    """As "1 pt", "2 pts" or "1 %"."""
    return f"{value:g} {'pt' if (value, unit) == (1, 'pts') else unit}"


def _most_sensitive(study: Study, chosen: PrecisionMap) -> str:
    """The narrow layer that alone changes the outputs most, as the end of a sentence."""
    scored = study.scores.get("output_error")
    narrow = [i for i, name in enumerate(chosen.assigned) if name == study.score_precision]
    if scored is None or not narrow:
        return ""
    worst = max(narrow, key=lambda i: float(scored[i]))
    return f"; of the {study.score_precision} layers {study.layers.names[worst]} alone changes most"


def considerations(study: Study, chosen: PrecisionMap) -> tuple[str, ...]:
    """What to know about this model: what was measured, then what rules say, per role that is in
    it.
    """
    said = _measured_worst(study, chosen.policy)
    counts = {role: study.layers.roles.count(role) for role in ROLES}
    high = [
        (role, sum(1 for r, v in zip(study.layers.roles, chosen.levels, strict=True)
                   if r == role and v == HIGH))
        for role in ROLES
    ]  # fmt: skip
    kept = [(role, n) for role, n in high if n]
    total = sum(n for _, n in kept)
    if total:
        share = 100 * total / len(study.layers)
        roles = ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in kept)
        noun = "layer rates" if total == 1 else "layers rate"
        said.append(f"{total} {noun} HIGH ({share:.1f} %): {roles}.")
    if counts["output_projection"]:
        said.append("Verify the output projection: its error reaches the prediction directly.")
    if counts["dropout"]:
        said.append(
            f"{counts['dropout']} dropout layers do nothing at inference; counting them as "
            "quantized would flatter the ratio."
        )
    return (*said, *_rounded_glue(study, chosen.policy))


def _measured_worst(study: Study, policy: Policy) -> list[str]:
    """The layer that changes the outputs most, with what would help it."""
    scored = study.scores.get("output_error")
    if scored is None or not len(study.layers):
        return []
    worst = int(scored.argmax())
    found = diagnosis_of(study, worst, policy)
    advice = f" {found.advice}" if found is not None and found.advice else ""
    said = (
        f"The layer that hurts most in {study.score_precision} by measurement is {study.layers.names[worst]} "
        f"(output error {scored[worst]:.2f} of 1).{advice}"
    )
    return [said]


def _rounded_glue(study: Study, policy: Policy) -> tuple[str, ...]:
    """Which containers' operations the scheme rounds, and how to keep them in float."""
    rounded = study.analysis.rounding.functions
    found = [
        f"{layer.name} ({', '.join(f'{n} {kind}' for kind, n in layer.operations if kind in rounded)})"
        for layer in study.layers
        if layer.role == "glue"
    ]
    if not found:
        return ()
    more = f" and {len(found) - GLUE_NAMED} more" if len(found) > GLUE_NAMED else ""
    name = next(layer.name for layer in study.layers if layer.role == "glue")
    said = (
        f"Operations between layers that {study.analysis.scheme} rounds in {study.score_precision} are layers "
        f"of the role glue: {'; '.join(found[:GLUE_NAMED])}{more}."
    )
    floats = [p for p in study.precisions if policy.allows(p) and registry.get(p).is_cast]
    if floats:
        widest = max(floats, key=registry.width)
        said += f" Each can stay in float, as by the override {name}={widest}."
    return (said,)


def recommendations(study: Study, policy: Policy) -> tuple[Recommendation, ...]:
    """A strategy each for production, edge and high-precision use.

    *Production* takes the fastest of the named strategies whose projected loss stays within
    1 pt over its whole 90 % range; *edge* the smallest within 2 pts; *high precision* the
    smallest within 0.5 pts; of equals the one that loses least. A model whose outputs are values is
    held to as many percent of its metric. Losses are the projected ones of all, so that those of one
    split are compared. Without measurements the document's own advice is given. What `policy` does not
    allow is not recommended: where nothing that it does allow stays within, what loses least is.
    """
    candidates = {
        title: one
        for title, one in named_strategies(study, policy).items()
        if one.allowed == policy.allowed
    }
    if study.projector is None or study.unknown is not None:
        what = "nothing" if study.projector is None else "not every layer"
        allowed = [name for name in study.precisions if policy.allows(name)]
        narrow = [name for name in allowed if name != registry.REFERENCE] or allowed
        return tuple(
            Recommendation(use, title, candidates[title], f"by rule: {what} is measured yet")
            for use, title in (
                ("production", "Document thresholds"),
                ("edge", f"All {min(allowed, key=registry.width)}"),
                ("high precision", f"All {narrow[0]}"),
            )
            if title in candidates
        )
    priced = {
        title: outcome(study, answer.decide(study, p)).comparable for title, p in candidates.items()
    }
    judged = loss_figures(next(iter(priced.values())))
    uses = (
        ("production", PROCEED_DROP_PTS, "latency_ms", "fastest"),
        ("edge", EDGE_DROP_PTS, "size_bytes", "smallest"),
        ("high precision", HIGH_PRECISION_DROP_PTS, "size_bytes", "smallest"),
    )
    found = []
    for use, limit, axis, word in uses:
        bounds = {title: loss_at_most(totals) for title, totals in priced.items()}
        order = {
            title: (_or_infinite(totals[axis]), bound, _or_infinite(totals[judged.divergence]))
            for title, totals in priced.items()
            if (bound := bounds[title]) is not None and bound <= limit
        }
        unit = next(totals[judged.loss].unit for totals in priced.values())
        why = f"the {word} whose projected loss stays within {_limit(limit, unit)}"
        if order or policy.allows(registry.REFERENCE):
            title = min(order, key=order.__getitem__, default=f"All {registry.REFERENCE}")
        else:
            title = min(priced, key=lambda t: _or_infinite(priced[t][judged.divergence]))
            why = f"of what is allowed it moves the outputs least; none stays within {_limit(limit, unit)}"
        if all(bound is None for bound in bounds.values()):
            why = "without labels no loss is known"
        found.append(Recommendation(use, title, candidates[title], why))
    return tuple(found)


def _or_infinite(found: Quantity) -> float:
    """What is unknown is no less than anything."""
    return math.inf if found.value is None else found.value
