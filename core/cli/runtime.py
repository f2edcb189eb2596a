"""`build`, `verify` and `profile`: maps as models of ONNX Runtime, and what they measure."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from core.cli import runtime_tables as tables
from core.cli.output import console, note, print_json, write
from core.cli.studies import study_of
from core.decide.assess.verified import agreement_in_words, sentences
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import PolicyError
from core.estimate import hardware
from core.export.map import precision_map
from core.jobs.progress import Reporter, reporting
from core.numerics.scheme import check_built
from core.records import machine_profile, record_files, verification
from core.source import reference, sources

if TYPE_CHECKING:
    from core.analysis.analysis import Analysis
    from core.source.contract import ModelSource


NO_DIFFERENCE = (
    "--as-deployed changes nothing here: this processor's sums of 8-bit products do not saturate, "
    "and sessions are opened without an option."
)
PLAIN_TIMES = (
    "Timed as a plain session runs it: sums of 8-bit products saturate on this processor, so that "
    "outputs are not those of the simulation."
)


def add_progress(command: argparse.ArgumentParser) -> None:
    """The option of commands that a page watches."""
    command.add_argument(
        "--progress", type=Path, metavar="FILE", help="keep a JSON file that says how far it is"
    )


def add_options(sub: argparse.ArgumentParser) -> None:
    """What every command needs that runs the model of an analysis."""
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument(
        "--source",
        metavar="SOURCE",
        help="the analyzed model, where the analysis is not of a bundled sample: "
        "path/to/file.py:function, which is run with your rights; of an ONNX file all words after "
        "`analyze`, in quotes, where the files have moved",
    )
    sub.add_argument("--csv", type=Path, metavar="FILE", help="the OHLCV data that was analyzed")


def source_of(options: argparse.Namespace, analysis: Analysis) -> ModelSource:
    """The source that `analysis` was made from.

    A Python file is run only where the person names it: a folder may come from anybody. An ONNX
    file and its arrays are data. Raises `PolicyError` under a scheme that no file is built for.
    """
    check_built(analysis.rounding)
    if options.source is None:
        if not reference.is_data(analysis.source):
            raise PolicyError(
                f"{options.folder} was made from {analysis.source or 'an unknown source'}, which "
                "is not run unless you name it.",
                f"Give --source {analysis.source or 'path/to/file.py:function'}.",
            )
        options.source = analysis.source
    return sources.load(options.source, options.csv)


def build(options: argparse.Namespace) -> None:
    """Build a map and write it as an ONNX file."""
    study, chosen = _opened(options)
    from core.onnx_graph.session import exact_sums, part_weights
    from core.runtime.build import build as built_from
    from core.runtime.stored import stored_size

    config = exact_sums()
    found = built_from(source_of(options, study.analysis), study.analysis, chosen)
    write(options.out, found.model.SerializeToString())
    size = stored_size(found, study.stored_bytes(chosen.codes))
    content: dict[str, Any] = {
        "file": str(options.out),
        "file_bytes": found.file_bytes,
        "tensor_bytes": size.tensors,
        "planned_bytes": size.planned,
        "as_asked": found.as_asked,
        "left_out_optimizers": found.disabled,
        "session_config": config,
        "kernels": dict(found.kernels),
        "layers": msgspec.to_builtins(found.report),
        "notes": found.notes,
    }
    for sentence in found.notes:
        note(sentence)
    if options.json:
        print_json(content)
        return
    out = console()
    out.print(tables.layers_table(found.report))
    out.print(f"Wrote {options.out} ({found.file_bytes / 1e6:.2f} MB). {size.in_words()}")
    shared = part_weights(found.model) if config else []
    out.print(tables.advice(found.disabled, config, shared))


def verify(options: argparse.Namespace) -> None:
    """Build a map, run it on the holdout split and keep what was measured."""
    with reporting(getattr(options, "progress", None)) as reporter:
        _verify(options, reporter)


def _verify(options: argparse.Namespace, reporter: Reporter) -> None:
    if options.repeat is not None and options.repeat < 1:
        raise PolicyError("--repeat needs one round at least.", "Leave it out for the default.")
    study = study_of(options.folder)
    maps = [(path.stem, precision_map.read(path, study)) for path in options.maps]
    wanted = [
        (label, chosen)
        for label, chosen in maps
        if not (options.skip_verified and chosen.assigned in study.verified)
    ]
    from core.runtime import verify as verifying
    from core.runtime.timing import ROUNDS

    reporter.step(0, max(len(wanted), 1) * len(verifying.STEPS), "exporting the model")
    kept = []
    if wanted:
        bench = verifying.prepare(source_of(options, study.analysis), study.analysis)
    for number, (label, chosen) in enumerate(wanted):

        def step(
            done: int, total: int, what: str, number: int = number, label: str = label
        ) -> None:
            reporter.step(number * total + done, len(wanted) * total, f"{label}: {what}")

        found = verifying.verify(
            bench, chosen, label=label, rounds=options.repeat or ROUNDS,
            plain=options.as_deployed, progress=step,
        )  # fmt: skip
        path = verification.save(record_files.home_of(options.folder), found)
        kept.append((path, found, chosen))
        for sentence in sentences(study, found):
            note(sentence)
        if options.as_deployed and found.as_deployed is None:
            note(NO_DIFFERENCE)
    reporter.result = {"files": [str(path) for path, _, _ in kept]}
    if options.json:
        content = [{"file": str(path), **msgspec.to_builtins(one)} for path, one, _ in kept]
        print_json(content[0] if len(options.maps) == 1 and content else content)
        return
    out = console()
    for path, found, _ in kept:
        out.print(tables.layers_table(found.layers))
        out.print(tables.figures_table(found, study))
        out.print(agreement_in_words(found))
        out.print(f"Kept as {path}.")
    if len(wanted) < len(maps):
        out.print(f"{len(maps) - len(wanted)} of {len(maps)} maps were verified before.")


def profile(options: argparse.Namespace) -> None:
    """Time the layers on this machine and keep what was found."""
    study = study_of(options.folder)
    from core.onnx_graph.session import as_deployed, exact_sums
    from core.runtime import profile as profiling
    from core.runtime import verify as verifying

    if options.as_deployed:
        note(PLAIN_TIMES if exact_sums() else NO_DIFFERENCE)
    plain = as_deployed() if options.as_deployed else nullcontext()
    with reporting(options.progress) as reporter, plain:
        bench = verifying.prepare(source_of(options, study.analysis), study.analysis)
        found = profiling.profile(bench, progress=reporter.step)
        path = machine_profile.save(record_files.home_of(options.folder), found)
        reporter.result = {"file": str(path)}
    if options.json:
        print_json({"file": str(path), **msgspec.to_builtins(found)})
        return
    out = console()
    out.print(tables.profile_table(found))
    for sentence in tables.said_of(found):
        out.print(sentence)
    out.print(f"Kept as {path}; estimates on {hardware.THIS_MACHINE} use it.")


def _opened(options: argparse.Namespace) -> tuple[Study, PrecisionMap]:
    study = study_of(options.folder)
    return study, precision_map.read(options.map, study)
