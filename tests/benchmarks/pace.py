"""What an analysis takes over a naive loop: processor seconds of both in one run, one thread.

    python -m tests.benchmarks.pace [--model resnet20 …] [--samples 512] [--of-loop 512]

INT8 alone. The naive loop runs the model once for each layer that computes, with that layer in INT8,
over the selection samples (or `--of-loop` of them, taken times as many), in the batches of the
product. *Alone* replays the same layers over all samples. *Analysis* is all of `analyze` but causes
and gradients, *causes* those. `resnet20` and `resnet56` are residual networks for 32 x 32 images (He
et al. 2016, arXiv:1512.03385, section 4.2), untrained, on noise; other models are bundled samples.
"""

from __future__ import annotations

import argparse
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
    loop = seconds(lambda: [
        simulator.run({layer: p}, take(inputs, 0, some), runner.batch) for layer, p in pairs
    ]) * total / some  # fmt: skip
    alone = seconds(lambda: [
        None for part in runner.parts(total)
        for _ in runner.replayer.run(drawn.batch(part), pairs, part.start)
    ])  # fmt: skip
    spent = list[float]()
    with_local = analyzing.with_local

    def timed(*given: Any) -> Any:
        start = time.process_time()
        found = with_local(*given)
        spent.append(time.process_time() - start)
        return found

    told = analyzing.dry_run(source, OPTIONS).predicted_seconds
    with patch.object(analyzing, "with_local", timed):
        whole = seconds(lambda: analyzing.analyze(source, OPTIONS))
    causes = spent[0]
    bar = ANALYSIS_BAR + (OPTIONS.probes + 2) / len(pairs)
    return [
        name, str(len(pairs)), str(total), f"{loop:.1f}",
        _held(alone / loop, ALONE_BAR), _held((whole - causes) / loop, bar),
        _held(causes / loop, CAUSES_BAR), f"{told / whole:.2f}",
    ]  # fmt: skip


def _held(ratio: float, bar: float) -> str:
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
