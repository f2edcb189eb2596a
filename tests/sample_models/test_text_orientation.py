"""Text orientation: the model's file in its package, the photographs, and how they were drawn."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from core.analysis import store
from core.cli.main import main
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.budget import Budget
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import DataError, ModelError, QuantscapeError
from core.source import samples
from sample_models.arrays import DATA_NAME, write_arrays
from sample_models.text_orientation import draw
from sample_models.text_orientation.fonts import FACES
from sample_models.text_orientation.images import (
    CLASS_NAMES,
    HEIGHT,
    INPUT_HEIGHT,
    INPUT_WIDTH,
    MAX_WIDTH,
    SHIPPED,
    SPLIT_SIZES,
    Photographs,
    enlarge,
    load_splits,
)
from sample_models.text_orientation.lines import draw_lines
from sample_models.text_orientation.model import MODEL
from sample_models.text_orientation.packaged import PackagedFile
from tests.conftest import REPOSITORY


def installed(file: PackagedFile) -> Path:
    """Where a packaged file lies; skips, or fails under CI, where its package is not installed."""
    try:
        metadata.distribution(file.package)
    except metadata.PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"needs {file.package}: pip install --no-deps -r {file.requirements}")
    return file.find()


@pytest.fixture(scope="module")
def splits() -> dict[str, Photographs]:
    """The shipped photographs."""
    return load_splits()


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages in front of the others, with another release of the model's package."""
    info = tmp_path / "rapidocr-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rapidocr\nVersion: 9.9\n")
    (tmp_path / "rapidocr").mkdir()
    (tmp_path / "rapidocr" / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_model_is_found_without_importing_its_package() -> None:
    """The file that the package installs has the pinned hash, and no module of it was loaded."""
    path = installed(MODEL)

    assert path.name == "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
    assert path.stat().st_size == 585_532
    assert not [name for name in sys.modules if name.split(".")[0] == "rapidocr"]


def test_another_file_is_refused(packaged: Path) -> None:
    """A file of the right name and another content is named with both hashes and what to do."""
    path = packaged / MODEL.path
    path.parent.mkdir()
    path.write_bytes(b"another model")

    with pytest.raises(ModelError, match=MODEL.sha256) as caught:
        MODEL.find()

    assert str(path) in caught.value.cause
    assert "rapidocr 9.9" in caught.value.cause
    assert caught.value.next_step == (
        "Run `pip install --no-deps -r requirements-text-orientation.txt`."
    )


def test_a_package_without_the_file_is_refused(packaged: Path) -> None:
    """A release that carries no such file is named as it is, with what to install."""
    with pytest.raises(ModelError, match=r"rapidocr 9\.9 is installed without rapidocr/models/"):
        MODEL.find()


@pytest.mark.parametrize(("file", "error"), [(MODEL, ModelError), (FACES["holdout"][0], DataError)])
def test_an_absent_package_is_named(
    file: PackagedFile, error: type[QuantscapeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the error names it and the line that installs it, from a pinned list."""
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(error, match=f"{file.package}, which holds .* is not installed") as caught:
        file.find()

    assert f"pip install --no-deps -r {file.requirements}" in caught.value.next_step
    assert f"\n{file.package}==" in (REPOSITORY / file.requirements).read_text("utf-8")


def test_shapes_and_types(splits: dict[str, Photographs]) -> None:
    """Every split has the stated size, both classes in like parts, and blank only on its right."""
    assert {name: len(part.pixels) for name, part in splits.items()} == SPLIT_SIZES
    assert min(SPLIT_SIZES["selection"], SPLIT_SIZES["holdout"]) >= 2000
    for part in splits.values():
        share = np.bincount(part.labels, minlength=len(CLASS_NAMES)) / len(part.labels)
        assert share == pytest.approx(0.5, abs=0.05)
        blank = np.arange(MAX_WIDTH) >= part.widths[:, None]
        assert not part.pixels.transpose(0, 2, 1)[blank].any()
        assert part.widths.min() >= HEIGHT
    assert SHIPPED.stat().st_size < 12e6


def test_no_line_and_no_font_is_in_two_splits(splits: dict[str, Photographs]) -> None:
    """Lines differ within and between splits, whatever their case; families of fonts do too."""
    texts = [str(text).lower() for part in splits.values() for text in part.texts]
    packages = [{face.package for face in FACES[name]} for name in splits]

    assert len(set(texts)) == len(texts) == sum(SPLIT_SIZES.values())
    assert len(set.union(*packages)) == sum(map(len, packages)) == 6


def test_every_line_holds_a_word(splits: dict[str, Photographs]) -> None:
    """No line is of digits and signs alone, many of which read the same when they are turned."""
    assert all(any(c.isalpha() for c in text) for part in splits.values() for text in part.texts)


def test_lines_are_those_of_the_seed(splits: dict[str, Photographs]) -> None:
    """The shipped texts are the ones that the drawing starts from."""
    drawn = draw.split_texts()

    assert {name: tuple(map(str, part.texts)) for name, part in splits.items()} == drawn


@pytest.mark.parametrize("split", list(SPLIT_SIZES))
def test_photographs_are_drawn_again(split: str, splits: dict[str, Photographs]) -> None:
    """The first lines of each split come out bit for bit as they are shipped."""
    for face in FACES[split]:
        installed(face)
    shipped = splits[split]

    drawn = draw.draw_split(split, tuple(map(str, shipped.texts[:12])))

    np.testing.assert_array_equal(drawn.pixels, shipped.pixels[:12])
    np.testing.assert_array_equal(drawn.widths, shipped.widths[:12])
    np.testing.assert_array_equal(drawn.labels, shipped.labels[:12])


def test_another_seed_draws_other_photographs() -> None:
    """The seed decides the lines, and what becomes of one and the same line."""
    for face in FACES["calibration"]:
        installed(face)
    first, second = (draw.draw_split("calibration", ("Bread", "9 Mill Lane"), s) for s in (1, 2))

    assert draw_lines(5, 1) != draw_lines(5, 2)
    assert not np.array_equal(first.pixels, second.pixels)


def test_a_turned_line_is_the_upright_one_turned() -> None:
    """Without what a camera does, a turned photograph is the other one by half a turn."""
    font = installed(FACES["selection"][0])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ANGLE_DEGREES", "CORNER", "MOST_BLUR"):
            patch.setattr(draw, name, 0.0)
        patch.setattr(draw, "MOST_MARGIN", draw.LEAST_MARGIN)
        upright, turned = (
            np.asarray(draw.seen("Sunday", font, np.random.default_rng(0), turned=t), np.int16)
            for t in (False, True)
        )

    assert np.abs(upright - turned[::-1, ::-1]).max() <= 2
    assert np.abs(upright - turned).max() > 100


# What opencv-python-headless 4.12.0.88 and 5.0.0.93 give: cv2.resize(IMAGE, (7, 6)).
IMAGE = np.array([[0, 255, 17, 90], [200, 3, 128, 64], [31, 77, 254, 1]], np.uint8)
OPENCV = np.array(
    [
        [0, 91, 237, 136, 22, 64, 90],
        [50, 101, 182, 118, 47, 69, 84],
        [150, 120, 72, 83, 98, 81, 71],
        [158, 109, 31, 90, 151, 88, 48],
        [73, 68, 60, 140, 208, 90, 17],
        [31, 47, 74, 165, 236, 91, 1],
    ],
    np.uint8,
)


def test_enlarging_is_opencvs() -> None:
    """Interpolated bytes equal OpenCV's own, borders and rounding included."""
    np.testing.assert_array_equal(enlarge(IMAGE, 6, 7), OPENCV)


def test_inputs_are_what_rapidocr_makes() -> None:
    """A narrow line is enlarged and filled up with 0, a wide one squeezed to 192."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, HEIGHT, MAX_WIDTH), np.uint8)
    pixels[0, :, 50:] = 0
    inputs = Photographs(
        pixels, np.array([50, 120]), np.array([0, 1]), np.array(["a", "b"])
    ).inputs()

    assert inputs.shape == (2, 3, INPUT_HEIGHT, INPUT_WIDTH)
    assert inputs.dtype == np.float32
    for row, (width, wide) in enumerate(((50, 100), (120, 192))):
        value = enlarge(pixels[row, :, :width], INPUT_HEIGHT, wide).astype(np.float32)
        expected = (value / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
        for channel in inputs[row]:
            np.testing.assert_array_equal(channel[:, :wide], expected)
            assert not channel[:, wide:].any()


@pytest.mark.slow
def test_accuracy_is_the_readmes(splits: dict[str, Photographs]) -> None:
    """The model, run as it is, has the accuracy that the README states: in the low nineties."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(installed(MODEL)), options)
    readme = (SHIPPED.parent / "README.md").read_text("utf-8")
    part = splits["holdout"]
    inputs = part.inputs()
    right = [
        session.run(None, {"x": np.ascontiguousarray(inputs[i : i + 100])})[0].argmax(axis=1)
        == part.labels[i : i + 100]
        for i in range(0, len(inputs), 100)
    ]
    accuracy = 100 * np.mean(np.concatenate(right))

    assert 90.0 <= accuracy <= 94.0
    assert f"| holdout | {len(inputs):,} | {accuracy:.1f} % |" in readme


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("selection_pixels", np.zeros((3, 2, 2), np.uint8), "shapes or types"),
        ("selection_widths", np.full(3, MAX_WIDTH + 1), "widths"),
        ("holdout_labels", np.full(3, 2), "labels"),
        ("holdout_texts", np.zeros(3), "shapes or types"),
        ("calibration_labels", None, "damaged"),
    ],
)
def test_damaged_arrays_are_named(
    name: str, value: np.ndarray | None, match: str, tmp_path: Path
) -> None:
    """A data file whose arrays cannot be such photographs is refused with what to do."""
    arrays = {
        f"{split}_{part}": array
        for split in SPLIT_SIZES
        for part, array in (
            ("pixels", np.zeros((3, HEIGHT, MAX_WIDTH), np.uint8)),
            ("widths", np.full(3, HEIGHT)),
            ("labels", np.zeros(3, np.int64)),
            ("texts", np.array(["a", "b", "c"])),
        )
    }
    write_arrays(tmp_path / DATA_NAME, arrays)
    assert set(load_splits(tmp_path / DATA_NAME)) == set(SPLIT_SIZES)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    write_arrays(tmp_path / DATA_NAME, arrays)

    with pytest.raises(DataError, match=match) as caught:
        load_splits(tmp_path / DATA_NAME)

    assert "sample_models.text_orientation.draw" in caught.value.next_step


def test_a_cut_data_file_is_named(tmp_path: Path) -> None:
    """A data file that was cut is an error with what to do, not a traceback."""
    path = tmp_path / DATA_NAME
    shutil.copy(SHIPPED, path)
    os.truncate(path, 1000)

    with pytest.raises(DataError, match="damaged"):
        load_splits(path)


ANALYSIS = samples.get("text_orientation").analysis


def test_the_shipped_analysis_is_of_the_sample() -> None:
    """Weights, data and splits of the analysis are those that the sample loads."""
    installed(MODEL)
    source, analysis = samples.load("text_orientation"), store.load(ANALYSIS)

    assert analysis.identity.weights_sha256 == source.fingerprint()
    assert analysis.source == "sample:text_orientation"
    assert (analysis.splits.calibration, analysis.splits.selection) == (256, 3000)
    assert analysis.class_names == CLASS_NAMES
    assert sum(layer.kind == "Conv" for layer in analysis.layers) == 53


def test_eight_bits_cost_answers_and_a_map_of_their_bytes_does_not() -> None:
    """INT8 throughout loses accuracy beyond its range; the map of the README, as small, does not,
    and what the README says of both holds.
    """
    study = Study(store.load(ANALYSIS))
    uniform = answer.decide(study, Policy(strategy="uniform", uniform="INT8"))
    size = Budget("size", 0.35, "fraction")
    chosen = answer.decide(
        study, Policy(strategy="budget", budgets=(size,), allowed=("FP32", "FP16", "INT8"))
    )
    losses = [outcome(study, m).totals["accuracy_drop_pts"] for m in (uniform, chosen)]
    sizes = [outcome(study, m).totals["size_bytes"].value for m in (uniform, chosen)]
    readme = (Path(draw.__file__).parent / "README.md").read_text("utf-8")

    assert (losses[0].low or 0) > 0.1
    assert (losses[1].value or 0) < 0.2
    assert sizes[1] <= 1.01 * (sizes[0] or 0)  # type: ignore[operator]
    said = f"{losses[0].value:.2f} points ({losses[0].low:.2f} to {losses[0].high:.2f})"
    assert said in " ".join(readme.split())


def test_pages_do_without_the_package_and_runs_name_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the shipped analysis tells needs no model; a run ends with the line that installs it."""
    real = metadata.distribution

    def absent(name: str) -> metadata.Distribution:
        if name == "rapidocr":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    given = tmp_path / "map.json"
    words = ["plan", str(ANALYSIS), "--strategy", "uniform", "--uniform", "INT8"]
    assert main([*words, "--out", str(given)]) == 0
    capsys.readouterr()

    for command in (
        ["verify", str(ANALYSIS), str(given)],
        ["build", str(ANALYSIS), str(given), "--out", str(tmp_path / "m.onnx")],
        ["analyze", "sample:text_orientation", "--dry-run"],
    ):
        assert main(command) == 2
        assert (
            "pip install --no-deps -r requirements-text-orientation.txt" in capsys.readouterr().err
        )
