"""Everything of a decision in one .zip: the map, reports, files for tools, data behind charts."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from core.decide.assess.compare import COSTS
from core.decide.assess.curves import threshold_curve
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import MapError
from core.evidence.diagnose.agreement import agreements
from core.export.map import precision_map
from core.export.map.checklist import checks
from core.export.map.csv_table import LINE_END, safe_cell, to_csv
from core.export.map.words import total
from core.export.report import html, markdown
from core.export.report.assemble import assemble
from core.export.report.html_data import figure_data
from core.export.report.material import Material, gather
from core.export.targets import registry
from core.onnx_graph.node_table import Graph

DATE = (1980, 1, 1, 0, 0, 0)
"""Of every file inside, so that the same decision gives the same bytes."""


def to_zip(study: Study, chosen: PrecisionMap, graph: Graph | None = None) -> bytes:
    """The bundle's bytes. Files for tools that name ONNX nodes need `graph`.

    What a tool cannot run is written as the nearest legal map; `README.md` inside says so for
    each, and why a file is missing.
    """
    given = gather(study, chosen)
    report = assemble(given)
    files: dict[str, bytes] = {
        "precision_map.json": precision_map.to_json(study, chosen),
        "layers.csv": to_csv(study, chosen),
        "report.md": markdown.render(report).encode(),
        "report.html": html.render(report, given).encode(),
    }
    files |= {f"data/{name}.csv": content for name, content in _data(given).items()}
    written, said = _for_tools(study, chosen, graph)
    files |= written
    files["README.md"] = _readme(given, said).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(files):
            packed.writestr(zipfile.ZipInfo(name, DATE), files[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _for_tools(
    study: Study, chosen: PrecisionMap, graph: Graph | None
) -> tuple[dict[str, bytes], list[str]]:
    files, said = {}, []
    for name in registry.TARGETS:
        target = registry.get(name)
        try:
            made = registry.export(study, chosen, name, graph=graph, nearest=True)
        except MapError as error:
            said.append(f"- `{name}`: not written. {markdown.escape(str(error))}")
            continue
        files[f"tools/{target.file}"] = made.content
        changed = sum(
            line.asked != asked for line, asked in zip(made.lines, chosen.assigned, strict=True)
        )
        note = f" {changed} layers moved to the nearest legal precision." if changed else ""
        limits = " ".join(f"Cannot be expressed: {one}" for one in made.cannot)
        other = f" {made.mismatch}" if made.mismatch else ""
        said.append(f"- `tools/{target.file}`: {target.purpose}{markdown.escape(note + other)} "
                    f"{markdown.escape(limits)}")  # fmt: skip
    return files, said


def _readme(given: Material, said: list[str]) -> str:
    study, chosen = given.study, given.chosen
    failed = [c for c in checks(study, chosen, outcome(study, chosen)) if c.status != "passed"]
    noted = (
        "\n".join(f"- {c.title}: {markdown.escape(c.detail)}" for c in failed) or "- All passed."
    )
    return (
        f"# Decision on {markdown.escape(study.analysis.title)}\n\n"
        "`report.html` opens in any browser, offline. `precision_map.json` is the map itself; "
        "`layers.csv` the same as a table; `report.md` the report as text. `data/` holds what "
        "the charts show.\n\n## Files for tools\n\n" + "\n".join(said)
        + f"\n\n## Checks\n\n{noted}\n"
    )  # fmt: skip


def _data(given: Material) -> dict[str, bytes]:
    """The data behind every chart, by name."""
    study, figures = given.study, figure_data(given)
    found = {
        "layers": _table(
            figures["layer_fields"],
            (dict(zip(figures["layer_fields"], row, strict=True)) for row in figures["layers"]),
        ),
        "totals": _rows(
            {
                "figure": name, "value": q.value, "low": q.low, "high": q.high, "unit": q.unit,
                "kind": q.kind, "text": total(study.analysis, name, q),
            }
            for name, q in given.found.totals.items()
        ),
        "strategies": _rows(
            {
                "strategy": s.name,
                **{
                    f"{name}{end}": getattr(q, part)
                    for name, q in s.outcome.totals.items()
                    for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
                **{
                    f"beaten_in_loss_and_{cost}_by": ", ".join(given.comparison.beaten(s.name)[cost])
                    for cost in COSTS
                },
            }
            for s in given.strategies
        ),
        "scores": _rows(
            {
                "layer": layer.name,
                **{name: float(values[i]) for name, values in study.scores.items()},
                "total": float(given.chosen.scores[i]),
            }
            for i, layer in enumerate(study.layers)
        ),
        "agreement": _rows(
            {"scorer": one.scorer, "spearman": one.spearman}
            for one in agreements(study.scores, study.layers.computes)
        ),
    }  # fmt: skip
    if study.analysis.weights:
        found["weights"] = _rows(
            {"layer": one.layer, "tensor": one.tensor, "level": level - 127, "count": int(count)}
            for one in study.analysis.weights
            for level, count in enumerate(one.counts)
            if count
        )
    if given.policy.strategy == "thresholds":
        found["threshold_curve"] = _rows(
            {
                "high_threshold": point.high_threshold,
                "high_layers": point.high_layers,
                **{name: q.value for name, q in point.totals.items()},
            }
            for point in threshold_curve(study, given.policy)
        )
    return found


def _rows(rows: Iterable[Mapping[str, Any]]) -> bytes:
    listed = list(rows)
    return _table(tuple(listed[0]) if listed else (), listed)


def _table(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    buffer = io.StringIO()
    names = list(columns)
    writer = csv.writer(buffer, lineterminator=LINE_END)
    writer.writerow(names)
    writer.writerows([safe_cell(row[name]) for name in names] for row in rows)
    return buffer.getvalue().encode()
