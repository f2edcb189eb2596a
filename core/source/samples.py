"""Bundled sample models: found by folder, loaded by name."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import DataError, ModelError

if TYPE_CHECKING:
    from core.source.contract import ModelSource

ROOT = Path(__file__).resolve().parents[2] / "sample_models"
PREFIX = "sample:"
CSV_READER = "ohlcv_csv"
"""Module of a sample that reads a person's own data without importing torch."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A bundled sample. `analysis` is the folder of its precomputed analysis."""

    name: str
    folder: Path

    @property
    def analysis(self) -> Path:
        """Where the shipped analysis lies."""
        return self.folder / "analysis"

    @property
    def takes_csv(self) -> bool:
        """Whether it runs on a person's own prices."""
        return (self.folder / f"{CSV_READER}.py").is_file()


def names() -> tuple[str, ...]:
    """Names of the bundled samples."""
    return tuple(sorted(path.parent.name for path in ROOT.glob("*/sample.py")))


def get(name: str) -> Sample:
    """The sample called `name`, with or without the prefix `sample:`."""
    plain = name.removeprefix(PREFIX)
    if plain not in names():
        raise ModelError(
            f"There is no sample {plain!r}.", f"Bundled samples: {', '.join(names())}."
        )
    return Sample(plain, ROOT / plain)


def check_csv(name: str, path: Path) -> int:
    """Rows of a person's file, read by the sample's own checks without torch.

    Raises `DataError` naming the cell, or rows needed and found where they are too few.
    """
    sample = get(name)
    module = importlib.import_module(f"sample_models.{sample.name}.{CSV_READER}")
    rows = len(module.read_ohlcv_csv(path))
    module.check_enough(rows, path.name)
    return rows


def load(name: str, csv: Path | None = None) -> ModelSource:
    """Load a sample's model and data (imports torch). `csv` replaces its data, where it can."""
    from core.source.contract import model_source

    sample = get(name)
    module = importlib.import_module(f"sample_models.{sample.name}.sample")
    if csv is None:
        # What a report prints, so that its reader can run the analysis again.
        return replace(model_source(module.load()), reference=f"{PREFIX}{sample.name}")
    if "csv" not in inspect.signature(module.load).parameters:
        raise DataError(
            f"Sample {sample.name!r} takes no CSV, but {csv} was given.",
            "Leave out --csv for this sample.",
        )
    return model_source(module.load(csv=csv))
