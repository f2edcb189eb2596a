"""An analysis: a model's layers, what was measured of it, and where both came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.evidence.diagnose.weight_profile import WeightProfile
from core.evidence.evidence import Evidence, Identity, Partial, SplitSizes
from core.layers import LayerTable
from core.numerics import scheme as schemes
from core.numerics.calibrate.calibration import Calibration
from core.numerics.calibrate.calibrators import MIN_MAX
from core.numerics.scheme import Scheme
from core.records.machine_profile import MachineProfile
from core.records.verification import Verification
from core.task import Metric


@dataclass(frozen=True, eq=False)
class Analysis:
    """What an analysis folder holds. `evidence` is None before anything was measured, `weights`
    are empty in a folder that an older version wrote.

    `holdout_accuracy` and `majority_accuracy` are shares in [0, 1] of the reference model and
    of always giving the most frequent class, on the holdout split; None where unknown. `metric`
    judges a model whose outputs are values (None for classes). `optimistic` marks figures from
    the samples that also set the ranges of activations. `scheme_facts` say what the scheme was
    when the folder was measured (None in a folder that an older version wrote). `device` is what
    the runs were made on: "cpu", or "cuda" with the name of the card. `partial` says how far a
    measurement was that still goes on, or was stopped; None for a whole one. `verifications` are
    the maps of this model that were run, the oldest first, and `profile` the latest times of its
    layers on a machine (None: never measured).
    """

    identity: Identity
    title: str
    description: str
    task: str
    class_names: tuple[str, ...]
    layers: LayerTable
    scheme: str
    splits: SplitSizes
    evidence: Evidence | None = None
    ranges: tuple[Calibration, ...] = ()
    weights: tuple[WeightProfile, ...] = ()
    expanded_units: bool = False
    holdout_accuracy: float | None = None
    majority_accuracy: float | None = None
    data_description: str = ""
    source: str = ""
    tool_version: str = ""
    created: str = ""
    seconds: float | None = None
    notes: tuple[str, ...] = field(default=())
    metric: Metric | None = None
    optimistic: bool = False
    scheme_facts: Scheme | None = None
    calibrator: str = MIN_MAX.name
    device: str = "cpu"
    partial: Partial | None = None
    verifications: tuple[Verification, ...] = ()
    profile: MachineProfile | None = None

    @property
    def how_rounded(self) -> str:
        """Scheme and calibrator, for a line that shows both."""
        return f"{self.scheme}, ranges {self.calibrator}"

    @property
    def rounding(self) -> Scheme:
        """The scheme that it was measured under; raises `PolicyError` where nobody knows it."""
        return self.scheme_facts or schemes.get(self.scheme)
