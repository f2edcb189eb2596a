"""Exporting from the command line: what is written, what is noted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.analysis import store
from core.cli.main import main
from core.export.map import precision_map
from core.export.targets.names import NODES_FILE, kept_nodes
from core.export.targets.registry import TARGETS, export
from core.onnx_graph import node_table as graphs
from tests.core import deployable

STUDY = deployable.study()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An analysis with node names and a map beside it."""
    store.save(STUDY.analysis, tmp_path / "a")
    (tmp_path / "a" / NODES_FILE).write_bytes(graphs.to_json(deployable.node_table()))
    map_ = deployable.chosen(STUDY)
    (tmp_path / "map.json").write_bytes(precision_map.to_json(STUDY, map_))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> tuple[int, str, str]:
    """`export` of the map in `folder` to `out` there."""
    paths = (str(folder / "a"), str(folder / "map.json"), "--out", str(folder / "out"))
    code = main(("export", *paths, *options))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("name", TARGETS)
def test_each_format_is_written(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is core's, and what it cannot say is noted and given to programs."""
    code, out, err = run(capsys, folder, "--format", name, "--nearest", "--json")
    made = export(STUDY, deployable.chosen(STUDY), name, graph=deployable.graph(), nearest=True)

    assert code == 0
    assert (folder / "out").read_bytes() == made.content
    said = json.loads(out)
    assert said["cannot"] == list(made.cannot)
    assert [line["layer"] for line in said["layers"]] == list(STUDY.layers.names)
    for sentence in made.cannot:
        assert f"cannot be expressed: {sentence}" in err
    for row in said["changed"]:
        assert f"nearest legal: {row['layer']} {row['asked']} -> {row['now']}" in err
    assert (made.mismatch or "") in err


def test_an_illegal_map_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written, and the line says what the nearest legal map costs."""
    code, _, err = run(capsys, folder, "--format", "torchao")

    assert code == 2
    assert "torchao cannot run" in err
    assert "The nearest legal map changes size" in err
    assert not (folder / "out").exists()


def test_names_of_the_model_at_hand_are_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--names` takes module paths, one a line."""
    names = folder / "names.txt"
    names.write_text("mixer.linear1\nmixer.linear2\nhead\n", encoding="utf-8")
    options = ("--format", "torchao", "--nearest", "--names", str(names))
    assert run(capsys, folder, *options)[0] == 0

    names.write_text("mixer.linear1\nmixer.linear_2\nhead\n", encoding="utf-8")
    code, _, err = run(capsys, folder, *options)
    assert code == 2
    assert "no mixer.linear2 (nearest: mixer.linear_2" in err


def test_without_nodes_the_next_step_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A format of ONNX nodes needs them, and says how they come."""
    (folder / "a" / NODES_FILE).unlink()
    code, _, err = run(capsys, folder, "--format", "nncf", "--nearest")

    assert code == 2
    assert "python -m core nodes DIR --onnx model.onnx" in err


@pytest.mark.parametrize("option", ["--nearest", "--names=x", "--onnx=x"])
def test_options_of_tools_are_refused_elsewhere(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report takes no node names."""
    code, _, err = run(capsys, folder, "--format", "csv", option)

    assert code == 2
    assert "takes no --" in err


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every target is listed with its version, what it can do and how that is proved."""
    assert main(("targets",)) == 0
    table = capsys.readouterr().out
    assert main(("targets", "--json")) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}

    assert list(rows) == list(TARGETS)
    for row in rows.values():
        assert row["sources"]
        assert row["proof"]
    assert "0.18.0" in table
    assert "its documented form" in table


def test_nodes_are_kept_with_an_analysis(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`nodes` reads an exported model once, and refuses one of another model."""
    onnx = pytest.importorskip("onnx", reason="reading ONNX files needs the package onnx")
    table = deployable.node_table()
    made = [
        onnx.helper.make_node(n.op_type, list(n.inputs), list(n.outputs), name=n.name)
        for n in table.nodes
    ]
    for node, known in zip(made, table.nodes, strict=True):
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', '{known.module}', 'f']"
    path = folder / "m.onnx"

    def write(nodes: list[object]) -> None:
        graph = onnx.helper.make_graph(nodes, "g", [], [])
        onnx.save(onnx.helper.make_model(graph), str(path))

    (folder / "a" / NODES_FILE).unlink()
    write(made)
    assert main(("nodes", str(folder / "a"), "--onnx", str(path))) == 0
    kept = kept_nodes(folder / "a")
    assert kept is not None
    assert graphs.lay_over(kept, STUDY.layers).of == deployable.graph().of

    write([n for n in made if n.name != "classify"])
    capsys.readouterr()
    assert main(("nodes", str(folder / "a"), "--onnx", str(path))) == 2
    assert "has no head" in capsys.readouterr().err
    assert kept_nodes(folder / "a") == kept
