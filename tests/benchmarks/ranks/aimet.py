"""AIMET's analysis of each layer's sensitivity: its quantizers on, all others off, and run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import aimet_onnx
import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.quant_analyzer import analyze_per_layer_sensitivity

from tests.benchmarks.ranks.shared import (  # fmt: skip
    CALIBRATION,
    EVALUATION,
    MODEL,
    divergence,
    lines,
    products,
    told,
)

AT_ONCE = 32


def main(folder: Path) -> None:
    """Rank by the divergence that AIMET's simulation gives."""
    calibration, evaluation = lines(folder, CALIBRATION), lines(folder, EVALUATION)
    model = onnx.load(folder / MODEL)
    reference = aimet_onnx.quantsim.ort.InferenceSession(str(folder / MODEL)).run(None, evaluation)[
        0
    ]
    sim = QuantizationSimModel(model, param_type=aimet_onnx.int8, activation_type=aimet_onnx.int8)
    count = len(next(iter(calibration.values())))
    sim.compute_encodings(
        [
            {name: values[start : start + AT_ONCE] for name, values in calibration.items()}
            for start in range(0, count, AT_ONCE)
        ]
    )

    def judged(session: Any) -> float:
        return divergence(reference, session.run(None, evaluation)[0])

    found = analyze_per_layer_sensitivity(sim, judged)
    told({"AIMET, per layer": {n: found[n] for n in products(model) if n in found}})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
