"""Replay of ONNX graphs against full passes: processor seconds of both in one run, one thread.

    python -m tests.benchmarks.onnx_replay [--samples 64] ['model.onnx --calibration=c.npz --task=…' …]

Every computing layer alone in INT8 on one batch, by graphs that are cut before it and by whole ones:
once with sessions to be built, once with sessions that are held. *Run* is the ratio of the second
rounds, *all* that of the first ones, sessions built included; *ideal* is the mean part of a graph's
work that follows a layer. Without a file a residual network and a U-Net of the zoo are taken. Bar: 0.75.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from core.engines.engines import engine_of, layers_of
from core.numerics.precision import INT8
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.read_model import from_bytes
from core.source import sources
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.onnx_model import OnnxModel
from tests.zoo.graphs import Arrays, residual, u_net

BAR = 0.75
HELD_BYTES = 10**9
ZOO: dict[str, Callable[[], tuple[object, Arrays]]] = {
    "residual": lambda: residual(blocks=10, width=24, size=24),
    "U-Net": lambda: u_net(depth=4, width=12, size=64),
}


def _of_zoo(name: str) -> ModelSource:
    made, arrays = ZOO[name]()
    given = {n: torch.from_numpy(a) for n, a in arrays.items()}
    model = OnnxModel(from_bytes(made.SerializeToString(), name))  # type: ignore[attr-defined]
    return model_source(
        {"model": model, "calibration": given, "evaluation": (given, None), "holdout": None,
         "task": "regression", "name": name}
    )  # fmt: skip


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(source: ModelSource, samples: int) -> list[str]:
    """One row of the table."""
    engine = engine_of(source, layers_of(source, ORT_CPU), ORT_CPU)
    engine.calibrate(source.calibration.inputs)
    engine.hold_weights(HELD_BYTES)
    batch = take(source.selection.inputs, 0, samples)
    pairs = [(layer, INT8) for layer in engine.varied]
    replay = engine.replay(batch)
    ways = {
        "replay": lambda: list(replay.run(batch, pairs)),
        "full": lambda: [engine.run(dict(chosen), batch, samples) for chosen in ([], *([p] for p in pairs))],
    }  # fmt: skip
    first = {name: _seconds(way) for name, way in ways.items()}
    again = {name: _seconds(way) for name, way in ways.items()}
    ideal = statistics.mean(replay.shares(batch).values())
    return [
        source.title, str(len(pairs)), f"{ideal:.2f}",
        f"{again['replay'] / again['full']:.2f} ({again['replay']:.2f} / {again['full']:.2f} s)",
        f"{first['replay'] / first['full']:.2f}", f"{first['replay'] - again['replay']:.2f} s",
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references", nargs="*")
    parser.add_argument("--samples", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"Replay ÷ full passes of ONNX graphs, processor time, bar {BAR}")
    for column in ("model", "layers", "ideal", "run", "all", "sessions built"):
        table.add_column(column)
    found = [sources.load(text) for text in given.references] or [_of_zoo(name) for name in ZOO]
    for source in found:
        table.add_row(*compare(source, given.samples))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
