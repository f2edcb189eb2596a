"""Processes that outlive whoever started them: known again by pid and start time, and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL_S = 0.02
NICENESS = "5"
"""A measurement gives way to what a person does meanwhile."""

_children: dict[int, subprocess.Popen[bytes]] = {}


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
    _children[child.pid] = child
    return child.pid


def reap() -> None:
    """Let the system forget the processes of ours that are over."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def stamp(pid: int) -> str:
    """What tells a process from a later one with the same pid; empty where none runs."""
    reap()
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot}:{fields[18]}"  # field 22: start, in ticks since boot


def end(pid: int, expected: str, grace_s: float) -> bool:
    """End the process and its group: asked first, killed after `grace_s`. False if it is gone."""
    if not expected or stamp(pid) != expected:
        return False
    _signal(pid, signal.SIGTERM)
    give_up = time.monotonic() + grace_s
    while stamp(pid) == expected and time.monotonic() < give_up:
        time.sleep(POLL_S)
    _signal(pid, signal.SIGKILL)  # the leader, or workers that it left behind
    while stamp(pid) == expected:
        time.sleep(POLL_S)
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
