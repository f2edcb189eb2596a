"""A verification measures a map on held-back data and keeps what it found."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis import store
from core.analysis.analyze import analyze
from core.cli.main import main
from core.cli.runtime_tables import advice
from core.decide.study import Study
from core.errors import AnalysisError, ModelError
from core.evidence.options import MeasureOptions
from core.export.map import precision_map
from core.onnx_graph import session
from core.records import verification
from core.records.verification import Verification
from core.runtime import inference, one_way, peak
from core.runtime import verify as verifying
from core.runtime.judge import sqnr_db
from core.runtime.machine import this_machine
from core.runtime.timing import Rounds
from core.source import samples
from core.source.batches import take
from core.source.data import Split
from tests.conftest import REPOSITORY
from tests.core.runtime_case import Case, as_asked_or_why, case_of, decibels, flips, with_ranges
from tests.processors import needs_x86
from tests.zoo.sources import tiny_source

SAMPLES = {"digits_resnet": 450, "digits_vit": 450, "informer": 100}
"""How many samples of the holdout split each is run on."""
STRESS = 0.02


@pytest.fixture(scope="module", params=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> tuple[Case, Any]:
    """A bundled sample, calibrated and exported, with a part of its holdout split."""
    source = samples.load(samples.PREFIX + request.param)
    assert source.holdout is not None
    return case_of(source), take(source.holdout.inputs, 0, SAMPLES[request.param])


@pytest.mark.slow
def test_the_simulation_tells_what_the_runtime_does(sample: tuple[Case, Any]) -> None:
    """All layers in INT8: simulation and ONNX Runtime differ by 10 dB less than INT8 and FP32, and
    every layer runs as asked or says why not.
    """
    case, x = sample
    built = case.built(case.uniform("INT8"))
    reference, simulated = case.simulator.run({}, x), case.simulated(built, x)
    found = case.ran(built, x)

    error = decibels(reference, found - reference)
    assert decibels(reference, found - simulated) >= error + 10
    assert as_asked_or_why(built) == []
    assert sum(row.how == "integer kernel" for row in built.report) >= 10


@pytest.mark.slow
def test_flips_of_a_stress_are_foreseen(sample: tuple[Case, Any]) -> None:
    """With ranges so wide that INT8 changes more than 2 % of the predictions, the runtime's
    predictions differ from the simulated ones in a third of those at most.
    """
    case, x = sample
    reference = case.simulator.run({}, x)
    for factor in (4, 8, 16, 32, 64):
        wide = _widened(case, factor)
        built = wide.built(wide.uniform("INT8"))
        found = wide.ran(built, x)
        if flips(found, reference) > STRESS:
            break
    simulated = wide.simulated(built, x)

    assert flips(found, reference) > STRESS
    assert flips(found, simulated) <= flips(found, reference) / 3


def _widened(case: Case, factor: float) -> Case:
    """The same model with every calibrated range `factor` times as wide."""
    from core.engines.torch.simulate.simulator import Simulator
    from core.numerics.ranges import Ranges
    from core.numerics.rounding import Range

    old = case.simulator
    simulator = Simulator(case.source.model, case.analysis.layers, old.owner, old.scheme)
    simulator.ranges = Ranges(
        {site: Range(seen.low * factor, seen.high * factor) for site, seen in old.ranges.items()}
    )
    return with_ranges(case.source, simulator, case.graph)


@pytest.mark.slow
def test_a_file_is_as_large_as_foretold(sample: tuple[Case, Any]) -> None:
    """Tensors by the size model and the measured overhead give the file of any map within 2 %."""
    case, _ = sample
    overhead = verifying.measure_overhead(case.graph, case.analysis)
    rng = np.random.default_rng(5)
    names = case.analysis.layers.names
    for share in (0.0, 0.3, 0.6, 1.0):
        given = {name: str(rng.choice(["INT8", "FP16"] if rng.random() < share else ["FP32"]))
                 for name in names}  # fmt: skip
        chosen = case.map(given)

        assert case.built(chosen).file_bytes == pytest.approx(overhead.file_bytes(chosen), rel=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An analysis of a small convolution net in a file of its own, with one map verified."""
    home = tmp_path_factory.mktemp("verify")
    (home / "net.py").write_text(SOURCE, encoding="utf-8")
    assert main(["analyze", f"{home / 'net.py'}:load", "--out", str(home / "run"), "--no-cache",
                 "--precisions", "FP16,INT8"]) == 0  # fmt: skip
    chosen = _map(home, *INT8)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["verify", str(home / "run"), str(chosen), "--source",
                     f"{home / 'net.py'}:load", "--repeat", "2", "--json"]) == 0  # fmt: skip
    (home / "printed.json").write_text(printed.getvalue(), encoding="utf-8")
    yield home
    assert not list(home.glob("**/*.tmp"))


