"""Analyses that run beside their caller, each in a process and a folder of its own.

A job is the command `python -m core analyze … --out DIR --progress FILE`, started detached. Its
folder holds `job.json` (what was asked, and which process does it), `progress.json`, `log.txt`,
a person's CSV, and in the end the analysis. Whoever reads the folder later finds the job again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from core.analysis import store
from core.errors import JobError, QuantscapeError
from core.files import opened, reason, what_to_do, write
from core.jobs import processes
from core.jobs.job_folder import (  # fmt: skip
    ANALYSIS,
    LOG,
    PROGRESS,
    RECORD,
    ROOT,
    Request,
    command,
    decode,
    file_name,
    locked,
    new_folder,
)
from core.jobs.progress import Progress, State
from core.onnx_graph.node_table import SUFFIX
from core.records.user_folders import VARIABLE, jobs_folder

NO_FILES: Mapping[str, bytes] = MappingProxyType({})
STOPPED = "stopped"
"""Left in the folder of a job that a person stopped."""

MAX_JOBS = 200
MOST_UPLOADED = 4 * 10**9
"""Bytes of models and arrays from browsers, over all jobs that are kept."""
LOG_TAIL_BYTES = 8_000
GRACE_S = 3.0


class _JobRecord(msgspec.Struct, frozen=True):
    request: Request
    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    stamp: str
    started: float


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now. `left` is an estimate in seconds; None until it can be made."""

    name: str
    folder: Path
    request: Request
    state: State
    started: float
    elapsed: float
    done: int = 0
    total: int = 0
    label: str = ""
    left: float | None = None
    error: QuantscapeError | None = None
    notes: tuple[str, ...] = ()
    result: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.state == "running"

    @property
    def analysis(self) -> Path:
        """Where the analysis lies, or will."""
        return self.folder / ANALYSIS

    @property
    def has_analysis(self) -> bool:
        """Whether there is an analysis to open, from this run or an earlier one."""
        return (self.analysis / store.FILE).is_file()


def start(request: Request, csv: bytes = b"", files: Mapping[str, bytes] = NO_FILES) -> Job:
    """Start `request` in a new folder, with the content of its `maps`, or of the parts of its
    `upload`, by name. Raises `JobError` if its source is being measured, or if what was uploaded
    for all jobs would be more than `MOST_UPLOADED` bytes.

    A prediction (`dry_run`) for the same source gives way, and only the last one is kept.
    """
    try:
        with locked():
            for job in _listed()[0]:
                if job.request.source == request.source and job.request.dry_run:
                    _stop(job)
                    shutil.rmtree(job.folder, ignore_errors=True)
            _refuse_busy(request)
            if request.upload is not None:
                _refuse_full(sum(len(content) for content in files.values()))
            folder = new_folder(request.source)
            try:
                if request.csv:
                    (folder / file_name(request.csv)).write_bytes(csv)
                for name in request.maps:
                    (folder / file_name(name, ".json")).write_bytes(files[name])
                if request.upload is not None:
                    for name, path in request.upload.files(folder).items():
                        path.write_bytes(files[name])
                return _launch(folder, request)
            except BaseException:  # nobody would list it, or remove it
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except OSError as error:
        raise _unwritable(error) from error


def _refuse_full(more: int) -> None:
    """Refuse `more` bytes where those of kept jobs leave no room for them."""
    held = sum(
        p.stat().st_size for end in (SUFFIX, ".npz") for p in jobs_folder().glob(f"*/*{end}")
    )
    if held + more > MOST_UPLOADED:
        raise JobError(
            f"Files that were uploaded for earlier jobs take {held / 1e6:,.0f} MB, and "
            f"{more / 1e6:,.0f} MB more would be over {MOST_UPLOADED / 1e6:,.0f} MB.",
            "Remove jobs that are no longer needed: their files go with them.",
        )


def restart(job: Job) -> Job:
    """Run the same command in the same folder; an analysis there stays until the new one."""
    try:
        with locked():
            if not job.folder.is_dir():
                raise JobError(f"{job.name} is gone.", "Start it anew.")
            _refuse_busy(job.request)
            return _launch(job.folder, job.request)
    except OSError as error:
        raise _unwritable(error) from error


def stop(job: Job) -> Job:
    """End a job and its workers; what it finished stays. Nothing happens to one that is over."""
    _stop(job)
    return read(job.folder) or job


def _stop(job: Job) -> None:
    record = decode(job.folder / RECORD, _JobRecord)
    if record is None or not _alive(record):
        return
    with suppress(OSError):  # a full disk keeps nobody from stopping
        (job.folder / STOPPED).touch()
    processes.end(record.pid, record.stamp, GRACE_S)


def remove(job: Job) -> None:
    """Delete a job's folder with its analysis. Raises `JobError` while it runs."""
    try:
        with locked():  # nobody lists a folder that is half gone
            now = read(job.folder)
            if now is not None and now.running:
                raise JobError(f"{job.name} is running.", "Stop it first.")
            shutil.rmtree(job.folder)
    except OSError as error:
        raise JobError(
            f"{job.folder} cannot be removed: {reason(error)}.",
            "Make it writable, or delete it yourself.",
        ) from error


