"""Whether a map may be given to others: each check with its result in a sentence.

Checks do not trust the map they are given: one put together by hand or damaged in memory is
found out here, not by the person who opens the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.decide.assess.outcome import (
    CONFIDENCE_MEANING,
    Outcome,
    groups_warning,
    overflow_warning,
    rules_warning,
    samples_warning,
)
from core.decide.policy.decision import BY_OVERRIDE, BY_PIN, PrecisionMap
from core.decide.study import Study
from core.errors import QuantscapeError, printable
from core.export.map import precision_map
from core.export.map.words import count

Status = Literal["passed", "warning", "failed"]

MAX_NAMED = 5
SHORT = 12
SHA256_DIGITS = 64
SAME_MS = 1e-9
"""Relative difference that summation in another order may leave."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `detail` is a sentence that names what was found."""

    title: str
    status: Status
    detail: str


def checks(study: Study, chosen: PrecisionMap, found: Outcome) -> tuple[Check, ...]:
    """Everything that is checked of `chosen` and its figures `found`, in reading order."""
    layers, precisions = _layers(study, chosen), _precisions(study, chosen)
    sound = "failed" not in {layers.status, precisions.status}
    return (
        layers,
        precisions,
        _read_back(study, chosen) if sound else _untried("File reads back"),
        _sums(study, found),
        _rules(chosen),
        _overflow(study, found),
        _identity(study),
        _confidence(found),
        _samples(study),
        _warnings(study, chosen, found),
    )


def _layers(study: Study, chosen: PrecisionMap) -> Check:
    title, given = "Layers", Counter(chosen.layers.names)
    problems = [
        f"{count(len(names), noun)}: {named(names)}"
        for noun, names in (
            ("missing layer", [n for n in study.layers.names if n not in given]),
            ("unknown layer", [n for n in given if n not in study.layers.index]),
            ("repeated layer", [n for n, times in given.items() if times > 1]),
        )
        if names
    ]
    rows = len(chosen.layers)
    if any(len(part) != rows for part in (chosen.codes, chosen.origin)):
        problems.append(f"{len(chosen.codes)} precisions for {count(rows, 'layer')}")
    if not problems and chosen.layers.names != study.layers.names:
        problems.append("the layers are in another order than the model runs them")
    if problems:
        return Check(title, "failed", f"{'; '.join(problems)}.")
    if not rows:
        return Check(title, "warning", "The model has no layers, so the map is empty.")
    return Check(title, "passed", f"{count(rows, 'layer')}, each of the model's exactly once.")


def _precisions(study: Study, chosen: PrecisionMap) -> Check:
    title = "Precisions"
    if chosen.precisions != study.precisions:
        return Check(
            title, "failed",
            f"The map speaks of {', '.join(chosen.precisions)}, this analysis of "
            f"{', '.join(study.precisions)}.",
        )  # fmt: skip
    rows = list(zip(chosen.layers, chosen.codes.tolist(), strict=False))
    known = range(len(study.precisions))
    problems = [
        f"{what}: {named(names)}"
        for what, names in (
            ("without a known precision", [
                layer.name for layer, code in rows
                if layer.computes_at_inference and code not in known
            ]),
            ("with a precision but nothing to compute", [
                layer.name for layer, code in rows
                if not layer.computes_at_inference and code >= 0
            ]),
        )
        if names
    ]  # fmt: skip
    if problems:
        return Check(title, "failed", f"Layers {'; '.join(problems)}.")
    used = Counter(study.precisions[code] for _, code in rows if code >= 0)
    said = ", ".join(f"{used[name]:,} {name}" for name in study.precisions if used[name])
    idle = sum(code < 0 for _, code in rows)
    rest = f"; {idle:,} with none, since they do nothing at inference" if idle else ""
    return Check(title, "passed", f"{said or 'No layer computes'}{rest}.")


def _read_back(study: Study, chosen: PrecisionMap) -> Check:
    title = "File reads back"
    try:
        again = precision_map.from_json(precision_map.to_json(study, chosen), study)
    except QuantscapeError as error:
        return Check(title, "failed", str(error))
    differing = np.flatnonzero((again.codes != chosen.codes) | (again.origin != chosen.origin))
    if len(differing):
        names = named([study.layers.names[i] for i in differing])
        return Check(title, "failed", f"Written and read again, it differs in {names}.")
    if again.policy != chosen.policy:
        return Check(title, "failed", "Written and read again, its policy differs.")
    return Check(title, "passed", "Written as precision_map.json and read again: the same map.")


def _untried(title: str) -> Check:
    return Check(title, "failed", "Not tried, because layers or precisions do not fit.")


