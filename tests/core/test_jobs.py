"""Analyses beside their caller: start, progress, stop, resume, and what can go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from core.analysis import store
from core.cli.main import main
from core.errors import JobError
from core.jobs import job_folder, jobs, processes, progress
from core.jobs.job_folder import Request, Upload
from core.jobs.jobs import Job
from core.jobs.progress import Progress, Reporter, reporting
from core.records import user_folders
from tests.conftest import REPOSITORY
from tests.core.small_job import ended, wait_for, write_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jobs folder and a cache for one test; what still runs at its end is stopped."""
    folder = tmp_path / "jobs"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(user_folders.VARIABLE, str(folder))
    yield folder
    for job in jobs.everything():
        jobs.stop(job)


@pytest.fixture
def luckless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job ends at once, with a word in its log."""
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", "exit('no luck')"])


def held(tmp_path: Path) -> Job:
    """A job that stands still half-way, with a few runs behind it."""
    job = jobs.start(Request(write_model(tmp_path / "mine", hold=True), ("INT8",)))
    return wait_for(job, lambda now: ended(now) or now.done >= 1)


@pytest.mark.usefixtures("luckless")
def test_uploads_of_all_jobs_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would bring what was uploaded above the bound is refused, until a job that has
    files is removed.
    """
    monkeypatch.setattr(jobs, "MOST_UPLOADED", 2_500_000)
    files = {"model": bytes(1_000_000), "calibration": bytes(500_000)}

    def start(name: str) -> Job:
        given = Request(
            f"{name}.onnx", upload=Upload(f"{name}.onnx", ("calibration",), "regression")
        )
        return jobs.start(given, files=files)

    first = start("a")
    with pytest.raises(JobError, match=r"earlier jobs take 2 MB, and 2 MB more would be over 2 MB"):
        start("b")
    assert job_folder.names() == (first.name,)

    jobs.remove(wait_for(first, ended))
    assert start("b").name.startswith("b-run")


@pytest.mark.usefixtures("luckless")
def test_processes_that_are_over_are_not_left_behind() -> None:
    """Listing jobs lets the system forget those that ended: no zombie stays with the dashboard."""
    job = wait_for(jobs.start(Request("sample:informer")), ended)
    pid = json.loads((job.folder / "job.json").read_bytes())["pid"]

    jobs.everything()

    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_a_running_job_is_seen_by_everyone_and_runs_once(tmp_path: Path) -> None:
    """Half-way there are runs behind, runs to come, the name of the one at hand, and a clock; a
    second start of the same source is refused by name of the first, others may start; and whoever
    reads the folder later sees the same job running, and can stop it.
    """
    job = held(tmp_path)

    assert job.running, jobs.log_tail(job)
    assert 0 < job.done < job.total
    assert job.label
    later = wait_for(job, lambda now: now.elapsed > job.elapsed)
    assert later.done == job.done

    with pytest.raises(JobError, match=f"measured already, as {job.name}"):
        jobs.start(job.request)
    with pytest.raises(JobError, match="Stop it first"):
        jobs.remove(job)
    other = jobs.start(Request(write_model(tmp_path / "other", hold=True)))
    assert other.name == "mine.load-run-2"
    assert {j.name for j in jobs.everything() if j.running} == {job.name, other.name}
    jobs.stop(other)
    jobs.remove(other)

    code = (
        "from core.jobs import jobs; (job,) = jobs.everything(); "
        "print(job.name, job.state, jobs.stop(job).state)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [job.name, "running", "stopped"]
    assert wait_for(job, ended).state == "stopped"


@pytest.mark.slow
def test_a_job_outlives_its_starter(tmp_path: Path, home: Path) -> None:
    """A job goes on when the process that started it, and its group, are gone."""
    source = write_model(tmp_path / "mine", hold=True)
    code = f"from core.jobs import jobs; jobs.start(jobs.Request({source!r}))"
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, start_new_session=True)
    assert starter.wait() == 0

    (job,) = jobs.everything()

    assert wait_for(job, lambda now: ended(now) or now.done > 0).running, jobs.log_tail(job)
    assert os.getpgid(msgspec.json.decode((job.folder / "job.json").read_bytes())["pid"]) not in {
        starter.pid, os.getpgrp(),
    }  # fmt: skip


