"""The shipped sample: the contract of `load`, its accuracy, and a person's own file."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import DataError
from sample_models.arrays import DATA_NAME
from sample_models.informer.checkpoint import WEIGHTS_NAME
from sample_models.informer.dataset import SPLITS, load_segments
from sample_models.informer.features import FEATURES
from sample_models.informer.market import generate_market
from sample_models.informer.model import UNITS
from sample_models.informer.ohlcv_csv import minimum_rows
from sample_models.informer.sample import load
from sample_models.informer.train import learning_rate, main
from sample_models.informer.windows import forward_labels
from tests.sample_models.contract import KEYS

SHIPPED = Path(sys.modules[load.__module__].__file__ or "").parent


def test_contract_of_load() -> None:
    """The shipped sample has every key, with the stated types and shapes."""
    sample = load()
    assert set(sample) == KEYS
    assert not sample["model"].training
    assert sample["calibration"].shape == (256, 64, len(FEATURES))
    for split in ("evaluation", "holdout"):
        (inputs,), targets = sample[split]
        assert inputs.shape == (1500, 64, len(FEATURES))
        assert inputs.dtype == torch.float32
        assert bool(torch.isfinite(inputs).all())
        assert targets.shape == (1500,)
        assert targets.dtype == torch.int64
    assert sample["units"] == UNITS
    paths = {path for path, _ in sample["model"].named_modules()}
    assert set(sample["roles"]) <= paths
    assert len(sample["class_names"]) == 3
    assert "synthetic" in sample["description"]


def test_shipped_labels_are_the_pipelines() -> None:
    """Labels in the data file are those computed from its bars."""
    for name, segment in load_segments(SHIPPED / DATA_NAME).items():
        labels = forward_labels(segment.bars["close"])[segment.ends - 1]
        np.testing.assert_array_equal(labels, segment.labels, err_msg=name)


def test_shipped_files_are_small() -> None:
    """The data file stays under 3 MB and the weights near the document's 19.4 MB."""
    assert (SHIPPED / DATA_NAME).stat().st_size < 3e6
    assert (SHIPPED / WEIGHTS_NAME).stat().st_size == pytest.approx(19.4e6, rel=0.02)


def test_own_csv_goes_through_the_pipeline(tmp_path: Path) -> None:
    """A CSV just long enough gives three splits in time order, fewer windows and its own path."""
    path = tmp_path / "mine.csv"
    generate_market(minimum_rows(), seed=11).bars.to_csv(path)
    sample = load(path)
    assert set(sample) == KEYS
    assert sample["data_path"] == path
    assert "mine.csv" in sample["description"]
    assert "shipped" not in sample["description"]
    counts = [len(sample["calibration"]), *(len(sample[s][1]) for s in ("evaluation", "holdout"))]
    assert counts[0] == 64
    assert all(64 <= count < 1500 for count in counts)
    assert bool(torch.isfinite(sample["holdout"][0][0]).all())


def test_short_csv_states_the_minimum(tmp_path: Path) -> None:
    """One row too few is an error that names the number of rows needed."""
    path = tmp_path / "short.csv"
    generate_market(minimum_rows() - 1, seed=11).bars.to_csv(path)
    with pytest.raises(DataError, match=f"at least {minimum_rows():,}"):
        load(path)


def test_package_import_is_light() -> None:
    """Importing the package brings neither torch nor pandas."""
    code = "import sys, sample_models.informer; print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=SHIPPED.parent.parent,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_shipped_accuracy_beats_the_majority(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the line of the README: accuracy 15 points above the majority or more."""
    threads = torch.get_num_threads()
    assert main(["--evaluate", "--threads", str(threads)]) == 0
    printed = capsys.readouterr().out.strip()
    found = re.fullmatch(r"holdout accuracy (.+) % \(majority baseline (.+) %, n=1500\)", printed)
    assert found is not None
    assert float(found[1]) >= float(found[2]) + 15.0
    assert printed in (SHIPPED / "README.md").read_text(encoding="utf-8")


def test_learning_rate_warms_up_and_decays() -> None:
    """The rate rises to its peak within the warm-up and ends near 1 %."""
    rates = [learning_rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) <= 8
    assert rates[-1] < 0.02


def test_splits_are_the_documented_ones() -> None:
    """Evaluation uses the selection split and leaves the holdout alone."""
    segments = load_segments(SHIPPED / DATA_NAME)
    assert tuple(segments) == SPLITS == ("calibration", "selection", "holdout")
    sample = load()
    for key, split in (("evaluation", "selection"), ("holdout", "holdout")):
        np.testing.assert_array_equal(sample[key][1].numpy(), segments[split].labels)
