"""The decision on record and the bundle: what they hold, and that it agrees with the core."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest

from core.analysis import store
from core.cli.main import main
from core.decide import answer
from core.decide.assess.gains import gains
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export import bundle
from core.export.map import precision_map
from core.export.map.words import amount, gain
from core.export.report.assemble import build
from core.export.report.blocks import Facts, Table
from core.export.report.markdown import render
from core.export.targets.names import NODES_FILE
from core.export.targets.registry import TARGETS, export, get
from core.onnx_graph import node_table as graphs
from core.quantity import Quantity
from core.records import verification
from core.records.verification import LayerRun, Machine, Timing, Verification
from tests.core import deployable
from tests.core.hostile import EVIL, named
from tests.core.synthetic import synthetic_analysis

STUDY = deployable.study()
CHOSEN = deployable.chosen(STUDY)


def unpacked(content: bytes) -> dict[str, bytes]:
    """Files of a .zip by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert packed.testzip() is None
        return {name: packed.read(name) for name in packed.namelist()}


def rows(content: bytes) -> list[dict[str, str]]:
    """A CSV file as dicts."""
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_the_bundle_holds_everything() -> None:
    """Map, reports, every tool's file and the data behind the charts, the same each time."""
    graph = deployable.graph()
    content = bundle.to_zip(STUDY, CHOSEN, graph)
    files = unpacked(content)

    assert content == bundle.to_zip(STUDY, CHOSEN, graph)
    assert files["precision_map.json"] == precision_map.to_json(STUDY, CHOSEN)
    for name in TARGETS:
        made = export(STUDY, CHOSEN, name, graph=graph, nearest=True)
        assert files[f"tools/{get(name).file}"] == made.content
    found = outcome(STUDY, CHOSEN)
    assert [r["name"] for r in rows(files["data/layers.csv"])] == list(STUDY.layers.names)
    totals = {r["figure"]: r for r in rows(files["data/totals.csv"])}
    assert {n: r["kind"] for n, r in totals.items()} == {n: q.kind for n, q in found.totals.items()}
    assert float(totals["size_bytes"]["value"]) == found.totals["size_bytes"].value
    scores = rows(files["data/scores.csv"])
    assert [float(r["total"]) for r in scores] == CHOSEN.scores.tolist()
    assert {"README.md", "report.md", "report.html"} <= set(files)


def test_what_is_missing_from_a_bundle_is_said() -> None:
    """Without node names files of ONNX tools are left out, and the reason is in the README."""
    files = unpacked(bundle.to_zip(STUDY, CHOSEN))

    assert "tools/nncf.py" not in files
    assert "tools/torchao.py" in files
    readme = files["README.md"].decode()
    assert "`nncf`: not written." in readme
    assert "names ONNX nodes" in readme


def test_names_in_a_bundle_are_inert() -> None:
    """A layer whose name is a formula gets an apostrophe, and markup is escaped."""
    odd = named(f"={EVIL}")
    files = unpacked(bundle.to_zip(odd, answer.decide(odd, Policy())))

    assert rows(files["data/scores.csv"])[0]["layer"].startswith("'=")
    assert EVIL not in files["README.md"].decode()


def test_an_unmeasured_study_has_a_bundle() -> None:
    """Unknown figures are empty cells, not zeros."""
    one = Study(synthetic_analysis(14, measured=False))
    files = unpacked(bundle.to_zip(one, answer.decide(one, Policy())))
    totals = {r["figure"]: r for r in rows(files["data/totals.csv"])}

    assert totals["kl"]["value"] == ""
    assert totals["size_bytes"]["value"]


def facts() -> dict[str, str]:
    """Rows of the decision."""
    (section,) = (s for s in build(STUDY, CHOSEN).sections if s.key == "decision")
    (block,) = (b for b in section.blocks if isinstance(b, Facts))
    return dict(block.rows)


def test_the_record_says_what_was_decided() -> None:
    """Model, policy, map and every figure by its kind with its range."""
    said, found = facts(), outcome(STUDY, CHOSEN)

    assert said["Chosen map"] == "2 FP32, 3 FP16, 5 INT8"
    assert "--strategy=manual" in said["Policy"]
    assert "'--override=attention=FP16'" in said["Policy"] or "attention=FP16" in said["Policy"]
    assert amount(found.totals["size_bytes"]) in said["Exact"]
    assert amount(found.totals["latency_ms"]) in said["Estimated"]
    assert amount(found.totals["kl"]) in said["Projected, selection split"]
    assert " to " in said["Projected, selection split"]
    assert said["Measured, this map"].startswith("n/a")


