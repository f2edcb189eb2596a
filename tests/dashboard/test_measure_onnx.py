"""An ONNX file and its arrays in the form of Measure: what is said of them, and what is started."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from streamlit.testing.v1 import AppTest

from core.jobs import job_folder, jobs
from core.jobs.job_folder import Request, Upload
from core.records import user_folders
from core.source import onnx_file
from dashboard.app_pages.measure import upload
from dashboard.session import launched
from dashboard.session.measure_form import SOURCE
from tests.dashboard.conftest import Open, failures, said
from tests.zoo.graphs import several_inputs

Started = list[tuple[Request, Mapping[str, bytes]]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jobs folder for one test."""
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "jobs"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What the page asked to start, and the files that it gave."""
    asked: Started = []
    monkeypatch.setattr(
        jobs, "start", lambda request, csv=b"", files=jobs.NO_FILES: asked.append((request, files))
    )
    return asked


@pytest.fixture
def form(open_page: Open) -> AppTest:
    """Measure with the upload chosen."""
    app = open_page("measured", page="measure")
    app.selectbox(key=SOURCE).set_value(upload.CHOICE).run()
    return app


def give(app: AppTest, part: str, content: bytes, name: str) -> None:
    """Choose a file in the uploader of a part."""
    app.file_uploader(key=f"measure_onnx_file_{part}").set_value((name, content, "")).run()


def packed(**arrays: Any) -> bytes:
    """A .npz of `arrays`."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def start_of(app: AppTest) -> Any:
    """The button that starts."""
    return app.button(key="_measure_start")


MODEL, ARRAYS = several_inputs()
RAW = MODEL.SerializeToString()
FEW = {name: values[:4] for name, values in ARRAYS.items()}


def test_nothing_given_waits(form: AppTest) -> None:
    """Without files nothing can be started, and the line beside the button says what is needed."""
    assert start_of(form).disabled
    assert "Give an ONNX file and calibration arrays." in said(form)
    assert failures(form) == []


def test_what_was_given_is_started(form: AppTest, started: Started) -> None:
    """Model, arrays, task, judged output, units and roles reach the job as they were chosen."""
    give(form, "model", RAW, "my model.onnx")
    assert start_of(form).disabled
    give(form, "calibration", packed(**FEW), "calib.npz")
    give(form, "evaluation", packed(**FEW, targets=np.zeros(4)), "eval.npz")
    form.selectbox(key=upload.TASK).set_value("regression")
    second = form.selectbox(key=upload.OUTPUT).options[1]
    form.selectbox(key=upload.OUTPUT).set_value(second)
    form.text_input(key=upload.UNITS).set_value("/a/* /b")
    form.text_input(key=upload.ROLES).set_value("head*=linear").run()

    assert "4 samples of" in said(form)
    start_of(form).click().run()

    ((request, files),) = started
    assert request.upload == Upload(
        "my model.onnx", ("calibration", "evaluation"), "regression", second, ("/a/*", "/b"),
        ("head*=linear",),
    )  # fmt: skip
    assert files["model"] == RAW
    assert set(files) == {"model", "calibration", "evaluation"}
    assert launched.allowed(request.source)  # it can be taken up again
    assert failures(form) == []


def _bomb() -> bytes:
    """Some kilobytes that say they unpack to 5 GB; what they say is all that may be looked at."""
    raw = packed(x=np.zeros(4, np.float32))
    file = io.BytesIO(raw)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("y.npy", b"0" * 100)
    claimed = (100).to_bytes(4, "little"), (4_294_000_000).to_bytes(4, "little")
    return file.getvalue().replace(*claimed)


OF_ONE = next(iter(ARRAYS))
BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "no model": ("model", lambda: b"no", "is no ONNX model"),
    "quantized": ("model", lambda: _with("QuantizeLinear"), "quantized already: "),
    "beside it": (
        "model",
        lambda: _beside("../other.bin"),
        "lies outside the file, in '../other.bin'",
    ),
    "not a pack": ("calibration", lambda: b"no", "it holds no arrays"),
    "objects": ("calibration", lambda: packed(x=np.array([{}], object)), "it holds no arrays"),
    "a bomb": ("calibration", _bomb, "is larger than 4,000 MB"),
    "unlike": ("calibration", lambda: packed(a=np.zeros(3), b=np.zeros(4)), "unlike numbers"),
    "targets alone": ("evaluation", lambda: packed(targets=np.zeros(3)), "no array of an input"),
    "too few": ("calibration", lambda: packed(**{OF_ONE: FEW[OF_ONE]}), "holds no array for input"),
    "too many": (
        "calibration",
        lambda: packed(**FEW, zz=np.zeros(4)),
        "an array for no input: 'zz'",
    ),
}


def _with(operator: str) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    model.graph.node[0].op_type = operator
    return model.SerializeToString()


def _beside(place: str) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    return model.SerializeToString()


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_where_they_were_given(case: str, form: AppTest) -> None:
    """What is wrong stands beside the uploaders, and nothing can be started."""
    part, make, expected = BAD[case]
    if part != "model":
        give(form, "model", RAW, "m.onnx")
    give(form, part, make(), "m.onnx" if part == "model" else "given.npz")

    assert any(expected in error.value for error in form.main.error), [
        e.value for e in form.main.error
    ]
    assert start_of(form).disabled
    assert not form.exception


def test_names_inside_a_graph_are_text(form: AppTest) -> None:
    """Names with markup, quotes and control characters are shown as they are, and start nothing
    but what they name.
    """
    name = "<img src=x onerror=alert(1)> **b** `$x^2$` '\""
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for node in model.graph.node:
        node.input[:] = [name if one == "x" else one for one in node.input]
    model.graph.input[[i.name for i in model.graph.input].index("x")].name = name
    give(form, "model", model.SerializeToString(), "m.onnx")
    give(form, "calibration", packed(**{name if n == "x" else n: FEW[n] for n in FEW}), "c.npz")

    captions = [one.value for one in form.main.caption if "img" in one.value]
    assert len(captions) == 2
    for shown in captions:
        assert r"\<img" in shown
        assert r"\*\*b" in shown
        assert r"\$x" in shown
    assert not start_of(form).disabled
    assert failures(form) == []


def test_a_file_over_the_limit_is_refused(form: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit stands at the uploader and is checked again in Python."""
    assert "at most 200 MB" in form.file_uploader(key="measure_onnx_file_model").label
    monkeypatch.setattr(upload, "MAX_MB", 1)
    give(form, "model", b"0" * (10**6 + 1), "m.onnx")

    assert any("more than 1 MB" in error.value for error in form.main.error)


@pytest.mark.parametrize("name", ["../../x.onnx", "a/b\\c'\"; rm.onnx", "..", "\x1b[31m.ONNX"])
def test_a_name_from_a_browser_is_no_path(name: str, tmp_path: Path) -> None:
    """Files lie in the job's own folder, and the command names them as words of their own."""
    given = Upload(name, ("calibration", "holdout"), "sequence")
    for path in given.files(tmp_path).values():
        assert path.parent == tmp_path
        assert path.name.isprintable()
    words = given.words(tmp_path)
    assert onnx_file.is_reference(words[0])
    command = job_folder.command(Request("x.onnx", upload=given), tmp_path)
    assert command[5 : 5 + len(words)] == words
