"""What a callback could not do, kept for the part of a page that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import QuantscapeError
from dashboard.display.boundary import show_expected
from dashboard.session import state

MAP, SESSION = "map", "session"
"""The uploaders of Export."""
CSV, ONNX, START, JOBS = "csv", "onnx", "start", "jobs"
"""The uploaders, the buttons of the form, and the list of jobs on Measure."""
VERIFY = "verify"


def of(place: str) -> QuantscapeError | None:
    """The problem of `place`."""
    found = state.session().problem
    return found[1] if found is not None and found[0] == place else None


def solve(*places: str) -> None:
    """Forget a problem of `places`."""
    tab = state.session()
    if tab.problem is not None and tab.problem[0] in places:
        tab.problem = None


def keep(place: str, error: QuantscapeError) -> None:
    """Make `error` the problem of `place`; one problem is kept at a time."""
    state.session().problem = (place, error)


@contextmanager
def attempt(place: str) -> Iterator[None]:
    """Run a block; what it cannot do becomes the problem of `place`."""
    try:
        yield
    except QuantscapeError as error:
        keep(place, error)


def show(place: str, *, once: bool = False) -> None:
    """Draw the problem of `place`, where it has one; `once`: and forget it."""
    error = of(place)
    if error is not None:
        show_expected(error)
        if once:
            solve(place)
