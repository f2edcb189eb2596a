"""How far a long command is, in a small file for whoever watches it from outside.

The file is replaced as a whole a few times a second at most, so a reader never sees half of it
and a quick measurement does not wait for the disk.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from core import files
from core.errors import JobError, QuantscapeError, told
from core.files import Count, NonNegative
from core.source.blame import blamed

EVERY_S = 0.25
RUNS_BEFORE_A_GUESS = 3
RECENT_RUNS = 12
"""The time left follows the last runs: later layers may be slower, and resumed ones take none."""

MAX_NOTES = 8

State = Literal["running", "done", "failed", "stopped"]


class Progress(msgspec.Struct, frozen=True):
    """The content of a progress file; times in seconds, `started` and `updated` since 1970.

    `left` is None until enough runs were timed. `notes` are sentences that the command said on
    its way, such as what it took up again; `result` is what it found, once done.
    """

    state: State
    pid: Count
    started: NonNegative
    updated: NonNegative
    elapsed: NonNegative
    done: Count = 0
    total: Count = 0
    label: str = ""
    left: NonNegative | None = None
    cause: str = ""
    next_step: str = ""
    notes: tuple[str, ...] = ()
    result: dict[str, Any] = {}


class Reporter:
    """Takes the steps of one command and keeps its progress file; without a path it only counts.

    `result` may be set before the command ends.
    """

    def __init__(self, path: Path | None) -> None:
        self.result: dict[str, Any] = {}
        self._path = path
        self._notes: tuple[str, ...] = ()
        self._started = time.time()
        self._clock = time.monotonic()
        self._done, self._total, self._label = 0, 0, ""
        self._marks: deque[tuple[float, int]] = deque(maxlen=RECENT_RUNS + 1)
        self._lock = threading.Lock()
        self._fresh = threading.Event()
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._keep, daemon=True)

    def open(self) -> None:
        """Write the file for the first time. Raises `JobError` where that cannot be done."""
        if self._path is None:
            return
        try:
            self._write("running")
        except OSError as error:
            raise JobError(
                f"{self._path} cannot be written: {files.reason(error)}.",
                files.what_to_do(error, "another file for progress"),
            ) from error
        self._writer.start()

    def step(self, done: int, total: int, label: str) -> None:
        """`done` of `total` runs are over, and the one called `label` begins."""
        with self._lock:
            if done != self._done or not self._marks:
                self._marks.append((time.monotonic(), done))
            self._done, self._total, self._label = done, total, label
        self._fresh.set()

    def say(self, sentence: str) -> None:
        """Pass on what the command says to whoever runs it; a repeated sentence counts once."""
        with self._lock:
            if sentence not in self._notes:
                self._notes = (*self._notes, sentence)[-MAX_NOTES:]
        self._fresh.set()

    def close(self, state: State, cause: str = "", next_step: str = "") -> None:
        """Write how it ended."""
        self._over.set()
        self._fresh.set()
        if self._path is None:
            return
        self._writer.join()
        try:
            self._write(state, cause, next_step)
        except OSError:
            return  # a full disk: the command's own words and exit code still tell

    def left(self, now: float) -> float | None:
        """Seconds that the remaining runs take at the rate of the recent ones."""
        if len(self._marks) <= RUNS_BEFORE_A_GUESS:
            return None
        (first, begun), (last, over) = self._marks[0], self._marks[-1]
        if over <= begun:
            return None
        rest = (self._total - over) * (last - first) / (over - begun)
        return max(rest - (now - last), 0.0)

    def _keep(self) -> None:
        while not self._over.is_set():
            self._fresh.wait()
            self._fresh.clear()
            if self._over.is_set():
                return
            try:
                self._write("running")
            except OSError:
                continue  # the next write may find room again; measuring goes on
            self._over.wait(EVERY_S)

    def _write(self, state: State, cause: str = "", next_step: str = "") -> None:
        assert self._path is not None
        now = time.monotonic()
        with self._lock:
            progress = Progress(
                state=state,
                pid=os.getpid(),
                started=self._started,
                updated=time.time(),
                elapsed=now - self._clock,
                done=self._done,
                total=self._total,
                label=self._label,
                left=self.left(now) if state == "running" else None,
                cause=cause,
                next_step=next_step,
                notes=self._notes,
                result=self.result if state == "done" else {},
            )
        files.write(self._path, msgspec.json.encode(progress))


@contextmanager
def reporting(path: Path | None) -> Iterator[Reporter]:
    """Keep the progress file at `path` for the length of a block, and say there how it ended."""
    reporter = Reporter(path)
    reporter.open()
    try:
        with blamed():
            yield reporter
    except QuantscapeError as error:
        reporter.close("failed", error.cause, error.next_step)
        raise
    except KeyboardInterrupt:
        reporter.close("stopped")
        raise
    except BaseException as error:
        reporter.close(
            "failed",
            f"Unexpected failure: {told(error)}.",
            "The log has the details.",
        )
        raise
    reporter.close("done")