def run() -> Verification:
    """A run of the map as `verify` keeps it."""
    found = outcome(STUDY, CHOSEN)
    measured = Quantity(91.5, "%", "measured", 90.0, 93.0)
    ms = Quantity(0.5, "ms", "measured", 0.4, 0.6)
    identity = STUDY.analysis.identity
    return Verification(
        schema_version=1, tool_version="test", created="2026-01-02T00:00:00+00:00", label="mine",
        identity=identity, scheme="ort-cpu",
        machine=Machine("a processor", (), 2, 1, "Linux", "onnxruntime 1.32.0"),
        layers=tuple(LayerRun(n, p, p, "kernel") for n, p in CHOSEN.by_layer.items()),
        figures={"accuracy": measured}, same_samples={"accuracy": measured}, split="holdout", samples=120, agreement_db=None,
        error_db=None, simulated_error_db=None, disagreements=None,
        timing=Timing(ms, ms, Quantity(0.8, "x", "measured"), 1, 10, 1.0), file_bytes=1,
        tensor_bytes=int(found.totals["size_bytes"].value or 0), reference_file_bytes=1,
        predicted_file_bytes=1, peak_bytes=None, reference_peak_bytes=None, left_out=(),
        overflow=(), seconds=1.0,
    )  # fmt: skip


def test_a_run_of_the_map_is_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `verify` measured stands beside the projection, and only for the very map that ran."""
    store.save(STUDY.analysis, tmp_path / "a")
    verification.save(tmp_path / "a", run())
    said = {}
    for label, overrides in (("mine", ()), ("other", (("head", "FP32"),))):
        map_ = deployable.chosen(STUDY, *overrides)
        (tmp_path / "map.json").write_bytes(precision_map.to_json(STUDY, map_))
        assert main(("report", str(tmp_path / "a"), str(tmp_path / "map.json"))) == 0
        said[label] = capsys.readouterr().out

    assert "accuracy 91.50 % (90.00 to 93.00)" in said["mine"]
    assert "onnxruntime 1.32.0 on a processor, 120 samples of the holdout split" in said["mine"]
    assert "This map was run as a whole" in said["mine"]
    assert "this map was not run as a whole" in said["other"]
    assert "91.50" not in said["other"]


def test_node_names_outlive_an_analysis(tmp_path: Path) -> None:
    """Analyzing again keeps what exporting the model has shown."""
    store.save(STUDY.analysis, tmp_path / "a")
    content = graphs.to_json(deployable.node_table())
    (tmp_path / "a" / NODES_FILE).write_bytes(content)
    store.save(STUDY.analysis, tmp_path / "a")

    assert (tmp_path / "a" / NODES_FILE).read_bytes() == content


def table(key: str) -> Table:
    """A table of the report."""
    (found,) = (
        b for s in build(STUDY, CHOSEN).sections for b in s.blocks
        if isinstance(b, Table) and b.key == key
    )  # fmt: skip
    return found


def test_alternatives_are_differences_from_the_map() -> None:
    """Every named strategy is there with what it would change, recomputed here."""
    shown = {row[0]: row for row in table("alternatives").rows}
    all8 = answer.decide(
        STUDY, Policy(strategy="uniform", uniform="INT8", hardware=CHOSEN.policy.hardware)
    )
    changed = gains(outcome(STUDY, CHOSEN), outcome(STUDY, all8))

    assert "This map" not in shown
    assert shown["All INT8"][1] == gain(changed["size_bytes"], "bytes")
    assert all(row[-1] for row in shown.values())


@pytest.mark.parametrize("name", [n for n in TARGETS if not get(n).overlay])
def test_every_target_is_in_the_record(name: str) -> None:
    """A colleague reads which tools can run the map, at what cost, and what each cannot say."""
    (row,) = (r for r in table("targets").rows if r[0] == name)

    assert get(name).version in row[1]
    assert row[2] == "every choice" or "going there changes size" in row[2]
    assert all(limit in row[3] for limit in get(name).cannot)


def test_the_record_is_in_the_text() -> None:
    """The Markdown report has both chapters."""
    text = render(build(STUDY, CHOSEN))

    assert "## Decision on record" in text
    assert "## Where this map can go" in text
