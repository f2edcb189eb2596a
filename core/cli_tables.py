"""Tables of the command line. The only place here that turns units into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from core.decide.decision import PrecisionMap
from core.decide.document import Comparison
from core.decide.outcome import Outcome
from core.decide.scoring import LEVELS
from core.decide.statistics import statistics
from core.estimate.quantity import Quantity
from core.study import Study

if TYPE_CHECKING:
    from core.evidence.analyze import Plan

MEGA = 1e6
UNKNOWN = "n/a"
NEVER_WRAPPED = ("layer", "source", "role")
"""Names that a person copies into the next command."""


def _table(title: str, columns: Sequence[str], numeric: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in numeric else "left",
            no_wrap=name in NEVER_WRAPPED,
            overflow="fold",
        )
    return table


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / MEGA:.3f} MB"
    if unit == "layers":
        return f"{value:.0f}"
    if unit == "nats":
        return f"{value:.2e} nats"
    return f"{value:.2f}{unit if unit == 'x' else ' ' + unit}"


def quantity(given: Quantity | str) -> str:
    """A figure with its range and kind; "n/a" where it is unknown."""
    if isinstance(given, str):
        return given
    if given.value is None:
        return UNKNOWN
    text = _number(given.value, given.unit)
    if given.low is not None and given.high is not None:
        text += f" ({_number(given.low, given.unit)} to {_number(given.high, given.unit)})"
    return f"{text} {given.kind}"


def samples_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Bundled samples."""
    numeric = ("layers", "parameters", "holdout accuracy", "majority class")
    table = _table("Bundled samples", ("source", "title", *numeric), numeric)
    for row in rows:
        accuracy, majority = row.get("holdout_accuracy"), row.get("majority_accuracy")
        table.add_row(
            row["source"],
            row.get("title", "(not analyzed yet)"),
            str(row.get("layers", UNKNOWN)),
            f"{row['params']:,}" if "params" in row else UNKNOWN,
            UNKNOWN if accuracy is None else f"{accuracy:.1%}",
            UNKNOWN if majority is None else f"{majority:.1%}",
        )
    return table


def plan_table(plan: Plan) -> Table:
    """What a measurement will cost."""
    table = _table("Dry run: nothing was measured", ("what", "predicted"), ("predicted",))
    table.add_row("layers", str(plan.layers))
    table.add_row("forward passes over the selection split", str(plan.runs))
    table.add_row("samples", f"{plan.samples:,}")
    table.add_row("time", f"about {plan.predicted_seconds / 60:.1f} min")
    table.add_row("perturbations on disk", f"{plan.perturbation_bytes / MEGA:.1f} MB")
    return table


def layer_table(study: Study, chosen: PrecisionMap, found: Outcome) -> Table:
    """Every layer with its score, level, precision and reason."""
    numeric = ("params", "MACs", "score", "size kB")
    columns = ("layer", "role", *numeric[:2], "score", "level", "precision", "size kB", "document",
               "reason")  # fmt: skip
    table = _table(f"{study.analysis.title}: {len(study.layers)} layers", columns, numeric)
    for i, layer in enumerate(study.layers):
        table.add_row(
            layer.name,
            layer.role,
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{chosen.scores[i]:.3f}",
            LEVELS[chosen.levels[i]],
            chosen.assigned[i] or "-",
            f"{found.layer_bytes[i] / 1e3:,.1f}",
            chosen.document_precision(i),
            chosen.reason(i),
        )
    return table


def statistics_table(chosen: PrecisionMap) -> Table:
    """Counts by level, over all layers and over those that compute."""
    stats = statistics(chosen)
    numeric = ("all layers", "layers that compute")
    table = _table("Statistics", ("level", *numeric), numeric)
    for every, computing in zip(stats.levels, stats.computing_levels, strict=True):
        table.add_row(every.level, _share(every.layers, every.share_pct),
                      _share(computing.layers, computing.share_pct))  # fmt: skip
    table.add_row("quantizable", _percent(stats.quantizable_pct),
                  _percent(stats.computing_quantizable_pct))  # fmt: skip
    for name, count in stats.precisions.items():
        document = stats.document_precisions.get(name)
        table.add_row(f"in {name}", UNKNOWN if document is None else str(document), str(count))
    return table


def _share(count: int, share_pct: float | None) -> str:
    return f"{count} ({_percent(share_pct)})"


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} %"


def totals_table(found: Outcome, hardware: str) -> Table:
    """Figures of the whole map."""
    names = {
        "size_bytes": "tensor bytes",
        "size_reduction_pct": "smaller than FP32",
        "latency_ms": f"latency on {hardware}",
        "speedup": "speed-up over FP32",
        "accuracy": "accuracy, selection split",
        "accuracy_drop_pts": "accuracy loss",
        "kl": "KL divergence",
        "flips_pct": "changed predictions",
    }
    table = _table("Totals", ("figure", "value (90 % range) and kind"))
    for key, title in names.items():
        table.add_row(title, quantity(found.totals[key]))
    table.add_row("precision boundaries", f"{found.boundaries} ({found.boundaries_ms:.3f} ms)")
    table.add_row("confidence", found.confidence)
    return table


def document_table(rows: Sequence[Comparison]) -> Table:
    """The reference document's figures beside the recomputed ones."""
    table = _table("The document's figures", ("figure", "document", "recomputed", "comment"))
    for row in rows:
        table.add_row(row.figure, row.stated, quantity(row.recomputed), row.comment)
    return table
