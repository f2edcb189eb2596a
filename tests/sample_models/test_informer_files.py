"""What damaged or missing files lead to, and the round trip through the checkpoint."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from core.errors import DataError, ModelError
from sample_models.arrays import DATA_NAME
from sample_models.informer.checkpoint import (
    WEIGHTS_NAME,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sample_models.informer.dataset import load_segments
from sample_models.informer.features import FEATURES
from sample_models.informer.model import InformerClassifier
from sample_models.informer.sample import load
from sample_models.informer.train import main
from sample_models.informer.windows import Scaler
from tests.sample_models.contract import replace_entry

SHIPPED = Path(sys.modules[load.__module__].__file__ or "").parent


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Copy the shipped files to a folder where they may be damaged."""
    for name in (WEIGHTS_NAME, DATA_NAME):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


def test_checkpoint_keeps_model_and_scaler(tmp_path: Path) -> None:
    """Weights and scaler come back to the last bit, with features and configuration beside them."""
    path = tmp_path / WEIGHTS_NAME
    scaler = Scaler.fit(np.random.default_rng(0).standard_normal((500, len(FEATURES))))
    model = InformerClassifier()
    save_checkpoint(path, Checkpoint(model, scaler))
    loaded = load_checkpoint(path)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    for field in ("mean", "scale", "clip_low", "clip_high"):
        np.testing.assert_array_equal(getattr(loaded.scaler, field), getattr(scaler, field))
    with safe_open(path, framework="pt") as file:
        assert {"config", "features"} <= set(file.metadata())


NAN, INFINITY = float("nan"), float("inf")
UNUSABLE: list[tuple[str, Tensor | str | None, str]] = [
    ("model.head.bias", torch.full((3,), NAN), "model.head.bias .* NaN"),
    ("scaler.mean", torch.full((12,), INFINITY), "scaler.mean .* infinity"),
    ("scaler.scale", torch.zeros(12), "scaler .* not usable"),
    ("model.head.weight", torch.zeros(4, 192), r"model.head.weight .* \[4, 192\]"),
    ("model.head.bias", torch.zeros(3, dtype=torch.float16), "model.head.bias .*float16"),
    ("model.embedding.weight", None, "lacks the tensor model.embedding.weight"),
    ("format_version", None, "format version None"),
    ("format_version", "2", "format version 2"),
    ("config", "{", "cannot be read"),
    ("config", '{"d_ff": 1000000}', "another shape"),
    ("features", '["colour"]', "other features"),
]


@pytest.mark.parametrize(("name", "value", "words"), UNUSABLE)
def test_unusable_weights_are_named(
    copied: Path, name: str, value: Tensor | str | None, words: str
) -> None:
    """Tensors and metadata that cannot be used are a ModelError with a next step."""
    replace_entry(copied / WEIGHTS_NAME, name, value)
    with pytest.raises(ModelError, match=words) as caught:
        load(root=copied)
    assert "train" in caught.value.next_step


@pytest.mark.parametrize("kept", [0, 5, 1000, 10_000_000])
def test_truncated_weights_are_named(copied: Path, kept: int) -> None:
    """A weights file that was cut off anywhere is a ModelError."""
    path = copied / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="truncated or damaged"):
        load(root=copied)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """An empty folder and a folder without data are errors of the right kind."""
    with pytest.raises(ModelError, match="does not exist"):
        load(root=tmp_path)
    shutil.copy(SHIPPED / WEIGHTS_NAME, tmp_path / WEIGHTS_NAME)
    with pytest.raises(DataError, match="does not exist"):
        load(root=tmp_path)


def test_damaged_data_is_named(copied: Path) -> None:
    """Truncated, overwritten or flipped bytes of the data file are a DataError or do no harm."""
    path = copied / DATA_NAME
    good = path.read_bytes()
    for content in (b"", b"not a zip", good[: len(good) // 2], good[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load_segments(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good), 60).tolist() + list(range(0, 90, 3)):
        flipped = bytearray(good)
        flipped[position] ^= 0xFF
        path.write_bytes(bytes(flipped))
        with suppress(DataError):
            load_segments(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("selection_ends", np.array([10**9], dtype=np.int64)),
        ("selection_ohlcv", np.array(["pickled"], dtype=object)),
        ("selection_labels", np.full(1500, 7, dtype=np.int64)),
        ("selection_time", np.zeros((2, 2), dtype=np.int64)),
    ],
)
def test_inconsistent_data_is_named(copied: Path, key: str, value: NDArray[np.generic]) -> None:
    """Arrays that would index outside the series, or hold objects, are a DataError."""
    path = copied / DATA_NAME
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, key: value})
    with pytest.raises(DataError):
        load_segments(path)


def test_evaluate_without_files_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without files gives exit code 2 and one clear line."""
    threads = torch.get_num_threads()
    assert main(["--evaluate", "--out", str(tmp_path), "--threads", str(threads)]) == 2
    assert "does not exist" in capsys.readouterr().err