@pytest.mark.slow
def test_a_running_job_can_be_opened(tmp_path: Path) -> None:
    """What a running job has measured so far is an analysis in its folder, marked as partial; it
    becomes the whole one when the job ends.
    """
    source = write_model(tmp_path / "mine", hold=True, deep=True)
    job = jobs.start(Request(source, ("FP16", "INT8")))
    wait_for(job, lambda now: ended(now) or now.has_analysis)
    assert job.folder / "analysis" in job_folder.analyses()

    def layers() -> int:
        partial = store.load(job.analysis).partial
        assert partial is not None
        return partial.layers

    wait_for(job, lambda now: ended(now) or layers() >= 3)
    assert 3 <= layers() < 13
    (tmp_path / "mine" / "hold").unlink()

    assert wait_for(job, ended).state == "done", jobs.log_tail(job)
    assert store.load(job.analysis).partial is None


@pytest.mark.slow
def test_stop_ends_the_process_and_resume_ends_the_work(tmp_path: Path) -> None:
    """A stopped job is gone from the machine; the same command again brings it to its end."""
    job = wait_for(held(tmp_path), lambda now: ended(now) or now.has_analysis)
    record = json.loads((job.folder / "job.json").read_bytes())

    stopped = jobs.stop(job)

    assert (stopped.state, stopped.error) == ("stopped", None)
    assert processes.stamp(record["pid"]) == ""
    assert store.load(stopped.analysis).partial is not None
    write_model(tmp_path / "mine", hold=False)
    again = jobs.restart(stopped)
    assert (again.name, again.running) == (job.name, True)
    assert wait_for(again, ended).state == "done", jobs.log_tail(again)
    assert store.load(again.analysis).partial is None
    assert len(jobs.everything()) == 1
    third = wait_for(jobs.restart(again), ended)
    assert any(
        "Resuming: 100% of the work found, 3 of 3 layers whole" in note for note in third.notes
    ), third


def test_stop_takes_workers_along(tmp_path: Path) -> None:
    """Processes that the command started end with it, also those that ignore a polite request."""
    code = (
        "import signal, subprocess, sys, time\n"
        "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(1, flush=True); time.sleep(99)'\n"
        "worker = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE)\n"
        "worker.stdout.readline()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(99)\n"
    )
    log = tmp_path / "log"
    pid = processes.launch(
        [sys.executable, "-c", code], cwd=tmp_path, log=log, environment=os.environ
    )
    give_up = time.monotonic() + 30
    while not log.read_text().strip() and time.monotonic() < give_up:
        time.sleep(0.02)
    worker = int(log.read_text())
    assert processes.stamp(worker)

    assert processes.end(pid, processes.stamp(pid), 5.0)

    while processes.stamp(worker) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert processes.stamp(pid) == processes.stamp(worker) == ""


def test_a_clock_that_is_set_makes_no_job_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is known again although the system's clock was set an hour ahead meanwhile."""
    before, booted = processes.stamp(os.getpid()), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted + 3600)

    assert psutil.boot_time() == booted + 3600
    assert processes.stamp(os.getpid()) == before != ""


@pytest.mark.slow
def test_a_killed_process_is_seen_as_stopped(tmp_path: Path) -> None:
    """Killed from outside, a job is no longer running, and says that nobody asked for it; a process
    that was given its pid since is neither taken for the job nor ended.
    """
    job = held(tmp_path)
    record = json.loads((job.folder / "job.json").read_bytes())
    os.kill(record["pid"], signal.SIGKILL)

    now = wait_for(job, ended)

    assert now.state == "stopped"
    assert now.error is not None
    assert "without being asked" in now.error.cause
    assert now.done == job.done

    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (job.folder / "job.json").write_text(json.dumps({**record, "pid": other.pid}))
    seen = jobs.stop(job)
    assert seen.state == "stopped"
    assert other.poll() is None
    other.communicate(b"\n")
    assert other.returncode == 0


