"""Runs made in several processes at once, with the bits of one.

Every worker builds the engine anew from the model, the ranges and the inputs, with as many
threads as this process has, and runs the same batches; so a run's outputs do not depend on who
made it. What is sent is packed once and kept by a worker from task to task.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from core.engines.engines import engine_for
from core.errors import ModelError, PolicyError
from core.evidence.measure.cache import Unit
from core.evidence.measure.cache_key import is_repeatable
from core.evidence.measure.draw import Draw
from core.evidence.measure.keeper import Keeper
from core.evidence.measure.memory import Footprint
from core.evidence.measure.runs import Run, Runner
from core.layers import LayerTable
from core.numerics.ranges import Ranges
from core.numerics.scheme import Scheme
from core.source.batches import Inputs, Output, take
from core.source.blame import MODULE
from core.source.lifeline import end_with

BLOCKS = 4
"""Tasks per worker at least, so that none waits long for the last and progress is seen. Each
task records its batch once, which is one run of some dozens."""


@dataclass(frozen=True)
class Work:
    """All that a worker needs. Every run has `width` outputs a sample, of which `keeper` holds
    `columns` numbers.
    """

    model: nn.Module
    drawn: Draw
    output: Output
    layers: LayerTable
    owner: dict[str, str | None]
    scheme: Scheme
    ranges: Ranges
    need: Footprint
    batch: int
    refusal: str
    runs: tuple[Run, ...]
    keeper: Keeper
    width: int
    columns: int
    threads: int
    jobs: int


THREADS = "OMP_NUM_THREADS"

Task = tuple[int, int, tuple[int, ...]]
"""(first sample, one past the last, positions of the runs)"""


def share_cores(jobs: int) -> None:
    """Take as many threads for this process and each of its `jobs` workers as there are cores for
    each. Where OMP_NUM_THREADS says how many, that holds; with one process nothing changes.

    Workers that fight for cores are slower than one process that has them all.
    """
    if jobs > 1 and not os.environ.get(THREADS):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // jobs))


def check(runner: Runner, inputs: Inputs, jobs: int) -> None:
    """Raise `PolicyError` if the runs of this model cannot be shared among `jobs` processes."""
    if jobs < 1:
        raise PolicyError(f"--jobs {jobs} is no number of processes.", "Give 1 or more.")
    if jobs > 1 and not is_repeatable(runner.simulator, take(inputs, 0, 2)):
        raise PolicyError(
            "The model keeps state between calls, so that its figures depend on the order of runs.",
            "Leave out --jobs.",
        )


def tasks(todo: Sequence[tuple[slice, Sequence[int]]], jobs: int) -> list[Task]:
    """What is to do (a batch and positions of runs), in blocks of neighbouring runs."""
    wanted = -(-BLOCKS * jobs // max(len(todo), 1))
    found = []
    for part, positions in todo:
        blocks = min(wanted, len(positions))
        edges = [len(positions) * i // blocks for i in range(blocks + 1)] if blocks else []
        for a, b in itertools.pairwise(edges):
            found.append((part.start, part.stop, tuple(positions[a:b])))
    return found


def made(work: Work, todo: Sequence[Task], jobs: int) -> Iterator[list[tuple[int, Unit]]]:
    """The units of each task with the positions of their runs, in the order they are finished.

    Raises `ModelError` where the model cannot be sent, `PolicyError` where a worker was killed.
    """
    from joblib import Parallel, delayed  # only where it is wanted
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    packed = np.frombuffer(_packed(work), dtype=np.uint8)  # large arrays go by shared memory
    digest = hashlib.sha256(packed.data).hexdigest()
    parallel = Parallel(n_jobs=jobs, backend="loky", return_as="generator_unordered")
    try:
        yield from parallel(delayed(_run)(os.getpid(), digest, packed, task) for task in todo)
    except TerminatedWorkerError as error:
        raise PolicyError(
            "A worker was killed, perhaps because memory ran out.",
            "Give fewer --jobs, or a smaller --memory.",
        ) from error


def _packed(work: Work) -> bytes:
    import cloudpickle

    # A file that a person named, and what lies beside it, could be imported by no other process.
    homes = {type(module).__module__.partition(".")[0] for module in work.model.modules()}
    homes |= {name.partition(".")[0] for name in sys.modules if name.startswith(MODULE)}
    registered = [sys.modules[name] for name in homes if name in sys.modules and _is_private(name)]
    for home in registered:
        cloudpickle.register_pickle_by_value(home)
    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:  # whatever a person's own object raises
        raise ModelError(
            f"The model cannot be sent to another process: {error}", "Leave out --jobs."
        ) from error
    finally:
        for home in registered:
            cloudpickle.unregister_pickle_by_value(home)


def _is_private(name: str) -> bool:
    """Whether a new process would not find the top-level module `name`."""
    return not any(finder.find_spec(name, None) for finder in sys.meta_path)


_BUILT: dict[str, tuple[Work, Runner]] = {}
"""In a worker: the digest of what it was sent last, and what it built from that."""


def _runner(digest: str, packed: NDArray[np.uint8]) -> tuple[Work, Runner]:
    if digest not in _BUILT:
        _BUILT.clear()
        _BUILT[digest] = _built(packed)
    return _BUILT[digest]


def _built(packed: NDArray[np.uint8]) -> tuple[Work, Runner]:
    import cloudpickle

    work: Work = cloudpickle.loads(packed.data)  # from the process that started this one
    torch.set_num_threads(work.threads)
    simulator = engine_for(work.model, work.layers, work.owner, work.scheme, work.output)
    simulator.ranges.update(work.ranges)
    simulator.hold_weights(work.need.weights // (1 + work.jobs))
    replayer = simulator.replay(take(work.drawn.inputs, 0, 2))
    replayer.refusal = work.refusal
    return work, Runner(simulator, replayer, work.need, work.batch)


_HOMES: set[int] = set()
"""In a worker: the process that it works for, once it is watched."""


def _run(home: int, digest: str, packed: NDArray[np.uint8], task: Task) -> list[tuple[int, Unit]]:
    if home not in _HOMES:
        _HOMES.add(home)
        end_with(home)
    work, runner = _runner(digest, packed)
    start, stop, positions = task
    found = runner.units(
        work.drawn, work.runs, positions, slice(start, stop), work.keeper, work.width
    )
    return list(zip(positions, found, strict=True))
