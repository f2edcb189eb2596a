"""What can be measured from the page, what was chosen, and the callbacks that start and stop jobs.

Only bundled samples, functions named at launch and ONNX files can be run. What is uploaded is data:
it is read by checks here, and by the command in its own process.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import streamlit as st

from core.errors import DataError, QuantscapeError
from core.evidence.evidence import Partial
from core.jobs import jobs
from core.jobs.job_folder import Request, digest
from core.jobs.jobs import Job
from core.numerics import precision as registry
from core.source import samples
from dashboard.app_pages.measure import options, upload
from dashboard.app_pages.measure.options import Options
from dashboard.pages import PAGES
from dashboard.session import launched, problems, studies
from dashboard.session.controls import MODEL
from dashboard.session.launched import LaunchedSource
from dashboard.session.measure_form import UNITS
from dashboard.session.problems import CSV, JOBS, START

MAX_MB = 20
UPLOADER, GIVEN = "measure_csv", "_measure_csv"
LOOK = "_measure_look"


@dataclass(frozen=True, slots=True)
class Given:
    """A person's CSV that passed the sample's checks."""

    name: str
    content: bytes
    rows: int


def precision_key(name: str) -> str:
    """The key of a precision's checkbox."""
    return f"measure_{name}"


def given() -> Given | None:
    """The CSV that this tab will measure with."""
    found: Given | None = st.session_state.get(GIVEN)
    return found


def request(source: LaunchedSource) -> Request:
    """What the form asks for."""
    csv = given() if source.takes_csv else None
    how = options.chosen()
    asked = Request(
        source.reference,
        tuple(
            n
            for n in registry.simulated()
            if st.session_state.get(precision_key(n), n in registry.FIRST_VISIT)
        ),
        expand_units=bool(st.session_state.get(UNITS, False)),
        csv="" if csv is None else csv.name,
        csv_digest="" if csv is None else digest(csv.content),
        cwd=launched.folder_for(source.reference),
        until="" if how.until == Options().until else how.until,
        device=how.device,
        memory_bytes=how.memory_bytes,
        processes=how.processes,
        scheme="" if how.scheme == Options().scheme else how.scheme,
        calibrator="" if how.calibrator == Options().calibrator else how.calibrator,
        quantizer="" if how.quantizer == Options().quantizer else how.quantizer,
    )
    return upload.request(asked) if source.reference == upload.CHOICE else asked


def prediction(asked: Request, found: tuple[Job, ...]) -> Job | None:
    """The dry run of exactly what the form asks for, if it was made."""
    wanted = msgspec.structs.replace(asked, dry_run=True)
    return next((job for job in found if job.request == wanted), None)


def take_csv(source: LaunchedSource) -> None:
    """Read the CSV in the uploader by the sample's own checks. Run from its callback."""
    problems.solve(CSV)
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
        problems.keep(CSV, DataError(cause, error.next_step))
    else:
        st.session_state[GIVEN] = Given(name, content, rows)


def drop_csv() -> None:
    """Measure with the sample's own data again. Run from a callback."""
    problems.solve(CSV)
    st.session_state[GIVEN] = None


def start(asked: Request, *, dry_run: bool) -> None:
    """Start what the form asks for. Run from a callback."""
    problems.solve(START, JOBS)
    csv = given() if asked.csv else None
    asked = msgspec.structs.replace(asked, dry_run=dry_run)
    with problems.attempt(START):
        launched.check_allowed(asked.source)
        if asked.upload is not None:
            jobs.start(asked, files=upload.files())
        else:
            jobs.start(asked, b"" if csv is None else csv.content)


def remove(job: Job) -> None:
    """Delete a job with its analysis. Run from a callback."""
    problems.solve(JOBS)
    name = entry_of(job)
    with problems.attempt(JOBS):
        jobs.remove(job)
        if name and st.session_state.get(MODEL) == name:
            st.session_state[MODEL] = next(iter(studies.entries()))


def choose(job: Job) -> None:
    """Make a job's analysis the model on screen, and look at it. Run from a callback."""
    name = entry_of(job)
    if name:
        st.session_state[MODEL] = name
        st.session_state[LOOK] = True


def look() -> None:
    """Go to the Overview, where a callback asked for it.

    Kept until a run gets here: what a button returned is lost to one that another run overtakes.
    """
    if st.session_state.pop(LOOK, False):
        st.switch_page(PAGES["overview"].script, query_params={})


def entry_of(job: Job) -> str:
    """The name under which a job's analysis is in the model select; empty where there is none."""
    return next((e.name for e in studies.entries().values() if e.folder == job.analysis), "")


def partial_of(job: Job) -> Partial | None:
    """How far a job's analysis is; None for a whole one."""
    return studies.partial_of(job.analysis)
