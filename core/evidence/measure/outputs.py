"""How a model's outputs and targets are read: as classes, classes per step, or values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import DataError, ModelError
from core.evidence import reduction
from core.evidence.evidence import Outputs
from core.evidence.reduction import Entries, KeptShare
from core.evidence.scorers.logits import log_softmax
from core.source.batches import answers, count, failed, state_kept, take
from core.source.contract import ModelSource
from core.source.data import Split

Floats = NDArray[np.float32]

MAX_OUTPUTS = 4096
"""Outputs kept per sample. More would fill memory and say little: distributions over many classes
are reduced, other outputs sampled.
"""
SUBSAMPLE_SEED = 20215

Form = Literal["as they are", "probabilities", "one logit", "one probability"]
"""What stands for the logits of an answer: they themselves (values too), the probabilities of
its classes, or one number for *no* against *yes*.
"""
FLOOR = 2.0**-14
"""Least probability that is told from 0, the least normal number of FP16. Logarithms of smaller ones
are large and mean nothing, and many small rises of them would add up to a certainty.
"""
SUM_TOLERANCE = 1e-3
LOOKED_AT, AT_ONCE = 256, 16
"""Samples that have to look like probabilities before outputs are taken for some."""
MOST_AT_ONCE = 2**24
"""Outputs that are looked at together."""
WEIGHED, STEPS_WEIGHED = 64, 8
"""Samples, and answers of each, that say how many entries hold enough of a distribution."""

PROBABILITIES = (
    "The model outputs probabilities, not logits: their logarithm is measured, with "
    "probabilities below 6e-5 taken for 6e-5."
)
ONE_PROBABILITY = (
    "The model outputs the probability of 'yes', not its logit: log p against log(1 - p) is "
    "measured, with probabilities below 6e-5 taken for 6e-5."
)
ONE_LOGIT = (
    "One logit decides between two classes: above 0 is class 1, and divergence is that of "
    "Bernoulli distributions."
)
EACH_FOR_ITSELF = (
    "Each of {count:,} outputs of a sample decides for itself between 0 and 1: accuracy and "
    "divergence are means over them."
)
ALONG = "Classes are taken along axis {axis} of the outputs [{shape}]: {steps:,} answers a sample."
NEITHER = (
    "All outputs lie between 0 and 1 but do not sum to 1: they are taken for logits, whose "
    "divergence is then small."
)
ZERO_OR_ONE = (
    "All targets are 0 or 1, and the task 'regression' judges by RMSE: the task 'classification' "
    "would judge one logit by its sign."
)
SOME_MISSING = "{count:,} of {total:,} targets are NaN: they are left out of RMSE."


@dataclass(frozen=True, eq=False)
class OutputReader:
    """`shape` is that of one sample's output as the model gives it. `order` are all its outputs,
    the classes of an answer side by side, and `kept` the positions of those that are kept, both as
    positions in the flat output, None for all as they come. `steps` is the shape of the answers of
    one sample, `asked` the answers that are kept among them. `onehot` says along which axis of the
    targets classes lie. `notes` say what was taken for what. `entries` are how many classes of an
    answer are kept one by one, 0 for all, and `part` what they held of some samples' distributions.
    """

    outputs: Outputs
    shape: tuple[int, ...]
    kept: NDArray[np.int64] | None
    order: NDArray[np.int64] | None = None
    form: Form = "as they are"
    steps: tuple[int, ...] = ()
    asked: NDArray[np.int64] | None = None
    onehot: int | None = None
    notes: tuple[str, ...] = ()
    entries: int = 0
    part: KeptShare | None = None

    @property
    def columns(self) -> int:
        """How many numbers are kept of a sample."""
        if self.entries:
            return self.outputs.positions * (self.entries + 1)
        given = prod(self.shape) if self.kept is None else len(self.kept)
        return 2 * given if self.form[:3] == "one" else given

    def in_words(self) -> str:
        """What is kept of the outputs of a sample."""
        return reduction.in_words(self.outputs, self.columns, self.part)

    def picked(self, values: Floats) -> Floats:
        """The answers or values that are kept of all outputs, as the model gives them."""
        return values if self.kept is None else values[:, self.kept]

    def likeliest(self, values: Floats, targets: NDArray[np.int64] | None) -> Entries:
        """The entries [n, steps, E] of all outputs of the reference, with those of `targets`."""
        return reduction.likeliest(self._by_answer(values), self.entries, targets)

    def reduce(self, values: Floats, entries: Entries) -> Floats:
        """Logits [n, K] of the `entries`, and of the rest, of all outputs of some samples."""
        return reduction.reduced(
            self._by_answer(values), entries, probabilities=self.form == "probabilities",
            floor=FLOOR,
        )  # fmt: skip

    def _by_answer(self, values: Floats) -> Floats:
        return self.picked(values).reshape(len(values), self.outputs.positions, -1)

    def keep(self, values: Floats) -> Floats:
        """The kept outputs [N, K], logits or values, of all outputs as the model gives them: whole
        answers, not reduced.
        """
        return self.read(self.picked(values))

    def read(self, values: Floats) -> Floats:
        """Logits or values of outputs that were kept as the model gives them."""
        if self.form == "as they are":
            return values
        found: Floats = _logits(torch.from_numpy(values), self.form).numpy()
        return found

    def all_of(self, outputs: Tensor) -> Tensor:
        """Logits or values of all outputs [N, ...], differentiable, [N, K']."""
        order = None if self.order is None else torch.from_numpy(self.order).to(outputs.device)
        return _logits(outputs if order is None else outputs[:, order], self.form)

    def answers(self, values: Floats) -> NDArray[np.int64]:
        """The likeliest class of each answer [n, steps] that is kept, of all outputs."""
        rows = self.keep(values).reshape(len(values), self.outputs.positions, -1)
        return np.asarray(rows.argmax(axis=-1))

    @property
    def plain(self) -> OutputReader:
        """Reads the same outputs as numbers: what is kept of them, as the model gives them."""
        return self if self.form == "as they are" or self.entries else replace(
            self, outputs=Outputs("values"), form="as they are"
        )  # fmt: skip

    @property
    def classes(self) -> int:
        """Classes of an answer."""
        return prod(self.shape) // max(prod(self.steps), 1) if self.form[:3] != "one" else 2

    def targets(self, split: Split) -> NDArray[Any] | None:
        """Targets beside the kept outputs: int64 [N] or [N, positions], or float32 [N, K], where
        NaN is unknown.

        None without labels. Raises `DataError` where they do not fit the outputs.
        """
        given = split.targets
        if given is None:
            return None
        if not isinstance(given, Tensor):
            raise DataError("The targets are no tensor.", "Only a custom task takes others.")
        return self._values(given) if self.outputs.kind == "values" else self._classes(given)

    def _values(self, given: Tensor) -> Floats:
        fits = _squeezed(given.shape[1:]) == _squeezed(self.shape)
        if not fits or given.dtype.is_complex:
            raise _misfit(given, self.shape)
        values = given.float().reshape(len(given), -1).numpy()
        if np.isinf(values).any() or np.isnan(values).all():
            raise DataError(
                "The targets hold infinity, or nothing but NaN.",
                "Give numbers, and NaN where a target is unknown.",
            )
        return self.keep(values)

    def _classes(self, given: Tensor) -> NDArray[np.int64]:
        if self.onehot is not None and _squeezed(given.shape[1:]) == _squeezed(self.shape):
            if not _is_onehot(given, self.onehot):
                raise DataError(
                    "The targets name one class in the evaluation data and not in the holdout's.",
                    "Give the number of the class instead.",
                )
            given = given.argmax(self.onehot)
        if _squeezed(given.shape[1:]) != _squeezed(self.steps) or given.dtype.is_complex:
            raise _misfit(given, self.steps, "whole numbers")
        if given.is_floating_point():
            given = _whole(given)
        rows = given.reshape(len(given), -1).numpy().astype(np.int64)
        if rows.size and int(rows.max()) >= self.classes:
            raise DataError(
                f"The targets name class {int(rows.max())}, but the model outputs {self.classes}.",
                "Count classes from 0, and give a number below 0 to a step that does not count.",
            )
        if rows.shape[1] == 1 and rows.size and int(rows.min()) < 0 and not self.steps:
            raise DataError("The targets name a class below 0.", "Count classes from 0.")
        if self.asked is not None:
            rows = rows[:, self.asked]
        if not (rows >= 0).any():
            raise DataError("No step of the targets is counted.", "Targets below 0 are left out.")
        return rows if rows.shape[1] > 1 else rows[:, 0]


def _logits(values: Tensor, form: Form) -> Tensor:
    """Logits [N, K] of outputs [N, K'] in `form`, the classes of an answer side by side."""
    if form == "as they are":
        return values
    if form == "probabilities":
        return values.clamp(min=FLOOR).log()
    if form == "one logit":
        pair = (torch.zeros_like(values), values)
    else:
        pair = ((1 - values).clamp(min=FLOOR).log(), values.clamp(min=FLOOR).log())
    return torch.stack(pair, dim=-1).reshape(len(values), -1)


def _whole(given: Tensor) -> Tensor:
    """Floating targets as integers; NaN is not counted."""
    known = ~given.isnan()
    if not bool((given[known] == given[known].round()).all()) or bool(given.isinf().any()):
        raise DataError(
            "The targets are fractions, and a class is a whole number.",
            "Give the number of the class, or take the task 'regression' or 'custom'.",
        )
    return torch.where(known, given, -1.0).long()


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
    """How the outputs of `source` are to be read, from two of its samples, and from some more
    where these look like probabilities.

    Raises `ModelError` or `DataError` where outputs, targets and task do not fit together.
    """
    some = _some(source)
    first = next(some)
    shape, targets = tuple(first.shape[1:]), source.selection.targets
    if not isinstance(targets, Tensor):
        targets = None
    if source.task not in ("classification", "sequence") or _are_values(source, shape, targets):
        return _values(shape, *_notes_of_values(source, shape, targets))
    found = _answers(source.task, shape, targets)
    return _reduced(_with_form(found, first, some), source)


def _some(source: ModelSource) -> Iterator[Tensor]:
    """Outputs of two samples, then of more."""
    try:
        inputs = source.selection.inputs
        with state_kept(source.model):
            first = answers(source.model, take(inputs, 0, 2), source.output)
        yield first
        step = min(AT_ONCE, max(1, MOST_AT_ONCE // max(first[0].numel(), 1)))
        for start in range(0, min(count(inputs), LOOKED_AT), step):
            with state_kept(source.model):
                yield answers(source.model, take(inputs, start, start + step), source.output)
    except Exception as error:
        raise failed(error, "on two samples", "two of them") from error


def _are_values(source: ModelSource, shape: tuple[int, ...], targets: Tensor | None) -> bool:
    """Whether a sequence is one of values: its targets are as the outputs are, and not 0 and 1."""
    if source.task != "sequence":
        return False
    if targets is None or (len(shape) < 2 and targets.is_floating_point()):
        return len(shape) < 2
    return _squeezed(targets.shape[1:]) == _squeezed(shape) and (
        targets.is_floating_point() or not _are_zero_or_one(targets)
    )


def _notes_of_values(
    source: ModelSource, shape: tuple[int, ...], targets: Tensor | None
) -> tuple[str, ...]:
    if source.metric is not None or targets is None:
        return ()
    found = []
    if prod(shape) == 1 and _are_zero_or_one(targets):
        found.append(ZERO_OR_ONE)
    if missing := int(targets.isnan().sum()):
        found.append(SOME_MISSING.format(count=missing, total=targets.numel()))
    return tuple(found)


def _are_zero_or_one(targets: Tensor) -> bool:
    known = targets[~targets.isnan()] if targets.is_floating_point() else targets
    return bool(((known == 0) | (known == 1)).all())


def _is_onehot(targets: Tensor, axis: int) -> bool:
    return _are_zero_or_one(targets) and bool((targets.sum(axis) == 1).all())


def _answers(task: str, shape: tuple[int, ...], targets: Tensor | None) -> OutputReader:
    """Where classes lie in outputs of `shape` a sample, as its targets say."""
    wide = [i + 1 for i, n in enumerate(shape) if n > 1]
    own = None if targets is None else _squeezed(targets.shape[1:])
    if targets is not None and own == _squeezed(shape):
        # The outputs' own shape: one class among those of an axis, or each decides for itself.
        sides = [a for a in dict.fromkeys((1, len(shape))) if a in wide]
        if task == "sequence":
            sides.reverse()
        axis = next((a for a in sides if targets.ndim > a and _is_onehot(targets, a)), None)
        if axis is not None:
            return _along(shape, axis, onehot=axis)
        if _are_zero_or_one(targets):
            return _each(shape)
        if prod(shape) == 1:
            return _each(shape)  # where the targets are refused, with the classes there are
        raise _misfit(targets, shape, "0 and 1, or whole numbers with one axis less,")
    if prod(shape) == 1:
        return _each(shape)
    if len(wide) == 1 and task == "classification":
        return _along(shape, wide[0])
    fits = [a for a in (1, len(shape)) if own == _squeezed(shape[: a - 1] + shape[a:])]
    if task == "sequence":
        fits.reverse()
    if fits and shape[fits[0] - 1] > 1:
        return _along(shape, fits[0])
    if task == "sequence" and shape[-1] > 1:
        return _along(shape, len(shape))  # where targets are refused, if there are any
    raise ModelError(
        f"The model outputs {list(shape)} per sample, and the targets do not say along which axis "
        "classes lie.",
        "Give a whole number for each answer, or use the task 'regression' or 'custom'.",
    )


def _along(shape: tuple[int, ...], axis: int, onehot: int | None = None) -> OutputReader:
    """Classes along `axis` of outputs [N, *shape]."""
    classes, steps = shape[axis - 1], shape[: axis - 1] + shape[axis:]
    places = np.moveaxis(np.arange(prod(shape)).reshape(shape), axis - 1, -1).reshape(-1, classes)
    found = _kept(shape, steps, places, classes)
    if prod(steps) == 1:
        return replace(found, steps=(), onehot=onehot)
    text = ", ".join(("N", *(str(n) for n in shape)))
    said = () if axis == len(shape) else (ALONG.format(axis=axis, shape=text, steps=prod(steps)),)
    return replace(found, onehot=onehot, notes=said)


def _each(shape: tuple[int, ...]) -> OutputReader:
    """Every output is an answer of its own, no or yes."""
    if prod(shape) == 1:
        return OutputReader(Outputs(), shape, None, form="one logit", notes=(ONE_LOGIT,))
    places = np.arange(prod(shape)).reshape(-1, 1)
    note = EACH_FOR_ITSELF.format(count=prod(shape))
    return replace(_kept(shape, shape, places, 2), form="one logit", notes=(note,))


def _kept(
    shape: tuple[int, ...], steps: tuple[int, ...], places: NDArray[np.int64], classes: int
) -> OutputReader:
    """Reads the answers at `places` [steps, outputs of an answer], or some where they are many."""
    total, most = len(places), max(1, MAX_OUTPUTS // classes)
    order = places.ravel()
    as_given = None if np.array_equal(order, np.arange(len(order))) else order
    if total <= most:
        return OutputReader(Outputs("logits", total), shape, as_given, as_given, steps=steps)
    asked = _sample(total, most)
    outputs = Outputs("logits", most, total * classes)
    return OutputReader(outputs, shape, places[asked].ravel(), as_given, steps=steps, asked=asked)


def _reduced(found: OutputReader, source: ModelSource) -> OutputReader:
    """`found`, keeping some entries of each answer where all outputs are too many and fewer than
    half of the classes hold nearly all of their distributions.
    """
    classes, total = found.classes, prod(found.shape)
    if total <= MAX_OUTPUTS or classes < 2 * (reduction.FEWEST + 1):
        return found
    order = np.arange(total) if found.order is None else found.order
    all_places = order.reshape(-1, classes)
    steps = len(all_places)
    some = all_places if steps <= STEPS_WEIGHED else all_places[_sample(steps, STEPS_WEIGHED)]
    entries, part = reduction.fewest(_weighed(found, source, some), classes, MAX_OUTPUTS - 1)
    if 2 * (entries + 1) > classes:
        return found
    most = max(1, MAX_OUTPUTS // (entries + 1))
    asked = None if steps <= most else _sample(steps, most)
    kept = found.order if asked is None else all_places[asked].ravel()
    outputs = Outputs("logits", min(steps, most), total, classes)
    return replace(found, outputs=outputs, kept=kept, asked=asked, entries=entries, part=part)


def _weighed(
    found: OutputReader, source: ModelSource, places: NDArray[np.int64]
) -> Iterator[Floats]:
    """Probabilities [answers, classes] of the answers at `places` of some samples. Those of a model
    that gives them stay as they are: many below the floor would make a tail that none has.
    """
    seen, more = 0, _some(source)
    next(more)
    for outputs in more:
        values = outputs.flatten(1).numpy()
        for row in values:
            rows = row[places]
            yield rows if found.form == "probabilities" else np.exp(log_softmax(rows))
        seen += len(values)
        if seen >= WEIGHED:
            return


def _with_form(found: OutputReader, first: Tensor, more: Iterator[Tensor]) -> OutputReader:
    """`found`, with probabilities taken for what they are."""
    single = found.form == "one logit"
    sums = []
    for outputs in (first, *([] if not _in_range(first) else more)):
        if not _in_range(outputs):
            return found
        rows = outputs.flatten(1)
        rows = rows if found.order is None else rows[:, torch.from_numpy(found.order)]
        sums.append(rows.reshape(-1, 1 if single else found.classes).sum(dim=1))
    if single:
        told = tuple(note for note in found.notes if note != ONE_LOGIT)
        return replace(found, form="one probability", notes=(*told, ONE_PROBABILITY))
    if all(bool(((total - 1).abs() < SUM_TOLERANCE).all()) for total in sums):
        return replace(found, form="probabilities", notes=(*found.notes, PROBABILITIES))
    return replace(found, notes=(*found.notes, NEITHER))


def _in_range(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1 + SUM_TOLERANCE)).all())


def _values(shape: tuple[int, ...], *notes: str) -> OutputReader:
    total = prod(shape)
    if total <= MAX_OUTPUTS:
        return OutputReader(Outputs("values"), shape, None, notes=notes)
    kept = _sample(total, MAX_OUTPUTS)
    return OutputReader(Outputs("values", 1, total), shape, kept, notes=notes)


def _sample(total: int, count: int) -> NDArray[np.int64]:
    drawn = np.random.default_rng(SUBSAMPLE_SEED).choice(total, count, replace=False)
    return np.sort(drawn).astype(np.int64)
