"""How integers are done, on the command line: `--scheme` and `--calibrator`."""

from __future__ import annotations

import argparse

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
