"""How integers are done, on the command line: `--scheme`, `--calibrator` and `--quantizer`."""

from __future__ import annotations

import argparse

from core.numerics import quantizers, scheme
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
    sub.add_argument(
        "--quantizer",
        choices=quantizers.names(),
        default=quantizers.DEFAULT.name,
        metavar="NAME",
        help=f"whose grid weights by groups lie on: {', '.join(quantizers.names())}; default: "
        f"{quantizers.DEFAULT.name}",
    )
