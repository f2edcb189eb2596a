"""Analysis folders and precision maps: they round-trip, and bad ones say why."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.header import AnalysisHeader
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import AnalysisError, MapError, QuantscapeError
from core.evidence.evidence import Partial
from core.export.map import precision_map
from core.export.map.csv_table import COLUMNS, to_csv
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU
from core.task import Metric
from tests.core.synthetic import synthetic_analysis

POLICY = Policy(pins=(("head*", "FP32"),), overrides=(("embed", "FP16"),), medium="FP16")


@pytest.fixture
def folder(tiny_analysis: Analysis, tmp_path: Path) -> Path:
    """A written analysis folder."""
    target = tmp_path / "analysis"
    store.save(tiny_analysis, target)
    return target


def test_an_analysis_round_trips(tiny_analysis: Analysis, folder: Path) -> None:
    """What is read equals what was written, arrays and tables alike."""
    read = store.load(folder)

    assert read.layers == tiny_analysis.layers
    assert read.identity == tiny_analysis.identity
    assert read.ranges == tiny_analysis.ranges
    assert read.evidence is not None
    assert tiny_analysis.evidence is not None
    for name in ("baseline", "targets", "perturbations", "whole", "probes", "probe_codes",
                 "weight_sqnr_db", "allowed"):  # fmt: skip
        np.testing.assert_array_equal(
            getattr(read.evidence, name), getattr(tiny_analysis.evidence, name)
        )


def test_every_field_of_the_header_is_kept(tmp_path: Path) -> None:
    """Each field that memory and file share comes back as it was, none of them by its default."""
    analysis = replace(
        synthetic_analysis(3), data_description="made up", source="mine.py:load",
        expanded_units=True, holdout_accuracy=0.75, majority_accuracy=0.5, seconds=1.5,
        notes=("A note.",), ranges=(Calibration("block.0", 0, 0, -1.0, 2.0),),
        class_names=("a", "b"), metric=Metric("error", higher_is_better=False, holdout=0.5),
        optimistic=True, scheme_facts=replace(ORT_CPU, bias="float"), calibrator="percentile:99",
        quantizer="torchao",
        device="cuda (a card)", partial=Partial(1, 3, 4, 200),
    )  # fmt: skip
    store.save(analysis, tmp_path / "a")

    read = store.load(tmp_path / "a")

    written = json.loads((tmp_path / "a" / store.FILE).read_text())
    for field in fields(AnalysisHeader):
        kept = getattr(read, field.name)
        assert kept == getattr(analysis, field.name), field.name
        assert kept != field.default, f"{field.name} is not told from its default"
        assert field.name in written


def test_an_analysis_without_evidence_round_trips(tmp_path: Path) -> None:
    """An inventory alone can be kept."""
    analysis = synthetic_analysis(3, measured=False)
    store.save(analysis, tmp_path / "a")

    assert store.load(tmp_path / "a").evidence is None


def test_saving_replaces_an_analysis_but_nothing_else(folder: Path, tmp_path: Path) -> None:
    """A folder that holds something else is never overwritten."""
    store.save(synthetic_analysis(2), folder)
    assert len(store.load(folder).layers) == 2
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")

    with pytest.raises(AnalysisError, match="not an analysis folder"):
        store.save(synthetic_analysis(2), other)

    assert (other / "chapter1.txt").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["analysis", "thesis"]


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / store.FILE
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / store.FILE).unlink(), "holds no analysis.json"),
        (lambda f: (f / store.FILE).write_text("{"), "cannot be read"),
        (lambda f: (f / store.FILE).write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda f: (f / store.FILE).write_text("[" * 100_000), "cannot be read"),
        (lambda f: _edit(f, schema_version=99), "schema version 99"),
        (lambda f: _edit(f, schema_version="one"), "schema_version"),
        (lambda f: _edit(f, layers={"layers": "none"}), "layers"),
        (lambda f: _edit(f, splits={"calibration": 1, "selection": 7, "holdout": 0}), "baseline"),
        (lambda f: (f / "arrays" / "perturbations.npy").unlink(), "perturbations.npy is missing"),
        (lambda f: (f / "arrays" / "whole.npy").write_bytes(b"junk"), "whole.npy cannot be read"),
        (
            lambda f: np.save(f / "arrays" / "probes.npy", np.zeros((2, 3), np.float32)),
            "probes.npy holds",
        ),
        (
            lambda f: np.save(
                f / "arrays" / "baseline.npy", np.full((200, 3), np.nan, dtype=np.float32)
            ),
            "NaN or infinity",
        ),
        (
            lambda f: np.save(f / "arrays" / "targets.npy", np.full(200, 9, dtype=np.int64)),
            "names a class",
        ),
        (
            lambda f: np.save(
                f / "arrays" / "whole.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True
            ),
            "holds object",
        ),
    ],
)
def test_damaged_folders_say_what_is_wrong(damage: Any, message: str, folder: Path) -> None:
    """Each kind of damage is named, with a next step; nothing is unpickled."""
    damage(folder)

    with pytest.raises(AnalysisError, match=message) as caught:
        store.load(folder)

    assert caught.value.next_step


def test_truncated_arrays_are_refused(folder: Path) -> None:
    """An array cut short at any point is an error and not a short read."""
    path = folder / "arrays" / "perturbations.npy"
    whole = path.read_bytes()
    for cut in (0, 5, 60, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(AnalysisError, match=r"perturbations\.npy"):
            store.load(folder)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    """A path that is not there and an empty folder are told apart."""
    with pytest.raises(AnalysisError, match="does not exist"):
        store.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnalysisError, match="is empty"):
        store.load(tmp_path / "empty")


# ---- precision maps


def test_a_map_round_trips_to_equality(tiny_study: Study) -> None:
    """A map read back is the same map, and writing it again gives the same bytes."""
    chosen = answer.decide(tiny_study, POLICY)
    raw = precision_map.to_json(tiny_study, chosen)

    read = precision_map.from_json(raw, tiny_study)

    assert read.assigned == chosen.assigned
    assert read.policy == chosen.policy
    np.testing.assert_array_equal(read.origin, chosen.origin)
    assert precision_map.to_json(tiny_study, read) == raw


def test_a_map_carries_only_json_numbers(tiny_study: Study) -> None:
    """Every figure has value, low, high, unit and kind; no NaN or infinity reaches JSON."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} in JSON")

    raw = precision_map.to_json(tiny_study, answer.decide(tiny_study, POLICY))
    data = json.loads(raw, parse_constant=refuse)

    for figure in data["totals"].values():
        assert set(figure) == {"value", "low", "high", "unit", "kind"}
        assert figure["kind"] in {"exact", "prior", "projected", "estimated", "measured"}
    assert {"name", "role", "params", "macs", "score", "level", "precision",
            "document_precision", "reason"} <= set(data["layers"][0])  # fmt: skip
    assert (
        sum(row["size_bytes"] for row in data["layers"]) + data["glue_bytes"]
        == (data["totals"]["size_bytes"]["value"])
    )