def everything() -> tuple[Job, ...]:
    """All jobs that can be read, the newest first."""
    return listed()[0]


def listed() -> tuple[tuple[Job, ...], tuple[JobError, ...]]:
    """All jobs, the newest first, and what is wrong with those that cannot be read."""
    processes.reap()
    if not jobs_folder().is_dir():
        return (), ()
    try:
        with locked(shared=True):
            return _listed()
    except OSError:  # a folder that cannot be read holds no jobs for us
        return (), ()


def read(folder: Path) -> Job | None:
    """The job in `folder`; None where there is none. Raises `JobError` where it cannot be read."""
    record = decode(folder / RECORD, _JobRecord)
    if record is None:
        return None
    seen, bad = _seen(folder)
    alive = False
    if seen is None or seen.state == "running":
        alive = _alive(record)
        if not alive:  # it may have written its end since the file was read
            seen, bad = _seen(folder)
    state, error = _state(folder, seen, alive=alive)
    error = error and (bad or error)
    now = time.time()
    if seen is None:
        elapsed = now - record.started if alive else _lasted(folder, record)
        notes = () if bad is None or error else (bad.cause,)
        return Job(folder.name, folder, record.request, state, record.started, elapsed, error=error,
                   notes=notes)  # fmt: skip
    since = max(now - seen.updated, 0.0)
    running = state == "running"
    if state == "stopped":  # its last word may be long before its end
        seen = msgspec.structs.replace(seen, elapsed=max(seen.elapsed, _lasted(folder, record)))
    return Job(
        folder.name,
        folder,
        record.request,
        state,
        record.started,
        elapsed=seen.elapsed + (since if running else 0.0),
        done=seen.done,
        total=seen.total,
        label=seen.label,
        left=max(seen.left - since, 0.0) if running and seen.left is not None else None,
        error=error,
        notes=seen.notes,
        result=seen.result if state == "done" else None,
    )


def _seen(folder: Path) -> tuple[Progress | None, JobError | None]:
    """How far a job is, and what is wrong with its progress file."""
    try:
        return decode(folder / PROGRESS, Progress), None
    except JobError as error:
        return None, error


def log_tail(job: Job) -> str:
    """The end of what the command printed."""
    try:
        with opened(job.folder / LOG) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES, 0))
            return file.read(LOG_TAIL_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _state(
    folder: Path, seen: Progress | None, *, alive: bool
) -> tuple[State, QuantscapeError | None]:
    if seen is not None and seen.state == "done":
        return "done", None
    if alive:
        return "running", None
    if (folder / STOPPED).exists():
        return "stopped", None
    if seen is not None and seen.state == "failed":
        return "failed", JobError(seen.cause, seen.next_step)
    if seen is None:
        return "failed", JobError("The command ended before it began.", "Read its log.")
    return "stopped", JobError(
        "The process ended without being asked to.",
        "It was killed from outside, perhaps for memory, or the machine restarted.",
    )


def _lasted(folder: Path, record: _JobRecord) -> float:
    """Seconds from the start of a job that is over to the last sign of it: when it was stopped, or
    last wrote.
    """
    signs = [0.0]
    for name in (STOPPED, PROGRESS, LOG):
        with suppress(OSError):
            signs.append((folder / name).stat().st_mtime - record.started)
            if name == STOPPED:
                break
    return max(signs)


def _alive(record: _JobRecord) -> bool:
    return bool(record.stamp) and processes.stamp(record.pid) == record.stamp


def _listed() -> tuple[tuple[Job, ...], tuple[JobError, ...]]:
    records = sorted(jobs_folder().glob(f"*/{RECORD}"), key=lambda path: -path.stat().st_mtime)
    found, bad = [], []
    for path in records[:MAX_JOBS]:
        try:
            job = read(path.parent)
        except JobError as error:
            bad.append(error)
        else:
            found += [job] if job else []
    return tuple(sorted(found, key=lambda j: (-j.started, j.name))), tuple(bad)


def _refuse_busy(request: Request) -> None:
    for job in _listed()[0]:
        if job.running and job.request.source == request.source:
            raise JobError(
                f"{request.source} is being measured already, as {job.name}.",
                "Wait until it is done, or stop it.",
            )


def _launch(folder: Path, request: Request) -> Job:
    for name in (PROGRESS, STOPPED):
        (folder / name).unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    pid = processes.launch(
        command(request, folder),
        cwd=Path(request.cwd) if request.cwd and Path(request.cwd).is_dir() else ROOT,
        log=folder / LOG,
        environment={**os.environ, "PYTHONPATH": path},
    )
    record = _JobRecord(request, pid, processes.stamp(pid), time.time())
    try:
        write(folder / RECORD, msgspec.json.encode(record))
    except BaseException:  # nobody would know of the process
        processes.end(pid, record.stamp, GRACE_S)
        raise
    job = read(folder)
    assert job is not None
    return job


def _unwritable(error: OSError) -> JobError:
    return JobError(
        f"The job cannot be started: {reason(error)} ({error.filename or jobs_folder()}).",
        what_to_do(error, f"another folder than {jobs_folder()} in the variable {VARIABLE}"),
    )
