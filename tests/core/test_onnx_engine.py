"""An ONNX file is measured on ONNX Runtime: as it is, and with each layer in another precision."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from core.engines.engines import engine_of, layers_of
from core.engines.onnx.engine import OnnxEngine
from core.numerics import precision as registry
from core.numerics.calibrate import calibrators
from core.numerics.saturation import saturates
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.assemble import assembled
from core.onnx_graph.read_model import from_bytes
from core.onnx_graph.session import open_session
from core.source.contract import ModelSource, model_source
from core.source.onnx_model import OnnxModel, layered
from tests.zoo.graphs import GRAPHS

SAME = 1e-5


def source_of(name: str, **more: object) -> ModelSource:
    """A source of one of the zoo's graphs, judged by its values, without a holdout."""
    made, arrays = GRAPHS[name]()
    given = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()}
    return model_source(
        {"model": OnnxModel(from_bytes(made.SerializeToString(), name)), "calibration": given,
         "evaluation": (given, None), "holdout": None, "task": "regression", **more}
    )  # fmt: skip


@cache
def engine(name: str) -> tuple[ModelSource, OnnxEngine]:
    """A calibrated engine of one of the zoo's graphs."""
    source = source_of(name)
    found = engine_of(source, layers_of(source, ORT_CPU), ORT_CPU)
    assert isinstance(found, OnnxEngine)
    found.calibrate(source.calibration.inputs)
    return source, found


def plain(name: str, output: str) -> np.ndarray:
    """What ONNX Runtime alone gives for the file as it is, sample by sample if it must."""
    made, arrays = GRAPHS[name]()
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    total = len(next(iter(arrays.values())))
    step = 1 if name == "fixed_batch" else total
    rows = [
        session.run([output], {n: a[i : i + step] for n, a in arrays.items()})[0]
        for i in range(0, total, step)
    ]
    return np.concatenate(rows).reshape(total, -1)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_reference_is_the_file_itself(name: str) -> None:
    """What an engine gives without an assignment is what ONNX Runtime gives for the person's file."""
    source, found = engine(name)

    outputs = found.run({}, source.selection.inputs)

    expected = plain(name, found.graph.output)
    assert np.allclose(outputs, expected, atol=SAME * np.abs(expected).max())


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("precision", ["INT8", "BF16"])
def test_a_replay_gives_what_a_full_pass_gives(name: str, precision: str) -> None:
    """A layer measured by the graph that follows it errs as in a full pass, 20 dB below the error."""
    source, found = engine(name)
    inputs = source.selection.inputs
    base = found.run({}, inputs)
    pairs = [(layer, registry.get(precision)) for layer in found.varied]

    clean, *replayed = found.replay(inputs).run(inputs, pairs)

    assert np.allclose(clean, base, atol=SAME * np.abs(base).max())
    some = 0
    for (layer, given), one in zip(pairs, replayed, strict=True):
        full = found.run({layer: given}, inputs)
        effect, apart = np.square(full - base).sum(), np.square(full - one).sum()
        noise = len(base) * np.square(SAME * np.abs(base).max())
        assert apart <= max(effect / 100, noise), layer
        some += effect > noise
    assert some


def test_every_calibrator_finds_ranges_from_graph_outputs() -> None:
    """Ranges of the inputs that a percentile takes lie within those that min-max takes, and every
    layer that computes in integers has some.
    """
    source = source_of("norm_left")
    layers = layers_of(source, ORT_CPU)
    ranges = {}
    for name in calibrators.names():
        found = engine_of(source, layers, ORT_CPU, calibrators.get(name))
        found.calibrate(source.calibration.inputs)
        ranges[name] = found.ranges

    assert {site[0] for site in ranges["min-max"]} == set(layers.names)
    for name, found_ranges in ranges.items():
        assert found_ranges.keys() == ranges["min-max"].keys(), name
        for site, seen in found_ranges.items():
            whole = ranges["min-max"][site]
            assert whole.low <= seen.low <= seen.high <= whole.high, (name, site)
    assert (
        ranges["percentile:99.9" if "percentile:99.9" in ranges else "percentile"]
        != ranges["min-max"]
    )


