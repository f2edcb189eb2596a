"""What a person names as a source, loaded: `sample:NAME`, `path/to/file.py:function`, or an ONNX
file with its arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import PolicyError
from core.source import onnx_file, python_file, samples

if TYPE_CHECKING:
    from core.source.contract import ModelSource


def load(reference: str, csv: Path | None = None) -> ModelSource:
    """The model and data that `reference` names (imports torch). `csv` replaces the data of a
    sample that takes one.

    A Python file is run with all rights of the person who names it, so this is for the command
    line alone. Raises `PolicyError` for what is no source, and what loading it raises.
    """
    if reference.startswith(samples.PREFIX):
        return samples.load(reference, csv)
    is_onnx = onnx_file.is_reference(reference)
    if not is_onnx and not python_file.is_reference(reference):
        raise PolicyError(
            f"{reference!r} is no source.",
            "Use path/to/file.py:function, model.onnx with --calibration, or sample:NAME; `samples` "
            "lists the names.",
        )
    if csv is not None:
        raise PolicyError(
            f"{reference} takes no CSV, but {csv} was given.",
            "Leave out --csv: the function brings its own data.",
        )
    if is_onnx:
        return onnx_file.load(reference)
    return python_file.load(reference)
