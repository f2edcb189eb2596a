"""Folders that somebody crafted: each is a valid analysis or one error that names file and field."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.analysis import store
from core.analysis.analysis import Analysis
from core.cli.main import main
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import AnalysisError
from core.export.map import precision_map
from core.export.report import markdown
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU
from tests.core.foreign import unwritable
from tests.core.synthetic import synthetic_analysis

PEAK_BYTES = 300 * 10**6
"""Of a small folder, whatever its files claim to hold."""
AWKWARD: tuple[Any, ...] = (
    -1, 7, 10**15, 10**30, 1e300, float("nan"), "x", "\ud800", None, [], {}, [10**30],
)  # fmt: skip
"""What a field may hold that it should not."""
Place = tuple[str | int, ...]


def crafted(count: int = 14) -> Analysis:
    """A small analysis of `count` layers in which every field says something."""
    found = synthetic_analysis(count, samples=20)
    layers = replace(
        found.layers, groups=((0, 1), (2, 3)), glue_tensors=found.layers.layers[0].tensors[:1],
        glue=("add",), uncalled=("spare",), sometimes=("block.0",),
    )  # fmt: skip
    return replace(
        found, layers=layers, holdout_accuracy=0.5, majority_accuracy=0.2, seconds=1.0,
        notes=("A note.",), ranges=(Calibration(layers.names[0], 0, 0, -1.0, 1.0),),
        class_names=tuple("abcdefghij"), scheme_facts=ORT_CPU,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of `crafted`."""
    store.save(crafted(), tmp_path / "a")
    return tmp_path / "a"


def places(node: Any, at: Place = ()) -> Iterator[Place]:
    """The place of every value, the first two of each list standing for the others."""
    yield at
    inside: Iterable[tuple[str | int, Any]] = ()
    if isinstance(node, dict):
        inside = node.items()
    elif isinstance(node, list):
        inside = enumerate(node[:2])
    for key, value in inside:
        yield from places(value, (*at, key))


def changed(content: Any, at: Place, value: Any) -> bytes:
    """`content` as JSON with `value` at a place."""
    if not at:
        return json.dumps(value).encode()
    copy = json.loads(json.dumps(content))
    node = copy
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = value
    return json.dumps(copy).encode()


def used(folder: Path) -> None:
    """What pages and commands do with an analysis."""
    study = Study(store.load(folder))
    for policy in (Policy(), Policy(strategy="uniform", uniform=study.precisions[-1])):
        chosen = answer.decide(study, policy)
        precision_map.to_json(study, chosen)
        markdown.to_markdown(study, chosen)


@pytest.mark.slow
def test_any_value_in_any_field_is_used_or_refused(tmp_path: Path) -> None:
    """Whatever stands in whatever field of analysis.json, the folder is used or refused with one
    error that names the file; never another exception.
    """
    folder = tmp_path / "a"
    store.save(crafted(4), folder)  # as few layers as have two groups
    content = json.loads((folder / store.FILE).read_text())
    wrong, refused = [], 0
    for at in places(content):
        for value in AWKWARD:
            (folder / store.FILE).write_bytes(changed(content, at, value))
            try:
                used(folder)
            except AnalysisError as error:
                refused += 1
                if str(folder) not in error.cause:
                    wrong.append((at, value, error.cause))
            except Exception as error:  # noqa: BLE001 (each is an offender)
                wrong.append((at, value, repr(error)))

    assert wrong == []
    assert refused > 1000


def _layer(edit: dict[str, Any]) -> Callable[[Any], None]:
    return lambda content: content["layers"]["layers"][0].update(edit)


def _tensor(edit: dict[str, Any]) -> Callable[[Any], None]:
    return lambda content: content["layers"]["layers"][0]["tensors"][0].update(edit)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_layer({"params": 2**63}), "params"),
        (_layer({"activation_scales": -5}), "activation_scales"),
        (_layer({"input_shape": [-1, 4]}), "input_shape"),
        (_tensor({"shape": [10**30]}), "shape"),
        (_tensor({"shape": [10**9, 10**9]}), "block.0.weight"),
        (_tensor({"shape": [-3, 3]}), "shape"),
        (_tensor({"channels": -7}), "channels"),
        (_tensor({"channels": 10**12}), "in 1,000,000,000,000 channels"),
        (_tensor({"channel_axis": 9}), "no axis 9"),
        (lambda c: c["layers"].update(groups=[[0, 1], [1, 2]]), "in two groups"),
        (lambda c: c["layers"].update(groups=[[0, 99]]), "not there"),
        (lambda c: c["splits"].update(selection=10**30), "selection"),
        (lambda c: c["scheme_facts"].update(activation_bits=10**6), "activation_bits"),
        (lambda c: c.update(measured_precisions=["FP16", "FP16"]), "measured_precisions"),
        (lambda c: c.update(measured_precisions=["INT8", "FP9"]), "measured_precisions"),
        (lambda c: c.update(holdout_accuracy=7.5), "holdout_accuracy"),
        (lambda c: c.update(task="dreaming"), "task is 'dreaming'"),
    ],
)
def test_impossible_counts_are_refused_by_field(
    folder: Path, edit: Callable[[Any], None], said: str
) -> None:
    """A count that nothing can have is no exact figure: file and field are named, with a next step."""
    content = json.loads((folder / store.FILE).read_text())
    edit(content)
    (folder / store.FILE).write_text(json.dumps(content))

    with pytest.raises(AnalysisError, match=said) as caught:
        store.load(folder)

    assert str(folder / store.FILE) in caught.value.cause
    assert caught.value.next_step


