"""Rebuild the sample from a seed, or evaluate the shipped files.

python -m sample_models.informer.train [--seed 0] [--epochs N] [--out DIR] [--threads 2]
python -m sample_models.informer.train --evaluate
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from core.errors import QuantscapeError
from sample_models.arrays import DATA_NAME
from sample_models.informer.checkpoint import (
    WEIGHTS_NAME,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sample_models.informer.dataset import (
    Segment,
    build_segments,
    load_segments,
    save_segments,
)
from sample_models.informer.features import compute_features
from sample_models.informer.model import InformerClassifier
from sample_models.informer.windows import (
    IntArray,
    Scaler,
    cut_windows,
    forward_labels,
    window_ends,
)

HERE = Path(__file__).parent

EPOCHS = 12
WINDOWS_PER_EPOCH = 12_288
BATCH = 64
LEARNING_RATE = 5e-4
WARM_UP_SHARE = 0.08
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
CLIP_NORM = 1.0


def train(
    features: NDArray[np.float32], labels: IntArray, epochs: int, seed: int, console: Console
) -> InformerClassifier:
    """Train with AdamW under warm-up and cosine decay.

    Matrix products run in bfloat16 where autocast allows it; weights stay in float32.

    Args:
        features: Scaled features of the training bars, [T, D].
        labels: Class of each bar, [T].
        epochs: Passes; each draws its own windows.
        seed: Seed of initialisation, windows, dropout and sampled keys.
        console: Where progress is shown.

    Returns:
        The trained model in evaluation mode.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = InformerClassifier().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    steps = epochs * (WINDOWS_PER_EPOCH // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate(s, steps))
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=steps)
        for epoch in range(epochs):
            ends = window_ends(len(features), WINDOWS_PER_EPOCH, seed * 1000 + 100 + epoch)
            mean_loss = 0.0
            for batch in np.array_split(ends, WINDOWS_PER_EPOCH // BATCH):
                inputs = torch.from_numpy(cut_windows(features, batch))
                targets = torch.from_numpy(labels[batch - 1])
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(inputs)
                loss = loss_of(logits.float(), targets)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
                optimizer.step()
                schedule.step()
                mean_loss += loss.item() / (WINDOWS_PER_EPOCH // BATCH)
                progress.advance(task)
            console.print(f"epoch {epoch + 1} of {epochs}: loss {mean_loss:.4f}")
    return model.eval()


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine down to 1 %."""
    warm = max(1, round(WARM_UP_SHARE * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def predict(model: InformerClassifier, inputs: Tensor, batch: int = 64) -> Tensor:
    """Logits [N, 3] in FP32, computed in batches so that memory stays bounded."""
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(inputs, batch)])


def evaluation_line(checkpoint: Checkpoint, holdout: Segment) -> str:
    """Holdout accuracy beside what always naming the most frequent class would score."""
    logits = predict(checkpoint.model, torch.from_numpy(holdout.inputs(checkpoint.scaler)))
    accuracy = float((logits.argmax(dim=1).numpy() == holdout.labels).mean())
    baseline = float(np.bincount(holdout.labels).max() / len(holdout.labels))
    return (
        f"holdout accuracy {100 * accuracy:.1f} % "
        f"(majority baseline {100 * baseline:.1f} %, n={len(holdout.labels)})"
    )


def rebuild(seed: int, epochs: int, out: Path, console: Console) -> str:
    """Generate, train, write both files; returns the evaluation line."""
    started = time.monotonic()
    train_bars, segments = build_segments(seed)
    features = compute_features(train_bars)
    scaler = Scaler.fit(features)
    labels = forward_labels(train_bars["close"])
    out.mkdir(parents=True, exist_ok=True)
    model = train(scaler.transform(features), labels, epochs, seed, console)
    checkpoint = Checkpoint(model, scaler)
    save_checkpoint(out / WEIGHTS_NAME, checkpoint)
    save_segments(out / DATA_NAME, segments)
    console.print(f"trained in {time.monotonic() - started:.0f} s; files are in {out}")
    return evaluation_line(checkpoint, segments["holdout"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sample_models.informer.train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluate", action="store_true", help="only load and evaluate")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or options.threads < 1 or options.seed < 0:
        parser.error("--epochs and --threads start at 1, --seed at 0")
    torch.set_num_threads(options.threads)
    console = Console()
    try:
        if options.evaluate:
            checkpoint = load_checkpoint(options.out / WEIGHTS_NAME)
            line = evaluation_line(checkpoint, load_segments(options.out / DATA_NAME)["holdout"])
        else:
            line = rebuild(options.seed, options.epochs, options.out, console)
    except QuantscapeError as error:
        print(error, file=sys.stderr)
        return 2
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
