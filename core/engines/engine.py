"""What an engine is: something that runs a model with chosen layers in other precisions.

PyTorch modules and ONNX graphs each have one (`core.engines.engines` chooses); what is measured,
cached and shared among processes knows no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.numerics.calibrate.calibrators import Calibrator
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges
from core.numerics.scheme import Scheme
from core.source.batches import Inputs

Floats = NDArray[np.float32]
Assignment = Mapping[str, Precision]
"""Layers that leave the reference precision. A layer that is not named stays as trained."""
Pair = tuple[str, Precision]


class Replay(Protocol):
    """Runs layers of a model alone on one batch after the other, by what follows them if it can.

    `refusal` says why nothing can be replayed for this model ("" = they can); every run is then
    a full pass. `full_passes` counts single runs that were made so all the same.
    """

    refusal: str
    full_passes: int

    def run(self, batch: Inputs, pairs: Sequence[Pair], first: int = 0) -> Iterator[Floats]:
        """Outputs [N, K] of the model as it is, then of each layer alone in its precision.

        `batch` are inputs of N samples, `first` is the number of the first of them. Memory is
        least where `pairs` are in execution order.
        """
        ...

    def shares(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that runs again when it changes, in [0, 1]."""
        ...

    def looks(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that a look at its own output takes, in [0, 1]; empty if unknown."""
        ...

    def value_bytes(self) -> tuple[int, int]:
        """Bytes a sample of the values that replays read, and of those alive at once in a pass."""
        ...


class Engine(Protocol):
    """A model under one scheme. `ranges` are the calibrated ones, `varied` the layers that compute.

    Batch b of every run meets the same random state. Does not change the model.
    """

    scheme: Scheme
    calibrator: Calibrator
    ranges: Ranges
    varied: tuple[str, ...]
    owner: dict[str, str | None]

    def calibrate(self, inputs: Inputs) -> None:
        """Find the range of every activation that the scheme may round."""
        ...

    def run(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0
    ) -> Floats:
        """Outputs [N, K] of the model with `assignment` applied to `inputs` of N samples, of which
        `first` is the number of the first.
        """
        ...

    def run_batches(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0
    ) -> Iterator[Floats]:
        """The outputs that `run` gives, batch by batch, so that not all of them need be held."""
        ...

    def one_by_one(self, assignment: Assignment, inputs: Inputs) -> bool:
        """Whether samples of `inputs` are run one by one under `assignment`."""
        ...

    def samples_apart(self, inputs: Inputs) -> bool:
        """Whether samples of `inputs` give one by one what they give in a batch."""
        ...

    def replay(self, pilot: Inputs, check: Sequence[Pair] = ()) -> Replay:
        """What runs single layers; it may hold the pairs in `check` against full passes of `pilot`."""
        ...

    def hold_weights(self, most_bytes: int) -> None:
        """Hold at most so many bytes of what was made of weights; the rest is made each time."""
        ...

    def stored_bytes(self) -> tuple[int, int, int]:
        """Bytes of the model's parameters, of its buffers, and of its largest tensor."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What the outputs of a run depend on beside source, layers, scheme and ranges."""
        ...

    def notes(self, precisions: Sequence[Precision]) -> tuple[str, ...]:
        """What to know of figures that this engine has measured in `precisions`, as sentences."""
        ...
