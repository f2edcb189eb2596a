"""The reference document's figures beside the recomputed ones.

The document contradicts itself in places; what it states is shown, never used.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.decide import answer
from core.decide.advise.advice import feasibility
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.assess.statistics import statistics
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import HIGH
from core.decide.study import Study
from core.quantity import Quantity

MODEL = "informer"
"""The sample that the document is about; its figures say nothing about another model."""


@dataclass(frozen=True, slots=True)
class DocumentComparison:
    """One stated figure. `recomputed` is a quantity, or words where the figure is a word."""

    figure: str
    stated: str
    recomputed: Quantity | str
    comment: str = ""


def applies_to(study: Study) -> bool:
    """Whether the document speaks of this model, in precisions that it knows."""
    analysis = study.analysis
    known = {"FP32", "FP16", "INT8"} <= set(study.precisions)
    return analysis.identity.name == MODEL and not analysis.expanded_units and known


def _exact(value: float | None, unit: str) -> Quantity:
    return Quantity(value, unit, "exact")


def comparisons(study: Study, hardware: str) -> tuple[DocumentComparison, ...]:
    """Every figure of the document beside this model's, under the document's own policy."""
    policy = Policy(hardware=hardware)
    chosen = answer.decide(study, policy)
    found = outcome(study, chosen)
    stats = statistics(chosen)
    by_level = {count.level: count for count in stats.levels}
    uniform = {
        name: outcome(study, uniform_map(study, name, hardware)) for name in study.precisions
    }
    ms = {name: o.totals["latency_ms"] for name, o in uniform.items()}
    size = {name: o.totals["size_bytes"].value or 0.0 for name, o in uniform.items()}
    attention = sum(
        1
        for role, level in zip(study.layers.roles, chosen.levels, strict=True)
        if role == "attention" and level == HIGH
    )
    rows = [
        DocumentComparison("Layers", "57", _exact(stats.layers, "layers"),
                   f"{stats.computing_layers} compute; dropout does nothing at inference"),
    ]  # fmt: skip
    stated_levels = {"HIGH": "33 (57.9 %)", "MEDIUM": "13 (22.8 %)", "LOW": "11 (19.3 %)"}
    for level, stated in stated_levels.items():
        rows += [
            DocumentComparison(f"{level} layers", stated, _exact(by_level[level].layers, "layers"),
                       f"{by_level[level].share_pct or 0.0:.1f} %"),
        ]  # fmt: skip
    rows += [
        DocumentComparison("Quantizable layers", "42.1 %", _exact(stats.quantizable_pct, "%"),
                   f"{stats.computing_quantizable_pct or 0.0:.1f} % of the layers that compute"),
        DocumentComparison("Mixed-precision layers", "22.8 %", _exact(by_level["MEDIUM"].share_pct, "%")),
        DocumentComparison("Attention layers kept in FP16", "33", _exact(attention, "layers"),
                   "33 counts all HIGH layers, not the attention layers"),
        DocumentComparison("FP16 layers", "33", _exact(stats.document_precisions["FP16"], "layers")),
        DocumentComparison("INT8 layers", "24", _exact(stats.document_precisions["INT8"], "layers"),
                   "its list of INT8 types adds up to 23: the embedding is missing; "
                   f"{stats.precisions.get('INT8', 0)} without dropout"),
        DocumentComparison("FP32 latency", "0.52 ms", ms["FP32"]),
        DocumentComparison("FP16 latency", "0.68 ms", ms["FP16"],
                   "slower than FP32: true of CPUs without FP16 kernels, false of GPUs"),
        DocumentComparison("INT8 latency", "0.27 ms", ms["INT8"]),
        DocumentComparison("Mixed latency", "0.28 ms", found.totals["latency_ms"]),
        DocumentComparison("Theoretical speed-up", "2.5x", _speedup(ms["FP16"], ms["INT8"]),
                   "FP16 time over INT8 time"),
        DocumentComparison("Actual speed-up", "1.9x", _speedup(ms["FP32"], ms["INT8"]),
                   "FP32 time over INT8 time; an estimate in both"),
        DocumentComparison("FP32 size", "19.39 MB", _exact(size["FP32"] / 1e6, "MB")),
        DocumentComparison("FP16 size", "9.04 MB", _exact(size["FP16"] / 1e6, "MB"),
                   "half of 19.39 is 9.70"),
        DocumentComparison("INT8 size", "4.85 MB", _exact(size["INT8"] / 1e6, "MB"),
                   "with scales, zero points, and layers that keep float weights"),
        DocumentComparison("Mixed size", "4.85 MB",
                   _exact((found.totals["size_bytes"].value or 0.0) / 1e6, "MB"),
                   "the document gives the size of all layers in INT8"),
        DocumentComparison("Reduction, INT8 against FP32", "75 %",
                   _exact(_less(size["INT8"], size["FP32"]), "%")),
        DocumentComparison("Reduction, INT8 against FP16", "46.8 %",
                   _exact(_less(size["INT8"], size["FP16"]), "%"),
                   "its own sizes, 4.85 and 9.04 MB, give 46.4 %"),
        DocumentComparison("Accuracy loss", "8.0 %", found.totals["accuracy_drop_pts"],
                   "undefined there; here points of accuracy on the selection split"),
        DocumentComparison("Confidence", "medium", found.confidence,
                   "undefined there; here prior only, projected or measured"),
        DocumentComparison("Feasibility", "cautious", feasibility(study, chosen, found).feasibility),
    ]  # fmt: skip
    return tuple(rows)


def _less(value: float, reference: float) -> float | None:
    return 100 * (1 - value / reference) if reference else None


def _speedup(slow: Quantity, fast: Quantity) -> Quantity:
    ratio = slow.value / fast.value if slow.value is not None and fast.value else None
    return Quantity(ratio, "x", "estimated")