INT8 = ("--strategy", "uniform", "--uniform", "INT8")
SOURCE = """
import torch
from torch import nn


def load():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 4),
    ).eval()
    x = torch.randn(200, 1, 8, 8)
    y = model(x).argmax(1)
    return {"model": model, "calibration": x[:50], "evaluation": (x[50:150], y[50:150]),
            "holdout": (x[150:], y[150:]), "task": "classification"}
"""


def _map(home: Path, *words: str) -> Path:
    path = home / "map.json"
    assert main(["plan", str(home / "run"), "--out", str(path), *words]) == 0
    return path


def test_verify_measures_and_keeps(folder: Path) -> None:
    """`verify --json` prints metric, changes, agreement, times, file, memory and every layer, and
    keeps the same in the analysis folder.
    """
    found = json.loads((folder / "printed.json").read_text("utf-8"))

    assert found["samples"] == 50
    assert found["split"] == "holdout"
    assert set(found["figures"]) == {"accuracy", "accuracy_drop_pts", "kl", "flips_pct"}
    assert set(found["same_samples"]) == set(found["figures"])
    for quantity in (*found["figures"].values(), *found["same_samples"].values()):
        assert quantity["kind"] == "measured"
        assert quantity["low"] <= quantity["value"] <= quantity["high"]
    assert found["agreement_db"] > found["error_db"] + 10
    assert found["timing"]["rounds"] == 2
    assert found["timing"]["ratio"]["kind"] == "measured"
    assert found["timing"]["map_ms"]["value"] > 0
    assert found["file_bytes"] < found["reference_file_bytes"]
    assert found["peak_bytes"] is None or found["peak_bytes"] > 0
    # What only moves values has no precision.
    assert {layer["got"] for layer in found["layers"]} == {"INT8", None}
    kept = _kept(folder)[0]
    study = Study(store.load(folder / "run"))
    assert kept.precisions == precision_map.read(_map(folder, *INT8), study).assigned
    content = Path(found["file"]).read_bytes()
    assert msgspec.json.decode(content, type=Verification) == kept


def _kept(folder: Path) -> tuple[Verification, ...]:
    analysis = store.load(folder / "run")
    return verification.load(folder / "run", analysis.identity, analysis.scheme)[0]


@pytest.mark.slow
def test_accuracy_is_that_of_the_outputs(folder: Path) -> None:
    """The measured figures are those of ONNX Runtime's outputs, computed here by hand."""
    from core.source.python_file import load

    source = load(f"{folder / 'net.py'}:load")
    analysis = store.load(folder / "run")
    bench = verifying.prepare(source, analysis)
    chosen = precision_map.read(_map(folder, *INT8),
                                bench.study)  # fmt: skip
    found = verifying.verify(bench, chosen, rounds=1)
    assert source.holdout is not None
    case = case_of(source)
    outputs = case.ran(case.built(chosen), source.holdout.inputs)
    with torch.no_grad():
        reference = source.model(source.holdout.inputs).numpy()

    share = (outputs.argmax(1) == source.holdout.targets.numpy()).mean()
    p, q = (torch.from_numpy(x).double().log_softmax(1) for x in (reference, outputs))
    kl = float((p.exp() * (p - q)).sum(1).mean())
    assert found.figures["accuracy"].value == pytest.approx(100 * share)
    assert found.figures["flips_pct"].value == pytest.approx(100 * flips(outputs, reference))
    assert found.figures["kl"].value == pytest.approx(kl, rel=1e-3)


