"""The shipped files, the loading contract, and what damaged files lead to."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import DataError, ModelError
from sample_models.informer.checkpoint import (
    WEIGHTS_NAME,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sample_models.informer.dataset import DATA_NAME, SPLITS, load_segments
from sample_models.informer.features import FEATURES
from sample_models.informer.market import generate_market
from sample_models.informer.model import UNITS, InformerClassifier
from sample_models.informer.sample import load, minimum_rows
from sample_models.informer.train import evaluation_line, learning_rate, main, predict
from sample_models.informer.windows import Scaler, forward_labels

SHIPPED = Path(sys.modules[load.__module__].__file__ or "").parent
KEYS = {
    "name",
    "title",
    "description",
    "model",
    "calibration",
    "evaluation",
    "holdout",
    "task",
    "class_names",
    "units",
    "roles",
    "input_names",
    "weights_path",
    "data_path",
    "data_description",
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Copy the shipped files to a folder where they may be damaged."""
    for name in (WEIGHTS_NAME, DATA_NAME):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


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


def test_shipped_accuracy_beats_the_majority() -> None:
    """Holdout accuracy is at least 15 points above always naming the commonest class."""
    sample = load()
    (inputs,), targets = sample["holdout"]
    accuracy = float((predict(sample["model"], inputs).argmax(dim=1) == targets).float().mean())
    majority = float(torch.bincount(targets).max() / len(targets))
    assert accuracy >= majority + 0.15


def test_shipped_labels_are_the_pipelines() -> None:
    """Labels in the data file are those computed from its bars."""
    for name, segment in load_segments(SHIPPED / DATA_NAME).items():
        labels = forward_labels(segment.bars["close"])[segment.ends - 1]
        np.testing.assert_array_equal(labels, segment.labels, err_msg=name)


def test_shipped_files_are_small() -> None:
    """The data file stays under 3 MB and the weights near the document's 19.4 MB."""
    assert (SHIPPED / DATA_NAME).stat().st_size < 3e6
    assert (SHIPPED / WEIGHTS_NAME).stat().st_size == pytest.approx(19.4e6, rel=0.02)


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


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    """Change tensors or metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        names = list(file.keys())
        tensors = {name: file.get_tensor(name).clone() for name in names}
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def _nan(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["model.head.weight"][0, 0] = float("nan")


def _infinite_scaler(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["scaler.mean"][0] = float("inf")


def _zero_scale(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["scaler.scale"][0] = 0.0


def _shape(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["model.head.weight"] = torch.zeros(4, 192)


def _type(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["model.head.bias"] = torch.zeros(3, dtype=torch.float16)


def _missing(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    del tensors["model.embedding.weight"]


def _no_metadata(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata.clear()


def _bad_json(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["config"] = "{"


def _other_config(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["config"] = metadata["config"].replace("1040", "1000000")


def _other_features(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["features"] = '["colour"]'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, "model.head.weight .* NaN"),
        (_infinite_scaler, "scaler.mean .* infinity"),
        (_zero_scale, "scaler .* not usable"),
        (_shape, r"model.head.weight .* \[4, 192\]"),
        (_type, "model.head.bias .* float16"),
        (_missing, "lacks the tensor model.embedding.weight"),
        (_no_metadata, "format version None"),
        (_bad_json, "cannot be read"),
        (_other_config, "another shape"),
        (_other_features, "other features"),
    ],
)
def test_unusable_weights_are_named(
    copied: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None], words: str
) -> None:
    """Tensors and metadata that cannot be used are a ModelError with a next step."""
    rewrite(copied / WEIGHTS_NAME, change)
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
        try:
            load_segments(path)
        except DataError as error:
            assert error.next_step


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("selection_ends", np.array([10**9], dtype=np.int64)),
        ("selection_ohlcv", np.array(["pickled"], dtype=object)),
        ("selection_labels", np.full(1500, 7, dtype=np.int64)),
        ("selection_time", np.zeros((2, 2), dtype=np.int64)),
    ],
)
def test_inconsistent_data_is_named(copied: Path, key: str, value: np.ndarray) -> None:
    """Arrays that would index outside the series, or hold objects, are a DataError."""
    path = copied / DATA_NAME
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, key: value})
    with pytest.raises(DataError):
        load_segments(path)


def test_own_csv_goes_through_the_pipeline(tmp_path: Path) -> None:
    """A CSV just long enough gives three splits in time order, fewer windows and its own path."""
    path = tmp_path / "mine.csv"
    generate_market(minimum_rows(), seed=11).bars.to_csv(path)
    sample = load(path)
    assert set(sample) == KEYS
    assert sample["data_path"] == path
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


def test_evaluate_prints_accuracy_beside_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line prints the line that the README quotes."""
    threads = torch.get_num_threads()
    assert main(["--evaluate", "--threads", str(threads)]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("holdout accuracy ")
    assert printed.endswith("n=1500)")
    assert printed in (SHIPPED / "README.md").read_text(encoding="utf-8")


def test_evaluate_without_files_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without files gives exit code 2 and one clear line."""
    threads = torch.get_num_threads()
    assert main(["--evaluate", "--out", str(tmp_path), "--threads", str(threads)]) == 2
    assert "does not exist" in capsys.readouterr().err


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
    assert "n=1500" in evaluation_line(load_checkpoint(SHIPPED / WEIGHTS_NAME), segments["holdout"])
