"""Names that other people gave: in every file that is written they stay names, and none of their
control characters reaches a terminal.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.text import Text

from core.analysis import store
from core.cli.main import main
from core.cli.output import Screen, table
from core.decide.study import Study
from core.errors import MapError
from core.export.map import precision_map
from core.export.map.csv_table import to_csv
from core.export.targets.names import NODES_FILE
from core.export.targets.registry import TARGETS, export, get
from core.onnx_graph import node_table as graphs
from tests.core import deployable
from tests.core.hostile import EVIL

ESCAPE = "\x1b[2J\x9b31m\u202ehead\u2028\x00\rquantscape: done\nWrote x"
PIECES = ("# CHECK", "# CONSTANTS", "# SURGERY", "\n", "\r", ";", ",", "=", "＝", "@", "-", "\t", '"""', "'", '"',
          "\\", "\x1b[31m", "\u202e", "\u2028", "\x00", "$(x)", "`x`", "{}", "%s", "*", ":", " ", "a", "é")  # fmt: skip
TAKEN = {*deployable.layers().index, *(node.name for node in deployable.node_table().nodes)}
NAMES = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
    st.text(min_size=1, max_size=12),
).filter(lambda name: name not in TAKEN)
CODE = {name: get(name).file.rpartition(".")[2] for name in TARGETS}
FORMULA = "=+-@＝＋－−＠"


def renamed(name: str) -> tuple[Study, graphs.Graph]:
    """The deployable model whose last layer, its weight and its node are called `name`."""
    study, nodes = deployable.study(), deployable.node_table()
    head = study.layers.layers[-1]
    odd = replace(
        head, name=name, parts=(name,), tensors=(replace(head.tensors[0], name=f"{name}.weight"),)
    )
    layers = replace(study.layers, layers=(*study.layers.layers[:-1], odd))
    *others, last = nodes.nodes
    node = graphs.Node(name, last.op_type, name, ("lo", f"{name}.weight"), last.outputs)
    table_ = graphs.NodeTable(nodes.schema_version, nodes.origin, (*others, node))
    analysis = replace(study.analysis, layers=layers, title=name, description=name)
    return Study(analysis), graphs.lay_over(table_, layers)


@pytest.mark.slow
@settings(max_examples=25)
@given(name=NAMES)
@example("# CHECK")
@example("# CONSTANTS")
@example("# SURGERY")
@example("\n# CHECK\n")
@example(ESCAPE)
@example(EVIL)
def test_every_exported_file_parses_and_holds_the_name(name: str) -> None:
    """A script is Python whose lists hold the name, a table is JSON that holds it, and a shell
    script is one command; what a tool cannot name is refused.
    """
    study, graph = renamed(name)
    maps = [deployable.chosen(study, (name, precision)) for precision in ("FP32", "INT8")]
    for target, kind in CODE.items():
        map_ = maps[bool(get(target).integers)]
        try:
            text = export(study, map_, target, graph=graph, nearest=True).content.decode()
        except MapError as error:
            assert target == "tensorrt", error  # noqa: PT017 (which tool refuses is the point)
            continue
        if kind == "py":
            assert name in _strings(text), target
        elif kind == "json":
            assert name in _leaves(json.loads(text)), target
        else:
            _is_one_command(text, name)


def _strings(script: str) -> set[str]:
    return {
        value
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Constant) and isinstance(value := node.value, str)
    }


