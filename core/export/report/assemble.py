"""The report of a map: one structure, rendered as Markdown and as HTML.

Its chapters are those of the sensitivity method's document, with every number recomputed. The
same map of the same analysis gives the same report.
"""

from __future__ import annotations

from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import CONFIDENCE_MEANING
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.evidence import scorers
from core.export.map import words
from core.export.report import facts, method, record, results, strategy
from core.export.report.blocks import (
    Bullets,
    Column,
    Facts,
    Figure,
    Report,
    Section,
    Table,
    Text,
)
from core.export.report.material import THIS_MAP, Material, gather
from core.quantity import UNKNOWN


def build(study: Study, chosen: PrecisionMap) -> Report:
    """The report on `chosen`."""
    return assemble(gather(study, chosen))


def assemble(given: Material) -> Report:
    """The report from what was computed."""
    analysis = given.study.analysis
    return Report(
        title=f"Quantization sensitivity of {analysis.title}",
        subtitle=f"{words.count(len(given.study.layers), 'layer')}, analyzed "
        f"{analysis.created[:10] or UNKNOWN}",
        verdict=given.verdict.feasibility,
        summary=" ".join(given.verdict.reasons),
        sections=(
            _overview(given),
            record.decision(given),
            method.goals(given),
            *method.method(given),
            *results.results(given),
            method.measurement(given),
            *strategy.strategy(given),
            *strategy.effect(given),
            *strategy.document(given),
            record.targets(given),
            _summary(given),
            results.layers(given),
            method.limits(given),
            strategy.reproduce(given),
        ),
    )


def _counts(given: Material) -> str:
    chosen = given.chosen
    parts = [
        f"{words.count(chosen.count(name), 'layer')} in {name}"
        for name in chosen.precisions
        if chosen.count(name)
    ]
    idle = int((chosen.codes < 0).sum())
    if idle:
        parts.append(f"{idle} with none because they do nothing at inference")
    return f"{', '.join(parts)}." if parts else "No layers."


def _summary(given: Material) -> Section:
    """The whole report in a few sentences."""
    totals = given.found.totals
    size, latency, drop = (
        words.total(given.study.analysis, key, totals[key])
        for key in ("size_bytes", "latency_ms", loss_figures(totals).loss)
    )
    metric = given.study.analysis.metric
    lost = "an accuracy loss" if metric is None else f"a loss in {metric.name}"
    shares = ", ".join(
        f"{scorers.get(name).title.lower()} {share:.0%}"
        for name, share in given.policy.normalised_weights().items()
    )
    evidence = given.study.analysis.evidence
    measured = (
        "Nothing was measured."
        if evidence is None
        else f"Every layer was measured alone on {words.count(evidence.samples, 'sample')} under "
        f"{evidence.scheme}, and the effects combined."
    )
    if given.study.analysis.partial is not None:
        measured = f"The measurement was not over: {given.study.analysis.partial.in_words()}."
    beaten = given.comparison.beaten(THIS_MAP)
    rivals = [
        f"in loss and {cost} by {', '.join(names)}" for cost, names in beaten.items() if names
    ]
    place = f"It is beaten {'; '.join(rivals)}." if rivals else "No named strategy beats it."
    return Section("summary", "Summary", (
        Bullets((
            f"The map: {_counts(given)}",
            f"What it costs: {size}, {latency} per sample, {lost} of {drop}.",
            f"Beside other strategies: {place}",
            f"How layers were ranked: {shares} ({given.score_kind}). {measured}",
            f"Verdict: {given.verdict.feasibility}. {' '.join(given.verdict.reasons)}",
            f"Confidence: {given.found.confidence}, {CONFIDENCE_MEANING[given.found.confidence]}.",
        )),
    ))  # fmt: skip


def _overview(given: Material) -> Section:
    analysis, chosen = given.study.analysis, given.chosen
    about = Facts((
        ("Model", f"{analysis.title} ({analysis.identity.name})"),
        ("About", analysis.description or UNKNOWN),
        ("Task", facts.task(analysis)),
        ("Data", analysis.data_description or UNKNOWN),
        ("Splits", facts.splits(analysis)),
        ("Scheme", analysis.how_rounded),
        ("Parameters", f"{int(chosen.layers.params.sum()):,} exact"),
        ("Multiply-accumulates per sample", f"{int(chosen.layers.macs.sum()):,} exact"),
        ("Analyzed", analysis.created or UNKNOWN),
        ("Weights (SHA-256)", analysis.identity.weights_sha256),
        ("Data (SHA-256)", analysis.identity.data_sha256),
        ("Confidence", given.found.confidence),
    ))  # fmt: skip
    totals = Table(
        (Column("figure"), Column("this map, value (90 % range) and kind", "number")),
        tuple((title, words.total(analysis, key, given.found.totals[key]))
              for key, title in words.figures(analysis).items()),
        key="totals",
    )  # fmt: skip
    kinds = (
        "Every figure says what it is: exact (counted), prior (a rule's score), projected (from "
        "a model of measurements, with a 90 % range), estimated (from a cost model) or measured. "
        f"Unknown is {UNKNOWN}."
    )
    strip = Figure("strip", "Precision of each layer", _counts(given))
    return Section("overview", "Overview", (strip, totals, Text(kinds), about))
