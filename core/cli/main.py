"""The command line: `python -m core`, installed as `quantscape`.

Each command prints a table for people and takes `--json` for programs. Exit codes: 0 done,
2 usage, bad input, an error of a source's code or an infeasible request (one clear line), 1 failure.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import core
from core.cli import budget, commands, compare, export, runtime, schemes
from core.cli.cache import add_options, cache
from core.cli.output import answers_alone, complain
from core.decide.policy.policy import STRATEGIES, Policy
from core.errors import PolicyError, QuantscapeError
from core.estimate import hardware
from core.evidence import scorers
from core.evidence.measure.memory_size import parse_bytes
from core.evidence.options import FIRST_LOOK, Until
from core.numerics import precision as registry
from core.source import onnx_file
from core.source.blame import blamed, interrupted, no_sudden_end

EPILOG = """examples:
  python -m core samples
  python -m core analyze sample:informer --out runs/informer
  python -m core analyze my_model.py:load --out runs/mine
  python -m core analyze model.onnx --calibration c.npz --task classification --out runs/file
  python -m core plan runs/informer --pin 'head*=FP16' --out map.json
  python -m core plan runs/informer --budget size=0.4 --budget latency=0.9 --out map.json
  python -m core plan runs/informer --allow FP16,INT8 --out map.json
  python -m core frontier runs/informer --axis latency --json
  python -m core explain runs/informer map.json head
  python -m core show runs/informer map.json
  python -m core compare runs/informer map.json all-int8 document --reference all-int8
  python -m core export runs/informer map.json --format html --out report.html
  python -m core export runs/informer map.json --format onnxruntime --nearest --out build.py
  python -m core report runs/informer map.json --out report.md