def test_a_file_that_runs_code_has_to_be_named(folder: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """An analysis folder may come from anybody: the Python file that it names is not run unless
    the person names it.
    """
    chosen = _map(folder)
    out = folder / "refused.onnx"

    code = main(["build", str(folder / "run"), str(chosen), "--out", str(out)])

    assert code == 2
    assert "--source" in capsys.readouterr().err
    assert not out.exists()


def test_build_writes_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`build` writes a file that ONNX Runtime opens, with a row for each layer."""
    import onnxruntime

    chosen = _map(folder, *INT8)
    out = folder / "model.onnx"
    capsys.readouterr()

    code = main(["build", str(folder / "run"), str(chosen), "--out", str(out), "--json", "--source",
                 f"{folder / 'net.py'}:load"])  # fmt: skip
    found = json.loads(capsys.readouterr().out)

    assert code == 0
    assert found["file_bytes"] == out.stat().st_size
    assert {row["name"] for row in found["layers"]} == set(store.load(folder / "run").layers.names)
    told = onnxruntime.SessionOptions()
    for key, value in found["session_config"].items():
        told.add_session_config_entry(key, value)
    left_out = found["left_out_optimizers"]
    session = onnxruntime.InferenceSession(out, told, disabled_optimizers=left_out)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: np.zeros((3, 1, 8, 8), "f")})
    assert outputs.shape == (3, 4)


def test_damaged_and_foreign_records_are_left_out(folder: Path) -> None:
    """A record that cannot be read, of another model or a newer schema, hides no other."""
    run = folder / "run"
    analysis = store.load(run)
    before = _kept(folder)
    kept = run / verification.FOLDER
    content = msgspec.to_builtins(before[0])
    (kept / "0.json").write_text("{", encoding="utf-8")
    (kept / "1.json").write_bytes(msgspec.json.encode({**content, "schema_version": 99}))
    other = {**content["identity"], "weights_sha256": "0" * 64}
    (kept / "2.json").write_bytes(msgspec.json.encode({**content, "identity": other}))

    assert verification.load(run, analysis.identity, analysis.scheme)[0] == before
    assert verification.load(run, analysis.identity, "another")[0] == ()


def test_a_new_analysis_keeps_verifications(folder: Path) -> None:
    """Measuring the model again leaves what was verified where it is."""
    run = folder / "run"
    analysis = store.load(run)
    before = _kept(folder)

    store.save(analysis, run)

    assert _kept(folder) == before != ()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, folder: Path) -> None:
    """A verification that finds no place ends with a sentence."""
    one = _kept(folder)[0]
    (tmp_path / verification.FOLDER).write_text("", encoding="utf-8")

    with pytest.raises(AnalysisError, match="cannot be written"):
        verification.save(tmp_path, one)


class _Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x + torch.randn_like(x))
        return y


class _OtherwiseAlone(_Noisy):
    """Does something else where it is given one sample."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return -y if len(x) == 1 else y


class _OtherwiseInCrowds(_Noisy):
    """Subtracts what the batch has in common, in large batches."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x - x.mean(0) if len(x) > 30 else x)
        return y


class _Counting(_Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.linear(x) * self.calls
        return y


@pytest.mark.parametrize(
    ("model", "batch", "cause"),
    [
        (_Noisy, 64, "draws random numbers"),
        (_OtherwiseAlone, 1, "does something else for batches of other sizes"),
        (_OtherwiseInCrowds, 64, "does something else for batches of other sizes"),
        (_Counting, 64, "keeps state from call to call"),
    ],
)
def test_a_model_that_no_file_answers_for_is_not_verified(
    model: type[nn.Module], batch: int, cause: str
) -> None:
    """Its exported form gives other outputs than PyTorch; the error says what the model does, and
    blames nothing else.
    """
    from tests.zoo.sources import source_of

    source = source_of(model(), (6,))
    source = replace(source, holdout=Split(take(source.selection.inputs, 0, batch)))

    with pytest.raises(ModelError, match=f"other outputs.*: the model {cause}") as raised:
        verifying.prepare(source, analyze(source, MeasureOptions(probes=2)))
    assert sum(said in raised.value.cause for said in one_way.CAUSES.values()) == 1


def test_agreement_is_decibels_of_the_signal() -> None:
    """A difference of a tenth of the centred logits leaves 20 dB."""
    from core.evidence.measure.keeper import Keeper
    from core.evidence.measure.outputs import read

    keeper = Keeper(read(tiny_source()))
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    centred = logits - logits.mean(axis=1, keepdims=True)

    assert sqnr_db(keeper, logits, logits + 0.1 * centred, logits) == pytest.approx(20, abs=1e-3)
    assert sqnr_db(keeper, logits, logits, logits) is None


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down over the rounds does not change the ratio of two models."""
    slow = np.linspace(1, 3, 11)
    rounds = Rounds({"map": 0.5 * slow, "reference": slow}, batch=1)

    assert rounds.ratio("map", "reference") == pytest.approx((0.5, 0.5, 0.5))
    assert rounds.noise_pct("reference") == pytest.approx(45)


def test_a_record_says_whether_sums_were_kept_exact(*, vnni: bool) -> None:
    """Without VNNI sessions keep sums exact, and the machine of a record says so."""
    assert this_machine(1).exact_sums is not vnni


def test_the_words_behind_a_file_say_how_to_keep_sums_exact() -> None:
    """Without VNNI the entry of the configuration is named, and where layers share a weight that it
    is not to be had; with VNNI nothing is said of it.
    """
    config = {"session.x64quantprecision": "1"}

    assert "add_session_config_entry" not in advice((), {}, ())
    assert 'add_session_config_entry("session.x64quantprecision", "1")' in advice((), config, ())
    both = advice(("MatMulAddFusion",), config, ("tied.weight",))
    assert "disabled_optimizers=['MatMulAddFusion']" in both
    assert "does not take it where layers share a weight (tied.weight)" in both


def _pairwise_saturated(u8: Any, s8: Any) -> Any:
    """Products of unsigned [N, K] by signed [K, M] bytes as VPMADDUBSW and VPADDW add them: pairs in
    16 bits, which saturate, then in 32.
    """
    products = u8.astype(np.int32)[:, :, None] * s8.astype(np.int32)[None]
    pairs = products.reshape(len(u8), -1, 2, s8.shape[1]).sum(axis=2)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1)


