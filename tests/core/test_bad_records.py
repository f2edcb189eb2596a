"""One bad file among many: it is left out and named, and all others are read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.analysis import store
from core.cli import output
from core.cli.main import main
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import JobError, QuantscapeError
from core.jobs import job_folder, jobs, processes
from core.jobs.job_folder import Request
from core.jobs.progress import Reporter
from core.records import machine_profile, user_folders, verification
from tests.core import verified
from tests.core.synthetic import synthetic_analysis

ANALYSIS = synthetic_analysis(6, samples=40)
STUDY = Study(ANALYSIS)
CHOSEN = answer.decide(STUDY, Policy())

BAD: dict[str, Callable[[Path], Any]] = {
    "no text": lambda path: path.write_bytes(path.read_bytes().replace(b'"', b'"\xff')),
    "nested": lambda path: path.write_bytes(b'{"schema_version": 1, "x": ' + b"[" * 10**6),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "another kind": lambda path: path.write_bytes(b"[1, 2]"),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "large": lambda path: os.truncate(path, 10**11),
}
bad = pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An analysis with two verifications and two profiles."""
    store.save(ANALYSIS, tmp_path / "run")
    for second in (1, 2):
        created = f"2026-01-01T00:00:0{second}"
        run = verified.verification(STUDY, CHOSEN, created=created)
        verification.save(tmp_path / "run", run)
        one = msgspec.structs.replace(verified.profile(ANALYSIS), created=created)
        machine_profile.save(tmp_path / "run", one)
    return tmp_path / "run"


@bad
@pytest.mark.parametrize("kind", [verification.FOLDER, machine_profile.FOLDER])
def test_a_bad_record_is_left_out_and_named(
    folder: Path, kind: str, spoil: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The analysis opens with the other records, and `show` names the bad one; saving the analysis
    anew keeps the good ones and takes no part of a device.
    """
    path = max((folder / kind).iterdir())
    spoil(path)

    found = store.load(folder)

    assert len(found.verifications) == (1 if kind == verification.FOLDER else 2)
    assert found.profile is not None
    assert len(found.left_out) == 1
    assert str(path) in found.left_out[0]
    assert main(["show", str(folder)]) == 0
    assert str(path) in capsys.readouterr().err
    store.save(found, folder)
    assert len(store.load(folder).verifications) == len(found.verifications)


@pytest.mark.parametrize("special", ["large", "device", "pipe"])
def test_an_analysis_is_written_anew_without_what_can_be_no_node_table(
    folder: Path, special: str
) -> None:
    """A node table of 100 GB, a device or a pipe in its place is not copied, and nothing waits."""
    path = folder / "onnx_nodes.json"
    path.touch()
    BAD[special](path)

    store.save(ANALYSIS, folder)

    assert not path.exists()
    assert len(store.load(folder).verifications) == 2


@pytest.mark.parametrize("kind", [verification.FOLDER, machine_profile.FOLDER])
@pytest.mark.slow
def test_any_value_in_a_record_is_used_or_named(folder: Path, kind: str) -> None:
    """Whatever number a record holds, the map is priced with it or the record is left out."""
    path = max((folder / kind).iterdir())
    content = path.read_text()
    numbers = [match.span() for match in re.finditer(r"(?<=[ :])-?\d+(\.\d+)?(?=[,\n])", content)]
    left_out = 0
    for start, end in numbers[:60]:
        for value in ("-1", "0", "1" + "0" * 30, "1e300", "NaN", "[]", "null"):
            path.write_text(content[:start] + value + content[end:])
            study = Study(store.load(folder))
            left_out += len(study.analysis.left_out)
            for hardware in ("server-cpu-vnni", "this-machine"):
                outcome(study, answer.decide(study, Policy(hardware=hardware)))

    assert left_out > len(numbers[:60])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jobs folder of one test, in which started commands only wait."""
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "jobs"))
    monkeypatch.setattr(jobs, "command", lambda request, folder: ["sleep", "60"])
    before = set(processes._started)
    yield tmp_path / "jobs"
    for pid in set(processes._started) - before:
        processes.end(pid, processes.stamp(pid), 1.0)


@bad
@pytest.mark.parametrize("name", [job_folder.RECORD, job_folder.PROGRESS, job_folder.LOG])
@pytest.mark.usefixtures("home")
def test_a_bad_file_of_one_job_spoils_no_other(name: str, spoil: Callable[[Path], Any]) -> None:
    """The other job is listed as it is, and what is wrong with the bad one is said with its file."""
    good, other = (jobs.start(Request(f"{stem}.py:load")) for stem in ("good", "other"))
    path = other.folder / name
    if name == job_folder.PROGRESS:
        path.write_text('{"state": "running", "pid": 1, "label": "of a job, cut short somewhere"}')
    spoil(path)

    found, wrong = jobs.listed()
    said = [*map(str, wrong), *(note for job in found for note in job.notes)]

    assert [job.running for job in found if job.name == good.name] == [True]
    assert len(found) + len(wrong) == 2
    assert [str(path) in one for one in said] == ([] if name == job_folder.LOG else [True])
    assert all(isinstance(jobs.log_tail(job), str) for job in found)
    assert jobs.start(Request("third.py:load")).running


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("full", ["mine.csv", job_folder.RECORD])
def test_a_start_on_a_full_disk_leaves_nothing(
    home: Path, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the CSV or the record finds no room, folder and process go, and the disk is blamed."""
    write_bytes = Path.write_bytes

    def none_left(path: Path, content: bytes) -> int:
        if full in path.name:
            raise FULL
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", none_left)
    before = set(processes._started)
    with pytest.raises(JobError, match="No space left") as caught:
        jobs.start(Request("mine.py:load", csv="mine.csv"), b"a,b")
    ended = [pid for pid in set(processes._started) - before if processes.stamp(pid)]

    assert "free some space" in caught.value.next_step
    assert [path.name for path in home.iterdir()] == [".lock"]
    assert ended == []


WRITERS: dict[str, Callable[[Path], Any]] = {
    "analysis": lambda folder: store.save(ANALYSIS, folder / "new"),
    "file": lambda folder: output.write(folder / "map.json", b"{}"),
    "record": lambda folder: verification.save(folder, verified.verification(STUDY, CHOSEN)),
    "progress": lambda folder: Reporter(folder / "progress.json").open(),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "read but not written"),
     (errno.EACCES, "read but not written")],
)  # fmt: skip
def test_what_to_do_follows_from_why_nothing_could_be_written(
    tmp_path: Path, write: Callable[[Path], Any], code: int, advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A full disk asks for room, a place that may only be read for another; nothing stays behind."""

    def refuse(path: Path, content: bytes) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(QuantscapeError, match=re.escape(os.strerror(code))) as caught:
        write(tmp_path)

    assert advice in caught.value.next_step
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
