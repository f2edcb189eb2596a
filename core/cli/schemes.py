"""How integers are done, on the command line: `--scheme` and `--calibrator`."""

from __future__ import annotations

import argparse
from typing import Any

from core.numerics import scheme
from core.numerics.calibrate import calibrators


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of every command that measures."""
    sub.add_argument(
        "--scheme",
        choices=scheme.names(),
        default=scheme.ORT_CPU.name,
        metavar="NAME",
        help=f"how the target does integers: {', '.join(scheme.names())}; default: "
        f"{scheme.ORT_CPU.name}",
    )
    sub.add_argument(
        "--calibrator",
        default=calibrators.MIN_MAX.name,
        metavar="NAME",
        help=f"how ranges of activations are chosen: {', '.join(calibrators.names())} "
        f"(percentile:99.9 sets its share); default: {calibrators.MIN_MAX.name}",
    )


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """`scheme` and `calibrator` for `analyze` and `dry_run`."""
    return {
        "scheme": scheme.get(options.scheme),
        "calibrator": calibrators.get(options.calibrator),
    }