def _header(path: Path, shape: str, size: int = 100) -> None:
    """An array whose header claims `shape`; the file is sparse."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
        file.truncate(10 + len(head) + size)


def _zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, whole=np.zeros(3))


def _linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


ARRAYS: dict[str, Callable[[Path], None]] = {
    "npz": _zipped,
    "pipe": _piped,
    "device": lambda path: _linked(path, "/dev/zero"),
    "folder": lambda path: (path.unlink(), path.mkdir())[0],
    "loop": lambda path: _linked(path, path.name),
    "huge": lambda path: _header(path, f"({10**30}, 20, 10)"),
    "negative": lambda path: _header(path, "(-1, 20, 10)"),
    "no numbers": lambda path: _header(path, "('a', 20, 10)"),
    "more than the file": lambda path: _header(path, "(4, 20, 10)"),
    "sparse": lambda path: _header(path, f"({10**9}, 20, 10)", 800 * 10**9),
    "nested": lambda path: _header(path, "(" * 5000),
}


@pytest.mark.parametrize("damage", ARRAYS.values(), ids=ARRAYS)
def test_arrays_are_plain_files_of_their_shape(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    """What is no plain array is refused by its name, at once and without taking memory."""
    damage(folder / "arrays" / "probes.npy")

    tracemalloc.start()
    try:
        with pytest.raises(AnalysisError, match=r"probes\.npy") as caught:
            store.load(folder)
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
    assert caught.value.next_step


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "bytes": lambda path: path.write_bytes(b'{"schema_version": 1, "x": "\xff"}') and None,
    "nested": lambda path: path.write_bytes(b'{"x":' * 200_000) and None,
    "large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 10**11),
}


@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL)
@pytest.mark.parametrize("command", ["analysis", "map", "nodes", "names", "onnx"])
def test_no_command_waits_for_a_file_or_dies_of_it(
    folder: Path, tmp_path: Path, make: Callable[[Path], None], command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A pipe, a device, a folder, broken text or a file of any size in the place of one that a
    command reads ends with code 2 and one line that names it.
    """
    study = Study(store.load(folder))
    good = tmp_path / "map.json"
    good.write_bytes(precision_map.to_json(study, answer.decide(study, Policy())))
    bad = tmp_path / "bad.json"
    export = ["export", str(folder), str(good), "--out", str(tmp_path / "x"), "--format", "torchao"]
    words = {
        "map": ["show", str(folder), str(bad)],
        "analysis": ["show", str(folder)],
        "nodes": export,
        "names": [*export, "--names", str(bad)],
        "onnx": ["nodes", str(folder), "--onnx", str(bad)],
    }[command]
    if command == "analysis":
        bad = folder / store.FILE
        bad.unlink()
    elif command == "nodes":
        bad = folder / "onnx_nodes.json"
    make(bad)
    if command == "names" and make is SPECIAL["nested"]:
        pytest.skip("is text")

    code = main(words)

    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    assert bad.name in said or "holds no analysis.json" in said


def test_a_target_that_cannot_be_written_is_said_before_hours_of_measuring(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`analyze` refuses a read-only place before it loads the model, and asks for another."""
    with unwritable() as place:
        code = main(["analyze", "no_such_file.py:load", "--out", str(place / "deep" / "out")])

    assert code == 2
    said = capsys.readouterr().err
    assert "cannot be written to" in said
    assert "read but not written: choose a folder that can be written" in said


def test_a_folder_that_may_not_be_read_is_an_error_of_its_own() -> None:
    """Missing rights are named, and are no defect of the program."""
    with (
        unwritable(0o000, lambda place: store.save(crafted(), place / "a")) as place,
        pytest.raises(AnalysisError, match="Permission denied") as caught,
    ):
        store.load(place / "a")

    assert "readable" in caught.value.next_step
