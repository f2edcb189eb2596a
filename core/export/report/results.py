"""Chapters of results: layer types, statistics, performance, sizes, accuracy, every layer."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from core.decide.advise.explain import diagnosis_of, gain_in_words
from core.decide.assess.by_role import by_role
from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import CONFIDENCE_MEANING, Outcome
from core.decide.assess.statistics import LevelCount, statistics
from core.decide.policy.scoring import HIGH, LEVELS
from core.estimate import hardware as hardware_profiles
from core.estimate.size import fixed_bytes
from core.evidence.scorers import priors
from core.export.map import words
from core.export.map.precision_map import ORIGINS
from core.export.report.blocks import Block, Column, Facts, Figure, Section, Table, Text
from core.export.report.facts import judged
from core.export.report.material import THIS_MAP, Material
from core.quantity import UNKNOWN, digits

MOST_CAUSES = 20
"""Layers in the table of causes; a report of a large model stays readable."""

NOTHING = "none"
"""Written where a layer has no precision because it does nothing at inference."""


def results(given: Material) -> tuple[Section, ...]:
    """All figures of the map."""
    return (
        Section("results", "Results"),
        Section("types", "Sensitivity by layer type", (_types(given),), 2),
        Section("statistics", "Statistics", _statistics(given), 2),
        Section("performance", "Performance estimate", _performance(given), 2),
        Section("sizes", "File sizes", _sizes(given), 2),
        Section("accuracy", "Accuracy", _accuracy(given), 2),
        *_causes(given),
    )


def _causes(given: Material) -> tuple[Section, ...]:
    """Why the layers with the largest error of their own err, and what would help."""
    study = given.study
    found = [
        (layer.name, diagnosis_of(study, i, given.policy)) for i, layer in enumerate(study.layers)
    ]
    known = [(name, d) for name, d in found if d is not None and d.cause != "none"]
    if not known:
        return ()
    known.sort(key=lambda pair: pair[1].sqnr_db)
    rows = tuple(
        (
            name, d.cause, UNKNOWN if math.isinf(d.sqnr_db) else f"{d.sqnr_db:.1f} dB",
            "; ".join(f"{r.title}: {gain_in_words(r)}" for r in d.remedies) or UNKNOWN,
        )
        for name, d in known[:MOST_CAUSES]
    )  # fmt: skip
    columns = (
        Column("Layer", "name"), Column(f"Main cause in {study.score_precision}"),
        Column("SQNR of its own output (measured)", "number"),
        Column("What would help (gain, measured)", "prose"),
    )  # fmt: skip
    rest = len(known) - len(rows)
    said = f" {rest} more layers have one; `explain` tells of each." if rest else ""
    about = (
        "Gains are those of the layer's own output on calibration samples, that of ranges which hold "
        "the selection samples too on those; below 0 it harms."
    )
    return (Section("causes", "Why layers err", (Table(columns, rows), Text(f"{about}{said}")), 2),)


def _types(given: Material) -> Table:
    chosen, roles = given.chosen, np.array(given.study.layers.roles, dtype=object)
    rows = []
    for summary in by_role(chosen, given.found):
        here = np.flatnonzero(roles == summary.role)
        levels = Counter(LEVELS[level] for level in chosen.levels[here])
        below = int((chosen.levels[here] < HIGH).sum())
        rows.append((
            words.role(summary.role),
            f"{summary.layers:,}",
            f"{summary.mean_score:.3f}",
            mix(levels, ("HIGH", "MEDIUM", "LOW")),
            {0: "no", len(here): "yes"}.get(below, f"{below} of {len(here)}"),
            precisions_of(given, here),
            priors.reason(summary.role),
        ))  # fmt: skip
    return Table(
        (Column("layer type"), Column("layers (exact)", "number"),
         Column(f"mean score ({given.score_kind})", "number"), Column("level"),
         Column("quantizable"), Column("precision", "precision"), Column("why", "prose")),
        tuple(rows), key="types",
    )  # fmt: skip


def precisions_of(given: Material, here: np.ndarray) -> str:
    """Precisions of the layers at `here`, with counts where they are mixed."""
    counts = Counter(given.chosen.assigned[i] or NOTHING for i in here)
    return mix(counts, (*given.study.precisions, NOTHING))


def mix(counts: Counter[str], order: tuple[str, ...]) -> str:
    """As "FP16", or "FP16 5, INT8 3" where there are several."""
    present = [name for name in order if counts[name]]
    if len(present) == 1:
        return present[0]
    return ", ".join(f"{name} {counts[name]}" for name in present)


def _statistics(given: Material) -> tuple[Table, Text]:
    stats = statistics(given.chosen)

    def share(count: LevelCount) -> str:
        return f"{count.layers} ({words.percent(count.share_pct)})"

    rows = [("layers", f"{stats.layers}", f"{stats.computing_layers}")]
    rows += [
        (f"level {every.level}", share(every), share(computing))
        for every, computing in zip(stats.levels, stats.computing_levels, strict=True)
    ]
    rows.append((
        "quantizable (below HIGH)",
        words.percent(stats.quantizable_pct),
        words.percent(stats.computing_quantizable_pct),
    ))  # fmt: skip
    for name, count in stats.precisions.items():
        document = stats.document_precisions.get(name)
        rows.append((
            f"in {name}", UNKNOWN if document is None else str(document), str(count)
        ))  # fmt: skip
    rows.append(("set by a pin", UNKNOWN, str(stats.pinned)))
    rows.append(("set by hand", UNKNOWN, str(stats.overridden)))
    table = Table(
        (Column("count"), Column("the document's way (exact)", "number"),
         Column("layers that compute (exact)", "number")),
        tuple(rows), key="statistics",
    )  # fmt: skip
    note = (
        "The document counts layers that do nothing at inference (dropout) and writes INT8 for "
        "them, and for all that is not HIGH. The second column leaves them out and counts the "
        "precisions that this map really gives."
    )
    return table, Text(note)


def _everyone(given: Material) -> dict[str, Outcome]:
    """The uniform maps, then this one."""
    found = {f"all {name}": s.outcome for name, s in given.uniform.items()}
    return {**found, THIS_MAP.lower(): given.found}


def _performance(given: Material) -> tuple[Facts, Table, Text]:
    profile = hardware_profiles.get(given.policy.hardware)
    facts = Facts((
        ("Hardware", f"{profile.title} ({profile.name})"),
        ("What it is like", profile.description),
        ("Source of its figures", profile.source),
    ))  # fmt: skip
    rows = tuple(
        (
            title,
            words.quantity(found.totals["latency_ms"]),
            words.quantity(found.totals["speedup"]),
            f"{found.boundaries} exact",
            f"{found.boundaries_ms:.3f} ms estimated",
        )
        for title, found in _everyone(given).items()
    )
    table = Table(
        (Column("map"), Column("latency per sample (range)", "number"),
         Column("speed-up over FP32", "number"), Column("precision boundaries", "number"),
         Column("time of boundaries", "number")),
        rows, key="performance",
    )  # fmt: skip
    return facts, table, Text("A boundary converts a tensor between two forms and costs time.")


def _sizes(given: Material) -> tuple[Table, Text]:
    sizes = {title: found.totals["size_bytes"].value for title, found in _everyone(given).items()}
    full, half = sizes.get("all FP32"), sizes.get("all FP16")
    rows = [
        (title, f"{size or 0:,.0f}", digits(size or 0, "bytes"), _less(size, full),
         _less(size, half))
        for title, size in sizes.items()
    ]  # fmt: skip
    fixed = fixed_bytes(given.study.layers)
    figures = (UNKNOWN,) * 2 if fixed is None else (f"{fixed:,}", digits(fixed, "bytes"))
    rows.append(("of it in no layer", *figures, "", ""))
    table = Table(
        (Column("map"), Column("bytes (exact)", "number"), Column("MB (exact)", "number"),
         Column("less than all FP32 (exact)", "number"),
         Column("less than all FP16 (exact)", "number")),
        tuple(rows), key="sizes",
    )  # fmt: skip
    glue = (
        "What belongs to no layer (tables, parameters of glue) stays as it is in every map. MB is "
        "10^6 bytes; scales, zero points and integer biases are counted."
    )
    return table, Text(glue)


def _less(size: float | None, reference: float | None) -> str:
    return words.percent(100 * (1 - size / reference) if size is not None and reference else None)


def _accuracy(given: Material) -> tuple[Facts, Table]:
    analysis, found = given.study.analysis, given.found
    confidence = f"{found.confidence}: {CONFIDENCE_MEANING[found.confidence]}"
    facts = Facts((("Confidence", confidence), *judged(analysis)))
    titles, names = words.figures(analysis), loss_figures(found.totals).every
    table = Table(
        (Column("map"), *(Column(f"{titles[name]} (90 % range)", "number") for name in names)),
        tuple(
            (title, *(words.total(analysis, name, one.totals[name]) for name in names))
            for title, one in _everyone(given).items()
        ),
        key="accuracy",
    )  # fmt: skip
    return facts, table


LAYER_COLUMNS = (
    Column("#", "number"), Column("layer", "name"), Column("type"),
    Column("parameters (exact)", "number"), Column("MACs (exact)", "number"),
    Column("score", "number"), Column("level"), Column("precision", "precision"),
    Column("document", "precision"), Column("set by"), Column("bytes (exact)", "number"),
    Column("ms (estimated)", "number"), Column("state"), Column("why", "prose"),
)  # fmt: skip


def layers(given: Material) -> Section:
    """The full layer table."""
    chosen, found = given.chosen, given.found
    rows = tuple(
        (
            str(i + 1), layer.name, words.role(layer.role), f"{layer.params:,}", f"{layer.macs:,}",
            f"{chosen.scores[i]:.3f}", LEVELS[chosen.levels[i]], chosen.assigned[i] or NOTHING,
            chosen.document_precision(i), ORIGINS[chosen.origin[i]], f"{found.layer_bytes[i]:,}",
            digits(float(found.layer_ms[i]), "ms"), layer.state, chosen.reason(i),
        )
        for i, layer in enumerate(given.study.layers)
    )  # fmt: skip
    columns = tuple(
        Column(f"score ({given.score_kind})", "number") if column.title == "score" else column
        for column in LAYER_COLUMNS
    )
    glue = given.study.layers.glue
    note = f"{len(glue)} containers with operations that are no layer stay in FP32." if glue else ""
    scores = Figure(
        "scores", "Score of each layer",
        f"Scores of {words.count(len(rows), 'layer')} against the thresholds "
        f"{given.policy.high_threshold:g} and {given.policy.medium_threshold:g}.",
    )  # fmt: skip
    blocks: list[Block] = [scores, Table(columns, rows, key="layers")]
    if note:
        blocks.append(Text(note))
    return Section("layers", "All layers", tuple(blocks))