@pytest.mark.slow
def test_a_failure_has_its_cause_and_a_mended_file_its_analysis(tmp_path: Path) -> None:
    """What the person's file raised is told with its line, and the log holds the command's line;
    started again, the job runs to its end, and its folder holds an analysis of what was asked.
    """
    source = write_model(tmp_path / "mine", broken=True)

    job = wait_for(jobs.start(Request(source, ("INT8", "FP16"))), ended)

    assert job.state == "failed"
    assert job.error is not None
    assert "mine.py:load failed at line" in job.error.cause
    assert "ValueError: the checkpoint is empty" in job.error.cause
    assert job.error.next_step == "Mend the file; it has to run on its own."
    assert f"quantscape: {job.error}" in jobs.log_tail(job)

    write_model(tmp_path / "mine")
    job = wait_for(jobs.restart(job), ended)
    assert (job.state, job.error) == ("done", None), jobs.log_tail(job)
    assert job.name == "mine.load-run-1"
    assert job.done == job.total > 0
    assert job.result is not None
    assert job.result["layers"] == len(store.load(job.analysis).layers)
    evidence = store.load(job.analysis).evidence
    assert evidence is not None
    assert evidence.precisions == ("INT8", "FP16")
    assert "layers" in jobs.log_tail(job)


@pytest.mark.usefixtures("luckless")
def test_a_command_that_never_began_is_told() -> None:
    """Without a progress file the log is what is left, and the job counts as failed."""
    job = wait_for(jobs.start(Request("sample:informer")), ended)

    assert job.state == "failed"
    assert job.error is not None
    assert "before it began" in job.error.cause
    assert jobs.log_tail(job) == "no luck"


def test_two_starts_at_once_make_one_job(tmp_path: Path) -> None:
    """Processes that start the same source at the same moment cannot both win."""
    source = write_model(tmp_path / "mine", hold=True)
    code = (
        "from core.jobs import jobs; from core.errors import JobError\n"
        f"try: print(jobs.start(jobs.Request({source!r})).name)\n"
        "except JobError: print('refused')"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]

    said = sorted(starter.communicate()[0].strip() for starter in starters)

    assert said == ["mine.load-run-1", "refused", "refused"]


def test_a_prediction_measures_nothing_and_gives_way(tmp_path: Path) -> None:
    """A dry run ends with the plan; the next start of that source removes it."""
    request = Request(write_model(tmp_path / "mine"), ("INT8",), dry_run=True)
    job = wait_for(jobs.start(request), ended)

    assert job.state == "done", jobs.log_tail(job)
    assert job.result is not None
    assert job.result["layers"] == 3
    assert job.result["predicted_seconds"] > 0
    assert not job.has_analysis

    measuring = jobs.start(msgspec.structs.replace(request, dry_run=False))
    assert [j.name for j in jobs.everything()] == [measuring.name]


def test_an_own_csv_lies_in_the_jobs_folder(tmp_path: Path) -> None:
    """A CSV goes into the job's folder under a harmless name, and the sample's checks read it."""
    text = b"open,high,low,close,volume\n1,2,1,lots,5\n"
    name = "../../my prices.csv"

    job = jobs.start(Request("sample:informer", csv=name, csv_digest=job_folder.digest(text)), text)

    assert (job.folder / "my_prices.csv").read_bytes() == text
    failed = wait_for(job, ended)
    assert failed.error is not None
    assert "Row 2, column close: 'lots' is not a plain number." in failed.error.cause


