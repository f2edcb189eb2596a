"""Which calibration samples reach a module that others pass by: an expert, what follows an exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from core.source.batches import (
    Inputs,
    call,
    copied,
    count,
    failed,
    fixed_random_state,
    fused_attention_off,
    state_kept,
    take,
)
from core.source.trees import holds_rows

BATCH = 64
"""Samples at a time, as ranges are calibrated."""
FEWEST = 16
"""Fewer would say little of how often a module is reached."""


def batches_that_reach(
    model: nn.Module, inputs: Inputs, missing: Sequence[str]
) -> list[tuple[slice, frozenset[str]]]:
    """Batches of `inputs` which together reach every module among `missing` that any batch
    reaches, that which reaches most first, each with what it reaches; the first samples of a
    batch, but `FEWEST`, where they reach as much.

    Looks no further once all are reached. Does not change the model. Raises `ModelError` where it
    fails.
    """
    found: list[tuple[slice, frozenset[str]]] = []
    left = set(missing)
    total = count(inputs)
    for start in range(0, total, BATCH):
        part = slice(start, min(start + BATCH, total))
        reached = _reached(model, inputs, part, missing)
        if reached & left:
            found.append((part, reached))
            left -= reached
        if not left:
            break
    chosen: list[tuple[slice, frozenset[str]]] = []
    for part, reached in sorted(found, key=lambda each: -len(each[1])):
        if not reached <= frozenset[str]().union(*(r for _, r in chosen)):
            chosen.append((_shortened(model, inputs, part, reached), reached))
    return chosen


def _shortened(model: nn.Module, inputs: Inputs, part: slice, reached: frozenset[str]) -> slice:
    """The first samples of `part`, which an inventory keeps every value of, that reach as much."""
    size = FEWEST
    while part.start + size < part.stop:
        shorter = slice(part.start, part.start + size)
        if _reached(model, inputs, shorter, sorted(reached)) == reached:
            return shorter
        size *= 2
    return part


def _reached(
    model: nn.Module, inputs: Inputs, part: slice, missing: Sequence[str]
) -> frozenset[str]:
    reached: set[str] = set()

    def noting(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if holds_rows((args, kwargs)):
                reached.add(path)

        return hook

    handles = [
        model.get_submodule(path).register_forward_pre_hook(noting(path), with_kwargs=True)
        for path in missing
    ]
    try:
        with (
            torch.no_grad(), fixed_random_state(part.start), fused_attention_off(),
            state_kept(model),
        ):  # fmt: skip
            call(model, copied(take(inputs, part.start, part.stop), model))
    except Exception as error:
        where = f"on samples {part.start} to {part.stop - 1}"
        raise failed(error, where, "those samples of the calibration split") from error
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(reached)
