"""An ONNX file and its arrays from the browser: what this tab has been given, and the controls.

Such files are data. They are looked at here within bounds, and kept in the folder of the job that
measures them.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import streamlit as st

from core.errors import DataError, QuantscapeError
from core.export.map.words import count
from core.jobs.job_folder import MODEL, Request, Upload, file_name
from core.onnx_graph.node_table import SUFFIX
from core.source import first_look
from core.task import TASKS
from dashboard.display.boundary import show_expected
from dashboard.display.text import plain
from dashboard.session import problems
from dashboard.session.problems import ONNX

MAX_MB = 200
CHOICE = "(an ONNX file)"
"""The place in the select of models."""
GIVEN = "_measure_onnx"
TASK, OUTPUT, UNITS, ROLES = (f"measure_onnx_{k}" for k in ("task", "output", "units", "roles"))
CAPTIONED = {
    MODEL: (f"ONNX file (at most {MAX_MB} MB)", "onnx"),
    "calibration": ("Calibration arrays (.npz)", "npz"),
    "evaluation": ("Evaluation arrays (.npz, optional)", "npz"),
    "holdout": ("Holdout arrays (.npz, optional)", "npz"),
}
HELP = {
    MODEL: "A float model. Its bytes alone are read: data in files beside it cannot be uploaded, "
    "and larger files take the command line, `analyze model.onnx --calibration calib.npz`.",
    "calibration": "An array for each input of the model, by its name, whose first axis counts "
    "samples: `numpy.savez('calib.npz', input=x)`. Ranges of activations are found on them.",
    "evaluation": "As calibration, and `targets` where there are labels. Layers are measured on "
    "them; a third is held back unless holdout arrays are given. Without them the calibration "
    "arrays are measured on, which flatters.",
    "holdout": "As evaluation: what a chosen map is judged by.",
}


@dataclass(frozen=True, slots=True)
class GivenFile:
    """One file that passed the look at it."""

    name: str
    content: bytes
    digest: bytes
    seen: first_look.SeenGraph | first_look.SeenArrays


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """What this tab has been given, by part."""

    parts: dict[str, GivenFile] = field(default_factory=dict)

    @property
    def model(self) -> first_look.SeenGraph | None:
        """What the file looks like."""
        part = self.parts.get(MODEL)
        return (
            part.seen if part is not None and isinstance(part.seen, first_look.SeenGraph) else None
        )

    @property
    def splits(self) -> dict[str, first_look.SeenArrays]:
        """The arrays, in the order of the controls."""
        return {
            split: part.seen
            for split in CAPTIONED
            if (part := self.parts.get(split)) is not None
            and isinstance(part.seen, first_look.SeenArrays)
        }


def given() -> GivenFiles:
    """What this tab has been given."""
    found: GivenFiles = st.session_state.get(GIVEN) or GivenFiles()
    return found


def problem() -> QuantscapeError | None:
    """What keeps this tab's files from being measured; None where nothing does or none is there."""
    found = given()
    if found.model is None:
        return problems.of(ONNX)
    try:
        first_look.check(
            found.model, found.splits, {name: part.name for name, part in found.parts.items()}
        )
    except QuantscapeError as error:
        return problems.of(ONNX) or error
    return problems.of(ONNX)


def request(usual: Request) -> Request:
    """`usual` for the files of this tab."""
    found = given()
    if found.model is None:
        return _of(usual, "", None)
    upload = Upload(
        found.parts[MODEL].name,
        tuple(found.splits),
        str(st.session_state.get(TASK) or TASKS[0]),
        str(st.session_state.get(OUTPUT) or ""),
        _listed(UNITS),
        _listed(ROLES),
    )
    whole = hashlib.sha256()
    for part in found.parts.values():
        whole.update(part.digest)
    name = file_name(upload.model, SUFFIX)
    return _of(usual, f"{whole.hexdigest()[:12]}/{name}", upload)


