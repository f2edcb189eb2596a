"""First answers to the budgets beside the one on screen, looked for while nobody waits.

A slider that moves then finds its answer made. Python runs one thread at a time, so that a run of
the page ends the looking: what it waits for is one answer at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import streamlit as st

from core.decide.solve.solver import Solver
from core.errors import QuantscapeError
from dashboard.session.budget_controls import Moved

REST_S = 0.1
"""How long a page rests before its neighbours are looked for: an animation, a held key."""
MOST_S = 5.0
"""Time that is spent on one budget's neighbours at most."""


class Worker:
    """Looks for the neighbours of one budget at a time, the last one asked for."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._over = Event()

    def stop(self) -> None:
        """Look for nothing more, since a page is being made."""
        self._over.set()

    def look(self, solver: Solver, beside: Iterable[Moved]) -> None:
        """Look for first answers to `beside`, the nearest first, until something else is asked."""
        self.stop()
        self._over = over = Event()
        self._pool.submit(solve, solver, beside, over)


def solve(solver: Solver, beside: Iterable[Moved], over: Event) -> None:
    """Keep first answers to `beside` until `over` is set or `MOST_S` have passed.

    Where one way leads beyond what is feasible, nothing more is looked for there: finding out
    takes longer than an answer.
    """
    if over.wait(REST_S):
        return
    end = time.monotonic() + MOST_S
    closed: set[int] = set()
    for way, policy in beside:
        if over.is_set() or time.monotonic() > end:
            return
        if way in closed:
            continue
        try:
            solver.decide(policy, first=True)
        except QuantscapeError:
            closed.add(way)


@st.cache_resource(show_spinner=False)
def worker() -> Worker:
    """The one worker of this server."""
    return Worker()
