"""What each command of the command line does."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core import cli_tables as tables
from core import store
from core.decide.advice import considerations, feasibility, recommendations
from core.decide.decision import PrecisionMap
from core.decide.document import applies_to, comparisons
from core.decide.outcome import outcome
from core.decide.policy import Policy, parse_rules, parse_thresholds, parse_weights
from core.errors import MapError, PolicyError
from core.export import precision_map
from core.export.csv_table import to_csv
from core.source import samples as bundled
from core.study import Study

if TYPE_CHECKING:
    from core.analysis import Analysis
    from core.source.contract import ModelSource


PIPED_WIDTH = 180


def _console() -> Console:
    """Tables fill a terminal; in a pipe or a file they get room for whole rows."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _print_json(value: Any) -> None:
    print(json.dumps(msgspec.to_builtins(value), indent=2, allow_nan=False))


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
        _print_json(rows)
    else:
        _console().print(tables.samples_table(rows))


def _source(options: argparse.Namespace) -> ModelSource:
    if not options.source.startswith(bundled.PREFIX):
        raise PolicyError(
            f"{options.source!r} is no source.", "Use sample:NAME; `samples` lists the names."
        )
    return bundled.load(options.source, options.csv)


def analyze(options: argparse.Namespace) -> None:
    """Measure a source and write its analysis folder."""
    # torch takes seconds to import, and only this command runs a model
    from core.evidence import analyze as analysing

    if options.out is None and not options.dry_run:
        raise PolicyError("No folder to write to.", "Give --out DIR, or --dry-run.")
    source = _source(options)
    plan = analysing.dry_run(source, expand_units=options.expand_units)
    if options.dry_run:
        if options.json:
            _print_json(plan)
        else:
            _console().print(tables.plan_table(plan))
        return
    store.check_target(options.out)
    console = Console(stderr=True)
    console.print(
        f"{plan.layers} layers, {plan.runs} passes over {plan.samples:,} samples, "
        f"about {plan.predicted_seconds / 60:.1f} min"
    )
    columns = (
        TextColumn("{task.description:<44.44}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=plan.runs)
        analysis = analysing.analyze(
            source,
            expand_units=options.expand_units,
            progress=lambda done, _total, label: progress.update(
                task, completed=done, description=label
            ),
        )
    store.save(analysis, options.out)
    if options.json:
        _print_json(_summary(analysis, options.out))
    else:
        _console().print(f"Wrote {options.out}: {len(analysis.layers)} layers.")


def _summary(analysis: Analysis, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "layers": len(analysis.layers),
        "samples": analysis.splits.selection,
        "seconds": analysis.seconds,
        "identity": analysis.identity,
    }


def policy_from(options: argparse.Namespace) -> Policy:
    """The policy that the options of `plan` describe."""
    changes: dict[str, Any] = {"hardware": options.hardware}
    if options.weights is not None:
        changes["weights"] = parse_weights(options.weights)
    if options.thresholds is not None:
        high, medium = parse_thresholds(options.thresholds)
        changes |= {"high_threshold": high, "medium_threshold": medium}
    for level in ("high", "medium", "low", "uniform"):
        given = getattr(options, level)
        if given is not None:
            changes[level] = given.upper()
    if options.top_k is not None:
        changes |= {"top_k": options.top_k, "strategy": "top-k"}
    if options.strategy is not None:
        changes["strategy"] = options.strategy
    if changes.get("strategy") == "top-k" and options.top_k is None:
        raise PolicyError("--strategy top-k needs --top-k K.", "Say how many layers go low.")
    changes["pins"] = tuple(rule for text in options.pin for rule in parse_rules(text))
    changes["overrides"] = tuple(rule for text in options.override for rule in parse_rules(text))
    return replace(Policy(), **changes)


def plan(options: argparse.Namespace) -> None:
    """Decide a map and write it."""
    study = Study(store.load(options.folder))
    chosen = study.decide(policy_from(options))
    unknown = [name for name, _ in chosen.policy.overrides if name not in study.layers.index]
    if unknown:
        raise PolicyError(
            f"No layer is called {unknown[0]!r}.", f"Names: `show {options.folder}` lists them."
        )
    for pattern in chosen.ignored:
        print(f"quantscape: note: no layer matches {pattern!r}", file=sys.stderr)
    if options.out is not None:
        _write(options.out, precision_map.to_json(study, chosen))
    if options.json:
        _print_json(_shown(study, chosen))
        return
    _print_map(study, chosen, document=False)
    if options.out is not None:
        _console().print(f"Wrote {options.out}.")


def show(options: argparse.Namespace) -> None:
    """Show an analysis under a map, or under the document's policy."""
    study = Study(store.load(options.folder))
    chosen = (
        study.decide(Policy()) if options.map is None else precision_map.read(options.map, study)
    )
    if options.json:
        _print_json(_shown(study, chosen))
    else:
        _print_map(study, chosen, document=True)


def export(options: argparse.Namespace) -> None:
    """Check a map and write it as JSON or CSV."""
    study = Study(store.load(options.folder))
    chosen = precision_map.read(options.map, study)
    write = {"json": precision_map.to_json, "csv": to_csv}[options.format]
    _write(options.out, write(study, chosen))
    if options.json:
        _print_json({"file": str(options.out), "format": options.format})
    else:
        _console().print(f"Wrote {options.out} ({options.format}).")


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
    console = _console()
    found = outcome(study, chosen)
    console.print(tables.layer_table(study, chosen, found))
    console.print(tables.statistics_table(chosen))
    console.print(tables.totals_table(found, chosen.policy.hardware))
    if document and applies_to(study):
        console.print(tables.document_table(comparisons(study, chosen.policy.hardware)))
    verdict = feasibility(study, chosen, found)
    console.print(f"[bold]{verdict.feasibility}[/]: {' '.join(verdict.reasons)}")
    for use in recommendations(study, chosen.policy):
        console.print(f"For {use.use}: [bold]{use.strategy}[/] ({use.why}).")
    for sentence in (*considerations(study, chosen), *found.warnings):
        console.print(f"- {sentence}")


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise MapError(
            f"{path} cannot be written: {error.strerror}.", "Choose a folder that exists."
        ) from error
