"""Sources around the zoo's models, with seeded random data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.source.contract import ModelSource, model_source
from tests.zoo.models import TinyTransformer


def source_of(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    name: str = "zoo",
    units: tuple[str, ...] = (),
    ids: int = 0,
    samples: int = 64,
) -> ModelSource:
    """A source with seeded inputs of `shape` per sample; integer ids below `ids` if given.

    Targets are what the model answers, flipped to the next class for every fifth sample.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        if ids:
            return torch.randint(ids, (count, *shape), generator=generator)
        return torch.randn((count, *shape), generator=generator)

    model.eval()
    calibration, selection = draw(32), draw(samples)
    with torch.no_grad():
        answer = model(selection)
        if isinstance(answer, dict):
            answer = next(iter(answer.values()))
        targets = answer.flatten(1).argmax(1)
        classes = answer.flatten(1).shape[1]
    targets[::5] = (targets[::5] + 1) % classes
    return model_source(
        {
            "name": name,
            "model": model,
            "calibration": calibration,
            "evaluation": (selection, targets),
            "holdout": None,
            "task": "classification",
            "units": units,
        }
    )


def tiny_source() -> ModelSource:
    """A tiny transformer with attention and feed-forward declared as units."""
    torch.manual_seed(0)
    units = tuple(f"blocks.{i}.{part}" for i in range(2) for part in ("attention", "feed_forward"))
    return source_of(TinyTransformer(), (5, 6), name="tiny", units=units, samples=200)
