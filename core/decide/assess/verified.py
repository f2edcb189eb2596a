"""Maps that were run: their measured figures in place of the projected ones, and what to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.estimate import hardware
from core.estimate.hardware import THIS_MACHINE
from core.numerics import precision as registry
from core.quantity import Quantity, written
from core.records.verification import Verification

BUSY_PCT = 10.0
"""A machine whose FP32 rounds spread by more is too busy to trust its times."""


def verification_of(study: Study, chosen: PrecisionMap) -> Verification | None:
    """The latest run of exactly this map; None where it was not run."""
    return study.verified.get(chosen.assigned)


def replaces(found: Verification) -> bool:
    """Whether its outputs are those of the map: every layer ran in the precision that it was given,
    and none of them overflows in simulation, which a run in wider floats would hide.
    """
    return found.is_as_asked and not found.overflow


def with_measured(
    study: Study, chosen: PrecisionMap, totals: dict[str, Quantity]
) -> tuple[dict[str, Quantity], bool]:
    """`totals` with what was measured of `chosen`, and whether that covers its outputs.

    Latency is replaced on this machine alone: a published device is another one.
    """
    found = verification_of(study, chosen)
    if found is None:
        return totals, False
    given = dict(totals)
    if replaces(found):
        given |= {name: q for name, q in found.figures.items() if name in totals}
    if chosen.policy.hardware == THIS_MACHINE and study.analysis.profile is not None:
        given["latency_ms"] = found.timing.map_ms
        given["speedup"] = _inverse(found.timing.ratio)
    return given, replaces(found)


def _inverse(ratio: Quantity) -> Quantity:
    value, low, high = (None if not x else 1 / x for x in (ratio.value, ratio.high, ratio.low))
    return Quantity(value, "x", "measured", low, high)


def ran_codes(study: Study, found: Verification) -> NDArray[np.int8]:
    """What ran, as codes of the study's precisions; -1 where a layer does nothing."""
    return _codes(study, found.ran)


def asked_codes(study: Study, found: Verification) -> NDArray[np.int8]:
    """What was asked for, and is stored, as codes like those of `ran_codes`."""
    return _codes(study, [row.asked for row in found.layers])


def _codes(study: Study, names: Iterable[str | None]) -> NDArray[np.int8]:
    index = {name: i for i, name in enumerate(study.precisions)}
    codes = [-1 if name is None else index.get(name, 0) for name in names]
    return np.array(codes, dtype=np.int8)


def sentences(study: Study, found: Verification) -> list[str]:
    """What a reader of a verification has to know, the gravest first."""
    said = []
    if found.overflow:
        said.append(
            f"{', '.join(found.overflow[:3])} overflowed in simulation: this run, in wider floats, "
            "does not clear the map."
        )
    if found.otherwise:
        asked = sorted({str(layer.asked) for layer in found.otherwise})
        got = sorted({str(layer.got) for layer in found.otherwise})
        said.append(
            f"{_layers(len(found.otherwise))} asked for {'/'.join(asked)} ran in "
            f"{'/'.join(got)}: what was measured of the outputs holds for what ran, and the map's "
            "own figures stay projected."
        )
    ratio = found.timing.ratio
    if ratio.value is not None and ratio.low is not None and ratio.low > 1:
        said.append(
            f"When it was run, it was {ratio.value:.2f} times as slow as FP32 on {found.machine.processor}: all "
            f"{registry.REFERENCE} is faster there."
        )
    half = half_layers(study, found)
    if half:
        said.append(
            f"{_layers(len(half))} in half precision ran in {registry.REFERENCE} there and gained no "
            f"speed: the same map with {registry.REFERENCE} in their place is no "
            "slower, and can be measured as a whole."
        )
    if found.timing.noise_pct > BUSY_PCT:
        said.append(
            f"The machine was busy when it was run (FP32 rounds ±{found.timing.noise_pct:.0f} %): distrust the times."
        )
    if found.machine.exact_sums:
        said.append(
            f"{found.machine.processor} has no VNNI, so it was run with session.x64quantprecision=1, "
            "which keeps sums of 8-bit products from saturating and takes time: a session without "
            "is faster and gives other outputs."
        )
    if found.left_out:
        said.append(
            f"It was run without ONNX Runtime's optimisers {', '.join(found.left_out)}, which would undo "
            "the map."
        )
    return said


