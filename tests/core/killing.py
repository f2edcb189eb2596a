"""Analyses that are killed at random instants, or made by two processes at once.

    python -m tests.core.killing FOLDER KILLS SEED

A process of its own that forks the analyses, so that torch is loaded once and no test's threads
are in the way. Prints what happened as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import torch

from core.evidence.evidence import Evidence
from core.evidence.measure import run_cache
from core.evidence.measure.cache import Cache, Unit
from core.evidence.measure.cache_store import FILE
from core.evidence.measure.measure import measure
from core.evidence.options import MeasureOptions
from core.numerics.precision import INT8
from core.source.inventory import take_inventory
from tests.zoo.sources import tiny_source

OPTIONS = MeasureOptions(precisions=(INT8,), probes=2)
Made = set[tuple[str, int, int]]


def digest(evidence: Evidence) -> str:
    """SHA-256 of all that was measured."""
    arrays = ("baseline", "perturbations", "whole", "probes", "allowed")
    return hashlib.sha256(b"".join(getattr(evidence, a).tobytes() for a in arrays)).hexdigest()


def finished(folder: Path) -> Made:
    """What the cache says is finished."""
    if not (folder / FILE).exists():
        return set()
    with closing(sqlite3.connect(folder / FILE, timeout=30)) as db:
        try:
            return set(db.execute("SELECT run, start, stop FROM units").fetchall())
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()


class Analyses:
    """Forks analyses of one small model that share the cache in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.source = tiny_source()
        self.layers = take_inventory(self.source)
        start = time.perf_counter()
        self.expected = digest(measure(self.source, self.layers, OPTIONS).evidence)
        self.seconds = time.perf_counter() - start

    def fork(self, name: str) -> int:
        """Begin an analysis that logs each run it makes and, at its end, its digest."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            log = os.open(self.folder / f"{name}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            add = run_cache.RunCache.add

            def logged(self: run_cache.RunCache, unit: Unit) -> None:
                os.write(log, f"{unit.run} {unit.start} {unit.stop}\n".encode())
                add(self, unit)

            run_cache.RunCache.add = logged  # type: ignore[method-assign]
            run_cache.FLUSH_SECONDS = 0.0  # every run is written at once
            said: list[str] = []
            cache = Cache(self.cache, say=said.append)
            found = measure(self.source, self.layers, OPTIONS, cache=cache)
            (self.folder / f"{name}.digest").write_text(digest(found.evidence))
            code = 1 if cache.problem else 0
        finally:
            os._exit(code)

    def made(self, name: str) -> Made:
        """The runs that an analysis made."""
        path = self.folder / f"{name}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return {(run, int(a), int(b)) for run, a, b in (line.split() for line in lines)}

    def ended_well(self, name: str, status: int) -> bool:
        """Whether an analysis ended by itself with the expected bits."""
        return status == 0 and (self.folder / f"{name}.digest").read_text() == self.expected


def kill_often(analyses: Analyses, kills: int, rng: random.Random) -> dict[str, object]:
    """Kill an analysis, take it up again, and so on until `kills` were killed and one is whole."""
    killed = ended = repeated = taken_up = wrong = round_number = 0
    while killed < kills or not ended:
        before = finished(analyses.cache)
        name = f"kill{round_number}"
        round_number += 1
        child = analyses.fork(name)
        if killed < kills:
            time.sleep(rng.uniform(0, 1.3 * analyses.seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        repeated += len(before & analyses.made(name))
        taken_up += bool(before)
        if os.WIFSIGNALED(status):
            killed += 1
            ended = 0
        else:
            ended += 1
            wrong += not analyses.ended_well(name, status)
            if killed < kills:
                Cache(analyses.cache).clear()
    return {"killed": killed, "repeated": repeated, "taken_up": taken_up, "wrong": wrong}


def two_at_once(analyses: Analyses) -> dict[str, object]:
    """Two processes analyze the same model with the same, empty cache."""
    Cache(analyses.cache).clear()
    children = {name: analyses.fork(name) for name in ("one", "other")}
    well = [analyses.ended_well(n, os.waitpid(c, 0)[1]) for n, c in children.items()]
    return {"well": well, "made": [len(analyses.made(name)) for name in children],
            "kept": len(finished(analyses.cache))}  # fmt: skip


def main() -> None:
    """Run both and print what happened."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    analyses = Analyses(folder)
    killing = kill_often(analyses, kills, random.Random(seed))
    sys.stdout.write(json.dumps({"killing": killing, "two": two_at_once(analyses)}))


if __name__ == "__main__":
    main()
