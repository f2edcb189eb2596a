"""Replay against the naive loop: seconds of both in one run, on the same machine and threads.

    python -m tests.benchmarks.replay [--sample informer] [--samples 100] [--rounds 3]

Every computing layer alone in every precision on one batch, by full passes (the naive loop) and
by replay, alternating, then by replay in two warm worker processes; outputs are compared bit by
bit. *Ideal* is the mean part of a pass that
a suffix takes by the time of its own calls, with the recorded pass; the bar of 0.60 holds where
the ideal is 0.52 or less. *All runs* adds the uniform maps and probes, which are full passes in
both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from core.evidence.engine import Engine, Run, prepare
from core.evidence.measure import make_simulator, planned_runs
from core.evidence.memory import BATCH
from core.evidence.reading import read
from core.evidence.scheme import ORT_CPU
from core.evidence.workers import Work, made, tasks
from core.layers import LayerTable
from core.precision import FP16, INT8
from core.source import samples
from core.source.contract import ModelSource
from core.source.inventory import take_inventory

PRECISIONS = (FP16, INT8)
BAR, IDEAL_BAR = 0.60, 0.52


def _timed(run: Callable[[], list[np.ndarray]]) -> tuple[float, list[np.ndarray]]:
    start = time.perf_counter()
    outputs = run()
    return time.perf_counter() - start, outputs


def compare(name: str, count: int, rounds: int, console: Console) -> list[str]:
    """One row of the table; exits with an error if any bit differs."""
    source = samples.load(name)
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, ORT_CPU)
    runs = planned_runs(layers, PRECISIONS)
    alone = [run for run in runs if run.layer]
    start = time.perf_counter()
    engine = prepare(simulator, source, read(source), PRECISIONS, len(runs))
    prepared = time.perf_counter() - start
    if engine.reason:
        raise SystemExit(f"{name} cannot be replayed: {engine.reason}")
    inputs = source.selection.inputs[:count]
    pairs = [(run.layer, run.assignment[run.layer]) for run in alone]
    naive, replay = [], []
    for number in range(rounds):
        console.print(f"{name}: round {number + 1} of {rounds}")
        seconds, full = _timed(
            lambda: [simulator.run(r.assignment, inputs) for r in [runs[0], *alone]]
        )
        naive.append(seconds)
        seconds, replayed = _timed(lambda: list(engine.replayer.run(inputs, pairs)))
        replay.append(seconds)
        for run, a, b in zip([runs[0], *alone], full, replayed, strict=True):
            if a.tobytes() != b.tobytes():
                raise SystemExit(f"{name}: {run.label} is not bit-identical")
    shared = _two_workers(source, layers, engine, runs, len(inputs), rounds, replayed)
    shares = engine.replayer.shares(inputs)
    ideal = (1 + sum(shares[run.layer] for run in alone)) / (1 + len(alone))
    ratios = [r / n for r, n in zip(replay, naive, strict=True)]
    ratio = statistics.median(ratios)
    whole = statistics.median(naive) / (1 + len(alone)) * (len(runs) - 1 - len(alone))
    verdict = "held" if ratio <= BAR else "missed"
    return [
        name,
        f"{len(alone)} x {len(inputs)}",
        f"{statistics.median(naive):.2f}",
        f"{statistics.median(replay):.2f}",
        f"{shared / statistics.median(replay):.3f}",
        f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        f"{ideal:.3f}",
        f"{(statistics.median(replay) + whole) / (statistics.median(naive) + whole):.3f}",
        f"{prepared:.1f}",
        verdict if ideal <= IDEAL_BAR else f"{verdict}; ideal above {IDEAL_BAR}",
    ]


def _two_workers(
    source: ModelSource, layers: LayerTable, engine: Engine, runs: list[Run], count: int,
    rounds: int, expected: list[np.ndarray],
) -> float:  # fmt: skip
    """Median seconds of the layers alone in two processes that have run before."""
    simulator = engine.simulator
    alone = [i for i, run in enumerate(runs) if run.layer]
    work = Work(
        source.model, source.selection.inputs[:count], source.output, layers,
        dict(simulator.owner), simulator.scheme, simulator.ranges, engine.need, engine.batch, "",
        tuple(runs), None, expected[0].shape[1], torch.get_num_threads(),
    )  # fmt: skip
    todo = tasks([(slice(0, count), alone)], 2)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        found = [pair for block in made(work, todo, 2) for pair in block]
        seconds.append(time.perf_counter() - start)
    for (i, unit), outputs in zip(sorted(found, key=lambda p: p[0]), expected[1:], strict=True):
        if unit.outputs.tobytes() != outputs.tobytes():
            raise SystemExit(f"{runs[i].label} is not bit-identical in a worker")
    return statistics.median(seconds[1:])


def main() -> None:
    """Print one row per sample."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", choices=samples.names(), help="default: all")
    options.add_argument("--samples", type=int, default=BATCH, help="size of the batch")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    table = Table(title=f"Each layer alone, bit-identical; {torch.get_num_threads()} thread(s)")
    for column in (
        "sample", "runs x samples", "naive, s", "replay, s", "two workers ÷ one", "ratio (median, range)",
        "ideal",
        "all runs", "prepared in, s", f"bar {BAR}",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    console = Console(stderr=True)
    for name in [chosen.sample] if chosen.sample else samples.names():
        table.add_row(*compare(name, min(chosen.samples, BATCH), chosen.rounds, console))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
