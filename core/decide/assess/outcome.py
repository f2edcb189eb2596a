"""What a map comes to: size, latency, accuracy, gains, and what to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.decide import answer
from core.decide.assess.verified import sentences, verification_of, with_measured, without_kernels
from core.decide.policy.allowed import allowed_in_words, in_order
from core.decide.policy.decision import BY_LACK, BY_OVERRIDE, BY_PIN, PrecisionMap
from core.decide.policy.kernels import without_kernel
from core.decide.policy.policy import Policy
from core.decide.policy.unmeasured import held_back
from core.decide.study import Study
from core.errors import listed
from core.estimate import hardware as hardware_profiles
from core.estimate.projection import FEW_SAMPLES, Projection, nothing_projected
from core.numerics import precision as registry
from core.quantity import Quantity, digits, written

Confidence = Literal["prior only", "partial", "projected", "measured"]

CONFIDENCE_MEANING = {
    "prior only": "rules of thumb, no data",
    "partial": "from what is measured so far",
    "projected": "from layers measured one at a time, with a 90 % range",
    "measured": "this map was run",
}

END_BITS = 2
"""Weights of so few bits are beyond what projections bear (`python -m tests.benchmarks.projection
--only stress --bits 2`)."""
OPTIMISTIC = (
    "Optimistic: the samples that were measured also set the ranges of activations, and there is "
    "no evaluation data."
)


@dataclass(frozen=True)
class Outcome:
    """Figures of one map. `totals` by name; `layer_bytes` and `layer_ms` add up to them with
    `glue_bytes` and `boundaries_ms`. `projected` are those of the outputs as they are projected on
    the selection split, where `totals` may have what was measured on the holdout split.
    `warnings` are sentences, the gravest first.
    """

    totals: dict[str, Quantity]
    projected: dict[str, Quantity]
    confidence: Confidence
    layer_bytes: NDArray[np.int64]
    layer_ms: NDArray[np.float64]
    glue_bytes: int
    boundaries_ms: float
    boundaries: int
    forbidden: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def comparable(self) -> dict[str, Quantity]:
        """The totals by which maps are compared: figures of the outputs are of one split."""
        return self.totals | self.projected


def uniform_map(study: Study, precision: str, hardware: str) -> PrecisionMap:
    """Every layer in `precision`."""
    return answer.decide(study, Policy(strategy="uniform", uniform=precision, hardware=hardware))


def outcome(study: Study, chosen: PrecisionMap) -> Outcome:
    """Size, latency, projected accuracy and warnings of `chosen` on its policy's hardware."""
    hardware = chosen.policy.hardware
    layer_bytes = _layer_bytes(study, chosen.codes)
    size = study.stored_bytes(chosen.codes)
    latency = study.latency(hardware).estimate(chosen.codes)
    reference_size = int(study.size_bytes[0].sum()) + study.glue_bytes
    reference_ms = study.uniform_ms(hardware)[registry.REFERENCE]
    projection = study.project(chosen.codes)
    projected = accuracy_totals(study, projection)
    totals = {
        "size_bytes": Quantity(size, "bytes", "exact"),
        "latency_ms": latency.total,
        **projected,
        "size_reduction_pct": _percent_less(size, reference_size, "exact"),
        "speedup": _ratio(reference_ms, latency.total.value or 0.0),
    }
    forbidden = () if projection is None else projection.forbidden
    names = tuple(study.layers.names[i] for i in forbidden)
    totals, is_measured = with_measured(study, chosen, totals)
    return Outcome(
        totals=totals,
        projected=projected,
        confidence="measured" if is_measured else _confidence(study),
        layer_bytes=layer_bytes,
        layer_ms=latency.layers_ms,
        glue_bytes=study.glue_bytes,
        boundaries_ms=latency.boundaries_ms,
        boundaries=latency.boundaries,
        forbidden=names,
        warnings=(
            *_warnings(study, chosen, latency.total, names),
            *(() if projection is None or is_measured else end_warning(chosen)),
        ),
    )


def _layer_bytes(study: Study, codes: NDArray[np.int8]) -> NDArray[np.int64]:
    row = np.maximum(codes, 0)  # a layer that does nothing stores nothing in any precision
    picked: NDArray[np.int64] = study.size_bytes[row, np.arange(len(codes))]
    return picked


