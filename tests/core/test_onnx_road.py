"""From an ONNX file and arrays alone to a map that was run, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.numpy_helper import to_array

from core.analysis import store
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from core.numerics.precision import FP16, INT4_G32, INT8, INT8_DYNAMIC, INT8_W
from core.numerics.storage import GRID_BYTES
from core.onnx_graph.session import open_session
from core.runtime.build import assemble
from core.runtime.graph import graph_of
from core.runtime.inference import run
from core.runtime.simulation import stored_simulator
from tests.core.test_onnx_engine import source_of
from tests.zoo.graphs import GRAPHS, opset_11, several_inputs

Files = tuple[Path, list[str]]


def written(folder: Path) -> list[str]:
    """The words after `analyze` for the OCR-like graph, whose answers are its labels for the most."""
    model, arrays = opset_11()
    path = folder / "my model.onnx"
    path.write_bytes(model.SerializeToString())
    x = arrays["x"]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    targets = session.run(None, {"x": x})[0].argmax(axis=1)
    targets[::7] = 0
    np.savez(folder / "calib.npz", x=x[:16])
    np.savez(folder / "eval.npz", x=x, targets=targets)
    return [str(path), f"--calibration={folder}/calib.npz", f"--evaluation={folder}/eval.npz",
            "--task=classification"]  # fmt: skip


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An analysis of the file, without the cache."""
    folder = tmp_path_factory.mktemp("onnx")
    words = written(folder)
    assert main(["analyze", *words, "--no-cache", "--out", str(folder / "dir")]) == 0
    return folder / "dir", words


@pytest.fixture(scope="module")
def all_int8(analyzed: Files) -> Path:
    """The map of INT8 everywhere."""
    folder, _ = analyzed
    path = folder.parent / "map.json"
    words = ["plan", str(folder), "--strategy", "uniform", "--uniform", "INT8", "--out", str(path)]
    assert main(words) == 0
    return path


def test_an_analysis_says_what_it_is_of(analyzed: Files) -> None:
    """Layers bear the file's names; the source is a command line; what engine ran is said."""
    folder, words = analyzed
    found = json.loads((folder / "analysis.json").read_text("utf-8"))

    names = [layer["name"] for layer in found["layers"]["layers"]]
    assert names == ["Conv@0", "Clip@0", "Conv@1", "Pool@0", "MatMul@0", "Softmax@0"]
    assert found["source"].startswith(f"'{words[0]}' --calibration=")
    said = " ".join(found["notes"])
    assert "ONNX Runtime computes no gradients" in said
    assert "probabilities, not logits" in said