def test_a_branch_and_a_loop_stay_in_float() -> None:
    """What holds a graph of its own is a layer that no precision changes, and a note says so."""
    source, found = engine("bodies")
    inputs = source.selection.inputs
    base = found.run({}, inputs)

    for name in registry.simulated():
        for layer in ("choose", "repeat"):
            (_, alone) = found.replay(inputs).run(inputs, [(layer, registry.get(name))])
            assert np.allclose(alone, base, atol=SAME * np.abs(base).max())
    assert any(
        "choose, repeat hold graphs of their own" in note for note in found.notes([registry.INT8])
    )


def test_one_sample_at_a_time_is_any_number_of_samples() -> None:
    """A graph whose batch is fixed at 1 is run for all samples in INT8 too."""
    source, found = engine("fixed_batch")

    outputs = found.run(dict.fromkeys(found.varied, registry.INT8), source.selection.inputs)

    assert outputs.shape == (21, 3)
    assert 0 < np.abs(outputs - found.run({}, source.selection.inputs)).max() < 1


def test_a_source_may_return_a_path(tmp_path: Path) -> None:
    """A Python function's 'model' may be the path of an ONNX file, with a metric of its own."""
    made, arrays = GRAPHS["odd_names"]()
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    x = torch.from_numpy(arrays["x"])

    source = model_source(
        {"model": str(path), "calibration": x, "evaluation": (x, x[:, 0]), "task": "custom",
         "metric": lambda outputs, targets: float(outputs.mean()), "higher_is_better": True}
    )  # fmt: skip

    assert isinstance(source.model, OnnxModel)
    assert source.output == "y"


def test_half_precision_goes_by_the_builders_converter_where_there_are_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a runtime with half kernels FP16 of a map is the file that `build` writes, and no note says
    that it was simulated.
    """
    source = source_of("norm_left")
    layers = layers_of(source, ORT_CPU)
    inputs = source.selection.inputs
    chosen = dict.fromkeys(layers.names, registry.FP16)
    monkeypatch.setattr("core.engines.onnx.runner.has_kernels", lambda p: p == registry.FP16)
    monkeypatch.setattr("core.engines.onnx.engine.has_kernels", lambda p: p == registry.FP16)
    found = engine_of(source, layers, ORT_CPU)
    found.calibrate(source.calibration.inputs)
    built = assembled(layered(source.model, layers, source.output), layers, chosen, (), ORT_CPU)
    session = open_session(built.model, built.disabled, threads=torch.get_num_threads())

    outputs = found.run(chosen, inputs)

    expected = session.run(["y"], source.model.feed(inputs))[0]
    assert np.array_equal(outputs, expected.reshape(len(outputs), -1))
    assert not any("simulated" in note for note in found.notes([registry.FP16]))
    assert any("BF16 was simulated" in note for note in found.notes([registry.FP16, registry.BF16]))


def test_exact_sums_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor whose products would saturate, a note names the option that sessions had."""
    _, found = engine("norm_left")
    assert any("x64quantprecision" in note for note in found.notes([])) is saturates()
    monkeypatch.setattr("core.engines.onnx.engine.exact_sums", lambda: {"session.x": "1"})

    assert any("session.x64quantprecision=1" in note for note in found.notes([]))


@pytest.mark.parametrize(("name", "most"), [("residual", 0.6), ("u_net", 0.8)])
def test_a_replay_runs_what_follows_a_layer_and_no_more(name: str, most: float) -> None:
    """Of a residual network about half of the work runs again for a layer, of a U-Net less than all
    of it although its levels are read twice; what is kept is what the cuts read.
    """
    source, found = engine(name)
    replay = found.replay(source.selection.inputs)

    shares = list(replay.shares(source.selection.inputs).values())
    kept, live = replay.value_bytes()

    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[0] <= 1
    assert sum(shares) / len(shares) < most
    assert replay.keep == tuple(sorted({n for p in replay.parts.values() for n in p.reads} - {"x"}))
    assert kept == round(sum(source.model.forms[n].per_sample for n in replay.keep))
    assert live > 0
