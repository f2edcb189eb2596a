"""Chapters of advice: feasibility, the recommended map, what it brings, the document's figures."""

from __future__ import annotations

from collections import Counter

import numpy as np

import core
from core.decide.advise.advice import considerations
from core.decide.advise.document import applies_to, comparisons
from core.decide.assess.compare import COSTS
from core.decide.assess.loss import loss_figures
from core.decide.policy.decision import BY_OVERRIDE
from core.export.map import words
from core.export.map.precision_map import SCHEMA_VERSION
from core.export.map.reproduce import analyze_command, plan_command
from core.export.report.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Figure,
    Section,
    Table,
    Text,
)
from core.export.report.material import THIS_MAP, Material
from core.export.report.results import NOTHING, precisions_of
from core.layers import ROLES
from core.quantity import UNKNOWN

MAX_NAMED = 50


def strategy(given: Material) -> tuple[Section, ...]:
    """Whether to quantize, how, and what to know about it."""
    said = considerations(given.study, given.chosen)
    warned = given.found.warnings
    return (
        Section("strategy", "Quantization advice and strategy"),
        Section("feasibility", "Feasibility", (
            Text(f"Verdict: {given.verdict.feasibility}. Confidence: {given.found.confidence}."),
            Bullets(given.verdict.reasons),
        ), 2),
        Section("considerations", "Key considerations",
                (Bullets(said) if said else Text("Nothing stands out."),), 2),
        Section("warnings", "Warnings",
                (Bullets(warned) if warned else Text("None."),), 2),
        Section("map", "Recommended precision map", (_by_role(given), *_rules(given)), 2),
    )  # fmt: skip


def _by_role(given: Material) -> Table:
    roles = np.array(given.study.layers.roles, dtype=object)
    present = [role for role in ROLES if role in given.study.layers.roles]
    rows = []
    for role in present:
        here = np.flatnonzero(roles == role)
        document = Counter(given.chosen.document_precision(int(i)) for i in here)
        stated = ", ".join(document) if len(document) == 1 else ", ".join(
            f"{name} {count}" for name, count in sorted(document.items())
        )  # fmt: skip
        rows.append((words.role(role), precisions_of(given, here), stated))
    return Table(
        (Column("layer type"), Column("precision in this map", "precision"),
         Column("the document's way", "precision")),
        tuple(rows), key="map",
    )  # fmt: skip


def _rules(given: Material) -> tuple[Block, ...]:
    """Pins, and layers set by hand."""
    chosen = given.chosen
    by_hand = [
        (chosen.layers.names[i], "by hand", name or NOTHING)
        for i, name in enumerate(chosen.assigned)
        if chosen.origin[i] == BY_OVERRIDE
    ]
    rows = [(pattern, "pin", precision) for pattern, precision in chosen.policy.pins]
    shown = (*rows, *by_hand)[:MAX_NAMED]
    if not shown:
        return (Text("No layer is pinned or set by hand."),)
    left = len(rows) + len(by_hand) - len(shown)
    table = Table(
        (Column("layer or pattern", "name"), Column("set by"), Column("precision", "precision")),
        shown, key="rules",
    )  # fmt: skip
    more = (Text(f"{left} more are in the table of all layers."),) if left else ()
    return (table, *more)


