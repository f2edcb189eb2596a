"""Awkward sources: each command ends well, or with code 2 and one line that names cause and way out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from core.analysis import store
from core.cli.main import main
from core.jobs import jobs, processes
from core.jobs.job_folder import Request
from core.records import user_folders
from tests.conftest import REPOSITORY
from tests.core.awkward_sources import BROKEN, FINE, write
from tests.core.small_job import ended, wait_for, write_model


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a source changes of the process is undone for the next test."""
    folder, argv, numpy = Path.cwd(), sys.argv, np.geterr()
    with warnings.catch_warnings():
        yield
    os.chdir(folder)
    sys.argv = argv
    np.seterr(**numpy)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


def _complaints(err: str) -> list[str]:
    """Lines that this program says of what went wrong."""
    mine = [line for line in err.splitlines() if line.startswith("quantscape: ")]
    return [line for line in mine if not line.startswith("quantscape: note: ")]


def _is_one_clear_line(err: str, word: str, file: str = "") -> None:
    (line,) = _complaints(err)
    assert word in line
    assert file in line
    assert line.count(". ") >= 1  # a cause and a next step
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FINE)
def test_odd_sources_are_analyzed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is unusual and harmless is analyzed, and stdout holds the answer alone."""
    source, out = write(tmp_path, FINE[name]), tmp_path / "analysis"

    code = main(["analyze", source, "--out", str(out), "--json"])

    said = capsys.readouterr()
    assert code == 0, said.err
    assert json.loads(said.out)["layers"] == len(store.load(out).layers)
    assert main(["plan", str(out), "--out", str(tmp_path / "map.json")]) == 0
    assert main(["report", str(out), str(tmp_path / "map.json")]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_sources_are_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a person's code raises, an end of the program too, is code 2 and one line of theirs;
    no analysis is left that passes for whole.
    """
    parts, word = BROKEN[name]
    out = tmp_path / "analysis"

    code = main(["analyze", write(tmp_path, parts), "--out", str(out), "--no-cache"])

    assert code == 2
    _is_one_clear_line(capsys.readouterr().err, word)
    assert not out.exists() or store.load(out).partial is not None


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, its analysis and a map, whose model ends the program from now on."""
    folder = tmp_path_factory.mktemp("ends")
    flag = "if (Path(__file__).parent / 'broken').exists(): sys.exit(0)"
    source = write(folder, {"forward": flag})
    assert main(["analyze", source, "--out", str(folder / "analysis")]) == 0
    assert main(["plan", str(folder / "analysis"), "--out", str(folder / "map.json")]) == 0
    (folder / "broken").touch()
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "words",
    ["analyze SOURCE --dry-run", "analyze SOURCE --out DIR/again --jobs 2",
     "build DIR/analysis DIR/map.json --source SOURCE --out DIR/model.onnx",
     "verify DIR/analysis DIR/map.json --source SOURCE", "profile DIR/analysis --source SOURCE",
     "nodes DIR/analysis --source SOURCE"],
)  # fmt: skip
def test_every_command_that_runs_a_source_names_it(
    words: str, analyzed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that ends the program is named with file and line, whatever runs it."""
    given = words.replace("SOURCE", f"{analyzed}/mine.py:load").replace("DIR", str(analyzed))

    code = main(given.split())

    assert code == 2
    _is_one_clear_line(capsys.readouterr().err, "SystemExit", "mine.py")


@pytest.mark.slow
def test_an_end_of_the_process_is_no_success(tmp_path: Path) -> None:
    """The process itself ends with 2 where the code asked for 0, at once and without a word."""
    source = write(tmp_path, {"forward": "os._exit(0)"})
    found = subprocess.run(
        [sys.executable, "-m", "core", "analyze", source, "--out", str(tmp_path / "a")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.returncode == 2, found.stderr
    _is_one_clear_line(found.stderr, "SystemExit", "mine.py")


@pytest.mark.slow
def test_a_job_says_that_its_source_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page Measure names file and line of code that ended the program."""
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "jobs"))

    job = wait_for(jobs.start(Request(write(tmp_path, {"forward": "sys.exit(0)"}))), ended)
    for child in list(processes._started.values()):
        child.wait(60)
    processes.reap()

    assert job.state == "failed"
    assert job.error is not None
    assert "SystemExit" in job.error.cause
    assert "mine.py" in job.error.cause


@pytest.mark.slow
def test_ctrl_c_is_no_fault_of_the_model(tmp_path: Path) -> None:
    """Ctrl+C while a person's code runs stops the command, and nobody is blamed."""
    source = write_model(tmp_path, hold=True)
    progress = tmp_path / "progress.json"
    words = ["analyze", source, "--out", str(tmp_path / "a"), "--progress", str(progress)]
    with subprocess.Popen([sys.executable, "-m", "core", *words], cwd=REPOSITORY,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and not (
            progress.exists() and json.loads(progress.read_bytes())["done"] >= 3
        ):
            time.sleep(0.05)  # another process is what is waited for
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert _complaints(err) == ["quantscape: stopped."]


def test_a_defect_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no person's code raised is code 1, and the last line says what to send."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("core.source.samples.names", fail)

    assert main(["samples"]) == 1
    (line,) = _complaints(capsys.readouterr().err)
    assert "ZeroDivisionError: this is a defect of Quantscape" in line


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_narrow_stream_gets_escapes(encoding: str) -> None:
    """A terminal that cannot say × or → still gets the answer."""
    found = subprocess.run(
        [sys.executable, "-m", "core", "show", "sample_models/digits_vit/analysis"], cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}, capture_output=True,
        check=False,
    )  # fmt: skip

    assert (found.returncode, found.stderr) == (0, b"")


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_nothing_badly() -> None:
    """`show … | head` says nothing on stderr."""
    words = [sys.executable, "-m", "core", "show", "sample_models/informer/analysis", "--json"]
    with subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as p:
        assert p.stdout is not None
        assert p.stderr is not None
        p.stdout.read(10)
        p.stdout.close()
        assert p.stderr.read() == b""
