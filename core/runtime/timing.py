"""Times of models held against each other: interleaved, so that a busy moment hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from core.onnx_graph.forms import fixed_batch
from core.onnx_graph.session import Feed
from core.runtime.inference import feed
from core.source.batches import Inputs, count, pick

ROUNDS = 20
ROUND_MS = 20.0
"""Calls are repeated within a round until it lasts so long."""
LEAST_CALL_MS = 1.0
"""Shorter calls drown in the noise of the clock and the scheduler; more samples make them longer."""
MOST_BATCH = 256
WARM_UP = 3

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rounds:
    """`ms` [R] per model: the median call of each round in ms per sample."""

    ms: Mapping[str, Floats]
    batch: int

    def median(self, name: str) -> float:
        """Median over rounds, ms per sample."""
        return float(np.median(self.ms[name]))

    def spread(self, name: str) -> tuple[float, float]:
        """5 and 95 % quantiles over rounds, ms per sample."""
        low, high = np.quantile(self.ms[name], [0.05, 0.95])
        return float(low), float(high)

    def ratio(self, name: str, reference: str) -> tuple[float, float, float]:
        """Median, 5 and 95 % quantile of the round-by-round ratio of two models."""
        ratios = self.ms[name] / self.ms[reference]
        low, high = np.quantile(ratios, [0.05, 0.95])
        return float(np.median(ratios)), float(low), float(high)

    def noise_pct(self, name: str) -> float:
        """Half of the middle 90 % of the rounds, in percent of their median."""
        low, high = self.spread(name)
        return 50 * (high - low) / self.median(name)


def batch_for(session: ort.InferenceSession, names: Sequence[str], inputs: Inputs) -> int:
    """The smallest power of four whose call takes longer than the noise; 1 where that does. A graph
    that takes one number of samples alone is timed with that.
    """
    size = fixed_batch(session)
    if size is not None:
        return size
    batch = 1
    while batch < MOST_BATCH:
        given = repeated(names, inputs, batch)
        session.run(None, given)
        if min(_timed(session, given) for _ in range(WARM_UP)) * 1e3 >= LEAST_CALL_MS:
            break
        batch *= 4
    return batch


def repeated(names: Sequence[str], inputs: Inputs, batch: int) -> Feed:
    """`batch` samples of `inputs`, some of them more than once where there are fewer."""
    return feed(names, pick(inputs, np.arange(batch, dtype=np.int64) % count(inputs)))


def interleaved(
    sessions: Mapping[str, ort.InferenceSession], given: Feed, batch: int, rounds: int = ROUNDS,
    between: Callable[[int], None] = lambda done: None,
) -> Rounds:  # fmt: skip
    """Time all `sessions` on the same samples, round by round in changing order.

    `between` is called with the number of rounds done.
    """
    calls = {}
    for name, session in sessions.items():
        once = min(_timed(session, given) for _ in range(WARM_UP))
        calls[name] = max(1, min(200, round(ROUND_MS / 1e3 / max(once, 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in sessions}
    order = list(sessions)
    for done in range(rounds):
        between(done)
        for name in order if done % 2 == 0 else order[::-1]:
            times = [_timed(sessions[name], given) for _ in range(calls[name])]
            found[name].append(float(np.median(times)) * 1e3 / batch)
    return Rounds({name: np.array(times) for name, times in found.items()}, batch)


def joined(parts: Sequence[Rounds]) -> Rounds:
    """The rounds of several times of day as one; all of the same models and batch."""
    first = parts[0]
    return Rounds(
        {name: np.concatenate([part.ms[name] for part in parts]) for name in first.ms}, first.batch
    )


def _timed(session: ort.InferenceSession, given: Feed) -> float:
    start = time.perf_counter()
    session.run(None, given)
    return time.perf_counter() - start
