"""The decision on record: what was chosen and why, what else there was, and where it can go."""

from __future__ import annotations

from core.decide.assess.compare import COSTS
from core.decide.assess.gains import gains
from core.decide.assess.loss import loss_figures
from core.decide.assess.outcome import accuracy_totals
from core.export.map import words
from core.export.map.reproduce import plan_command
from core.export.report import facts
from core.export.report.blocks import Block, Code, Column, Facts, Section, Table, Text
from core.export.report.material import THIS_MAP, Material
from core.export.targets import registry
from core.export.targets.legality import Legality, legality
from core.export.targets.schemes import mismatch
from core.quantity import UNKNOWN

NOT_RUN = "n/a: this map was not run as a whole"


def decision(given: Material) -> Section:
    """Model, data, policy, the map and why, its figures by kind, and the alternatives."""
    analysis, totals = given.study.analysis, given.found.totals
    titles, judged = words.figures(analysis), loss_figures(totals)
    command = plan_command(given.chosen)
    asked = UNKNOWN if command is None else command.split(" plan DIR", 1)[1].split(" --out")[0]
    rows = [
        ("Model", f"{analysis.title} ({analysis.identity.name})"),
        ("Data", analysis.data_description or UNKNOWN),
        ("Splits", facts.splits(analysis)),
        ("Evidence", f"{analysis.scheme}; {given.score_kind} scores; {given.found.confidence}"),
        ("Policy", asked.strip() or "the default: thresholds of the reference document"),
        ("Chosen map", _counts(given)),
        ("Why", " ".join((*given.verdict.reasons, _standing(given)))),
    ]
    projection = given.study.project(given.chosen.codes)
    projected = totals | accuracy_totals(given.study, projection)  # a run replaces some
    for kind, names in (
        ("Exact", ("size_bytes", "size_reduction_pct")),
        ("Estimated", ("latency_ms", "speedup")),
        ("Projected, selection split", judged.every),
    ):
        said = "; ".join(f"{titles[n]} {words.amount(projected[n])}" for n in names)
        rows.append((kind, said))
    rows.append(("Measured, the FP32 model", facts.judged(analysis)[0][1]))
    rows += _measured(given)
    return Section(
        "decision", "Decision on record",
        (Facts(tuple(rows)), Text("What else there was:"), _alternatives(given)),
    )  # fmt: skip


def _measured(given: Material) -> list[tuple[str, str]]:
    """What running the map has shown, and where."""
    run = given.verified
    if run is None:
        return [("Measured, this map", NOT_RUN)]
    titles = words.titles_of(given.study.analysis.metric)
    figures = [f"{titles.get(name, name)} {words.amount(q)}" for name, q in run.figures.items()]
    figures.append(
        f"latency {words.amount(run.timing.map_ms)}, {words.amount(run.timing.ratio)} of FP32"
    )
    otherwise = (
        f"; {words.count(len(run.otherwise), 'layer')} ran otherwise" if run.otherwise else ""
    )
    where = (
        f"{run.machine.runtime} on {run.machine.processor}, {words.count(run.samples, 'sample')} "
        f"of the {run.split} split, {run.created[:10]}{otherwise}"
    )
    return [
        (f"Measured, this map, {run.split} split", "; ".join(figures)),
        ("Measured where", where),
    ]


def _counts(given: Material) -> str:
    counts = {p: given.chosen.count(p) for p in given.chosen.precisions}
    return ", ".join(f"{n} {p}" for p, n in counts.items() if n) or "no layers"


def _standing(given: Material) -> str:
    beaten = given.comparison.beaten(THIS_MAP)
    rivals = [f"in loss and {c} by {', '.join(beaten[c])}" for c in COSTS if beaten[c]]
    return f"It is beaten {'; '.join(rivals)}." if rivals else "No named strategy beats it."


def _alternatives(given: Material) -> Table:
    """Every named strategy as a difference from the map, with how the two stand."""
    totals = given.found.totals
    names = ("size_bytes", "latency_ms", loss_figures(totals).loss)
    titles = words.figures(given.study.analysis)
    rows = []
    for other in given.strategies:
        if other.name == THIS_MAP:
            continue
        changes = gains(given.found, other.outcome)
        beats = given.comparison.beaten(THIS_MAP)
        loses = given.comparison.beaten(other.name)
        if THIS_MAP in given.comparison.same_as(other.name):
            standing = "the same map"
        elif any(other.name in beats[c] for c in COSTS):
            standing = (
                f"better in loss and {' and '.join(c for c in COSTS if other.name in beats[c])}"
            )
        elif any(THIS_MAP in loses[c] for c in COSTS):
            standing = f"worse in loss and {' and '.join(c for c in COSTS if THIS_MAP in loses[c])}"
        elif other.outcome.forbidden:
            standing = "overflows"
        else:
            standing = "another trade: better in one figure, worse in another"
        rows.append(
            (
                other.name,
                *(words.gain(changes[n], other.outcome.totals[n].unit) for n in names),
                standing,
            )
        )
    return Table(
        (Column("alternative"), *(Column(f"{titles[n]} against this map", "number") for n in names),
         Column("how it stands", "prose")),
        tuple(rows), key="alternatives",
    )  # fmt: skip


def targets(given: Material) -> Section:
    """For every tool: whether it can run the map, what the nearest legal one costs, its limits."""
    rows = []
    for name in registry.TARGETS:
        target = registry.get(name)
        if target.overlay:
            continue
        found = legality(given.study, given.chosen, target)
        limits = list(target.cannot)
        other = mismatch(given.study, target, found.legal)
        rows.append(
            (
                name,
                f"{target.title}, written for {target.package} {target.version}",
                _legal(found),
                " ".join(limits) or "nothing beyond that",
                "as measured" if other is None else other,
            )
        )
    blocks: tuple[Block, ...] = (
        Text(
            "A map is written for a tool with names checked; choices that it cannot run are "
            "refused or moved to the nearest legal precision, at this cost:"
        ),
        Code(("python -m core export DIR map.json --format NAME --nearest --out FILE",)),
        Table(
            (Column("format", "name"), Column("tool", "prose"), Column("can run", "prose"),
             Column("cannot express", "prose"), Column("evidence", "prose")),
            tuple(rows), key="targets",
        ),
    )  # fmt: skip
    return Section("targets", "Where this map can go", blocks)


def _legal(found: Legality) -> str:
    if not found.illegal:
        return "every choice"
    changes = found.said.removeprefix("The nearest legal map changes ")
    return f"all but {words.count(len(found.illegal), 'layer')}; going there changes {changes}"