def _edited(study: Study, edit: Any) -> bytes:
    data = json.loads(precision_map.to_json(study, answer.decide(study, POLICY)))
    edit(data)
    return json.dumps(data).encode()


def test_an_edited_precision_is_an_override(tiny_study: Study) -> None:
    """A layer changed by hand keeps its value and is marked as set by hand."""

    def edit(data: Any) -> None:
        data["layers"][-1]["precision"] = "INT8"

    read = precision_map.from_json(_edited(tiny_study, edit), tiny_study)

    assert read.assigned[-1] == "INT8"
    assert "by hand" in read.reason(len(read.codes) - 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["model"].update(name="resnet"), "belongs to model 'resnet', not to 'tiny'"),
        (lambda d: d["model"].update(weights_sha256="f" * 64), "other weights of 'tiny'"),
        (lambda d: d["layers"][0].update(name="ghost"), "1 unknown layers: ghost; 1 missing layers: embed"),
        (lambda d: d["layers"].pop(), "1 missing layers: head"),
        (lambda d: d["layers"].append(d["layers"][0]), "names a layer twice"),
        (lambda d: d["layers"][0].update(precision="FP4"), "precision 'FP4'"),
        (lambda d: d["layers"][0].update(precision=None), "no precision, but it computes"),
        (lambda d: d.update(schema_version=2), "schema version 2"),
        (lambda d: d.pop("policy"), "no precision map"),
        (lambda d: d["policy"].update(high_threshold=7), "high threshold is 7"),
        (lambda d: d["policy"].update(hardware="abacus"), "Unknown hardware"),
    ],
)  # fmt: skip
def test_maps_that_do_not_fit_are_refused(edit: Any, message: str, tiny_study: Study) -> None:
    """A map for another model, with other layers or from the future names the difference."""
    with pytest.raises(QuantscapeError, match=message):
        precision_map.from_json(_edited(tiny_study, edit), tiny_study)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(
        st.sampled_from(["schema_version", "model", "policy", "layers", "x"]), c, max_size=4),
    max_leaves=12).map(lambda v: json.dumps(v).encode())))  # fmt: skip
def test_junk_is_never_a_map(raw: bytes) -> None:
    """Any bytes that are no map give a `MapError` and nothing else."""
    with pytest.raises(MapError):
        precision_map.from_json(raw, Study(synthetic_analysis(2, measured=False)))


def test_unreadable_paths_are_named(tiny_study: Study, tmp_path: Path) -> None:
    """A map file that is not there is named."""
    with pytest.raises(MapError, match=r"gone\.json"):
        precision_map.read(tmp_path / "gone.json", tiny_study)


def test_csv_holds_the_same_rows(tiny_study: Study) -> None:
    """The CSV repeats the JSON's layers, column by column."""
    chosen = answer.decide(tiny_study, POLICY)
    rows = list(csv.DictReader(io.StringIO(to_csv(tiny_study, chosen).decode())))
    layers = json.loads(precision_map.to_json(tiny_study, chosen))["layers"]

    assert tuple(rows[0]) == COLUMNS
    for row, layer in zip(rows, layers, strict=True):
        assert row["name"] == layer["name"]
        assert row["precision"] == (layer["precision"] or "")
        assert float(row["score"]) == layer["score"]


def test_csv_text_cannot_become_a_formula() -> None:
    """A layer name that a spreadsheet would run is quoted."""
    analysis = synthetic_analysis(1, measured=False)
    (layer,) = analysis.layers.layers
    named = replace(analysis, layers=replace(
        analysis.layers, layers=(replace(layer, name="=cmd()"),)))  # fmt: skip
    study = Study(named)

    assert b"'=cmd()" in to_csv(study, answer.decide(study, Policy()))