def test_a_map_is_shown_and_explained(
    analyzed: Files, all_int8: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show` and `explain` work on the file's own names; scorers with gradients are absent."""
    folder, _ = analyzed

    assert main(["show", str(folder), str(all_int8), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert main(["explain", str(folder), str(all_int8), "Conv@0"]) == 0

    assert shown["layers"][0]["name"] == "Conv@0"
    assert "Conv@0: INT8" in capsys.readouterr().out


def test_a_built_file_keeps_the_persons_names(analyzed: Files, all_int8: Path) -> None:
    """The graph takes and gives what the file does, its nodes have their names, and its products
    run on integers; nobody has to name the source again.
    """
    folder, _ = analyzed
    out = folder.parent / "built.onnx"

    assert main(["build", str(folder), str(all_int8), "--out", str(out)]) == 0

    built = onnx.load(out)
    assert [v.name for v in built.graph.input] == ["x"]
    assert [v.name for v in built.graph.output] == ["y"]
    names = {node.name for node in built.graph.node}
    assert {"Conv@0", "Add@0", "Clip@0", "Mul@0", "Div@0", "Pool@0", "Flatten@0"} <= names
    assert any(node.op_type == "QuantizeLinear" for node in built.graph.node)


def test_what_is_verified_is_what_was_measured(
    analyzed: Files, all_int8: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evidence is the runtime's: a built map gives what the engine gives, and its file takes what
    was planned.
    """
    folder, _ = analyzed
    capsys.readouterr()

    assert main(["verify", str(folder), str(all_int8), "--repeat", "1", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["agreement_db"] is None or found["agreement_db"] > 100
    assert [row["got"] for row in found["layers"]] == ["INT8"] * 6
    assert abs(found["file_bytes"] - found["predicted_file_bytes"]) < 0.1 * found["file_bytes"]


@pytest.mark.parametrize("form", ["onnxruntime", "netron"])
def test_exporters_name_the_persons_nodes(analyzed: Files, all_int8: Path, form: str) -> None:
    """Files for tools speak of the nodes of the person's own file, without `nodes`; so do those of
    a batch norm that is part of its convolution.
    """
    folder, _ = analyzed
    out = folder.parent / f"{form}.txt"

    words = ["export", str(folder), str(all_int8), "--format", form, "--nearest", "--out", str(out)]
    assert main(words) == 0

    text = out.read_text("utf-8")
    assert "Conv@0" in text
    assert "MatMul@0" in text
    table = json.loads((folder / "onnx_nodes.json").read_text("utf-8"))
    assert {n["module"] for n in table["nodes"] if n["name"] == "BatchNormalization@0"} == {
        "Conv@0"
    }


def test_tools_for_modules_take_no_file(
    analyzed: Files, all_int8: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script for PyTorch modules would name what no module is called; tools for nodes are named."""
    folder, _ = analyzed

    words = ["export", str(folder), str(all_int8), "--format", "torchao", "--nearest", "--out", "x"]
    assert main(words) == 2

    said = capsys.readouterr().err
    assert "takes PyTorch modules, and this analysis is of an ONNX file" in said
    assert "onnxruntime" in said


def test_another_file_or_other_data_are_refused(
    analyzed: Files, all_int8: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file with other weights is not built, and arrays that were not analyzed are not verified."""
    folder, words = analyzed
    model, arrays = opset_11()
    np.savez(tmp_path / "other.npz", x=arrays["x"][:20], targets=np.zeros(20, np.int64))
    other = tmp_path / "other.onnx"
    model.graph.node[0].attribute[0].t.CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    )
    other.write_bytes(model.SerializeToString())

    source = " ".join([str(other), *words[1:]])
    assert main(["build", str(folder), str(all_int8), "--source", source, "--out", "x"]) == 2
    assert "other weights" in capsys.readouterr().err
    source = f"'{words[0]}' {words[1]} --evaluation={tmp_path}/other.npz --task=classification"
    assert main(["verify", str(folder), str(all_int8), "--source", source]) == 2
    assert "not those that were analyzed" in capsys.readouterr().err


def test_integers_and_several_inputs_by_name(tmp_path: Path) -> None:
    """Arrays come by name in any order and in wider types; --output names what is judged; two
    processes measure what one does.
    """
    model, arrays = several_inputs()
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    given = {"x": arrays["x"].astype(np.float64), "ids": arrays["ids"].astype(np.int32)}
    np.savez(tmp_path / "all.npz", **given, targets=np.zeros((40, 5), np.float32))
    words = ["analyze", str(tmp_path / "model.onnx"), f"--calibration={tmp_path}/calib.npz",
             f"--evaluation={tmp_path}/all.npz", "--task=regression", "--output=y", "--no-cache",
             "--precisions=INT8"]  # fmt: skip
    np.savez(tmp_path / "calib.npz", **given)

    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--jobs", "2", "--out", str(tmp_path / "two")]) == 0

    one, two = (store.load(tmp_path / name).evidence for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert np.abs(one.perturbations).max() > 0
    assert np.array_equal(one.perturbations, two.perturbations)


def test_finished_work_is_taken_up_and_memory_is_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second analysis measures nothing anew; a bound that holds changes no figure, one that does
    not is refused; a dry run tells the cost and writes nothing.
    """
    words = ["analyze", *written(tmp_path), "--precisions=INT8", f"--cache={tmp_path}/cache"]

    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["layers"], plan["runs"], plan["full_passes"]) == (6, 20, "")
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--out", str(tmp_path / "two")]) == 0
    assert "Resuming: 100% of the work found, 6 of 6 layers whole" in capsys.readouterr().err
    bound = f"--memory={(plan['held_bytes'] + plan['peak_bytes']) // 10**6 + 400}MB"
    assert main([*words[:-1], "--no-cache", bound, "--out", str(tmp_path / "three")]) == 0
    assert main([*words, "--memory=1MB", "--out", str(tmp_path / "four")]) == 2
    assert "Measuring needs about" in capsys.readouterr().err

    one, two, three = (store.load(tmp_path / n).evidence for n in ("one", "two", "three"))
    assert one is not None
    assert two is not None
    assert three is not None
    assert np.array_equal(one.perturbations, two.perturbations)
    assert np.array_equal(one.perturbations, three.perturbations)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.onnx", "--task=regression"], "no --calibration is given"),
        (["model.onnx", "--calibration=c.npz"], "no --task is given"),
        (["sample:digits_vit", "--unit=x"], "is no ONNX file, but --unit was given"),
    ],
)
def test_what_is_missing_is_named(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file alone is not enough, and what belongs to a file goes with nothing else."""
    assert main(["analyze", *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_a_file_is_built_as_planned(name: str) -> None:
    """Every graph of the zoo is built in every kind of precision: numbers take the planned bytes, less
    the grid that two layers share, and the file gives what the engine gave.
    """
    source = source_of(name)
    analysis = analyze(
        source, MeasureOptions(precisions=(FP16, INT8, INT8_DYNAMIC, INT8_W, INT4_G32), probes=2)
    )
    study, engine = Study(analysis), stored_simulator(source, analysis)
    graph = graph_of(source, analysis.layers)
    assert analysis.evidence is not None
    for precision in ("FP32", "FP16", "INT8", "INT8-dynamic", "INT8-W", "INT4-g32"):
        chosen = answer.decide(study, Policy(strategy="uniform", uniform=precision))
        built = assemble(graph, analysis, chosen)
        numbers = [to_array(c) for c in built.model.graph.initializer]
        held = sum(a.nbytes for a in numbers if a.dtype != bool)
        shared = study.stored_bytes(chosen.codes) - held
        at_most = len(analysis.evidence.shared) if precision == "INT8" else 0
        assert shared % GRID_BYTES == 0, precision
        assert 0 <= shared // GRID_BYTES <= at_most, precision
        inputs = source.selection.inputs
        threads = torch.get_num_threads()
        session = open_session(built.model, built.disabled, threads=threads)
        alone = built.sets_ranges and engine.samples_apart(inputs)
        ran = run(session, built, inputs, 1 if alone else 100)
        assignment = dict.fromkeys(analysis.layers.names, registry.get(precision))
        expected = engine.run(assignment, inputs, 100)
        half = 1e-2 * float(np.abs(expected).max()) if precision == "FP16" else 1e-5
        np.testing.assert_allclose(ran, expected, atol=half)
