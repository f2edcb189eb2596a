"""Reports: the chapters of the method's document, with numbers that the map's JSON gives again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import precision_map
from core.export.report import markdown
from core.export.report.assemble import build
from core.export.report.blocks import Bullets, Code, Facts, Report, Table, Text
from core.export.report.html import to_html
from core.export.report.markdown import to_markdown
from core.quantity import digits
from core.source import samples
from tests.core.synthetic import synthetic_analysis

POLICY = Policy(pins=(("head*", "FP32"),), overrides=(("embed", "FP16"),))
HEADINGS = (
    "Overview", "Evaluation goals", "Evaluation method", "Weights of the score",
    "Thresholds and strategy", "Rules by layer type", "Results", "Sensitivity by layer type",
    "Statistics", "Performance estimate", "File sizes", "Accuracy", "Tools and data",
    "Quantization advice and strategy", "Feasibility", "Key considerations", "Warnings",
    "Recommended precision map", "What it brings", "Beside other strategies",
    "Advice for deployment", "Summary", "All layers", "What these numbers do not say", "How to reproduce",
)  # fmt: skip
KINDS = ("exact", "prior", "projected", "estimated", "measured")
SYNTHETIC = Study(synthetic_analysis(28))
UNMEASURED = Study(synthetic_analysis(28, measured=False))


def _tables(report: Report) -> dict[str, Table]:
    return {
        block.key: block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Table) and block.key
    }


def _records(table: Table) -> list[dict[str, str]]:
    heads = [column.title for column in table.columns]
    return [dict(zip(heads, row, strict=True)) for row in table.rows]


def _content(study: Study, policy: Policy = POLICY) -> Any:
    return json.loads(precision_map.to_json(study, answer.decide(study, policy)))


def _texts(report: Report) -> Iterator[str]:
    for section in report.sections:
        for block in section.blocks:
            match block:
                case Text(text):
                    yield text
                case Bullets(items):
                    yield from items
                case Facts(rows):
                    yield from (cell for row in rows for cell in row)
                case Table(_, rows):
                    yield from (cell for row in rows for cell in row)
                case Code(lines):
                    yield from lines


@pytest.mark.parametrize("study", ["tiny", "synthetic", "unmeasured"])
def test_every_chapter_is_there(study: str, tiny_study: Study) -> None:
    """Both renderings hold every heading of the method's document, once."""
    chosen = {"tiny": tiny_study, "synthetic": SYNTHETIC, "unmeasured": UNMEASURED}[study]
    text = to_markdown(chosen, answer.decide(chosen, POLICY)).decode()
    page = to_html(chosen, answer.decide(chosen, POLICY)).decode()

    for heading in HEADINGS:
        assert len(re.findall(rf"^##+ {heading}$", text, re.MULTILINE)) == 1
        assert len(re.findall(rf"<h[23]>{heading}</h[23]>", page)) == 1


def test_the_layer_table_is_the_maps(tiny_study: Study) -> None:
    """A row per layer, every cell as in the map's JSON."""
    rows = _records(_tables(build(tiny_study, answer.decide(tiny_study, POLICY)))["layers"])
    layers = _content(tiny_study)["layers"]

    assert len(rows) == len(layers) == len(tiny_study.layers)
    for i, (row, layer) in enumerate(zip(rows, layers, strict=True)):
        assert row == {
            "#": str(i + 1),
            "layer": layer["name"],
            "type": layer["role"].replace("_", " "),
            "parameters (exact)": f"{layer['params']:,}",
            "MACs (exact)": f"{layer['macs']:,}",
            "score (prior)": f"{layer['score']:.3f}",
            "level": layer["level"],
            "precision": layer["precision"] or "none",
            "document": layer["document_precision"],
            "set by": layer["set_by"],
            "bytes (exact)": f"{layer['size_bytes']:,}",
            "ms (estimated)": digits(layer["latency_ms"], "ms"),
            "state": layer["state"],
            "why": layer["reason"],
        }


def test_totals_are_the_maps(tiny_study: Study) -> None:
    """Value, range and kind of every total, read back from the report."""
    rows = _tables(build(tiny_study, answer.decide(tiny_study, POLICY)))["totals"].rows
    totals = _content(tiny_study)["totals"]

    assert len(rows) == len(totals)
    for (_, text), key in zip(rows, ("size_bytes", "size_reduction_pct", "latency_ms", "speedup",
                                     "accuracy", "accuracy_drop_pts", "kl", "flips_pct"),
                              strict=True):  # fmt: skip
        given = totals[key]
        scale = 1e-6 if given["unit"] == "bytes" else 1
        number = r"-?\d+(?:\.\d+(?:e[-+]\d+)?|e[-+]\d+)"
        found = [float(n) for n in re.findall(number, text)]
        wanted = [given[k] * scale for k in ("value", "low", "high") if given[k] is not None]
        assert found == pytest.approx(wanted, rel=5e-3, abs=5e-3)
        split = " on the selection split" if key == "accuracy" else ""
        assert text.endswith(f" {given['kind']}{split}")


