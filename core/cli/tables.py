"""Tables of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from core.cli.output import table as new_table
from core.decide.advise.document import DocumentComparison
from core.decide.assess.compare import Comparison as SideBySide
from core.decide.assess.compare import Strategy
from core.decide.assess.outcome import Outcome
from core.decide.assess.statistics import statistics
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.scoring import LEVELS
from core.decide.study import Study
from core.estimate.size import fixed_bytes
from core.export.map.words import count, figures, gain, percent, quantity, total
from core.export.report.facts import outputs
from core.export.targets.capability import Capability
from core.quantity import MEGA, UNKNOWN, duration, written

if TYPE_CHECKING:
    from core.analysis.analyze import Forecast


def samples_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Bundled samples."""
    numeric = ("layers", "parameters", "holdout accuracy", "majority class")
    table = new_table("Bundled samples", ("source", "title", *numeric), numeric)
    for row in rows:
        accuracy, majority = row.get("holdout_accuracy"), row.get("majority_accuracy")
        table.add_row(
            row["source"],
            row.get("title", "(not analyzed yet)"),
            str(row.get("layers", UNKNOWN)),
            f"{row['params']:,}" if "params" in row else UNKNOWN,
            written(None if accuracy is None else 100 * accuracy, "%"),
            written(None if majority is None else 100 * majority, "%"),
        )
    return table


def looked(plan: Forecast) -> str:
    """When a first look is there, in words to go on with."""
    seconds = plan.first_look_seconds
    return "" if seconds is None else f" (a first look after {duration(seconds)})"


def plan_table(plan: Forecast) -> Table:
    """What a measurement will cost."""
    table = new_table("Dry run: nothing was measured", ("what", "predicted"), ("predicted",))
    table.add_row("layers", str(plan.layers))
    table.add_row("runs over the selection split", str(plan.runs))
    table.add_row("samples", f"{plan.samples:,}")
    table.add_row("outputs of a sample", plan.outputs)
    table.add_row("time on an idle machine", f"about {duration(plan.predicted_seconds)}")
    for name, seconds in plan.adds_seconds.items():
        table.add_row(f"of it for {name}", f"about {duration(seconds)}")
    if plan.first_look_seconds is not None:
        table.add_row("first look", f"after about {duration(plan.first_look_seconds)}")
    table.add_row(
        "memory at its peak",
        f"about {plan.peak_bytes / MEGA:,.0f} MB, {plan.held_bytes / MEGA:,.0f} MB of it are held now",
    )
    table.add_row("samples at a time", str(plan.batch))
    table.add_row("each run", f"a full pass: {plan.full_passes}" if plan.full_passes
                  else "what follows the layer")  # fmt: skip
    table.add_row("perturbations on disk", f"{plan.perturbation_bytes / MEGA:.1f} MB")
    return table


def layer_table(study: Study, chosen: PrecisionMap, found: Outcome) -> Table:
    """Every layer with its score, level, precision and reason."""
    numeric = ("params", "MACs", "score", "size kB")
    columns = ("layer", "role", *numeric[:2], "score", "level", "precision", "size kB", "document",
               "reason")  # fmt: skip
    table = new_table(
        f"{study.analysis.title}: {count(len(study.layers), 'layer')}", columns, numeric
    )
    for i, layer in enumerate(study.layers):
        table.add_row(
            layer.name,
            layer.role,
            f"{layer.params:,}",
            f"{layer.macs:,}",
            f"{chosen.scores[i]:.3f}",
            LEVELS[chosen.levels[i]],
            chosen.assigned[i] or "-",
            f"{found.layer_bytes[i] / 1e3:,.3f}",
            chosen.document_precision(i),
            chosen.reason(i),
        )
    return table