def _sums(study: Study, found: Outcome) -> Check:
    title = "Rows add up"
    rows, size = len(study.layers), found.totals["size_bytes"].value
    if not len(found.layer_bytes) == len(found.layer_ms) == rows:
        return Check(title, "failed", f"The figures are not of {count(rows, 'layer')}.")
    summed = int(found.layer_bytes.sum()) + found.glue_bytes
    if summed != size:
        return Check(title, "failed", f"Rows sum to {summed:,} B, the total says {size or 0:,} B.")
    latency = found.totals["latency_ms"].value
    if latency is None:
        return Check(title, "warning", f"Size exactly ({summed:,} B); the latency is n/a.")
    if found.totals["latency_ms"].kind == "measured":
        return Check(title, "passed", f"{summed:,} B exactly; the latency was measured as a whole.")
    total = float(found.layer_ms.sum()) + found.boundaries_ms
    if not math.isclose(total, latency, rel_tol=SAME_MS, abs_tol=SAME_MS):
        return Check(
            title, "failed", f"Rows sum to {total:.6f} ms, the total says {latency:.6f} ms."
        )
    return Check(
        title, "passed",
        f"{summed:,} B exactly, and the estimated latency with "
        f"{count(found.boundaries, 'conversion')} between layers.",
    )  # fmt: skip


def _rules(chosen: PrecisionMap) -> Check:
    title, policy = "Pins and overrides", chosen.policy
    pinned = int((chosen.origin == BY_PIN).sum())
    by_hand = int((chosen.origin == BY_OVERRIDE).sum())
    said = (
        f"{count(len(policy.pins), 'pin')}, {count(len(policy.overrides), 'override')}: "
        f"{count(pinned, 'layer')} pinned, {by_hand:,} set by hand."
    )
    if not policy.pins and not policy.overrides and not by_hand:
        said = "None: the strategy decides every layer."
    wrong = [printable(sentence) for sentence in groups_warning(chosen)]
    if rules_warning(chosen):
        wrong.append(f"No layer matches {named(chosen.ignored)}.")
    if wrong:
        return Check(title, "warning", " ".join([said, *wrong]))
    return Check(title, "passed", said)


def _overflow(study: Study, found: Outcome) -> Check:
    title = "Overflow"
    if found.forbidden:
        names = named(found.forbidden)
        return Check(title, "failed", f"Outputs are not finite with {names} in its precision.")
    if study.analysis.evidence is None:
        return Check(title, "warning", "n/a: nothing was measured.")
    return Check(title, "passed", "Each layer alone gave finite outputs in its precision.")


def _identity(study: Study) -> Check:
    identity, grid = study.analysis.identity, study.analysis.by_groups
    said = (
        f"{printable(identity.name)}, weights {short(identity.weights_sha256)}, data "
        f"{short(identity.data_sha256)} (SHA-256), scheme {study.analysis.scheme}"
        + (f", weights by groups {grid}." if grid else ".")
    )
    hashes = (identity.weights_sha256, identity.data_sha256)
    if all(len(text) == SHA256_DIGITS for text in hashes) and identity.name:
        return Check("Model", "passed", said)
    return Check("Model", "warning", f"{said} Without both, other weights cannot be told apart.")


def _confidence(found: Outcome) -> Check:
    said = f"{found.confidence}: {CONFIDENCE_MEANING[found.confidence]}."
    weak = found.confidence in {"prior only", "partial"}
    return Check("Confidence", "warning" if weak else "passed", said)


def _samples(study: Study) -> Check:
    title, evidence = "Samples", study.analysis.evidence
    if evidence is None:
        return Check(title, "warning", "n/a: nothing was measured, so no loss is projected.")
    few = samples_warning(study)
    if few:
        return Check(title, "warning", few[0])
    partial = study.analysis.partial
    if partial is not None:
        return Check(title, "warning", f"{partial.in_words().capitalize()}.")
    return Check(title, "passed", f"{evidence.samples:,} selection samples.")


def _warnings(study: Study, chosen: PrecisionMap, found: Outcome) -> Check:
    told = {
        *overflow_warning(found.forbidden), *groups_warning(chosen), *rules_warning(chosen),
        *samples_warning(study),
    }  # fmt: skip
    rest = [printable(sentence) for sentence in found.warnings if sentence not in told]
    if rest:
        return Check("Other warnings", "warning", " ".join(rest))
    return Check("Other warnings", "passed", "None.")


def short(digest: str) -> str:
    """The beginning of a fingerprint, "n/a" where there is none."""
    return digest[:SHORT] or "n/a"


def named(names: Iterable[str]) -> str:
    """The first names, as "a, b ... (7 in all)"; names are other people's text."""
    listed = [printable(name) for name in names]
    more = f" ... ({len(listed)} in all)" if len(listed) > MAX_NAMED else ""
    return f"{', '.join(listed[:MAX_NAMED])}{more}"
