"""An analysis: a model's layers, what was measured of it, and where both came from."""

from __future__ import annotations

from dataclasses import dataclass

from core.analysis.header import AnalysisHeader
from core.evidence.diagnose.weight_profile import WeightProfile
from core.evidence.evidence import Evidence
from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics import scheme as schemes
from core.numerics.precision import Precision
from core.numerics.scheme import Scheme
from core.records.machine_profile import MachineProfile
from core.records.verification import Verification


@dataclass(frozen=True, eq=False, kw_only=True)
class Analysis(AnalysisHeader):
    """What an analysis folder holds: its header, and the arrays and records beside it.

    `evidence` is None before anything was measured, `weights` are empty in a folder that an older
    version wrote. `verifications` are the maps of this model that were run, the oldest first, and
    `profile` the latest times of its layers on a machine (None: never measured); `left_out` has a
    sentence for each record beside them that cannot be read.
    """

    evidence: Evidence | None = None
    weights: tuple[WeightProfile, ...] = ()
    verifications: tuple[Verification, ...] = ()
    profile: MachineProfile | None = None
    left_out: tuple[str, ...] = ()

    @property
    def judging_split(self) -> str:
        """The split that whole maps are run on: *holdout*, or *selection* where there is none.

        Projections are of the selection split.
        """
        if self.verifications:
            return self.verifications[-1].split
        return "holdout" if self.splits.holdout else "selection"

    @property
    def how_rounded(self) -> str:
        """Scheme, calibrator and quantizer, for a line that shows all."""
        groups = f", weights by groups {self.by_groups}" if self.by_groups else ""
        return f"{self.scheme}, ranges {self.calibrator}{groups}"

    @property
    def by_groups(self) -> str:
        """The quantizer on whose grid weights by groups were measured; "" where none were."""
        measured = () if self.evidence is None else self.evidence.precisions
        return self.quantizer if any(registry.get(n).is_weights_only for n in measured) else ""

    def precision(self, name: str) -> Precision:
        """The precision called `name`, weights by groups on the grid of its quantizer."""
        return quantizers.get(self.quantizer).of(registry.get(name))

    @property
    def rounding(self) -> Scheme:
        """The scheme that it was measured under; raises `PolicyError` where nobody knows it."""
        return self.scheme_facts or schemes.get(self.scheme)
