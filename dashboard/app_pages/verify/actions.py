"""What can be verified from the page, and the callbacks that start and stop it.

Maps are built and run by a command of its own beside the dashboard, as measuring is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from core.decide import answer
from core.decide.assess.compare import Cost
from core.decide.assess.frontier import frontier
from core.decide.assess.verified import without_half
from core.decide.policy.decision import PrecisionMap
from core.errors import PolicyError, QuantscapeError
from core.export.map import precision_map
from core.jobs import jobs
from core.jobs.job_folder import Request
from core.jobs.jobs import Job
from core.numerics.scheme import check_built
from core.source import reference
from dashboard.session import launched, problems, state, studies
from dashboard.session.problems import VERIFY
from dashboard.session.view import View

AXIS, POINTS = "verify_axis", "verify_points"
USUAL_POINTS, MOST_POINTS = 8, 16


def folder_of(view: View) -> Path:
    """The analysis folder of the model on screen."""
    return studies.entries()[view.opened.name].folder.resolve()


def of_model(found: tuple[Job, ...], view: View) -> tuple[Job, ...]:
    """The jobs that verify maps of the model on screen, the newest first."""
    folder = str(folder_of(view))
    return tuple(job for job in found if job.request.verify == folder)


def can_run(view: View) -> bool:
    """Whether this dashboard may run the model: a bundled sample, named at launch, or ONNX."""
    return launched.allowed(view.study.analysis.source)


def refusal(view: View) -> str:
    """Why no file is built of this analysis, and what to do; "" where one is."""
    try:
        check_built(view.study.analysis.rounding)
    except PolicyError as error:
        return f"{error.cause} {error.next_step}"
    return ""


def command(view: View) -> str:
    """What a person types where the page may not run the model."""
    source = view.study.analysis.source
    named = "" if reference.is_data(source) else f" --source {source or 'path/to/file.py:function'}"
    return f"python -m core verify {folder_of(view)} map.json{named}"


def this_map(view: View) -> None:
    """Verify the map on screen. Run from a callback."""
    _start(view, [("this map", view.now.chosen)])


def the_frontier(view: View) -> None:
    """Verify maps spread over a frontier. Run from a callback."""
    axis: Cost = st.session_state.get(AXIS) or "size"
    count = int(st.session_state.get(POINTS) or USUAL_POINTS)
    try:
        points = frontier(view.study, view.policy, axis).points
    except QuantscapeError as error:
        problems.keep(VERIFY, error)
        return
    chosen = [points[i] for i in spread(len(points), count)]
    maps = [(f"{axis} {n} of {len(chosen)}", answer.decide(view.study, point.policy))
            for n, point in enumerate(chosen, 1)]  # fmt: skip
    _start(view, maps)


def spread(length: int, count: int) -> list[int]:
    """`count` places, at most, evenly over `length`, both ends among them."""
    if length <= count:
        return list(range(length))
    return sorted({round(float(x)) for x in np.linspace(0, length - 1, count)})


def _start(view: View, maps: list[tuple[str, PrecisionMap]]) -> None:
    problems.solve(VERIFY)
    source = view.study.analysis.source
    files = {f"{name}.json": precision_map.to_json(view.study, chosen) for name, chosen in maps}
    request = Request(
        source,
        verify=str(folder_of(view)),
        maps=tuple(files),
        cwd=launched.folder_for(source),
    )
    with problems.attempt(VERIFY):
        launched.check_allowed(source)
        jobs.start(request, files=files)


def widen(view: View) -> None:
    """Put the reference in place of half precisions. Run from a callback."""
    state.load(without_half(view.policy), view.study)