def accuracy_totals(study: Study, projection: Projection | None) -> dict[str, Quantity]:
    """Figures of the outputs, unknown where nothing was measured.

    Those of values come beside those of classes, which are n/a then.
    """
    found = projection or nothing_projected()
    totals = {
        "accuracy": found.accuracy,
        "accuracy_drop_pts": found.accuracy_drop_pts,
        "kl": found.kl,
        "flips_pct": found.flips,
    }
    if study.analysis.metric is not None:
        totals |= {
            "metric": found.metric,
            "metric_loss_pct": found.metric_loss_pct,
            "relative_mse": found.relative_mse,
        }
    return totals


def _percent_less(value: float, reference: float, kind: Literal["exact"]) -> Quantity:
    return Quantity(100 * (1 - value / reference) if reference else None, "%", kind)


def _ratio(reference: float, value: float) -> Quantity:
    return Quantity(reference / value if value else None, "x", "estimated")


def _warnings(
    study: Study, chosen: PrecisionMap, latency: Quantity, forbidden: tuple[str, ...]
) -> list[str]:
    said = partial_warning(study, chosen) + overflow_warning(forbidden)
    if study.analysis.optimistic:
        said.append(OPTIMISTIC)
    hardware = chosen.policy.hardware
    profile = hardware_profiles.get(hardware)
    if hardware == hardware_profiles.THIS_MACHINE and study.analysis.profile is None:
        said.append(
            "This machine was not profiled for this model: latency is that of "
            f"{hardware_profiles.get(hardware_profiles.DEFAULT).title}. To measure it: "
            "python -m core profile DIR."
        )
    faster = _fastest_uniform(study, hardware, chosen, latency)
    if faster is not None:
        said.append(
            f"Estimated slower than all {faster[0]} ({digits(latency.value or 0.0, 'ms')} against "
            f"{written(faster[1], 'ms')}): precision boundaries and layers without kernels cost more "
            "than the narrow layers save."
        )
    faster_choice = f" {registry.REFERENCE} is the faster choice."
    said += [
        f"{profile.title.split(' (')[0]} has no {name} kernels: {name} makes the file smaller "
        f"there but gains no speed.{faster_choice if chosen.policy.allows(registry.REFERENCE) else ''}"
        for name in without_kernels(study, chosen)
    ]
    said += allowed_warning(chosen)
    said += _float_layers(study, chosen)
    run = verification_of(study, chosen)
    if run is not None:
        said += sentences(study, run)
    return said + groups_warning(chosen) + rules_warning(chosen) + samples_warning(study)


def _confidence(study: Study) -> Confidence:
    if study.analysis.evidence is None:
        return "prior only"
    return "projected" if study.analysis.partial is None else "partial"


def partial_warning(study: Study, chosen: PrecisionMap) -> list[str]:
    """Sentences on an analysis that does not know all yet, and on what it leaves as trained."""
    partial = study.analysis.partial
    if partial is None:
        return []
    so_far = (
        f"Partial: {partial.layers:,} of {partial.of_layers:,} layers are measured so far, on "
        f"{partial.samples:,} of {partial.of_samples:,} samples."
    )
    said = [so_far]
    if study.unknown is None:
        return said
    stay = [str(chosen.assigned[i]) for i in np.flatnonzero(chosen.origin == BY_LACK)]
    if stay:
        verb = "layers not measured yet stay" if len(stay) > 1 else "layer not measured yet stays"
        said.append(f"{len(stay):,} {verb} in {allowed_in_words(in_order(stay))}.")
    named = held_back(chosen.codes, study.unknown)
    if named.any():
        noun = "layers are" if named.sum() > 1 else "layer is"
        said.append(
            f"{int(named.sum()):,} {noun} in a precision that is not measured there yet: nothing "
            "is projected."
        )
    said.append("Projections have no range yet: no whole map was simulated to judge them by.")
    return said


def overflow_warning(forbidden: tuple[str, ...]) -> list[str]:
    """A sentence on layers whose precision overflows, where there are any."""
    if not forbidden:
        return []
    shown = ", ".join(forbidden[:3]) + (" ..." if len(forbidden) > 3 else "")
    return [f"Outputs are not finite with {shown} in the chosen precision: nothing is projected."]


def rules_warning(chosen: PrecisionMap) -> list[str]:
    """A sentence on pins and overrides that match no layer, where there are any."""
    return [f"No layer matches {', '.join(chosen.ignored[:5])}."] if chosen.ignored else []