def effect(given: Material) -> tuple[Section, ...]:
    """What the map brings, beside the strategies that are always there."""
    comparison = given.comparison
    beaten = {s.name: comparison.beaten(s.name) for s in given.strategies}
    judged, titles = loss_figures(given.found.totals), words.figures(given.study.analysis)
    names = ("size_bytes", "latency_ms", judged.loss, judged.divergence)
    rows = tuple(
        (
            s.name,
            *(words.total(given.study.analysis, name, s.outcome.totals[name]) for name in names),
            *(", ".join(beaten[s.name][cost]) or "no one" for cost in COSTS),
        )
        for s in given.strategies
    )
    table = Table(
        (Column("strategy"), *(Column(titles[name], "number") for name in names),
         Column("beaten in loss and size by", "prose"), Column("beaten in loss and latency by", "prose")),
        rows, key="strategies",
    )  # fmt: skip
    equal = next((group for group in comparison.equal if THIS_MAP in group), ())
    same = [name for name in equal if name != THIS_MAP]
    blocks: list[Block] = [
        Figure("trade", "Loss against size and latency", _takeaway(given)),
        table,
        Text(
            "One strategy beats another where it is no worse in both figures and better in one; "
            "equal losses are parted by "
            f"{titles[judged.divergence]}, and an unknown figure beats no one. Ranges "
            "overlap: a small difference is no proof."
        ),
    ]
    if same:
        blocks.append(Text(f"This map is the same as {' and '.join(same)}."))
    advice = Table(
        (Column("use"), Column("strategy"), Column("why", "prose"), Column("size", "number"),
         Column("latency", "number"), Column(titles[judged.loss], "number")),
        _advice(given), key="advice",
    )  # fmt: skip
    return (
        Section("effect", "What it brings"),
        Section("comparison", "Beside other strategies", tuple(blocks), 2),
        Section("deployment", "Advice for deployment", (advice,), 2),
    )


def _advice(given: Material) -> tuple[tuple[str, ...], ...]:
    priced = {s.name: s.outcome.totals for s in given.strategies}
    loss = loss_figures(given.found.totals).loss
    uses = {"production": "Production", "edge": "Edge device", "high precision": "High precision"}
    return tuple(
        (
            uses.get(one.use, one.use), one.strategy, one.why,
            *(words.total(given.study.analysis, name, priced[one.strategy][name])
              for name in ("size_bytes", "latency_ms", loss)),
        )
        for one in given.recommended
    )  # fmt: skip


def _takeaway(given: Material) -> str:
    name = loss_figures(given.found.totals).loss
    if given.found.totals[name].value is None:
        return f"No {words.figures(given.study.analysis)[name]} is projected for this map."
    places = ["off", "on"]
    fronts = given.comparison.fronts
    size, latency = (places[THIS_MAP in fronts[cost]] for cost in COSTS)
    return (
        f"{len(given.strategies) - 1} named strategies and this map, which is {size} the front of "
        f"loss and size and {latency} that of loss and latency."
    )


def document(given: Material) -> tuple[Section, ...]:
    """The reference document's figures beside the recomputed ones, where it speaks of this model."""
    if not applies_to(given.study):
        return ()
    table = Table(
        (Column("figure"), Column("document", "number"), Column("recomputed", "number"),
         Column("comment", "prose")),
        tuple(
            (row.figure, row.stated, words.quantity(row.recomputed), row.comment)
            for row in comparisons(given.study, given.policy.hardware)
        ),
        key="document",
    )  # fmt: skip
    note = "Under the document's own policy; what it states is shown, never used."
    return (Section("document", "The document's figures", (Text(note), table)),)


def reproduce(given: Material) -> Section:
    """Commands and fingerprints that give this report again."""
    analysis = given.study.analysis
    command = plan_command(given.chosen)
    lines = [analyze_command(analysis.source, expand_units=analysis.expanded_units)]
    lines += [] if command is None else [command]
    lines += ["python -m core show DIR map.json", "python -m core report DIR map.json"]
    blocks: list[Block] = [Code(tuple(lines))]
    if command is None:
        blocks.append(Text("This map has choices that no command line can say; keep its file."))
    blocks.append(fingerprints(given))
    return Section("reproduce", "How to reproduce", tuple(blocks))


def fingerprints(given: Material) -> Facts:
    """What has to be equal for the figures to be equal."""
    analysis = given.study.analysis
    return Facts((
        ("Model", analysis.identity.name),
        ("SHA-256 of the weights", analysis.identity.weights_sha256),
        ("SHA-256 of the data", analysis.identity.data_sha256),
        ("Scheme", analysis.how_rounded),
        ("Hardware profile", given.policy.hardware),
        ("Tool", f"quantscape {core.__version__}, precision map schema {SCHEMA_VERSION}"),
        ("Analyzed with", f"quantscape {analysis.tool_version or UNKNOWN}"),
    ))  # fmt: skip
