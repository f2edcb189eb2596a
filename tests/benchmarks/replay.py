"""Replay against the naive loop: seconds of both in one run, on the same machine and threads.

    python -m tests.benchmarks.replay [--sample informer] [--samples 100] [--rounds 3]

Samples that are PyTorch modules; `tests.benchmarks.onnx_replay` is for ONNX files.

Every computing layer alone in every precision on one batch, by full passes (the naive loop) and
by replay, alternating; outputs are compared bit by bit. Then eight batches of 1/8 of the samples
each by replay in this process and in two warm workers with as many threads, alternating: a real
analysis has a batch for a task, and so has this. *Ideal* is the mean part of a pass that
a dependents takes by the time of its own calls, with the recorded pass; the bar of 0.60 holds where
the ideal is 0.52 or less. *All runs* adds the uniform maps and probes, which are full passes in
both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from core.evidence.measure.draw import Draw
from core.evidence.measure.keeper import Keeper
from core.evidence.measure.measure import make_simulator, planned_runs
from core.evidence.measure.memory import BATCH
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import Run, Runner, prepare
from core.evidence.measure.workers import Work, made, tasks
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import FP16, INT8
from core.source import samples
from core.source.batches import take
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.benchmarks.scorers import LISTED

PRECISIONS = (FP16, INT8)
BAR, IDEAL_BAR, TWO_BAR = 0.60, 0.52, 0.65
BATCHES = 8


def _timed(run: Callable[[], list[np.ndarray]]) -> tuple[float, list[np.ndarray]]:
    start = time.perf_counter()
    outputs = run()
    return time.perf_counter() - start, outputs


def compare(name: str, count: int, rounds: int, console: Console) -> list[str]:
    """One row of the table; exits with an error if any bit differs."""
    source = samples.load(name)
    layers = take_inventory(source)
    options = MeasureOptions(precisions=PRECISIONS)
    simulator = make_simulator(source, layers, options)
    runs = planned_runs(layers, options)
    alone = [run for run in runs if run.layer]
    start = time.perf_counter()
    runner = prepare(simulator, source, read(source), len(runs), options)
    prepared = time.perf_counter() - start
    if runner.reason:
        raise SystemExit(f"{name} cannot be replayed: {runner.reason}")
    inputs = source.selection.inputs[:count]
    pairs = [(run.layer, run.assignment[run.layer]) for run in alone]
    naive, replay = [], []
    for number in range(rounds):
        console.print(f"{name}: round {number + 1} of {rounds}")
        seconds, full = _timed(
            lambda: [simulator.run(r.assignment, inputs) for r in [runs[0], *alone]]
        )
        naive.append(seconds)
        seconds, replayed = _timed(lambda: list(runner.replayer.run(inputs, pairs)))
        replay.append(seconds)
        for run, a, b in zip([runs[0], *alone], full, replayed, strict=True):
            if a.tobytes() != b.tobytes():
                raise SystemExit(f"{name}: {run.label} is not bit-identical")
    shared = _two_workers(source, layers, runner, runs, len(inputs), rounds)
    shares = runner.replayer.shares(inputs)
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
        shared,
        f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        f"{ideal:.3f}",
        f"{(statistics.median(replay) + whole) / (statistics.median(naive) + whole):.3f}",
        f"{prepared:.1f}",
        verdict if ideal <= IDEAL_BAR else f"{verdict}; ideal above {IDEAL_BAR}",
    ]


def _two_workers(
    source: ModelSource, layers: LayerTable, runner: Runner, runs: list[Run], count: int,
    rounds: int,
) -> str:  # fmt: skip
    """Seconds of the layers alone in two processes that have run before, over those in this one,
    with the processor time of both beside it.
    """
    simulator, size = runner.simulator, max(1, count // BATCHES)
    inputs = take(source.selection.inputs, 0, BATCHES * size)
    alone = [i for i, run in enumerate(runs) if run.layer]
    parts = [slice(i * size, (i + 1) * size) for i in range(BATCHES)]
    width = simulator.run({}, take(inputs, 0, 2)).shape[1]
    keeper = Keeper(read(source), everything=True)
    drawn = Draw(inputs, *2 * [np.arange(BATCHES * size)])
    work = Work(
        source.model, drawn, source.output, layers, dict(simulator.owner), simulator.scheme,
        simulator.ranges, runner.need, size, "", tuple(runs), keeper, width, width,
        torch.get_num_threads(), 2,
    )  # fmt: skip

    def one() -> list[np.ndarray]:
        units = [u for p in parts for u in runner.units(drawn, runs, alone, p, keeper, width)]
        return [unit.outputs for unit in units]

    def two() -> list[np.ndarray]:
        blocks = [pair for block in made(work, tasks([(p, alone) for p in parts], 2), 2)
                  for pair in block]  # fmt: skip
        return [unit.outputs for _, unit in sorted(blocks, key=lambda b: (b[1].start, b[0]))]

    for _ in made(work, tasks([(parts[0], alone[:8])], 2), 2):
        pass  # the workers import and build what they keep
    ratios, processor = [], []
    for _ in range(rounds):
        cpu = time.process_time()
        alone_seconds, single = _timed(one)
        cpu = time.process_time() - cpu
        before = _workers_cpu()
        shared_seconds, shared = _timed(two)
        ratios.append(shared_seconds / alone_seconds)
        processor.append((_workers_cpu() - before) / cpu)
        for a, b in zip(single, shared, strict=True):
            if a.tobytes() != b.tobytes():
                raise SystemExit("outputs of the workers are not bit-identical")
    middle = statistics.median(ratios)
    held = "held" if middle <= TWO_BAR else "missed"
    return (
        f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {held}; "
        f"cpu {statistics.median(processor):.2f}"
    )


def _workers_cpu() -> float:
    """Processor seconds of this process's children so far, running ones included."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def main() -> None:
    """Print one row per sample."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", choices=LISTED, help="default: all")
    options.add_argument("--samples", type=int, default=BATCH, help="size of the batch")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    table = Table(title=f"Each layer alone, bit-identical; {torch.get_num_threads()} thread(s)")
    for column in (
        "sample", "runs x samples", "naive, s", "replay, s", f"two workers ÷ one (bar {TWO_BAR})",
        "ratio (median, range)",
        "ideal",
        "all runs", "prepared in, s", f"bar {BAR}",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    console = Console(stderr=True)
    for name in [chosen.sample] if chosen.sample else LISTED:
        table.add_row(*compare(name, min(chosen.samples, BATCH), chosen.rounds, console))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
