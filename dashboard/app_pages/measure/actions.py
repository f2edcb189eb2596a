"""What can be measured from the page, what was chosen, and the callbacks that start and stop jobs.

Only bundled samples and functions named at launch can be run. An uploaded CSV is data: it is read
by the sample's own checks here, and by the sample in its own process.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import streamlit as st

from core.errors import DataError, JobError, QuantscapeError
from core.evidence.evidence import Partial
from core.jobs import jobs
from core.jobs.job_folder import Request, digest
from core.jobs.jobs import Job
from core.numerics import precision as registry
from core.source import samples
from dashboard import SOURCES_VARIABLE
from dashboard.app_pages.measure import options
from dashboard.app_pages.measure.options import Options
from dashboard.session import state, studies
from dashboard.session.controls import MODEL

MAX_MB = 20
CSV, START, JOBS = "measure csv", "measure start", "measure jobs"
"""Who a problem belongs to: the uploader, the buttons of the form, or the list of jobs."""

SOURCE, UNITS, UPLOADER, GIVEN = (
    "measure_source", "measure_units", "measure_csv", "_measure_csv",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A model that may be measured: its name on the command line, and for people."""

    reference: str
    title: str
    takes_csv: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """A person's CSV that passed the sample's checks."""

    name: str
    content: bytes
    rows: int


def sources() -> dict[str, Source]:
    """What may be run, by reference: named at launch first, then the bundled samples."""
    launch = json.loads(os.environ.get(SOURCES_VARIABLE) or "{}")
    names = sorted(samples.names(), key=lambda name: name != studies.FIRST_SAMPLE)
    named = [
        Source(str(reference), f"{Path(str(reference)).name} (named at launch)")
        for reference in launch.get("sources", ())
    ]
    bundled = [
        Source(f"{samples.PREFIX}{name}", f"{name} (bundled sample)", samples.get(name).takes_csv)
        for name in names
    ]
    return {source.reference: source for source in named + bundled}


def precision_key(name: str) -> str:
    """The key of a precision's checkbox."""
    return f"measure_{name}"


def given() -> Given | None:
    """The CSV that this tab will measure with."""
    found: Given | None = st.session_state.get(GIVEN)
    return found


def request(source: Source) -> Request:
    """What the form asks for."""
    csv = given() if source.takes_csv else None
    launch = json.loads(os.environ.get(SOURCES_VARIABLE) or "{}")
    named = not source.reference.startswith(samples.PREFIX)
    how = options.chosen()
    return Request(
        source.reference,
        tuple(n for n in registry.simulated() if st.session_state.get(precision_key(n), True)),
        expand_units=bool(st.session_state.get(UNITS, False)),
        csv="" if csv is None else csv.name,
        csv_digest="" if csv is None else digest(csv.content),
        cwd=str(launch.get("cwd", "")) if named else "",
        device=how.device,
        memory_bytes=how.memory_bytes,
        processes=how.processes,
        scheme="" if how.scheme == Options().scheme else how.scheme,
        calibrator="" if how.calibrator == Options().calibrator else how.calibrator,
    )


def prediction(asked: Request, found: tuple[Job, ...]) -> Job | None:
    """The dry run of exactly what the form asks for, if it was made."""
    wanted = msgspec.structs.replace(asked, dry_run=True)
    return next((job for job in found if job.request == wanted), None)


def take_csv(source: Source) -> None:
    """Read the CSV in the uploader by the sample's own checks. Run from its callback."""
    _solved(CSV)
    st.session_state[GIVEN] = None
    file = st.session_state.get(UPLOADER)
    if file is None:
        return
    name, content = str(file.name), bytes(file.getvalue())
    try:
        if len(content) > MAX_MB * 10**6:
            raise DataError(
                f"{name} has more than {MAX_MB} MB.", "Use the command line: analyze --csv FILE."
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "given.csv"
            path.write_bytes(content)
            rows = samples.check_csv(source.reference, path)
    except QuantscapeError as error:
        cause = error.cause.replace("given.csv", name)
        state.session().problem = (CSV, DataError(cause, error.next_step))
    else:
        st.session_state[GIVEN] = Given(name, content, rows)


def drop_csv() -> None:
    """Measure with the sample's own data again. Run from a callback."""
    _solved(CSV)
    st.session_state[GIVEN] = None


def start(asked: Request, *, dry_run: bool) -> None:
    """Start what the form asks for. Run from a callback."""
    _solved(START, JOBS)
    csv = given() if asked.csv else None
    try:
        check_allowed(asked.source)
        jobs.start(
            msgspec.structs.replace(asked, dry_run=dry_run), b"" if csv is None else csv.content
        )
    except QuantscapeError as error:
        state.session().problem = (START, error)


def restart(job: Job) -> None:
    """Run a job's command again. Run from a callback."""
    _solved(START, JOBS)
    try:
        check_allowed(job.request.source)
        jobs.restart(job)
    except QuantscapeError as error:
        state.session().problem = (JOBS, error)


def stop(job: Job) -> None:
    """Stop a job. Run from a callback."""
    jobs.stop(job)


def remove(job: Job) -> None:
    """Delete a job with its analysis. Run from a callback."""
    _solved(JOBS)
    name = entry_of(job)
    try:
        jobs.remove(job)
    except QuantscapeError as error:
        state.session().problem = (JOBS, error)
    else:
        if name and st.session_state.get(MODEL) == name:
            st.session_state[MODEL] = next(iter(studies.entries()))


def choose(job: Job) -> None:
    """Make a job's analysis the model on screen. Run from a callback."""
    name = entry_of(job)
    if name:
        st.session_state[MODEL] = name


def entry_of(job: Job) -> str:
    """The name under which a job's analysis is in the model select; empty where there is none."""
    return next((e.name for e in studies.entries().values() if e.folder == job.analysis), "")


def partial_of(job: Job) -> Partial | None:
    """How far a job's analysis is; None for a whole one."""
    return studies.partial_of(job.analysis)


def allowed(reference: str) -> bool:
    """Whether this dashboard may run a source."""
    return reference in sources()


def check_allowed(reference: str) -> None:
    """Raise `JobError` where this dashboard may not run a source."""
    if not allowed(reference):
        raise JobError(
            f"{reference} was not named at launch.", f"Start `python -m dashboard {reference}`."
        )


def _solved(*places: str) -> None:
    tab = state.session()
    if tab.problem is not None and tab.problem[0] in places:
        tab.problem = None
