"""Calibration and evaluation data as a source gives them, checked once.

Inputs are a tensor, a tuple or dict of tensors, or an iterable of such batches; the first axis
of every tensor counts samples.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import DataError
from core.source.batches import Inputs, count, joined, pick
from core.source.trees import MAX_DEPTH, map_tensors, named_tensors

MAX_BATCHES = 100_000
HOLDOUT_SHARE = 1 / 3
SPLIT_SEED = 20213
FEWEST_TO_SPLIT = 3
CONSTANTS = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Split:
    """Inputs of N samples with targets (None where labels are unknown).

    `inputs` is a tensor [N, ...], or a tuple or dict of such (see `core.source.batches`).
    Targets are a tensor [N, ...]; a custom task may have a tree of tensors.
    """

    inputs: Inputs
    targets: Any = None

    def __len__(self) -> int:
        return count(self.inputs)


def read_inputs(value: Any, key: str) -> Inputs:
    """The inputs that a source gives under `key`; raises `DataError` naming key and place."""
    if isinstance(value, Tensor | tuple | Mapping):
        return _tree(value, key)
    return _tree(_concatenated([_tree(b, key) for b in _batches(value, key)], key), key)


def read_split(value: Any, key: str) -> Split:
    """A pair (inputs, targets), or an iterable of such pairs, as one split."""
    if isinstance(value, tuple | Mapping | Tensor):
        return _pair(value, key)
    pairs = [_pair(tuple(b) if isinstance(b, list) else b, key) for b in _batches(value, key)]
    without = [pair.targets is None for pair in pairs]
    if any(without) and not all(without):
        raise DataError(f"Some batches of {key!r} have targets and some have none.", PAIRS)
    inputs = _concatenated([pair.inputs for pair in pairs], key)
    targets = None if any(without) else _concatenated([pair.targets for pair in pairs], key)
    return Split(inputs, targets)


def without_targets(inputs: Inputs, evaluated: Inputs | None, model: nn.Module) -> Inputs:
    """`inputs` of calibration without the targets that a loader of pairs gave beside them.

    The second of a pair is no input where evaluation's inputs (None: there are none) are built as
    the first is; where nothing is evaluated, where the model takes no two arguments.
    """
    if not isinstance(inputs, tuple) or len(inputs) != 2:
        return inputs
    if evaluated is None:
        try:
            inspect.signature(model.forward).bind(*inputs)
        except TypeError:
            return _first(inputs)
        return inputs
    built = [[path for path, _ in named_tensors(tree)] for tree in (evaluated, *inputs[:1], inputs)]
    return _first(inputs) if built[0] == built[1] != built[2] else inputs


def _first(inputs: tuple[Any, ...]) -> Inputs:
    first: Inputs = _tree(inputs[0], "calibration")
    return first


def held_back(whole: Split) -> tuple[Split, Split | None]:
    """`whole` in two, selection and holdout, drawn with a fixed seed.

    A third is held back; the order of samples is kept. With fewer than three samples nothing is.
    """
    n = len(whole)
    if n < FEWEST_TO_SPLIT:
        return whole, None
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    cut = max(1, round(n * HOLDOUT_SHARE))
    parts = (np.sort(order[cut:]), np.sort(order[:cut]))
    selection, holdout = (
        Split(pick(whole.inputs, part), pick(whole.targets, part)) for part in parts
    )
    return selection, holdout


INPUTS = (
    "Give a tensor, a tuple or a dict of tensors whose first axis counts samples, or an iterable "
    "of such batches."
)
PAIRS = "Return (inputs, targets), or batches of such pairs; targets may be None."


def _batches(value: Any, key: str) -> list[Any]:
    if hasattr(value, "__array__"):
        raise _no_tensor(value, key, "")
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise DataError(
            f"The source's {key!r} holds {type(value).__name__}, no tensor of samples.", INPUTS
        )
    # Whatever makes batches as it goes may fill the same memory anew for each.
    found = [map_tensors(one, lambda t: t.detach().clone())
             for one in itertools.islice(value, MAX_BATCHES + 1)]  # fmt: skip
    if not found:
        raise DataError(f"The source's {key!r} holds no sample.", "Give at least one sample.")
    if len(found) > MAX_BATCHES:
        raise DataError(
            f"The source's {key!r} gives more than {MAX_BATCHES:,} batches.",
            "Give a finite iterable: fewer or larger batches.",
        )
    return found


def _concatenated(batches: list[Any], key: str) -> Any:
    try:
        return joined(batches)
    except ValueError as error:
        raise DataError(
            f"The batches of the source's {key!r} do not fit together: {error}.",
            "Pad them to one shape: every sample needs tensors of the same size.",
        ) from error


def _pair(value: Any, key: str) -> Split:
    if not isinstance(value, tuple) or len(value) != 2:
        raise DataError(f"The source's {key!r} is not a pair (inputs, targets).", PAIRS)
    inputs = _tree(value[0], key)
    if value[1] is None:
        return Split(inputs)
    lengths = [len(t) if t.ndim else 0 for _, t in named_tensors(value[1])]
    if not lengths:
        raise DataError(
            f"The targets of the source's {key!r} hold no tensor, but a "
            f"{type(value[1]).__name__}{_of_what(value[1])}.",
            "Give numbers in a tensor: for a classifier the number of the class, from 0.",
        )
    if any(length != count(inputs) for length in lengths):
        raise DataError(
            f"The source's {key!r} has {count(inputs)} inputs and targets of another length.",
            "Give one target for each sample.",
        )
    return Split(inputs, map_tensors(value[1], _plain))


def _of_what(value: Any) -> str:
    return f" of {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _tree(value: Any, key: str) -> Inputs:
    """A checked batch on the CPU; a tuple of one tensor is that tensor."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], Tensor):
        (value,) = value
    if isinstance(value, Mapping):
        value = dict(value)
    if not isinstance(value, Tensor | tuple | dict):
        raise DataError(
            f"The source's {key!r} holds {type(value).__name__}, no tensor of samples.", INPUTS
        )
    _check_leaves(value, key, "")
    named = list(named_tensors(value))
    if not named:
        raise DataError(f"The source's {key!r} holds no tensor.", INPUTS)
    lengths = {path: len(tensor) for path, tensor in named}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{path} has {n:,}" for path, n in list(lengths.items())[:4])
        raise DataError(
            f"The tensors of the source's {key!r} differ in their number of samples: {said}.",
            "The first axis counts samples in every tensor; repeat what all samples share.",
        )
    if not named[0][1].shape[0]:
        raise DataError(f"The source's {key!r} holds no sample.", "Give at least one sample.")
    for path, tensor in named:
        _check_finite(tensor, f"{key!r}{path}")
    checked: Inputs = map_tensors(value, _plain)
    return checked