def statistics_table(chosen: PrecisionMap) -> Table:
    """Counts of the map, over all layers and over those that compute, and the document's."""
    stats = statistics(chosen)
    numeric = ("all layers", "layers that compute", "document")
    table = new_table("Statistics", ("level", *numeric), numeric)
    for every, computing in zip(stats.levels, stats.computing_levels, strict=True):
        share = _share(every.layers, every.share_pct)
        table.add_row(every.level, share, _share(computing.layers, computing.share_pct), share)
    quantizable = percent(stats.quantizable_pct)
    table.add_row("quantizable", quantizable, percent(stats.computing_quantizable_pct),
                  quantizable)  # fmt: skip
    for name, layers in stats.precisions.items():
        document = stats.document_precisions.get(name)
        table.add_row(f"in {name}", str(layers), str(layers),
                      UNKNOWN if document is None else str(document))  # fmt: skip
    if idle := stats.layers - stats.computing_layers:
        table.add_row("in no precision", str(idle), "0", "0")
    return table


def _share(count: int, share_pct: float | None) -> str:
    return f"{count} ({percent(share_pct)})"


def totals_table(study: Study, found: Outcome, hardware: str) -> Table:
    """Figures of the whole map."""
    names = {**figures(study.analysis), "latency_ms": f"latency on {hardware}"}
    table = new_table("Totals", ("figure", "value (90 % range) and kind"))
    for key, title in names.items():
        table.add_row(title, total(study.analysis, key, found.totals[key]))
    if kept := outputs(study.analysis):
        table.add_row("outputs of a sample that are kept", kept)
    fixed = fixed_bytes(study.layers)
    kind = "" if fixed is None else " exact"
    table.add_row("bytes in no layer, in every map", f"{written(fixed, 'bytes')}{kind}")
    table.add_row(
        "precision boundaries", f"{found.boundaries} ({written(found.boundaries_ms, 'ms')})"
    )
    table.add_row("confidence", found.confidence)
    return table


def document_table(rows: Sequence[DocumentComparison]) -> Table:
    """The reference document's figures beside the recomputed ones."""
    table = new_table("The document's figures", ("figure", "document", "recomputed", "comment"))
    for row in rows:
        table.add_row(row.figure, row.stated, quantity(row.recomputed), row.comment)
    return table


def strategies_table(study: Study, strategies: Sequence[Strategy], found: SideBySide) -> Table:
    """Figures of each strategy, with its difference from the reference below."""
    names = ("figure", *(s.name for s in strategies))
    table = new_table(f"Against {found.reference}, on {found.hardware}", names)
    for key, title in figures(study.analysis).items():
        cells = []
        for s, column in zip(strategies, found.columns, strict=True):
            text = total(study.analysis, key, s.outcome.totals[key])
            if s.name != found.reference:
                text += f"\n{gain(column.gains[key], s.outcome.totals[key].unit)}"
            cells.append(text)
        table.add_row(title, *map(Text, cells))  # two lines each
    return table


def differing_table(found: SideBySide) -> Table:
    """Layers that differ between any of the strategies, with counts on top."""
    table = new_table("Layers that differ", ("layer", "role", *(c.name for c in found.columns)))
    counts = [
        ", ".join(f"{n} {name}" for name, n in column.precisions.items() if n)
        for column in found.columns
    ]
    table.add_row(f"{len(found.layers)} in all", "", *counts)
    table.add_row("they take", "", *(c.part for c in found.columns), end_section=True)
    for row in found.layers:
        table.add_row(row.layer, row.role, *(name or "-" for name in row.precisions))
    return table


def targets_table(found: Sequence[Capability]) -> Table:
    """Export targets: what each can do, and whether the tool itself proves it."""
    table = new_table(
        "Export targets",
        ("format", "tool", "written for", "names", "precisions", "INT8 for", "floats", "proved by"),
    )
    for one in found:
        states = (
            ("", one.computes), ("weights of ", one.stores), ("in the kernel before: ", one.folds),
        )  # fmt: skip
        table.add_row(
            one.name,
            one.title,
            f"{one.package} {one.version}",
            one.speaks,
            ", ".join(one.precisions),
            "anything"
            if one.overlay
            else "; ".join(f"{word}{', '.join(kinds)}" for word, kinds in states if kinds)
            or "nothing",
            one.floats,
            "the tool" if one.proved == "tool" else "its documented form",
        )
    return table