@needs_x86
@pytest.mark.usefixtures("no_vnni")
def test_a_run_as_deployed_says_what_saturation_costs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VNNI `verify --as-deployed` opens one more session, without the option, and says the
    loss of what it gives beside that with exact sums; without the option of the command it does not.
    """
    real, opened = verifying.open_session, []

    def watched(model: Any, disabled: Any = ()) -> Any:
        opened.append(bool(session.exact_sums()))
        return real(model, disabled)

    def saturated(running: Any, *rest: Any) -> Any:
        found = inference.run(running, *rest)
        if opened[-1]:
            return found
        rng = np.random.default_rng(0)  # what the last product loses where its pairs saturate
        u8, s8 = (
            rng.integers(128, 256, (len(found), 64)),
            rng.integers(-127, 128, (64, found.shape[1])),
        )
        lost = _pairwise_saturated(u8, s8) - u8 @ s8
        assert np.abs(lost).max() > 0
        return found + (lost / np.abs(lost).max() * np.abs(found).max()).astype(np.float32)

    monkeypatch.setattr(verifying, "open_session", watched)
    monkeypatch.setattr(verifying, "run_batches", lambda *given: iter([saturated(*given)]))
    command = ["verify", str(folder / "run"), str(_map(folder, *INT8)), "--source",
               f"{folder / 'net.py'}:load", "--repeat", "2", "--json"]  # fmt: skip

    def verify(*more: str) -> dict[str, Any]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main([*command, *more]) == 0
        found: dict[str, Any] = json.loads(printed.getvalue())
        return found

    assert verify()["as_deployed"] is None
    assert all(opened)
    found = verify("--as-deployed")
    assert opened[-1] is False
    assert found["machine"]["exact_sums"]
    assert found["as_deployed"]["figures"]["kl"]["value"] > 2 * found["figures"]["kl"]["value"]
    assert found["as_deployed"]["agreement_db"] < found["agreement_db"]


def test_the_process_that_measures_memory_loads_what_runs_a_model_alone() -> None:
    """Neither PyTorch nor onnx, which take longer to load than a small model to run."""
    code = (
        f"import sys, {peak.MODULE}, core.onnx_graph.session_options; "
        "print({'torch', 'onnx', 'onnxruntime'} & sys.modules.keys())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "{'onnxruntime'}"


def test_sums_are_plain_inside_as_deployed_alone(*, vnni: bool) -> None:
    """Sessions keep sums exact again once what is as deployed is over, after an error too."""
    with contextlib.suppress(ValueError), session.as_deployed():
        assert not session.exact_sums()
        raise ValueError

    assert bool(session.exact_sums()) is not vnni
