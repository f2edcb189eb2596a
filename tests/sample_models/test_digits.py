"""The two digits samples: layers, determinism, splits, files, accuracy and shipped analysis."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from core.analysis import store
from core.errors import DataError, ModelError
from core.source import samples
from core.source.contract import model_source
from core.source.inventory import take_inventory
from sample_models.arrays import DATA_NAME
from sample_models.checkpoint import WEIGHTS_NAME
from sample_models.digits import images, training
from sample_models.digits.images import SHIPPED, SPLITS, build_splits, load_splits, split_rows
from tests.conftest import REPOSITORY
from tests.sample_models.contract import KEYS, replace_entry

NAMES = ("digits_vit", "digits_resnet")
ROLES = {
    "digits_vit": {
        "embedding": 1,
        "positional_encoding": 1,
        "attention": 5,
        "feed_forward": 5,
        "layer_norm": 11,
        "activation": 5,
        "dropout": 10,
        "output_projection": 1,
    },
    "digits_resnet": {
        "convolution": 15,
        "batch_norm": 15,
        "activation": 13,
        "pooling": 1,
        "output_projection": 1,
    },
}
needs_scikit_learn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason="rebuilding needs scikit-learn: pip install -r requirements-samples.txt",
)
both = pytest.mark.parametrize("name", NAMES)


def folder_of(name: str) -> Path:
    """Where the shipped weights of a sample lie."""
    return REPOSITORY / "sample_models" / name


def load(name: str, root: Path | None = None) -> dict[str, Any]:
    """Call the sample's own `load`."""
    sample: dict[str, Any] = importlib.import_module(f"sample_models.{name}.sample").load(root=root)
    return sample


@pytest.fixture
def copied(tmp_path: Path, name: str) -> Path:
    """Copy the shipped files to a folder where they may be damaged."""
    shutil.copy(folder_of(name) / WEIGHTS_NAME, tmp_path / WEIGHTS_NAME)
    shutil.copy(SHIPPED, tmp_path / DATA_NAME)
    return tmp_path


@both
def test_contract_of_load(name: str) -> None:
    """The shipped sample has every key, with the stated types and shapes."""
    sample = load(name)
    assert set(sample) == KEYS
    assert sample["name"] == name
    assert not sample["model"].training
    assert sample["calibration"].shape == (128, 1, 8, 8)
    for split in ("evaluation", "holdout"):
        (inputs,), targets = sample[split]
        assert inputs.shape == (450, 1, 8, 8)
        assert inputs.dtype == torch.float32
        assert (float(inputs.min()), float(inputs.max())) == (-1.0, 1.0)
        assert targets.shape == (450,)
        assert targets.dtype == torch.int64
    assert len(sample["class_names"]) == 10


@both
def test_every_layer_has_its_role(name: str) -> None:
    """The inventory finds the README's layers by role; every leaf module is run."""
    layers = take_inventory(samples.load(name))
    assert dict(Counter(layers.roles)) == ROLES[name]
    assert layers.uncalled == ()
    readme = (folder_of(name) / "README.md").read_text("utf-8")
    for role, count in ROLES[name].items():
        words = role.replace("_", " ").replace("feed forward", "feed-forward")
        assert f"| {words} | {count} |" in readme
    assert f"| **all** | **{len(layers)}** |" in readme
    assert f"{layers.params.sum() + sum(t.size for t in layers.glue_tensors):,}" in readme


@both
def test_two_runs_are_bit_identical(name: str) -> None:
    """Evaluation has no randomness, and loading the files twice gives the same model."""
    first, second = load(name), load(name)
    with torch.no_grad():
        logits = first["model"](first["calibration"])
        assert torch.equal(logits, first["model"](first["calibration"]))
        assert torch.equal(logits, second["model"](second["calibration"]))


@both
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_export_equals_eager(name: str) -> None:
    """The exported graph with a dynamic batch gives the eager outputs, also for one image."""
    sample = load(name)
    model, inputs = sample["model"], sample["calibration"]
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (inputs[:4],), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for count in (1, 2, 24):
            expected = model(inputs[:count])
            torch.testing.assert_close(exported(inputs[:count]), expected, atol=1e-5, rtol=0.0)


@both
def test_other_shapes_are_refused(name: str) -> None:
    """Images of another size or with colours are an error, not a silent broadcast."""
    model = load(name)["model"]
    for shape in ((2, 1, 28, 28), (2, 3, 8, 8), (8, 8)):
        with pytest.raises(ValueError, match="inputs are"):
            model(torch.zeros(shape))


def test_no_image_is_in_two_splits() -> None:
    """The 1,028 shipped images are all different, and every split has every class evenly."""
    splits = load_splits(SHIPPED, "")
    assert tuple(splits) == SPLITS
    seen = [image.tobytes() for split in splits.values() for image in split.pixels]
    assert len(seen) == len(set(seen)) == 1028
    for split in splits.values():
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 3


