"""A model that takes a second to measure, and waits where a test wants it to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from core.jobs import jobs
from core.jobs.jobs import Job

PATIENCE_S = 90.0
"""For one job on a busy machine; nothing here waits that long."""

MODEL = '''
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
DEPTH = 2  # layers that wait
HELD_AFTER = 3  # runs


def progress():
    """Runs done and in all, as the command's progress file tells them."""
    try:
        path = Path(sys.argv[sys.argv.index("--progress") + 1])
        told = json.loads(path.read_bytes())
        return told["done"], told["total"]
    except (ValueError, OSError):
        return 0, 0


class Waiting(nn.Linear):
    """After some runs it waits while a file is there, so that a job stands still half-way."""

    def forward(self, x):
        if (HERE / "hold").exists() and progress()[1]:
            time.sleep(0.05)  # progress is told a few times a second: runs have to be slower
        while (HERE / "hold").exists() and progress()[0] >= HELD_AFTER:
            time.sleep(0.01)
        return super().forward(x)


def metric(outputs, targets):
    """Error."""
    return float(((outputs - targets) ** 2).mean())


def load():
    if (HERE / "broken").exists():
        raise ValueError("the checkpoint is empty")
    torch.manual_seed(0)
    x = torch.randn(48, 6)
    return {
        "model": nn.Sequential(
            Waiting(6, 8), nn.ReLU(), *(Waiting(8, 8) for _ in range(DEPTH - 2)), Waiting(8, 2)
        ),
        "calibration": x,
        "evaluation": (x, torch.randn(48, 2)),
        "task": "custom",
        "metric": metric,
        "metric_name": "error",
        "higher_is_better": False,
    }
'''


def write_model(
    folder: Path, *, hold: bool = False, broken: bool = False, deep: bool = False
) -> str:
    """Write the model's file into `folder` and return how it is named on the command line.

    A `deep` model has 13 layers and stands still when some of them are measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.py"
    text = MODEL
    if deep:
        text = text.replace("DEPTH = 2", "DEPTH = 12").replace("AFTER = 3", "AFTER = 9")
    path.write_text(text, encoding="utf-8")
    for name, wanted in (("hold", hold), ("broken", broken)):
        (folder / name).touch() if wanted else (folder / name).unlink(missing_ok=True)
    return f"{path}:load"


def wait_for(job: Job, reached: Callable[[Job], bool]) -> Job:
    """The job once `reached` is true of it; fails with its log if that never comes."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        now = jobs.read(job.folder)
        assert now is not None
        if reached(now):
            return now
        time.sleep(0.02)  # another process is what is waited for
    raise AssertionError(f"{jobs.read(job.folder)}\n{jobs.log_tail(job)}")


def ended(job: Job) -> bool:
    """Whether a job is over, well or not."""
    return not job.running
