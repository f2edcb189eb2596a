"""What an analysis takes of memory: predicted before, bounded by `--memory`, measured in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from core.engines.torch.simulate.simulator import Simulator
from core.evidence.diagnose import weight_profile, weights
from core.evidence.diagnose.weights import squares
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import INT8
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.conftest import REPOSITORY
from tests.zoo.sources import source_of, tiny_source

MEGA = 10**6
WEIGHTS = 6 * 2048**2 * 4
"""Bytes of the model below: 25 million parameters."""

MODEL = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    layers = [nn.Linear(2048, 2048) for _ in range(6)]
    x = torch.randn(24, 2048)
    return {"model": nn.Sequential(*layers, nn.Linear(2048, 4)), "calibration": x[:16],
            "evaluation": (x, torch.arange(24) % 4), "holdout": None, "task": "classification"}
"""
RUN = """
import sys
from core.cli.main import main
from core.runtime.peak import _resident
code = main(sys.argv[1:])
print(_resident("VmHWM:"), file=sys.stderr)  # ru_maxrss begins with that of who started the process
sys.exit(code)
"""


MANY_CLASSES = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    head = nn.Linear(16, 20_000)
    head.weight.data.mul_(30.0)
    x = torch.randn(300, 10, 6)
    return {"model": nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), head),
            "calibration": x[:16], "evaluation": (x, torch.zeros(300, 10, dtype=torch.int64)),
            "holdout": None, "task": "sequence"}
"""
ALL_OUTPUTS = 300 * 10 * 20_000 * 4
"""Bytes of what this model gives for all samples."""


def _run(tmp_path: Path, *options: str, model: str = MODEL) -> tuple[dict[str, float], int]:
    """What `analyze` printed as JSON, and the most memory that its process has held."""
    (tmp_path / "big.py").write_text(model)
    words = ["analyze", f"{tmp_path}/big.py:load", "--json", "--no-cache",
             "--precisions=FP16,INT8", *options]  # fmt: skip
    found = subprocess.run([sys.executable, "-c", RUN, *words], cwd=REPOSITORY, check=False,
                           capture_output=True, text=True)  # fmt: skip
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout), int(found.stderr.splitlines()[-1])


@pytest.mark.slow
def test_memory_is_predicted_and_bounded(tmp_path: Path) -> None:
    """A dry run says within a third what the analysis then takes, preparation included; under
    `--memory` neither goes more than a tenth beyond.

    All under a bound: without one the allocator keeps freed tensors, 630 to 890 MB from run to run.
    """
    plan, planning = _run(tmp_path, "--dry-run", "--memory=4GB")
    _, taken = _run(tmp_path, "--out", str(tmp_path / "a"), "--memory=4GB")
    most = int(plan["held_bytes"]) + 130 * MEGA
    _, bounded = _run(tmp_path, "--out", str(tmp_path / "b"), f"--memory={most}")

    assert taken > plan["held_bytes"] + 1.5 * WEIGHTS  # there was something to bound
    assert 2 / 3 < taken / plan["peak_bytes"] < 4 / 3
    assert planning < 1.1 * plan["peak_bytes"]
    assert bounded < 1.1 * most


@pytest.mark.slow
def test_large_outputs_are_never_held_at_once(tmp_path: Path) -> None:
    """An analysis whose bound has no room for the outputs of one run on all samples stays within
    it, with the reference's, the holdout's and the gradients' outputs too.
    """
    how = ("--precisions=INT8", "--dry-run")
    plan, _ = _run(tmp_path, *how, model=MANY_CLASSES)
    most = int(plan["held_bytes"]) + 2 * ALL_OUTPUTS // 3
    how = ("--precisions=INT8", "--out", str(tmp_path / "a"), f"--memory={most}")
    _, taken = _run(tmp_path, *how, model=MANY_CLASSES)

    assert "of 20,000 classes at" in str(plan["outputs"])
    assert taken < 1.1 * most
    assert taken < int(plan["held_bytes"]) + ALL_OUTPUTS


@pytest.mark.slow
def test_too_little_memory_is_refused_with_what_is_enough(tmp_path: Path) -> None:
    """The line says what is held already, and what to give; that is then enough."""
    (tmp_path / "big.py").write_text(MODEL)
    words = [sys.executable, "-m", "core", "analyze", f"{tmp_path}/big.py:load", "--dry-run"]
    found = subprocess.run(
        [*words, "--memory", "300MB"], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )

    assert found.returncode == 2
    assert "that Python, model and data take" in found.stderr
    enough = found.stderr.partition("Give --memory ")[2].partition(" ")[0]
    again = [*words, "--memory", f"{int(enough.removesuffix('MB')) + 20}MB"]
    assert subprocess.run(again, cwd=REPOSITORY, check=False, capture_output=True).returncode == 0


def _simulated(most_bytes: int) -> tuple[Simulator, ModelSource, LayerTable]:
    source = tiny_source()
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    simulator.hold_weights(most_bytes)
    return simulator, source, layers


@pytest.mark.parametrize("most", [0, 700, 10**9])
def test_held_weights_change_no_bit(most: int) -> None:
    """Whether a rounded weight is held or made again, outputs are the same, and no more is held
    than was allowed.
    """
    simulator, source, layers = _simulated(most)
    usual = make_simulator(source, layers, MeasureOptions())
    whole = dict.fromkeys(simulator.varied, INT8)
    for _ in range(2):
        found = simulator.run(whole, source.selection.inputs)
        assert found.tobytes() == usual.run(whole, source.selection.inputs).tobytes()

    held = [pair[0].nbytes for pair in simulator._stored_tensors._rounded.values()]
    assert sum(held) <= most
    assert bool(held) == bool(most)


def test_statistics_of_weights_do_not_depend_on_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken a few weights at a time they are what all at once give."""
    model = nn.Sequential(nn.Embedding(50, 12), nn.Flatten(), nn.Linear(36, 20), nn.Linear(20, 4))
    torch.manual_seed(0)
    source = source_of(model, (3,), ids=50)
    layers = take_inventory(source)
    state = source.model.state_dict()

    def seen() -> tuple[list[float], list[float], list[list[int]]]:
        kurtosis = weights.weight_kurtosis(layers, state).tolist()
        noise = weights.weight_sqnr_db(layers, state, (INT8,)).ravel().tolist()
        return (
            kurtosis,
            noise,
            [p.counts.tolist() for p in weight_profile.weight_profiles(layers, state)],
        )

    whole = seen()
    for module in (weights, weight_profile):
        monkeypatch.setattr(module, "PART", 64)
    parted = seen()

    assert parted[0] == pytest.approx(whole[0], rel=1e-12)
    assert parted[1] == pytest.approx(whole[1], rel=1e-12)
    assert parted[2] == whole[2]
    values = torch.randn(500)
    assert squares(values) == pytest.approx(float(values.double().square().sum()), rel=1e-12)
