"""Whether a map's evidence was measured the way that a target rounds."""

from __future__ import annotations

import core.numerics.scheme as schemes
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.map.reproduce import FOLDER, analyze_command
from core.export.targets.capability import Capability


def mismatch(study: Study, target: Capability, chosen: PrecisionMap) -> str | None:
    """A sentence where the evidence says little of `chosen` on this target, with what to do; None
    where it was measured under the target's scheme, where nothing was measured, or where no layer is in
    integers on calibrated ranges, in which schemes differ.
    """
    measured = study.analysis.scheme
    if target.overlay or study.analysis.evidence is None:
        return None
    if not set(chosen.assigned) & set(target.integers):
        return None
    if target.scheme:
        return schemes.mismatch(measured, target.scheme)
    return (
        f"Not measured under the target's scheme: the evidence is for {measured}, "
        f"{target.package} rounds {target.rounding}, and no scheme simulates that."
    )


def measure_command(study: Study, target: Capability) -> str:
    """The command that measures the model under the target's scheme."""
    analysis = study.analysis
    command = analyze_command(
        analysis.source, expand_units=analysis.expanded_units, folder=f"{FOLDER}-{target.scheme}"
    )
    return f"{command} --scheme {target.scheme}"