"""


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    top = argparse.ArgumentParser(
        prog="quantscape",
        description="Explore what each layer of a model loses and gains in fewer bits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"quantscape {core.__version__}")
    command = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _samples(command)
    _analyze(command)
    _plan(command)
    _show(command)
    _compare(command)
    _export(command)
    _report(command)
    _targets(command)
    _nodes(command)
    _runtime(command)
    _cache(command)
    budget.add_commands(partial(_add, command), _json)
    return top


_Commands = argparse._SubParsersAction  # noqa: SLF001 (argparse exports no name for it)


def _add(
    command: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    return command.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")


def _memory(text: str) -> int:
    try:
        return parse_bytes(text)
    except PolicyError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="print JSON for programs")


def _samples(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "samples", "list the bundled sample models")
    _json(sub)
    sub.set_defaults(run=commands.samples)


def _analyze(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "analyze", "measure every layer of a model and write an analysis folder")
    sub.add_argument(
        "source",
        metavar="SOURCE",
        help="sample:NAME, path/to/file.py:function, which is run with your rights, or model.onnx "
        "with --calibration and --task",
    )
    onnx_file.add_options(sub)
    sub.add_argument("--out", type=Path, metavar="DIR", help="analysis folder to write")
    sub.add_argument("--csv", type=Path, metavar="FILE", help="your own OHLCV data for the sample")
    sub.add_argument(
        "--expand-units", action="store_true", help="take attention and feed-forward units apart"
    )
    sub.add_argument(
        "--precisions",
        metavar="NAME,...",
        help=f"precisions to measure, of {', '.join(registry.simulated())} "
        f"(default: {','.join(registry.FIRST_VISIT)})",
    )
    sub.add_argument(
        "--memory",
        type=_memory,
        metavar="SIZE",
        help="memory that all of the analysis may take, Python, the model and its data included, "
        "such as 2GB; default: these and half of what is free",
    )
    sub.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes that share the work; default: 1"
    )
    sub.add_argument(
        "--until",
        choices=[one.replace(" ", "-") for one in get_args(Until)],
        default="exact",
        help=f"how far to measure: {FIRST_LOOK} samples, as many as settle the ranking of layers, or "
        "all; what is measured is found again; default: exact",
    )
    sub.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the model is run; default: cpu",
    )
    schemes.add_options(sub)
    add_options(sub)
    sub.add_argument("--no-cache", action="store_true", help="measure all anew and keep nothing")
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="print the predicted time and memory and stop before measuring",
    )
    runtime.add_progress(sub)
    _json(sub)
    sub.set_defaults(run=commands.analyze)


def _cache(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "cache", "show or clear the finished work that analyses can take up again")
    add_options(sub)
    sub.add_argument("--clear", action="store_true", help="throw everything away")
    _json(sub)
    sub.set_defaults(run=cache)


def _plan(command: _Commands[argparse.ArgumentParser]) -> None:
    default = Policy()
    sub = _add(command, "plan", "decide a precision for every layer and write the map")
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("--out", type=Path, metavar="FILE", help="map to write, for instance map.json")
    sub.add_argument("--strategy", choices=STRATEGIES, help=f"default: {default.strategy}")
    sub.add_argument(
        "--weights",
        metavar="NAME=W,...",
        help=f"scorer weights, divided by their sum; scorers: {', '.join(scorers.SCORERS)}",
    )
    sub.add_argument(
        "--thresholds",
        metavar="HIGH,MEDIUM",
        help=f"default: {default.high_threshold},{default.medium_threshold}",
    )
    for level in ("high", "medium", "low"):
        sub.add_argument(
            f"--{level}",
            metavar="PRECISION",
            help=f"where {level.upper()} layers go; default: {getattr(default, level)}, or the "
            "narrowest measured one that is as wide",
        )
    budget.add_allow(sub)
    sub.add_argument("--uniform", metavar="PRECISION", help="precision of --strategy uniform")
    sub.add_argument("--top-k", type=int, metavar="K", help="the K least sensitive layers go low")
    sub.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="PATTERN=PRECISION",
        help="keep layers that match a wildcard; the last match wins",
    )
    sub.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="LAYER=PRECISION",
        help="set one layer; beats every pin",
    )
    sub.add_argument(
        "--hardware",
        metavar="NAME",
        help=f"latency profile: {', '.join(hardware.names())}; default: this machine if profiled",
    )
    budget.add_budget_options(sub)
    _json(sub)
    sub.set_defaults(run=commands.plan)


def _show(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "show", "show layers, statistics, totals and the document's figures")
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("map", type=Path, nargs="?", metavar="MAP", help="default: the document's")
    _json(sub)
    sub.set_defaults(run=commands.show)


def _export(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "export", "check a map against its analysis and write it in a format")
    export.add_export(sub)
    _json(sub)
    sub.set_defaults(run=export.export)


def _targets(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "targets", "list the tools that maps are exported to and what they can do")
    _json(sub)
    sub.set_defaults(run=export.targets)


def _nodes(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "nodes", "keep the node names of an exported model with its analysis")
    export.add_nodes(sub)
    _json(sub)
    sub.set_defaults(run=export.nodes)


def _compare(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "compare", "put maps side by side and name those that others beat")
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument(
        "maps",
        nargs="+",
        metavar="MAP",
        help="2 to 8 precision maps, or built-in names: document, all-fp32, all-fp16, all-int8, "
        "top-k-25, top-k-50, top-k-75 (a file of such a name is ./document)",
    )
    sub.add_argument(
        "--reference", metavar="N|MAP", help="what differences are taken from; default: the first"
    )
    sub.add_argument(
        "--hardware",
        metavar="NAME",
        help=f"latency profile; default: the reference's; {', '.join(hardware.names())}",
    )
    _json(sub)
    sub.set_defaults(run=compare.run)


def _report(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "report", "write a map's report as Markdown, to the screen or a file")
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("map", type=Path, metavar="MAP", help="precision map")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: print it")
    _json(sub)
    sub.set_defaults(run=commands.report)


AS_DEPLOYED = (
    "run as a plain session does, without session.x64quantprecision=1, which is set on processors "
    "without VNNI to keep sums of 8-bit products exact: verify says what is lost without it, "
    "profile times without it"
)


def _runtime(command: _Commands[argparse.ArgumentParser]) -> None:
    sub = _add(command, "build", "build a map as an ONNX model and say what each layer got")
    runtime.add_options(sub)
    sub.add_argument("map", type=Path, metavar="MAP", help="precision map")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="ONNX file to write")
    _json(sub)
    sub.set_defaults(run=runtime.build)
    sub = _add(
        command, "verify", "build a map, run it on held-back data, and keep what it measures"
    )
    runtime.add_options(sub)
    sub.add_argument("maps", type=Path, nargs="+", metavar="MAP", help="precision maps")
    sub.add_argument("--skip-verified", action="store_true", help="leave out maps run before")
    sub.add_argument("--repeat", type=int, metavar="N", help="rounds of timing; default: 20")
    sub.add_argument("--as-deployed", action="store_true", help=AS_DEPLOYED)
    runtime.add_progress(sub)
    _json(sub)
    sub.set_defaults(run=runtime.verify)
    sub = _add(command, "profile", "time every layer on this machine, for latency estimates")
    runtime.add_options(sub)
    sub.add_argument("--as-deployed", action="store_true", help=AS_DEPLOYED)
    runtime.add_progress(sub)
    _json(sub)
    sub.set_defaults(run=runtime.profile)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        with _ctrl_c(), no_sudden_end(), answers_alone(), blamed():
            options.run(options)
    except QuantscapeError as error:
        complain(str(error))
        return 2
    except MemoryError:
        complain("Memory ran out. Give a smaller --memory, fewer --jobs, or fewer samples.")
        return 2
    except KeyboardInterrupt:
        complain("stopped.")
        return 1
    except BrokenPipeError:  # whoever read the answer has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        logging.getLogger("quantscape").exception("quantscape: unexpected failure")
        complain(
            f"{type(error).__name__}: this is a defect of Quantscape {core.__version__}. Report the "
            "lines above with the command that was given."
        )
        return 1
    return 0


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Tell Ctrl+C from a person's own `KeyboardInterrupt`; only a main thread hears of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
