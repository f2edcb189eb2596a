"""All layers in INT8 under every scheme and calibrator, on the selection split of the digits.

    python -m tests.benchmarks.schemes [--sample digits_vit] [--calibrators min-max,mse]

Printed per cell: SQNR of the outputs in dB (logits centred over the classes) and mean KL in
nats. Ranges come from the calibration split alone. `seconds` is what calibrating took.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from core.estimate.metrics import kl_per_sample
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import log_softmax
from core.layers import LayerTable
from core.numerics import scheme as schemes
from core.numerics.calibrate import calibrators
from core.numerics.precision import INT8
from core.numerics.scheme import Scheme
from core.numerics.states import under
from core.source import samples
from core.source.contract import ModelSource
from core.source.inventory import take_inventory

SAMPLES = ("digits_vit", "digits_resnet")


def judged(
    source: ModelSource, layers: LayerTable, scheme: Scheme, calibrator: str
) -> tuple[float, float, float]:
    """SQNR in dB, mean KL in nats, and the seconds that calibrating took."""
    start = time.perf_counter()
    simulator = make_simulator(
        source, layers, MeasureOptions(scheme=scheme, calibrator=calibrators.get(calibrator))
    )
    seconds = time.perf_counter() - start
    inputs = source.selection.inputs
    reference = simulator.run({}, inputs)
    outputs = simulator.run(dict.fromkeys(simulator.varied, INT8), inputs)
    signal = reference - reference.mean(axis=1, keepdims=True)
    noise = outputs - outputs.mean(axis=1, keepdims=True) - signal
    sqnr_db = 10 * np.log10(np.square(signal).sum() / np.square(noise).sum())
    return float(sqnr_db), float(kl_per_sample(log_softmax(reference), outputs).mean()), seconds


def main() -> None:
    """Print one table per sample, a row per scheme and a column per calibrator."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", choices=SAMPLES, help="default: both")
    options.add_argument("--calibrators", default=",".join(calibrators.names()))
    chosen = options.parse_args()
    names = chosen.calibrators.split(",")
    for name in [chosen.sample] if chosen.sample else SAMPLES:
        source = samples.load(name)
        title = f"{name}, all layers in INT8, {len(source.selection)} samples: dB; KL in nats; s"
        table = Table("scheme", *names, title=title)
        for scheme in schemes.SCHEMES.values():
            layers = under(take_inventory(source, functions=scheme.functions), scheme)
            cells = []
            for calibrator in names:
                sqnr_db, kl, seconds = judged(source, layers, scheme, calibrator)
                cells.append(f"{sqnr_db:.1f}; {kl:.1e}; {seconds:.1f}")
            table.add_row(scheme.name, *cells)
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
