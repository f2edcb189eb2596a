"""What each command of the command line does."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from core.analysis import store
from core.cli import budget, output, tables
from core.cli.cache import opened
from core.cli.output import console, note, print_json, progress_bar, write
from core.cli.partial import first_look, keeper
from core.cli.studies import study_of
from core.decide import answer
from core.decide.advise.advice import considerations, feasibility, recommendations
from core.decide.advise.document import applies_to, comparisons
from core.decide.assess.outcome import OPTIMISTIC, outcome
from core.decide.policy.allowed import allowed_in_words, parse_allowed
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import (
    GOES_TO,
    Policy,
    parse_rules,
    parse_thresholds,
    parse_weights,
    redirected,
)
from core.decide.study import Study
from core.errors import PolicyError
from core.evidence.options import MeasureOptions
from core.export.map import precision_map
from core.export.map.words import count
from core.export.report import assemble as reports
from core.export.report import markdown
from core.export.targets.names import NODES_FILE
from core.jobs.progress import Reporter, reporting
from core.numerics import precision as registry
from core.numerics import quantizers, scheme
from core.numerics.calibrate import calibrators
from core.onnx_graph import node_table
from core.quantity import duration
from core.source import onnx_file, sources
from core.source import samples as bundled

if TYPE_CHECKING:
    from core.analysis.analysis import Analysis
    from core.numerics.precision import Precision


def samples(options: argparse.Namespace) -> None:
    """List bundled samples with the size of their model."""
    rows = []
    for name in bundled.names():
        sample = bundled.get(name)
        row: dict[str, Any] = {"name": name, "source": f"{bundled.PREFIX}{name}", "analysis": None}
        if (sample.analysis / store.FILE).is_file():
            analysis = store.load(sample.analysis)
            row |= {
                "analysis": str(sample.analysis),
                "title": analysis.title,
                "layers": len(analysis.layers),
                "params": int(analysis.layers.params.sum()),
                "holdout_accuracy": analysis.holdout_accuracy,
                "majority_accuracy": analysis.majority_accuracy,
            }
        rows.append(row)
    if options.json:
        print_json(rows)
    else:
        console().print(tables.samples_table(rows))


def _precisions(options: argparse.Namespace) -> tuple[Precision, ...]:
    """The precisions to measure, without the reference, which is measured anyway."""
    wanted = options.precisions
    names = registry.FIRST_VISIT if wanted is None else wanted.split(",")
    found = tuple(dict.fromkeys(registry.get(registry.as_named(name)) for name in names))
    simulated = tuple(p for p in found if p.name != registry.REFERENCE)
    if not simulated:
        raise PolicyError(
            f"--precisions {wanted} leaves nothing to measure.",
            f"Name some of {', '.join(registry.simulated())}.",
        )
    return simulated


def analyze(options: argparse.Namespace) -> None:
    """Measure a source and write its analysis folder."""
    with reporting(options.progress) as reporter:
        _analyze(options, reporter)


def _analyze(options: argparse.Namespace, reporter: Reporter) -> None:
    # torch takes seconds to import, and only this command runs a model
    from core.analysis import analyze as analysing
    from core.evidence.measure.memory import give_back_at_once, held_bytes
    from core.evidence.measure.workers import share_cores
    from core.source.device import placed
    from core.source.kinds import is_graph

    if options.out is None and not options.dry_run:
        raise PolicyError("No folder to write to.", "Give --out DIR, or --dry-run.")
    if not options.dry_run:
        store.check_target(options.out)
    share_cores(options.jobs)
    if options.memory is not None:
        give_back_at_once()
    source = placed(sources.load(_named(options), options.csv), options.device, options.jobs)
    how = MeasureOptions(
        scheme=scheme.get(options.scheme),
        calibrator=calibrators.get(options.calibrator),
        quantizer=quantizers.get(options.quantizer),
        precisions=_precisions(options),
        expand_units=options.expand_units,
        memory_bytes=None if options.memory is None else options.memory - held_bytes(),
        jobs=options.jobs,
        until=options.until.replace("-", " "),
    )
    ready = analysing.ready(source, how)
    plan = analysing.forecast(ready)
    if options.dry_run:
        reporter.result = msgspec.to_builtins(plan)
        if options.json:
            print_json(plan)
        else:
            console().print(tables.plan_table(plan))
        return
    aside = console(stderr=True)
    aside.print(
        f"{count(plan.layers, 'layer')}, {count(plan.runs, 'run')} over {plan.samples:,} samples, "
        f"about {duration(plan.predicted_seconds)} on an idle machine{tables.looked(plan)} and "
        f"{plan.peak_bytes / 1e6:,.0f} MB"
    )

    def say(sentence: str) -> None:
        aside.print(sentence)
        reporter.say(sentence)

    cache, look = opened(options, say), first_look(keeper(options, say), say)
    with progress_bar(aside) as progress:
        task = progress.add_task("starting", total=plan.runs)

        def step(done: int, total: int, label: str) -> None:
            progress.update(task, total=total, completed=done, description=label)
            reporter.step(done, total, label)

        analysis = analysing.analyze(
            source, how, given=ready, cache=cache, progress=step, on_partial=look
        )
    store.save(analysis, options.out)
    if is_graph(source.model):  # exporters name the nodes of the person's own file
        from core.source.onnx_model import nodes_by_layer

        nodes = nodes_by_layer(source.model, analysis.layers)
        write(options.out / NODES_FILE, node_table.to_json(nodes))
    reporter.result = _summary(analysis, options.out)
    for sentence in (*((OPTIMISTIC,) if analysis.optimistic else ()), *analysis.notes):
        note(sentence)
    if options.json:
        print_json(reporter.result)
    else:
        console().print(f"Wrote {options.out}: {count(len(analysis.layers), 'layer')}.")


def _named(options: argparse.Namespace) -> str:
    """The source that is to be analyzed, with what an ONNX file needs beside itself."""
    if options.source.lower().endswith(node_table.SUFFIX):
        return onnx_file.reference(options.source, options)
    given = [name for name in onnx_file.OPTIONS if getattr(options, name)]
    if given:
        raise PolicyError(
            f"{options.source} is no ONNX file, but --{given[0]} was given.",
            "Leave it out: a function or a sample brings its own data.",
        )
    return str(options.source)


def _summary(analysis: Analysis, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "layers": len(analysis.layers),
        "samples": analysis.splits.selection,
        "seconds": analysis.seconds,
        "identity": analysis.identity,
        "optimistic": analysis.optimistic,
        "notes": analysis.notes,
    }


def policy_from(options: argparse.Namespace, usual: Policy) -> Policy:
    """The policy that the options of `plan` describe; what they leave open is as `usual`."""
    changes: dict[str, Any] = {"hardware": options.hardware or usual.hardware}
    changes["allowed"] = parse_allowed(options.allow)
    if options.weights is not None:
        changes["weights"] = parse_weights(options.weights)
    if options.thresholds is not None:
        high, medium = parse_thresholds(options.thresholds)
        changes |= {"high_threshold": high, "medium_threshold": medium}
    for level in ("high", "medium", "low", "uniform"):
        given = getattr(options, level)
        if given is not None:
            changes[level] = registry.as_named(given)
            _check_level(level, changes[level], changes["allowed"])
    if options.top_k is not None:
        changes |= {"top_k": options.top_k, "strategy": "top-k"}
    if options.strategy is not None:
        changes["strategy"] = options.strategy
    if changes.get("strategy") == "top-k" and options.top_k is None:
        raise PolicyError("--strategy top-k needs --top-k K.", "Say how many layers go low.")
    changes["pins"] = tuple(rule for text in options.pin for rule in parse_rules(text))
    changes["overrides"] = tuple(rule for text in options.override for rule in parse_rules(text))
    changes |= budget.budget_changes(options)
    return replace(usual, **changes)


def _check_level(level: str, named: str, allowed: tuple[str, ...]) -> None:
    """Raise `PolicyError` where a person sends layers to what the same person does not allow."""
    if allowed and named not in allowed:
        raise PolicyError(
            f"--{level} {named} is none of the allowed {allowed_in_words(allowed)}.",
            f"Allow {named} too, or send these layers to one of them.",
        )


def plan(options: argparse.Namespace) -> None:
    """Decide a map and write it."""
    study = study_of(options.folder)
    usual = study.default_policy
    chosen = answer.decide(study, policy_from(options, usual))
    left_open = {f: getattr(usual, f) for f in GOES_TO if getattr(options, f) is None}
    for sentence in redirected(left_open, chosen.policy):
        note(sentence)
    unknown = [name for name, _ in chosen.policy.overrides if name not in study.layers.index]
    if unknown:
        raise PolicyError(
            f"No layer is called {unknown[0]!r}.", f"Names: `show {options.folder}` lists them."
        )
    for pattern in chosen.ignored:
        note(f"no layer matches {pattern!r}")
    solved = budget.solved_content(study, chosen, options)
    if options.out is not None:
        write(options.out, precision_map.to_json(study, chosen))
    if options.json:
        print_json(_shown(study, chosen) | solved)
        return
    _print_map(study, chosen, document=False)
    budget.print_solution(solved)
    if options.out is not None:
        console().print(f"Wrote {options.out}.")


def show(options: argparse.Namespace) -> None:
    """Show an analysis under a map, or under the document's policy."""
    study = study_of(options.folder)
    chosen = (
        answer.decide(study, study.default_policy)
        if options.map is None
        else precision_map.read(options.map, study)
    )
    if options.json:
        print_json(_shown(study, chosen))
    else:
        _print_map(study, chosen, document=True)