@pytest.mark.usefixtures("luckless")
def test_a_removed_job_is_gone() -> None:
    """A job that is over can be removed with all that it left, and its number is not reused."""
    first = wait_for(jobs.start(Request("sample:informer")), ended)
    second = wait_for(jobs.start(Request("sample:informer")), ended)
    assert (first.name, second.name) == ("informer-run-1", "informer-run-2")

    jobs.remove(first)

    assert not first.folder.exists()
    assert [job.name for job in jobs.everything()] == [second.name]
    with pytest.raises(JobError, match="is gone"):
        jobs.restart(first)
    assert jobs.start(first.request).name == "informer-run-3"


@pytest.mark.usefixtures("luckless")
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"request": 3}', b"x" * 2_000_000])
def test_damaged_files_hide_no_other_job(content: bytes, home: Path) -> None:
    """A record or a progress file that cannot be read is passed over."""
    job = wait_for(jobs.start(Request("sample:informer")), ended)
    (home / "damaged").mkdir()
    (home / "damaged" / "job.json").write_bytes(content)
    (job.folder / "progress.json").write_bytes(content)

    (seen,) = jobs.everything()

    assert (seen.name, seen.state) == (job.name, "failed")


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where jobs cannot lie, starting one names the folder and the variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "file" / "jobs"))

    with pytest.raises(JobError, match=user_folders.VARIABLE):
        jobs.start(Request("sample:informer"))
    assert jobs.everything() == ()


def test_jobs_lie_with_the_users_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable they lie under XDG_DATA_HOME, or else under ~/.local/share."""
    monkeypatch.delenv(user_folders.VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert user_folders.jobs_folder() == Path("/data/quantscape/jobs")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert user_folders.jobs_folder() == Path.home() / ".local/share/quantscape/jobs"


def test_progress_is_written_whole_and_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of quick steps are few writes, each a whole file, and the last one is right."""
    path = tmp_path / "p.json"
    writes: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda s, to: (writes.append(s.name), replace(s, to))[1])

    began = time.monotonic()
    with reporting(path) as reporter:
        for done in range(20_000):
            reporter.step(done, 20_000, f"layer {done}")
            if done % 1_000 == 0:
                assert msgspec.json.decode(path.read_bytes(), type=Progress).state == "running"
        reporter.step(20_000, 20_000, "done")
        reporter.result = {"layers": 3}
    took = time.monotonic() - began

    end = msgspec.json.decode(path.read_bytes(), type=Progress)
    assert (end.state, end.done, end.total, end.result) == ("done", 20_000, 20_000, {"layers": 3})
    assert len(writes) <= 3 + took / progress.EVERY_S
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_the_last_step_is_written_though_the_run_is_long(tmp_path: Path) -> None:
    """A step that comes right after a write reaches the file while its long run goes on."""
    path = tmp_path / "p.json"
    with reporting(path) as reporter:
        reporter.step(0, 2, "quick")
        reporter.step(1, 2, "long")
        give_up = time.monotonic() + 30
        seen = ""
        while seen != "long" and time.monotonic() < give_up:
            seen = msgspec.json.decode(path.read_bytes(), type=Progress).label
    assert seen == "long"


def test_time_left_comes_after_three_runs_and_follows_the_recent_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before three timed runs nothing is guessed; after that late runs count, early ones fade."""
    now = 0.0
    monkeypatch.setattr("core.jobs.progress.time.monotonic", lambda: now)
    reporter = Reporter(None)
    for done in range(3):
        reporter.step(done, 100, "")
        now += 1.0
        assert reporter.left(now) is None
    reporter.step(3, 100, "")
    assert reporter.left(now) == pytest.approx(97.0)
    assert reporter.left(now + 2.0) == pytest.approx(95.0)
    for done in range(4, 30):
        now += 2.0
        reporter.step(done, 100, "")

    assert reporter.left(now) == pytest.approx(71 * 2.0)


def test_a_progress_file_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured, one line names the file that cannot be written."""
    path = tmp_path / "nowhere" / "p.json"

    code = main(["analyze", "sample:digits_vit", "--dry-run", "--progress", str(path)])

    assert code == 2
    assert f"{path} cannot be written" in capsys.readouterr().err
