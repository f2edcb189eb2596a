"""Several processes measure with the bits of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from core.cli.main import main
from core.errors import ModelError, PolicyError
from core.evidence.evidence import Measured
from core.evidence.measure.cache import Cache
from core.evidence.measure.measure import make_simulator, measure, planned_runs
from core.evidence.measure.memory import WORKER_BYTES
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import Runner, prepare
from core.evidence.measure.workers import BLOCKS, THREADS, share_cores, tasks
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT8
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.conftest import REPOSITORY
from tests.core.killing import digest, finished
from tests.zoo import awkward
from tests.zoo.sources import source_of, tiny_source

PRECISIONS = (FP16, INT8)


def _measured(source: ModelSource, jobs: int, **options: Any) -> Measured:
    layers = take_inventory(source)
    how = MeasureOptions(precisions=PRECISIONS, probes=2, jobs=jobs)
    return measure(source, layers, how, **options)


def _plain(model: nn.Module, **changes: Any) -> ModelSource:
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    return model_source(
        {"model": model, "calibration": x, "evaluation": (x, None), "holdout": None,
         "task": "regression", **changes}
    )  # fmt: skip


@pytest.mark.slow
def test_two_workers_give_the_bits_of_one(tmp_path: Path) -> None:
    """Every array is equal, each run is reported, and the cache holds what the workers made."""
    source = tiny_source()
    seen: list[tuple[int, int, str]] = []

    two = _measured(source, 2, cache=Cache(tmp_path), progress=lambda *step: seen.append(step))

    assert digest(two.evidence) == digest(_measured(source, 1).evidence)
    runs = planned_runs(take_inventory(source), MeasureOptions(precisions=PRECISIONS, probes=2))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (3 * len(runs), 3 * len(runs), "done")
    assert {label for _, _, label in seen} == {run.label for run in runs} | {"done"}
    before = finished(tmp_path)
    said: list[str] = []
    again = _measured(source, 2, cache=Cache(tmp_path, say=said.append))
    assert said[0].startswith("Resuming: 100% of the work found")
    assert digest(again.evidence) == digest(two.evidence)
    assert finished(tmp_path) == before


@pytest.mark.slow
def test_random_numbers_are_the_same_in_every_worker() -> None:
    """A model that draws numbers meets the same ones on a batch, whoever runs it."""
    source = source_of(awkward.DropoutAlwaysOn(), (5,), samples=150)

    assert digest(_measured(source, 2).evidence) == digest(_measured(source, 1).evidence)


@pytest.mark.slow
def test_a_model_of_a_persons_file_reaches_the_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes and functions of the named file are sent along, since no worker could import it."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def bend(x):\n    return torch.tanh(x) + 1\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.head = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)\n"
        "    def forward(self, x):\n        return self.head(bend(self.first(x)))\n"
        "def load():\n"
        "    torch.manual_seed(0)\n"
        "    x = torch.randn(40, 4)\n"
        "    return {'model': Net(), 'calibration': x, 'task': 'classification'}\n"
    )
    command = ["analyze", f"{path}:load", "--no-cache", "--json", "--out"]

    assert main([*command, str(tmp_path / "two"), "--jobs", "2"]) == 0
    assert main([*command, str(tmp_path / "one")]) == 0

    assert json.loads(capsys.readouterr().out.split("}\n{")[0] + "}")["layers"] == 2
    for name in ("perturbations.npy", "whole.npy", "probes.npy"):
        one, two = (tmp_path / folder / "arrays" / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_errors_of_a_model_come_back_from_the_workers() -> None:
    """What one process says of a model, two say too."""
    source = _plain(
        awkward.MoreStepsForMore(), calibration=torch.randn(20, 5), task="classification"
    )
    x = torch.randn(150, 5)
    source = model_source(
        {"model": source.model, "calibration": x[:20], "evaluation": (x, None), "holdout": None,
         "task": "classification"}
    )  # fmt: skip

    with pytest.raises(ModelError, match="no calibration sample reached"):
        _measured(source, 2)


class Locked(nn.Module):
    """Holds what no other process can have."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.lock = nn.Linear(5, 3), threading.Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(x)


class Dying(nn.Module):
    """Is killed in every process but its first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.home = nn.Linear(5, 3), os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 5] -> [N, 3]."""
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.head(x)