TITLES = {
    "accuracy_drop_pts": "the accuracy loss",
    "metric_loss_pct": "the loss of the metric",
    "kl": "the KL divergence",
    "relative_mse": "the relative MSE",
}
"""What saturation is told by: the first that is known."""
APART_DB = 10.0
"""So far above the error, what simulation and runtime differ by is a tenth of it in energy."""
MORE_DB = 3.0


def agreement_in_words(found: Verification) -> str:
    """What the decibels of a verification mean for the projection."""
    agreement, error, simulated = found.agreement_db, found.error_db, found.simulated_error_db
    if agreement is None:
        return "Simulation and runtime give the same outputs."
    if error is None:
        return (
            f"Simulation and runtime agree to {agreement:.1f} dB; there is no quantization error."
        )
    said = (
        f"Simulation and runtime agree to {agreement:.1f} dB; the quantization error itself is "
        f"{error:.1f} dB of the signal"
    )
    if agreement >= error + APART_DB:
        said += ": they differ by little beside it, and the projection holds sample by sample."
    elif simulated is not None and error < simulated - MORE_DB:
        said += (
            f", more than the {simulated:.1f} dB of the simulation: the runtime does something that "
            "is not simulated, and the projection does not hold for this file."
        )
    else:
        said += (
            ", hardly more. Values near the edge of a step round to one side in the simulation and "
            "to the other in the runtime: the projection holds over many samples, not sample by "
            "sample."
        )
    return said + _plainly(found)


def _plainly(found: Verification) -> str:
    """What saturation adds to the difference, where a session was opened that saturates."""
    plain = found.as_deployed
    if plain is None:
        return ""
    name = next((n for n in TITLES if n in plain.figures and n in found.figures), None)
    figures = ""
    if name is not None:
        now, then = (
            f"{written(q.value, q.unit)}" for q in (plain.figures[name], found.figures[name])
        )
        figures = f", and {TITLES[name]} is {now} in place of {then}"
    apart = "fully" if plain.agreement_db is None else f"to {plain.agreement_db:.1f} dB"
    return (
        f" Without session.x64quantprecision=1 sums saturate: simulation and runtime then agree "
        f"{apart}{figures}."
    )


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def half_layers(study: Study, found: Verification) -> list[str]:
    """Layers that were given a half precision and ran in the reference."""
    return [
        layer.name
        for layer in found.otherwise
        if layer.asked is not None
        and registry.get(layer.asked).is_cast
        and layer.got == registry.REFERENCE
    ]


def without_kernels(study: Study, chosen: PrecisionMap) -> list[str]:
    """Float precisions that `chosen` uses and its device has no kernels for."""
    profile = hardware.get(chosen.policy.hardware)
    return [
        name
        for name in study.precisions[1:]
        if chosen.count(name)
        and (registry.get(name).is_cast or registry.get(name).is_scaled)
        and not profile.has_kernels_for(name)
    ]


def without_half(policy: Policy) -> Policy:
    """`policy` with the reference precision in place of half ones, wherever it sends layers."""

    def widened(name: str) -> str:
        return registry.REFERENCE if registry.get(name).is_cast else name

    return replace(
        policy,
        high=widened(policy.high),
        medium=widened(policy.medium),
        low=widened(policy.low),
        uniform=widened(policy.uniform),
        pins=tuple((pattern, widened(name)) for pattern, name in policy.pins),
        overrides=tuple((layer, widened(name)) for layer, name in policy.overrides),
    )


def faster_without_half(study: Study, chosen: PrecisionMap) -> PrecisionMap | None:
    """The map of the same policy with the reference precision in place of half ones, where the
    device has no kernels for these and the map is estimated faster. None for a budget, which
    weighs this itself, and where the reference is not allowed.
    """
    policy = chosen.policy
    if policy.strategy == "budget" or not policy.allows(registry.REFERENCE):
        return None
    if not without_kernels(study, chosen):
        return None
    other = answer.decide(study, without_half(policy))
    model = study.latency(policy.hardware)
    now, then = (model.estimate(m.codes).total.value or 0.0 for m in (chosen, other))
    return other if then < now else None
