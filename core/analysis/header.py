"""What an analysis says of itself: the fields that memory and `analysis.json` share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from core.evidence.evidence import Identity, Partial, SplitSizes
from core.files import NonNegative, Share
from core.layers import LayerTable
from core.numerics import quantizers
from core.numerics.calibrate.calibration import Calibration
from core.numerics.calibrate.calibrators import MIN_MAX
from core.numerics.scheme import Scheme
from core.task import Metric


@dataclass(frozen=True, eq=False, kw_only=True)
class AnalysisHeader:
    """Every field that an analysis and its file share, spelled here alone.

    A field that comes later has a default, which stands for it in folders of older versions.

    `holdout_accuracy` and `majority_accuracy` are shares in [0, 1] of the reference model and
    of always giving the most frequent class, on the holdout split; None where unknown. `metric`
    judges a model whose outputs are values (None for classes). `optimistic` marks figures from
    the samples that also set the ranges of activations. `scheme_facts` say what the scheme was
    when the folder was measured (None in a folder that an older version wrote). `device` is what
    the runs were made on: "cpu", or "cuda" with the name of the card. `partial` says how far a
    measurement was that still goes on, or was stopped; None for a whole one.
    """

    tool_version: str
    created: str
    identity: Identity
    title: str
    description: str
    data_description: str
    source: str
    task: str
    class_names: tuple[str, ...]
    scheme: str
    splits: SplitSizes
    expanded_units: bool
    holdout_accuracy: Share | None
    majority_accuracy: Share | None
    seconds: NonNegative | None
    notes: tuple[str, ...]
    ranges: tuple[Calibration, ...]
    layers: LayerTable
    metric: Metric | None = None
    optimistic: bool = False
    scheme_facts: Scheme | None = None
    calibrator: str = MIN_MAX.name
    quantizer: str = quantizers.DEFAULT.name
    device: str = "cpu"
    partial: Partial | None = None

    @property
    def shared(self) -> dict[str, Any]:
        """The fields of the header alone, by name."""
        return {field.name: getattr(self, field.name) for field in fields(AnalysisHeader)}