def allowed_warning(chosen: PrecisionMap) -> list[str]:
    """Sentences on layers in a precision that the policy does not allow: by a rule, and since nothing
    that is allowed serves them.
    """
    if not chosen.outside:
        return []
    allowed = allowed_in_words(chosen.policy.allowed)
    ruled = [i for i in chosen.outside if chosen.origin[i] in {BY_PIN, BY_OVERRIDE}]
    stay = [chosen.layers.names[i] for i in chosen.outside if i not in set(ruled)]
    said = []
    if ruled:
        names = listed([f"{chosen.layers.names[i]} {chosen.assigned[i]}" for i in ruled])
        said.append(f"A pin or an override beats the allowed {allowed}: {names}.")
    if stay:
        verb = "layers stay" if len(stay) > 1 else "layer stays"
        said.append(
            f"{len(stay):,} {verb} in {registry.REFERENCE}, since nothing of the allowed {allowed} "
            f"serves {'them' if len(stay) > 1 else 'it'}: {listed(stay)}."
        )
    return said


def end_warning(chosen: PrecisionMap) -> list[str]:
    """A sentence on layers whose weights are too narrow to project what they cost."""
    lacking = without_kernel(chosen.layers, chosen.precisions)
    count = sum(
        name is not None and registry.get(name).bits <= END_BITS and not lacking[code, i]
        for i, (name, code) in enumerate(zip(chosen.assigned, chosen.codes, strict=True))
    )
    if not count:
        return []
    verb = "layers have" if count > 1 else "layer has"
    said = (
        f"{count:,} {verb} weights in {END_BITS} bits, where projections end: there the bundled models' "
        "divergence differs by up to a third from what was projected, and accuracy by a quarter of what "
        "is lost. Verify this map."
    )
    return [said]


def groups_warning(chosen: PrecisionMap) -> list[str]:
    """A sentence on each group that rules took apart."""
    return [
        "A rule splits layers that have to share one precision: "
        f"{', '.join(f'{chosen.layers.names[i]} {chosen.assigned[i]}' for i in group)}."
        for group in chosen.split_groups
    ]


def samples_warning(study: Study) -> list[str]:
    """A sentence on evidence from too few samples, where that is so."""
    evidence = study.analysis.evidence
    if evidence is None or evidence.samples >= FEW_SAMPLES:
        return []
    return [
        f"Only {evidence.samples} selection samples: projections are coarse below {FEW_SAMPLES}."
    ]


def _fastest_uniform(
    study: Study, hardware: str, chosen: PrecisionMap, latency: Quantity
) -> tuple[str, float] | None:
    """The uniform map that beats `chosen` by more than 1 %, if the chosen one is mixed."""
    used = {name for name in chosen.assigned if name is not None}
    if len(used) < 2 or latency.value is None:
        return None
    times = {
        name: time
        for name, time in study.uniform_ms(hardware).items()
        if registry.get(name).is_cast and chosen.policy.allows(name)
    }
    if not times:
        return None
    name, best = min(times.items(), key=lambda item: item[1])
    return (name, best) if best < 0.99 * latency.value else None


def _float_layers(study: Study, chosen: PrecisionMap) -> list[str]:
    """Integer layers that run in float all the same, by state; not activations that an integer
    convolution computes while it rounds.
    """
    found: dict[str, list[str]] = {}
    integer = [name is not None and registry.get(name).is_calibrated
               for name in chosen.assigned]  # fmt: skip
    in_kernel = {behind for before, behind in study.layers.kernels if integer[before]}
    for i, layer in enumerate(study.layers):
        if integer[i] and layer.state != "computes" and i not in in_kernel:
            found.setdefault(layer.state, []).append(layer.name)
    integers = sum(chosen.count(n) for n in study.precisions if registry.get(n).is_calibrated)
    if not found:
        return []
    meaning = {
        "rounds output": "only round their output and run in float",
        "stores": "only store their weights as integers",
        "rounds input": "only round their input and run in float",
        "float": f"stay in float ({listed(found.get('float', ()))})",
    }
    parts = " and ".join(f"{len(names)} {meaning[state]}" for state, names in found.items())
    names = "/".join(n for n in study.precisions if registry.get(n).is_calibrated)
    return [f"Of {integers} {names} layers, {parts}: there is no integer kernel for them."]