def test_split_rows_are_a_stratified_partition() -> None:
    """Each row is in one part, each class in its share, and the same labels split alike."""
    labels = np.random.default_rng(0).integers(0, 10, 1797)
    parts = split_rows(labels)
    assert [len(part) for part in parts] == [769, 128, 450, 450]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    shares = np.bincount(labels) / len(labels)
    for part, again in zip(parts, split_rows(labels), strict=True):
        np.testing.assert_array_equal(part, again)
        assert np.abs(np.bincount(labels[part]) - shares * len(part)).max() <= 1.5


@needs_scikit_learn
def test_shipped_splits_are_the_pipelines() -> None:
    """The data file holds what the seed gives, and no image of the training part."""
    trained_on, splits = build_splits()
    shipped = load_splits(SHIPPED, "")
    for split in SPLITS:
        np.testing.assert_array_equal(splits[split].pixels, shipped[split].pixels)
        np.testing.assert_array_equal(splits[split].labels, shipped[split].labels)
    known = {image.tobytes() for image in trained_on.pixels}
    assert not known & {image.tobytes() for split in shipped.values() for image in split.pixels}


@both
def test_shipped_accuracy_beats_the_majority(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the line of the README, 60 points above the majority or more."""
    main = importlib.import_module(f"sample_models.{name}.train").main
    assert main(["--evaluate"]) == 0
    printed = capsys.readouterr().out.strip()
    found = re.fullmatch(r"holdout accuracy (.+) % \(majority baseline (.+) %, n=450\)", printed)
    assert found is not None
    assert float(found[1]) >= float(found[2]) + 60.0
    assert printed in (folder_of(name) / "README.md").read_text("utf-8")


@both
def test_shipped_files_are_small(name: str) -> None:
    """Weights stay under 1.5 MB, data under 50 kB."""
    assert (folder_of(name) / WEIGHTS_NAME).stat().st_size < 1.5e6
    assert SHIPPED.stat().st_size < 50_000


@both
def test_shipped_analysis_is_of_these_weights(name: str) -> None:
    """The precomputed analysis loads and was made of the shipped weights and data."""
    analysis = store.load(samples.get(name).analysis)
    source = samples.load(name)
    assert analysis.identity.name == name
    assert analysis.source == source.reference == f"sample:{name}"
    assert analysis.identity.weights_sha256 == source.fingerprint()
    assert analysis.identity.data_sha256 == source.data_fingerprint()
    assert dict(Counter(analysis.layers.roles)) == ROLES[name]
    assert analysis.evidence is not None
    assert analysis.evidence.baseline.shape == (450, 10)
    assert analysis.evidence.allowed.all()


NAN = float("nan")
UNUSABLE: list[tuple[str, Tensor | str | None, str]] = [
    ("model.head.bias", torch.full((10,), NAN), "model.head.bias .* NaN"),
    ("model.head.weight", torch.zeros(9, 64), r"model.head.weight .* \[9, 64\]"),
    ("model.head.bias", torch.zeros(10, dtype=torch.float16), "model.head.bias .*float16"),
    ("model.head.weight", None, "lacks the tensor model.head.weight"),
    ("format_version", "2", "format version 2"),
    ("config", "{", "cannot be read"),
    ("config", '{"blocks": 1000000}', "another shape"),
    ("model", '"Other"', "holds a Other"),
]


@both
@pytest.mark.parametrize(("entry", "value", "words"), UNUSABLE)
def test_unusable_weights_are_named(
    name: str, copied: Path, entry: str, value: Tensor | str | None, words: str
) -> None:
    """Tensors and header entries that cannot be used are a ModelError with a next step."""
    replace_entry(copied / WEIGHTS_NAME, entry, value)
    with pytest.raises(ModelError, match=words) as caught:
        load(name, copied)
    assert f"sample_models.{name}.train" in caught.value.next_step


@pytest.mark.parametrize("name", ["digits_resnet"])
def test_negative_variance_is_named(name: str, copied: Path) -> None:
    """Batch norm would make NaN of a negative running variance; it is refused."""
    entry = "model.stem.norm.running_var"
    replace_entry(copied / WEIGHTS_NAME, entry, torch.full((16,), -1.0))
    with pytest.raises(ModelError, match="negative variance"):
        load(name, copied)


@both
def test_weights_of_the_other_model_are_named(name: str, copied: Path) -> None:
    """Each sample refuses the other one's file and says whose it is."""
    (other,) = set(NAMES) - {name}
    shutil.copy(folder_of(other) / WEIGHTS_NAME, copied / WEIGHTS_NAME)
    with pytest.raises(ModelError, match=r"holds a Digits.*, not a Digits"):
        load(name, copied)


@both
@pytest.mark.parametrize("kept", [0, 5, 1000, 400_000])
def test_truncated_weights_are_named(name: str, copied: Path, kept: int) -> None:
    """A weights file that was cut off anywhere is a ModelError."""
    path = copied / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="truncated or damaged"):
        load(name, copied)