def _leaves(value: object) -> Iterator[object]:
    """Keys and values of JSON, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _is_one_command(script: str, name: str) -> None:
    """The shell reads the script, and hands the name to trtexec as part of one word."""
    body = script.replace("trtexec ", 'printf "%s\\0" ', 1)
    words = subprocess.run(["/bin/sh", "-c", body, "x", "a", "b", "c"], capture_output=True,
                           check=True, timeout=20).stdout.decode().split("\0")  # fmt: skip
    (precisions,) = (w for w in words if w.startswith("--layerPrecisions="))
    assert f",{name}:int8" in precisions


@settings(max_examples=60)
@given(name=NAMES)
@example("a;=cmd()")
@example("a\n=cmd()")
@example('a;"=cmd()')
@example("＝cmd()")
@example("a;\t－1")
def test_no_cell_of_a_csv_is_a_formula(name: str) -> None:
    """Parted by commas, semicolons or tabs, no cell begins as a formula does; parted by commas,
    the name is there but for apostrophes.
    """
    study, _ = renamed(name)
    text = to_csv(study, deployable.chosen(study, (name, "INT8"))).decode()

    for mark in ",;\t":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark):
            for cell in row:
                assert not cell.strip().lstrip('"').lstrip().startswith(tuple(FORMULA)), row
    last = list(csv.DictReader(io.StringIO(text, newline="")))[-1]
    assert last["name"].replace("'", "") == name.replace("'", "")


@settings(max_examples=60)
@given(name=NAMES)
@example(ESCAPE)
def test_a_map_of_odd_names_reads_back(name: str) -> None:
    """A map's JSON gives the same map again."""
    study, _ = renamed(name)
    chosen = deployable.chosen(study, (name, "INT8"))

    again = precision_map.from_json(precision_map.to_json(study, chosen), study)

    assert again.by_layer == chosen.by_layer


@given(text=st.text(max_size=30))
@example(ESCAPE)
def test_a_screen_prints_no_control_characters(text: str) -> None:
    """Sentences, cells, titles and rich's own texts reach the terminal without what it acts on."""
    out = io.StringIO()
    screen = Screen(file=out, width=60, markup=False, emoji=False, color_system=None)
    rows = table(f"title {text}", ("layer", f"column {text}"))
    rows.add_row(text, Text(text))
    screen.print(text)
    screen.print(Text(text))
    screen.print(rows)

    assert [c for c in out.getvalue() if not c.isprintable() and c != "\n"] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis of a model with a hostile name in it, its nodes, and two maps."""
    study, _ = renamed(ESCAPE)
    target = tmp_path_factory.mktemp("odd") / "analysis"
    store.save(study.analysis, target)
    *others, last = deployable.node_table().nodes
    node = graphs.Node(ESCAPE, last.op_type, ESCAPE, ("lo", f"{ESCAPE}.weight"), last.outputs)
    nodes = graphs.NodeTable(1, "by hand", (*others, node))
    (target / NODES_FILE).write_bytes(graphs.to_json(nodes))
    for name, precision in (("a", "INT8"), ("b", "FP16")):
        chosen = deployable.chosen(study, (ESCAPE, precision), ("attention", "INT8"))
        (target.parent / f"{name}.json").write_bytes(precision_map.to_json(study, chosen))
    return target


COMMANDS = {
    "show": (),
    "show a.json": (),
    "plan": ("--out", "{home}/c.json"),
    "plan --budget": ("--budget", "size=0.6", "--stability"),
    "plan --pin": ("--pin", f"{ESCAPE}x=INT8"),
    "plan --override": ("--override", f"{ESCAPE}x=INT8"),
    "explain a.json": (ESCAPE,),
    "explain b.json": (f"{ESCAPE}x",),
    "compare": ("{home}/a.json", "{home}/b.json", "all-int8"),
    "frontier": (),
    "report a.json": (),
    "export a.json": ("--format", "torchao", "--out", "{home}/x.py"),
    "export b.json": ("--format", "torchao", "--nearest", "--out", "{home}/x.py"),
    "verify a.json": (),
}


@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_hands_a_name_to_the_terminal(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is printed of a hostile name, on either stream, holds nothing a terminal acts on;
    an error is one line.
    """
    command, *maps = words.split()
    files = [str(folder.parent / name) for name in maps if name.endswith(".json")]
    more = [word.replace("{home}", str(folder.parent)) for word in COMMANDS[words]]

    code = main([command, str(folder), *files, *more])

    said = capsys.readouterr()
    assert [c for c in said.out + said.err if not c.isprintable() and c != "\n"] == []
    others = [x for x in said.err.splitlines() if not x.startswith("quantscape: note: ")]
    assert len(others) == (0 if code == 0 else 1)
    assert "Wrote x" not in said.out.splitlines() + said.err.splitlines()
