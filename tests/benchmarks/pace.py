"""What an analysis takes over a naive loop: processor seconds of both in one run, one thread.

    python -m tests.benchmarks.pace [--model resnet20 …] [--samples 512] [--of-loop 512]

INT8 alone. The naive loop runs the model once for each layer that computes, with that layer in INT8,
over the selection samples (or `--of-loop` of them, taken times as many), in the batches of the
product. *Alone* replays the same layers over all samples. *Analysis* is all of `analyze` but causes
and gradients, *causes* those. Medians of rounds where a loop is short. `resnet20` and `resnet56` are
residual networks for 32 x 32 images (He et al. 2016, arXiv:1512.03385, section 4.2), untrained, on
noise; other models are bundled samples.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from core.analysis import analyze as analyzing
from core.evidence.measure.draw import draw
from core.evidence.measure.measure import make_simulator, planned_runs
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import prepare
from core.evidence.options import MeasureOptions
from core.numerics.precision import INT8
from core.source import samples
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.data import Split
from core.source.inventory import take_inventory

OPTIONS = MeasureOptions(precisions=(INT8,))
DEPTHS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
LISTED = ("resnet20", "resnet56", "digits_vit", "digits_resnet")
ALONE_BAR, ANALYSIS_BAR, CAUSES_BAR = 0.6, 1.0, 0.5
ROUNDS, ENOUGH_S = 5, 6.0


class Block(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.stride = width // given
        self.conv1 = nn.Conv2d(given, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.more = width - given

    def forward(self, x: Tensor) -> Tensor:
        """[N, given, H, W] to [N, width, H / stride, W / stride]."""
        made = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return self.relu2(made + nn.functional.pad(x, (0, 0, 0, 0, 0, self.more)))


def residual(depth: int, samples: int) -> ModelSource:
    """A residual network of `depth` layers of weights, with noise for images."""
    torch.manual_seed(depth)
    widths = [w for w in (16, 32, 64) for _ in range((depth - 2) // 6)]
    blocks = [Block(a, b) for a, b in zip([16, *widths], widths, strict=False)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    images = torch.randn(3 * samples, 3, 32, 32)
    labels = torch.randint(0, 10, (len(images),))
    selection, holdout = ((take(images, a, a + samples), take(labels, a, a + samples))
                          for a in (samples, 2 * samples))  # fmt: skip
    with torch.no_grad():
        for _ in range(30):  # running statistics of the data, so that no layer dies
            model.train()(images[:100])
    return model_source(
        {"model": model, "calibration": images[:samples], "evaluation": selection,
         "holdout": holdout, "task": "classification", "name": f"resnet{depth}"}
    )  # fmt: skip


def source_of(name: str, most: int) -> ModelSource:
    """The model called `name` with at most so many selection samples."""
    if name in DEPTHS:
        return residual(DEPTHS[name], most)
    source = samples.load(name)
    selection = Split(*take((source.selection.inputs, source.selection.targets), 0, most))
    return replace(source, selection=selection)


def seconds(run: Callable[[], object]) -> float:
    """Processor seconds of `run`."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(name: str, most: int, of_loop: int) -> list[str]:
    """One row of the table."""
    source = source_of(name, most)
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, OPTIONS)
    runs = planned_runs(layers, OPTIONS)
    runner = prepare(simulator, source, read(source), len(runs), OPTIONS)
    inputs, total = source.selection.inputs, len(source.selection)
    drawn = draw(inputs)
    pairs = [(run.layer, INT8) for run in runs if run.layer and not run.idle]
    some = min(of_loop, total)
    told = analyzing.dry_run(source, OPTIONS).predicted_seconds
    with_local = analyzing.with_local
    causes = list[float]()

    def timed(*given: Any) -> Any:
        start = time.process_time()
        found = with_local(*given)
        causes.append(time.process_time() - start)
        return found

    loop, alone, rest = list[float](), list[float](), list[float]()
    while not loop or (sum(loop) < ENOUGH_S and len(loop) < ROUNDS):
        loop.append(seconds(lambda: [
            simulator.run({layer: p}, take(inputs, 0, some), runner.batch) for layer, p in pairs
        ]) * total / some)  # fmt: skip
        alone.append(seconds(lambda: [
            None for part in runner.parts(total)
            for _ in runner.replayer.run(drawn.batch(part), pairs, part.start)
        ]))  # fmt: skip
        with patch.object(analyzing, "with_local", timed):
            took = seconds(lambda: analyzing.analyze(source, OPTIONS))
        rest.append(took - causes[-1])
    bar = ANALYSIS_BAR + (OPTIONS.probes + 2) / len(pairs)
    whole = [told / (a + b) for a, b in zip(rest, causes, strict=True)]
    return [
        name, str(len(pairs)), str(total), f"{statistics.median(loop):.1f}",
        _held(alone, loop, ALONE_BAR), _held(rest, loop, bar), _held(causes, loop, CAUSES_BAR),
        f"{statistics.median(whole):.2f}",
    ]  # fmt: skip


def _held(took: list[float], loop: list[float], bar: float) -> str:
    ratio = statistics.median(t / n for t, n in zip(took, loop, strict=True))
    return f"{ratio:.2f} ({bar:.2f} {'held' if ratio <= bar else 'missed'})"


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=(*DEPTHS, *samples.names()), action="append")
    parser.add_argument("--samples", type=int, default=512, help="of the selection split, at most")
    parser.add_argument("--of-loop", type=int, default=10**9, help="samples the loop is timed on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="An analysis in INT8 over a naive loop, processor time, one thread")
    for column in ("model", "layers", "samples", "loop, s", "alone (bar)", "analysis (bar)",
                   "causes (bar)", "forecast ÷ analysis"):  # fmt: skip
        table.add_column(column, justify="right")
    for name in given.model or LISTED:
        table.add_row(*compare(name, given.samples, given.of_loop))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