def _check_leaves(value: Any, key: str, path: str, depth: int = 0) -> None:
    if isinstance(value, Tensor):
        if value.ndim < 1:
            raise DataError(
                f"The source's {key!r}{path} is a single number, not a tensor of samples.", INPUTS
            )
        return
    if depth > MAX_DEPTH:
        raise DataError(f"The source's {key!r} nests deeper than {MAX_DEPTH}.", INPUTS)
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_leaves(item, key, f"{path}[{name!r}]", depth + 1)
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            _check_leaves(item, key, f"{path}[{i}]", depth + 1)
    elif not isinstance(value, CONSTANTS):
        raise _no_tensor(value, key, path)


def _no_tensor(value: Any, key: str, path: str) -> DataError:
    return DataError(
        f"The source's {key!r}{path} is a {type(value).__name__}, not a tensor.",
        "Turn arrays into tensors first, for instance with torch.from_numpy.",
    )


def _check_finite(tensor: Tensor, where: str) -> None:
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
        return
    finite = tensor[torch.isfinite(tensor)]
    if not bool(tensor.isnan().any()) and not bool(finite.any()):
        return  # an additive mask: 0 and minus infinity
    bad = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0, 0]) if tensor.ndim > 1 else (
        int((~torch.isfinite(tensor)).nonzero()[0, 0])
    )  # fmt: skip
    raise DataError(
        f"The source's {where} holds NaN or infinity, first in sample {bad}.",
        "Clean the data before the analysis: a range with NaN calibrates nothing.",
    )