def test_sums_agree_with_the_maps_statistics(tiny_study: Study) -> None:
    """Layer types add up to all layers; sizes and statistics are the JSON's."""
    tables = _tables(build(tiny_study, answer.decide(tiny_study, POLICY)))
    content = _content(tiny_study)

    assert sum(int(r["layers (exact)"]) for r in _records(tables["types"])) == len(
        content["layers"]
    )
    sizes = {r["map"]: int(r["bytes (exact)"].replace(",", "")) for r in _records(tables["sizes"])}
    assert sizes["this map"] == content["totals"]["size_bytes"]["value"]
    for code, name in enumerate(tiny_study.precisions):
        assert sizes[f"all {name}"] == tiny_study.size_bytes[code].sum() + tiny_study.glue_bytes
    counts = {r["count"]: r["layers that compute (exact)"] for r in _records(tables["statistics"])}
    for name, count in content["statistics"]["precisions"].items():
        assert counts[f"in {name}"] == str(count)
    assert counts["set by a pin"] == str(content["statistics"]["pinned"])
    assert {r["layer or pattern"] for r in _records(tables["rules"])} == {"head*", "embed"}


def test_every_figure_says_its_kind(tiny_study: Study) -> None:
    """Cells of figures end in a kind, and in the split of one that judges, unless the heading of
    their column names it.
    """
    tables = _tables(build(tiny_study, answer.decide(tiny_study, POLICY)))
    told = 0
    for key in ("totals", "performance", "accuracy", "strategies", "advice", "sizes", "layers"):
        for column, *cells in zip(tables[key].columns, *tables[key].rows, strict=True):
            if column.kind != "number" or column.title == "#":
                continue
            named = any(kind in column.title for kind in KINDS)
            assert all(
                named
                or cell == "n/a"
                or cell.removesuffix(" on the selection split").endswith(KINDS)
                for cell in cells
            ), column
            told += len(cells)
    assert told > 50


def test_the_summary_is_the_reports_own(tiny_study: Study) -> None:
    """The closing sentences repeat counts, totals, rivals and verdict of the chapters before."""
    report = build(tiny_study, answer.decide(tiny_study, POLICY))
    totals = {row["figure"]: list(row.values())[1] for row in _records(_tables(report)["totals"])}
    first = next(row for row in _records(_tables(report)["strategies"]))
    (section,) = (s for s in report.sections if s.key == "summary")
    (block,) = section.blocks
    assert isinstance(block, Bullets)
    text = " ".join(block.items)

    for title in ("tensor bytes", "latency per sample", "accuracy loss"):
        assert totals[title] in text
    for cost in ("size", "latency"):
        rivals = first[f"beaten in loss and {cost} by"]
        assert (f"in loss and {cost} by {rivals}" in text) == (rivals != "no one")
    assert f"Verdict: {report.verdict}. {report.summary}" in text
    unmeasured = build(UNMEASURED, answer.decide(UNMEASURED, Policy()))
    assert "Nothing was measured." in " ".join(_texts(unmeasured))


def test_a_bundled_samples_report_names_its_source() -> None:
    """The command that analyzes a shipped sample again can be typed as it is printed."""
    for name in samples.names():
        study = Study(store.load(samples.get(name).analysis))
        said = list(_texts(build(study, answer.decide(study, Policy()))))
        assert f"python -m core analyze sample:{name} --out DIR" in said


def test_nothing_measured_is_said() -> None:
    """Without evidence accuracy is n/a, never 0, and confidence is prior only."""
    report = build(UNMEASURED, answer.decide(UNMEASURED, POLICY))
    totals = dict(_tables(report)["totals"].rows)

    assert totals["accuracy loss"] == totals["KL divergence"] == "n/a"
    assert any("prior only" in text for text in _texts(report))
    assert "agreement" not in {section.key for section in report.sections}


def test_the_documents_column_is_there_where_it_applies(informer_study: Study) -> None:
    """The Informer's report holds the document's figures; another model's does not."""
    chosen = answer.decide(informer_study, Policy())

    assert "document" in {s.key for s in build(informer_study, chosen).sections}
    assert "document" not in {
        s.key for s in build(SYNTHETIC, answer.decide(SYNTHETIC, Policy())).sections
    }


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_odd_models_have_reports(count: int) -> None:
    """No layers, one layer and two thousand."""
    study = Study(synthetic_analysis(count, samples=10))
    chosen = answer.decide(study, Policy())

    assert len(_tables(build(study, chosen))["layers"].rows) == count
    assert to_html(study, chosen)


def test_the_same_map_gives_the_same_report(tiny_study: Study) -> None:
    """Nothing in a report depends on when it is written."""
    chosen = answer.decide(tiny_study, POLICY)

    assert to_markdown(tiny_study, chosen) == to_markdown(tiny_study, chosen)
    assert to_html(tiny_study, chosen) == to_html(tiny_study, chosen)


def test_markdown_shows_names_as_they_are() -> None:
    """A name with pipes, ticks, tags and line ends stays in its cell."""
    evil = "a|b``c`<script>*x*_y_[z](q)\n# d"
    analysis = synthetic_analysis(2, measured=False)
    first, second = analysis.layers.layers
    named = replace(analysis, title="# *T* <b>", layers=replace(
        analysis.layers, layers=(replace(first, name=evil), second)))  # fmt: skip
    study = Study(named)
    text = to_markdown(study, answer.decide(study, Policy(overrides=((evil, "FP32"),)))).decode()

    assert "```a\\|b``c`<script>*x*_y_[z](q) # d```" in text
    assert text.splitlines()[0] == r"# Quantization sensitivity of # \*T\* \<b\>"
    chapter = text.split("## All layers")[1].split("## ")[0]
    table = [line for line in chapter.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {15}
    assert markdown.code("`x") == "`` `x ``"