def _of(usual: Request, source: str, upload: Upload | None) -> Request:
    return msgspec.structs.replace(
        usual, source=source, csv="", csv_digest="", cwd="", upload=upload
    )


def files() -> dict[str, bytes]:
    """The content of what was given, by part."""
    return {name: part.content for name, part in given().parts.items()}


def _listed(key: str) -> tuple[str, ...]:
    return tuple(str(st.session_state.get(key) or "").split())


def take(part: str) -> None:
    """Look at the file in the uploader of `part`. Run from its callback."""
    problems.solve(ONNX)
    _put(part, None)
    file = st.session_state.get(_key(part))
    if file is None:
        return
    name, content = str(file.name), bytes(file.getvalue())
    with problems.attempt(ONNX):
        if len(content) > MAX_MB * 10**6:
            raise DataError(
                f"{name} has more than {MAX_MB} MB.", "Use the command line: analyze model.onnx."
            )
        known = hashlib.sha256(content).digest()  # once: a form is drawn at every click
        _put(part, GivenFile(name, content, known, _look(part, name, content)))


def _look(part: str, name: str, content: bytes) -> first_look.SeenGraph | first_look.SeenArrays:
    if part == MODEL:
        return first_look.graph(content, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.npz"
        path.write_bytes(content)
        return first_look.arrays(path, name)


def _put(part: str, found: GivenFile | None) -> None:
    others = {name: one for name, one in given().parts.items() if name != part}
    st.session_state[GIVEN] = replace(
        given(), parts=others if found is None else {**others, part: found}
    )


def _key(part: str) -> str:
    return f"measure_onnx_file_{part}"


def draw(column_px: int) -> None:
    """The uploaders, and how the answers are judged."""
    grid = st.grid(2, min_column_width=column_px, gap="small")
    for part in CAPTIONED:
        with grid.container(gap="xsmall"):
            _uploader(part)
    found = problem()
    if found is not None and (problems.of(ONNX) or len(given().parts) > 1):
        show_expected(found)
    grid = st.grid(2, min_column_width=column_px, gap="small")
    grid.selectbox(
        "Task",
        [task for task in TASKS if task != "custom"],
        key=TASK,
        persist_state="session",
        help="How answers are judged: classification by accuracy, regression and sequence by error. "
        "A metric of your own takes a Python function.",
    )
    model = given().model
    if model is not None and len(model.outputs) > 1:
        grid.selectbox(
            "Output that is judged", model.outputs, key=OUTPUT, help="The others are not looked at."
        )
    with st.expander("Units and roles", icon=":material/account_tree:"):
        grid = st.grid(2, min_column_width=column_px, gap="small")
        grid.text_input(
            "Units",
            key=UNITS,
            persist_state="session",
            placeholder="/encoder/*/attention",
            help="Patterns with blanks between them; nodes under such a path are one layer.",
        )
        grid.text_input(
            "Roles",
            key=ROLES,
            persist_state="session",
            placeholder="head*=output_projection",
            help="PATTERN=ROLE with blanks between them: the role of layers whose name matches.",
        )


def _uploader(part: str) -> None:
    title, kind = CAPTIONED[part]
    st.file_uploader(
        title, type=kind, key=_key(part), max_upload_size=MAX_MB, on_change=take, args=(part,),
        help=HELP[part],
    )  # fmt: skip
    found = given().parts.get(part)
    if found is not None:
        st.caption(f"{plain(found.name)}: {plain(_said(found.seen))}.")


def _said(seen: first_look.SeenGraph | first_look.SeenArrays) -> str:
    if isinstance(seen, first_look.SeenGraph):
        return (
            f"{count(seen.nodes, 'node')}, opset {seen.opset}; inputs {', '.join(seen.inputs)}; "
            f"outputs {', '.join(seen.outputs) or 'of float32: none'}"
        )
    targets = "with targets" if seen.has_targets else "no targets"
    return f"{count(seen.samples, 'sample')} of {', '.join(seen.inputs)}, {targets}"
