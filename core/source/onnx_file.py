"""Sources from an ONNX file and arrays alone: `model.onnx --calibration calib.npz --task …`.

Such a reference is the words of a command line, so that a report prints what makes an analysis
again. Everything in these files is data; nothing of them is executed or unpickled.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from core import files
from core.errors import DataError, PolicyError
from core.onnx_graph.node_table import SUFFIX
from core.task import TASKS

if TYPE_CHECKING:
    from core.source.contract import ModelSource

MOST_BYTES = 16 * 10**9
TARGETS = "targets"
OPTIONS = ("calibration", "evaluation", "holdout", "task", "output", "unit", "role")
ARRAYS = (
    "Write it with numpy.savez: an array for each input of the model by name, whose first axis "
    "counts samples, and 'targets'."
)


class _Parser(argparse.ArgumentParser):
    """A parser that tells what is wrong with a reference in place of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise PolicyError(f"The reference of an ONNX file is none: {message}.", "Give --source.")


def add_options(sub: argparse.ArgumentParser) -> None:
    """What an ONNX file needs beside itself."""
    sub.add_argument(
        "--calibration", metavar="FILE", help="of an ONNX file: arrays by input name, as .npz"
    )
    sub.add_argument(
        "--evaluation", metavar="FILE",
        help="of an ONNX file: arrays by input name, and 'targets' where there are labels; a third "
        "is held back unless --holdout is given",
    )  # fmt: skip
    sub.add_argument("--holdout", metavar="FILE", help="of an ONNX file: as --evaluation")
    sub.add_argument(
        "--task", choices=[task for task in TASKS if task != "custom"],
        help="of an ONNX file: how its answers are judged",
    )  # fmt: skip
    sub.add_argument(
        "--output",
        metavar="NAME",
        help="of an ONNX file: the output that is judged; default: first",
    )
    sub.add_argument(
        "--unit", action="append", default=[], metavar="GLOB",
        help="of an ONNX file: nodes under such a path are one layer, as '/encoder/*/attention'",
    )  # fmt: skip
    sub.add_argument(
        "--role", action="append", default=[], metavar="GLOB=ROLE",
        help="of an ONNX file: the role of layers whose name matches",
    )  # fmt: skip


def is_reference(text: str) -> bool:
    """Whether `text` names an ONNX file, with or without what it needs beside itself."""
    return _words(text)[0].lower().endswith(SUFFIX)


def words(reference: str) -> list[str]:
    """`reference` as words of a command line; one that names no ONNX file is one word."""
    return _words(reference) if is_reference(reference) else [reference]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text) or [""]
    except ValueError:  # a quote without its end
        return [text]


def reference(source: str, options: argparse.Namespace) -> str:
    """The reference of the ONNX file `source` with what `options` give beside it."""
    found = [source]
    for name in OPTIONS:
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            found += [] if value is None else [f"--{name}={value}"]
    return shlex.join(found)


def load(text: str) -> ModelSource:
    """The model and data that a reference names (imports torch).

    Raises `PolicyError` where something is missing, and what loading the files raises.
    """
    parser = _Parser(add_help=False)
    parser.add_argument("source")
    add_options(parser)
    return source_of(parser.parse_args(_words(text)))


def source_of(options: argparse.Namespace) -> ModelSource:
    """The source of an ONNX file with its `options`."""
    from core.source.contract import model_source

    missing = [name for name in ("calibration", "task") if getattr(options, name) is None]
    if missing:
        raise PolicyError(
            f"{options.source} is an ONNX file, and no --{missing[0]} is given.",
            "Give --calibration calib.npz, --task classification, regression or sequence, and "
            "--evaluation eval.npz to judge it by.",
        )
    path = Path(options.source)
    spec: dict[str, Any] = {
        "model": path,
        "task": options.task,
        "name": path.stem,
        "reference": reference(options.source, options),
        "calibration": _arrays(options.calibration)[0],
        "units": options.unit,
        "roles": dict(_rule(text) for text in options.role),
    }
    if options.output is not None:
        spec["output"] = options.output
    for name in ("evaluation", "holdout"):
        given = getattr(options, name)
        if given is not None:
            spec[name] = _arrays(given)
    return model_source(spec)


def _rule(text: str) -> tuple[str, str]:
    pattern, equals, role = text.rpartition("=")
    if not equals or not pattern:
        raise PolicyError(f"--role {text} is no GLOB=ROLE.", "Give for instance 'head*=linear'.")
    return pattern, role


def _arrays(given: str) -> tuple[dict[str, Any], Any]:
    """Inputs by name, and targets (None: there are none), as tensors."""
    import torch

    path = Path(given)
    try:
        found = files.arrays(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {files.reason(error)}.", ARRAYS) from error
    tensors = {}
    for name, values in found.items():
        try:
            tensors[name] = torch.from_numpy(values)
        except TypeError as error:
            raise DataError(
                f"{path}: array {name!r} is of {values.dtype}, which is no number.", ARRAYS
            ) from error
    targets = tensors.pop(TARGETS, None)
    return tensors, targets
