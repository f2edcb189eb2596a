"""How a model's outputs and targets are read: as classes, classes per step, or values."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError, ModelError
from core.evidence.evidence import Outputs
from core.source.batches import answers, failed, state_kept, take
from core.source.contract import ModelSource
from core.source.data import Split

MAX_OUTPUTS = 4096
"""Outputs kept per sample. More would fill memory and say little: they are sampled."""
SUBSAMPLE_SEED = 20215


@dataclass(frozen=True, eq=False)
class OutputReader:
    """`shape` is that of one sample's output as the model gives it. `kept` are the positions of
    the outputs that are kept among all, shape (K,); None keeps all. `by_step`: a target for
    each step.
    """

    outputs: Outputs
    shape: tuple[int, ...]
    kept: NDArray[np.int64] | None
    by_step: bool = False

    def keep(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The kept outputs [N, K] of all outputs."""
        return values if self.kept is None else values[:, self.kept]

    def targets(self, split: Split) -> NDArray[Any] | None:
        """Targets beside the kept outputs: int64 [N] or [N, positions], or float32 [N, K].

        None without labels. Raises `DataError` where they do not fit the outputs.
        """
        given = split.targets
        if given is None:
            return None
        if not isinstance(given, Tensor):
            raise DataError("The targets are no tensor.", "Only a custom task takes others.")
        if self.outputs.kind == "values":
            return self._values(given)
        return self._classes(given)

    def _values(self, given: Tensor) -> NDArray[np.float32]:
        fits = _squeezed(given.shape[1:]) == _squeezed(self.shape)
        if not fits or given.dtype.is_complex:
            raise _misfit(given, self.shape)
        values = given.float().reshape(len(given), -1).numpy()
        if not np.isfinite(values).all():
            raise DataError("The targets hold NaN or infinity.", "Leave such samples out.")
        return self.keep(values)

    def _classes(self, given: Tensor) -> NDArray[np.int64]:
        classes = self.shape[-1] if self.by_step else prod(self.shape)
        per_step = self.shape[:-1] if self.by_step else ()
        if given.is_floating_point() or tuple(given.shape[1:]) != per_step:
            raise _misfit(given, per_step, "integers")
        rows = given.reshape(len(given), -1).numpy().astype(np.int64)
        if rows.size and int(rows.max()) >= classes:
            raise DataError(
                f"The targets name class {int(rows.max())}, but the model outputs {classes}.",
                "Count classes from 0.",
            )
        if not self.by_step:
            if rows.size and int(rows.min()) < 0:
                raise DataError("The targets name a class below 0.", "Count classes from 0.")
            return rows[:, 0]
        if self.kept is not None:
            rows = rows[:, self.kept[::classes] // classes]
        if not (rows >= 0).any():
            raise DataError("No step of the targets is counted.", "Targets below 0 are left out.")
        return rows if rows.shape[1] > 1 else rows[:, 0]


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in shape if n != 1)


def _misfit(given: Tensor, shape: tuple[int, ...], what: str = "values") -> DataError:
    wanted = ", ".join(["N", *(str(n) for n in shape)])
    return DataError(
        f"The targets are {str(given.dtype).removeprefix('torch.')}{list(given.shape)}, but the "
        f"task needs {what} of shape [{wanted}].",
        "Give one target for each output, or name another task or 'output'.",
    )


def read(source: ModelSource) -> OutputReader:
    """How the outputs of `source` are to be read, from two of its samples.

    Raises `ModelError` or `DataError` where outputs, targets and task do not fit together.
    """
    few = take(source.selection.inputs, 0, 2)
    try:
        with state_kept(source.model):
            shape = tuple(answers(source.model, few, source.output).shape[1:])
    except Exception as error:
        raise failed(error, "on two samples", "two of them") from error
    if source.task == "classification":
        return OutputReader(Outputs(), _class_shape(shape), None)
    targets = source.selection.targets
    by_step = not (isinstance(targets, Tensor) and targets.is_floating_point())
    if source.task == "sequence" and by_step and len(shape) > 1:
        return _steps(shape)
    return _values(shape)


def _class_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(_squeezed(shape)) != 1:
        what = "one value" if prod(shape) == 1 else f"{list(shape)}"
        raise ModelError(
            f"The model outputs {what} per sample, but a classifier has one logit per class.",
            "Use the task 'sequence' for a class per step, 'regression' for values, or 'custom'.",
        )
    return shape


def _steps(shape: tuple[int, ...]) -> OutputReader:
    classes, steps = shape[-1], prod(shape[:-1])
    if classes < 2:
        raise ModelError(
            "The model outputs one value per step, but a sequence of classes has logits.",
            "Give floating targets for a sequence of values, or use the task 'regression'.",
        )
    most = max(1, MAX_OUTPUTS // classes)
    if steps <= most:
        return OutputReader(Outputs("logits", steps), shape, None, by_step=True)
    chosen = _sample(steps, most)
    kept = (chosen[:, None] * classes + np.arange(classes)).ravel()
    return OutputReader(Outputs("logits", most, steps * classes), shape, kept, by_step=True)


def _values(shape: tuple[int, ...]) -> OutputReader:
    total = prod(shape)
    if total <= MAX_OUTPUTS:
        return OutputReader(Outputs("values"), shape, None)
    return OutputReader(Outputs("values", 1, total), shape, _sample(total, MAX_OUTPUTS))


def _sample(total: int, count: int) -> NDArray[np.int64]:
    drawn = np.random.default_rng(SUBSAMPLE_SEED).choice(total, count, replace=False)
    return np.sort(drawn).astype(np.int64)
