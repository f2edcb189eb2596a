"""Processes that outlive whoever started them: known again by pid and start time, and ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

OVER = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
NICENESS = "5"
"""A measurement gives way to what a person does meanwhile."""

_started: dict[int, subprocess.Popen[bytes]] = {}


def launch(words: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str]) -> int:
    """Start `words` in a session of its own, with everything it prints in `log`; returns its pid.

    Neither the end of this process nor Ctrl+C in its terminal reaches it.
    """
    nice = shutil.which("nice")
    prefix = [nice, "-n", NICENESS] if nice else []
    with log.open("wb") as out:
        child = subprocess.Popen(  # noqa: S603 -- a list of words, no shell
            [*prefix, *words],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started[child.pid] = child
    return child.pid


def reap() -> None:
    """Let the system forget the processes of ours that are over."""
    for pid, child in list(_started.items()):
        if child.poll() is not None:
            _started.pop(pid, None)


def stamp(pid: int) -> str:
    """What tells a process from a later one with the same pid; empty where none runs.

    Its start in seconds since the machine's: a clock that is set meanwhile does not move it.
    """
    reap()
    try:
        process = psutil.Process(pid)
        if process.status() in OVER:
            return ""
        return f"{process.create_time() - psutil.boot_time():.2f}"
    except psutil.Error:
        return ""


def end(pid: int, expected: str, grace_s: float) -> bool:
    """End the process and all that it started: asked first, killed after `grace_s`. False if it
    is gone.
    """
    if not expected or stamp(pid) != expected:
        return False
    leader = psutil.Process(pid)
    family = {leader, *_children_of(leader)}
    for process in family:
        _send(process, signal.SIGTERM)
    psutil.wait_procs([leader], timeout=grace_s)
    family |= set(_children_of(leader))  # begun since
    for process in family:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(family, timeout=grace_s)
    reap()
    return True


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(number)