def report(options: argparse.Namespace) -> None:
    """Print or write a map's report as Markdown; as data with `--json`."""
    study = study_of(options.folder)
    found = reports.build(study, precision_map.read(options.map, study))
    if options.out is not None:
        write(options.out, markdown.render(found).encode())
    if options.json:
        print_json(found if options.out is None else {"file": str(options.out)})
    elif options.out is not None:
        console().print(f"Wrote {options.out}.")
    else:
        output.answer().write(markdown.render(found))


def _shown(study: Study, chosen: PrecisionMap) -> dict[str, Any]:
    found = outcome(study, chosen)
    content: dict[str, Any] = msgspec.to_builtins(precision_map.describe(study, chosen, found))
    verdict = feasibility(study, chosen, found)
    content["feasibility"] = msgspec.to_builtins(verdict)
    content["considerations"] = considerations(study, chosen)
    content["recommendations"] = msgspec.to_builtins(recommendations(study, chosen.policy))
    hardware = chosen.policy.hardware
    content["document"] = (
        msgspec.to_builtins(comparisons(study, hardware)) if applies_to(study) else []
    )
    return content


def _print_map(study: Study, chosen: PrecisionMap, *, document: bool) -> None:
    out = console()
    found = outcome(study, chosen)
    out.print(tables.layer_table(study, chosen, found))
    out.print(tables.statistics_table(chosen))
    out.print(tables.totals_table(study, found, chosen.policy.hardware))
    if document and applies_to(study):
        out.print(tables.document_table(comparisons(study, chosen.policy.hardware)))
    verdict = feasibility(study, chosen, found)
    out.print(Text.assemble((verdict.feasibility, "bold"), f": {' '.join(verdict.reasons)}"))
    for use in recommendations(study, chosen.policy):
        out.print(Text.assemble(f"For {use.use}: ", (use.strategy, "bold"), f" ({use.why})."))
    for sentence in (*considerations(study, chosen), *found.warnings):
        out.print(f"- {sentence}")