@both
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    """An empty folder and a folder without data are errors of the right kind."""
    with pytest.raises(ModelError, match="does not exist"):
        load(name, tmp_path)
    shutil.copy(folder_of(name) / WEIGHTS_NAME, tmp_path / WEIGHTS_NAME)
    with pytest.raises(DataError, match="does not exist"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["digits_vit"])
def test_damaged_data_is_named(name: str, copied: Path) -> None:
    """Truncated, overwritten or flipped bytes of the data file are a DataError or do no harm."""
    path = copied / DATA_NAME
    good = path.read_bytes()
    for content in (b"", b"not a zip", good[: len(good) // 2], good[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load(name, copied)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(good), 60).tolist() + list(range(0, 90, 3)):
        flipped = bytearray(good)
        flipped[position] ^= 0xFF
        path.write_bytes(bytes(flipped))
        with suppress(DataError):
            load_splits(path, "")


@pytest.mark.parametrize("name", ["digits_vit"])
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("selection_images", np.full((450, 8, 8), 17, dtype=np.uint8), "pixels above 16"),
        ("selection_images", np.full((450, 8, 8), NAN), "other shapes or types"),
        ("selection_images", np.zeros((449, 8, 8), dtype=np.uint8), "other shapes or types"),
        ("selection_labels", np.full(450, 10, dtype=np.int64), "not among the classes"),
        ("selection_labels", np.array(["pickled"] * 450, dtype=object), "damaged"),
        ("holdout_labels", None, "damaged"),
    ],
)
def test_inconsistent_data_is_named(
    name: str, copied: Path, key: str, value: NDArray[np.generic] | None, words: str
) -> None:
    """Arrays of other shapes, impossible values, objects, or no array at all are a DataError."""
    path = copied / DATA_NAME
    with np.load(path) as file:
        arrays = {entry: array for entry, array in file.items() if entry != key}
    if value is not None:
        arrays[key] = value
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=words) as caught:
        load(name, copied)
    assert f"sample_models.{name}.train" in caught.value.next_step


@both
def test_csv_is_refused(name: str, tmp_path: Path) -> None:
    """A sample of images takes no CSV, and says so."""
    with pytest.raises(DataError, match="takes no CSV"):
        samples.load(name, tmp_path / "mine.csv")


@pytest.mark.slow
def test_package_imports_are_light() -> None:
    """Importing the packages brings no torch, and loading the samples no scikit-learn."""
    imports = "; ".join(f"import sample_models.{name}" for name in NAMES)
    loads = "; ".join(f"samples.load('{name}')" for name in NAMES)
    code = (
        f"import sys; {imports}; print('torch' in sys.modules); "
        f"from core.source import samples; {loads}; print('sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.split() == ["False", "False"]


@needs_scikit_learn
@both
def test_training_is_deterministic(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One epoch from one seed twice gives equal weights, and leaves torch as it was."""
    main = importlib.import_module(f"sample_models.{name}.train").main
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = []
    for folder in ("first", "second"):
        out = tmp_path / folder
        assert main(["--epochs", "1", "--out", str(out)]) == 0
        found.append(model_source(load(name, out)).fingerprint())
        assert (out / DATA_NAME).read_bytes() == SHIPPED.read_bytes()
    assert found[0] == found[1]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert "holdout accuracy" in capsys.readouterr().out


@both
def test_seeds_give_other_weights(name: str) -> None:
    """A few steps under two seeds end in different weights."""
    module = importlib.import_module(f"sample_models.{name}.train")
    few = load_splits(SHIPPED, "")["calibration"].part(np.arange(64))
    kind = type(load(name)["model"])
    quiet = Console(quiet=True)
    first, second = (
        training.train(kind, module.RECIPE, few, 1, seed, quiet).head.weight for seed in (0, 1)
    )
    assert not torch.equal(first, second)


def test_rebuilding_without_scikit_learn_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names the requirements file; nothing is written."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    main = importlib.import_module("sample_models.digits_vit.train").main
    assert main(["--epochs", "1", "--out", str(tmp_path / "new")]) == 2
    assert "requirements-samples.txt" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@both
def test_evaluate_without_files_says_so(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without files gives exit code 2 and one clear line."""
    main = importlib.import_module(f"sample_models.{name}.train").main
    assert main(["--evaluate", "--out", str(tmp_path)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_distortion_keeps_paper_white() -> None:
    """A blank image stays blank, an image stays in range, and the input is left alone."""
    blank = torch.full((8, 1, 8, 8), -1.0)
    torch.testing.assert_close(training.distort(blank), blank)
    inputs = images.load_splits(SHIPPED, "")["calibration"].inputs()
    before = inputs.clone()
    distorted = training.distort(inputs)
    assert torch.equal(inputs, before)
    assert not torch.equal(distorted, inputs)
    assert float(distorted.min()) >= -1.0 - 1e-6
    assert float(distorted.max()) <= 1.0 + 1e-6
