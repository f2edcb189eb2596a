"""Training and evaluating a digits model; the command line that every such sample has.

Everything runs on one thread with deterministic kernels, so that a seed gives the same weights
however many cores there are.
"""

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import QuantscapeError
from sample_models.checkpoint import WEIGHTS_NAME, rebuild_step
from sample_models.digits.classifier import DigitClassifier, Model, load_model, save_model
from sample_models.digits.images import (
    Images,
    build_splits,
    data_path,
    load_splits,
    save_splits,
)

TURN = math.radians(12.0)
STRETCH = 0.12
SHIFT_PIXELS = 0.7
SLANT = 0.12


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: AdamW, linear warm-up, half a cosine, label smoothing."""

    epochs: int
    learning_rate: float
    weight_decay: float
    batch: int = 32
    label_smoothing: float = 0.05
    warm_up_share: float = 0.08
    clip_norm: float = 1.0

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak rate: linear warm-up, then half a cosine down to 1 %."""
        warm = max(1, round(self.warm_up_share * steps))
        if step < warm:
            return (step + 1) / warm
        return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a seeded generator; all as before afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


def distort(inputs: Tensor) -> Tensor:
    """Turn, stretch, slant and shift each image [N, 1, 8, 8] a little, each in its own way."""
    n = len(inputs)
    angle = (torch.rand(n) * 2 - 1) * TURN
    scale_x, scale_y = (1 + (torch.rand(n) * 2 - 1) * STRETCH for _ in range(2))
    slant = (torch.rand(n) * 2 - 1) * SLANT
    half_side = inputs.shape[-1] / 2
    shift_x, shift_y = ((torch.rand(n) * 2 - 1) * SHIFT_PIXELS / half_side for _ in range(2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack((cos * scale_x, (slant - sin) * scale_y, shift_x), dim=1),
        torch.stack((sin * scale_x, cos * scale_y, shift_y), dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), list(inputs.shape), align_corners=False)
    # What comes in from outside the image is paper, which is -1 and not the sampler's 0.
    return F.grid_sample(inputs + 1.0, grid, align_corners=False) - 1.0


def train(
    kind: type[Model], recipe: Recipe, images: Images, epochs: int, seed: int, console: Console
) -> Model:
    """Train a model of the class `kind` on `images`; returns it in evaluation mode."""
    inputs, targets = images.inputs(), images.targets()
    steps = epochs * math.ceil(len(inputs) / recipe.batch)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with reproducible(seed), Progress(*columns, console=console) as progress:
        model = kind().train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: recipe.rate(s, steps))
        loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        task = progress.add_task("training", total=steps)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(inputs)), recipe.batch):
                loss = loss_of(model(distort(inputs[rows])), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                progress.advance(task)
    return model.eval()


def accuracy(model: DigitClassifier, images: Images) -> float:
    """Share of `images` whose largest logit is their label's."""
    with torch.no_grad():
        answers = model(images.inputs()).argmax(dim=1)
    return float((answers == images.targets()).float().mean())


def evaluation_line(model: DigitClassifier, holdout: Images) -> str:
    """Holdout accuracy beside what always naming the most frequent class would score."""
    baseline = float(np.bincount(holdout.labels).max() / len(holdout))
    return (
        f"holdout accuracy {100 * accuracy(model, holdout):.1f} % "
        f"(majority baseline {100 * baseline:.1f} %, n={len(holdout)})"
    )


def rebuild(
    kind: type[Model], recipe: Recipe, weights: Path, data: Path, seed: int, epochs: int
) -> str:
    """Split, train and write both files; returns the evaluation line."""
    console = Console()
    started = time.monotonic()
    training, splits = build_splits()
    model = train(kind, recipe, training, epochs, seed, console)
    for path in (weights, data):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_model(weights, model)
    save_splits(data, splits)
    seconds = time.monotonic() - started
    console.print(f"trained in {seconds:.0f} s; weights {weights}, data {data}", soft_wrap=True)
    return evaluation_line(model, splits["holdout"])


def run(
    kind: type[Model], recipe: Recipe, shipped: Path, arguments: list[str] | None = None
) -> int:
    """Command line of one sample; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m sample_models.{kind.package}.train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument(
        "--out", type=Path, help="folder of weights and data; by default the shipped files"
    )
    parser.add_argument("--evaluate", action="store_true", help="only load and evaluate")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or options.seed < 0:
        parser.error("--epochs starts at 1, --seed at 0")
    weights, data = (options.out or shipped) / WEIGHTS_NAME, data_path(options.out)
    try:
        if options.evaluate:
            model = load_model(weights, kind)
            splits = load_splits(data, rebuild_step(kind.package))
            line = evaluation_line(model, splits["holdout"])
        else:
            line = rebuild(kind, recipe, weights, data, options.seed, options.epochs)
    except QuantscapeError as error:
        print(error, file=sys.stderr)
        return 2
    print(line)
    return 0