def test_what_cannot_be_shared_is_said() -> None:
    """A model that cannot be sent, one with state, a killed worker and no workers at all."""
    with pytest.raises(ModelError, match="cannot be sent to another process") as caught:
        _measured(_plain(Locked()), 2)
    assert "--jobs" in caught.value.next_step
    with pytest.raises(PolicyError, match="keeps state between calls"):
        _measured(_plain(awkward.Counting()), 2)
    with pytest.raises(PolicyError, match="no number of processes"):
        _measured(_plain(nn.Linear(5, 3)), 0)
    with pytest.raises(PolicyError, match="A worker was killed") as caught:
        _measured(_plain(Dying()), 2)
    assert "--memory" in caught.value.next_step


@pytest.mark.parametrize("jobs", [2, 3, 8])
@pytest.mark.parametrize("sizes", [(7,), (0, 5, 40), (100,) * 12, ()])
def test_tasks_cover_everything_once(sizes: tuple[int, ...], jobs: int) -> None:
    """Each run of each batch is in one task, and there are enough tasks for every worker."""
    todo = [(slice(10 * i, 10 * i + 10), list(range(1, n + 1))) for i, n in enumerate(sizes)]

    found = tasks(todo, jobs)

    assert sorted((start, i) for start, _, runs in found for i in runs) == sorted(
        (part.start, i) for part, runs in todo for i in runs
    )
    assert all(runs for _, _, runs in found)
    if sum(sizes) > BLOCKS * jobs * 2:
        assert len(found) >= BLOCKS * jobs / 2


@pytest.mark.slow
def test_memory_is_divided_among_workers() -> None:
    """The bound holds for all processes together, so that more of them run smaller batches."""
    source = tiny_source()
    simulator = make_simulator(source, take_inventory(source), MeasureOptions())

    def runner(memory_bytes: int, jobs: int) -> Runner:
        options = MeasureOptions(precisions=PRECISIONS, memory_bytes=memory_bytes, jobs=jobs)
        return prepare(simulator, source, read(source), 40, options)

    one, two = runner(10**10, 1), runner(10**10, 2)
    tight = runner(two.need.peak(50), 2)

    assert two.peak_bytes > one.peak_bytes + 2 * WORKER_BYTES
    assert (two.need.kept, two.need.live) == (2 * one.need.kept, 2 * one.need.live)
    assert tight.batch == 50
    with pytest.raises(PolicyError, match="Give --memory"):
        runner(one.peak_bytes, 2)


@pytest.mark.parametrize(
    ("jobs", "given", "threads"), [(1, "", 4), (2, "", 3), (4, "", 1), (20, "", 1), (2, "5", 4)]
)
def test_processes_share_the_cores(
    jobs: int, given: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several processes take an even part of the cores each; one process, or a number that the
    person set, leaves things as they are.
    """
    told: list[int] = []
    monkeypatch.setenv(THREADS, given)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6 if jobs < 4 else 4)))
    monkeypatch.setattr(torch, "set_num_threads", told.append)

    share_cores(jobs)

    assert told == ([] if jobs == 1 or given else [threads])


LEFT_ALONE = """
import os, time
from pathlib import Path

import torch
from torch import nn

HERE, HOME = Path(__file__).parent, os.getpid()


class Waiting(nn.Linear):
    def forward(self, x):
        while os.getpid() != HOME:
            (HERE / f"worker-{os.getpid()}").touch()
            time.sleep(0.05)
        return super().forward(x)


def load():
    x = torch.randn(40, 4)
    return {"model": nn.Sequential(Waiting(4, 4), nn.ReLU(), Waiting(4, 3)), "calibration": x,
            "evaluation": (x, torch.arange(40) % 3), "task": "classification"}
"""


@pytest.mark.slow
def test_workers_end_with_the_process_they_work_for(tmp_path: Path) -> None:
    """A command that is killed leaves no worker behind, whatever that is doing."""
    (tmp_path / "mine.py").write_text(LEFT_ALONE)
    words = ["analyze", f"{tmp_path}/mine.py:load", "--out", str(tmp_path / "a"), "--jobs", "2"]
    with subprocess.Popen([sys.executable, "-m", "core", *words], cwd=REPOSITORY,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        give_up = time.monotonic() + 90
        while len(list(tmp_path.glob("worker-*"))) < 2 and time.monotonic() < give_up:
            time.sleep(0.05)  # other processes are what is waited for
        family = psutil.Process(process.pid).children(recursive=True)
        workers = {int(path.name.removeprefix("worker-")) for path in tmp_path.glob("worker-*")}
        process.kill()

    assert len(workers) == 2
    assert workers <= {child.pid for child in family}
    _, alive = psutil.wait_procs(family, timeout=30)
    for child in alive:
        child.kill()
    assert alive == []
