"""ONNX Runtime's `qdq_loss_debug` on the file in INT8 throughout: signal over noise of what each
product stores, of its output's own rounding, and of its output against that of the float file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, qdq_loss_debug, quantize_static

from tests.benchmarks.ranks.ort_reader import Reader
from tests.benchmarks.ranks.shared import CALIBRATION, MODEL, Scores, lines, products, told

FEW = 64
"""Lines whose activations are held."""


def main(folder: Path) -> None:
    """Rank by the noise, in dB."""
    calibration = lines(folder, CALIBRATION)
    few = {name: values[:FEW] for name, values in calibration.items()}
    model = onnx.load(folder / MODEL)
    named = {node.name: node for node in model.graph.node}
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "int8.onnx"
        quantize_static(
            folder / MODEL, path, Reader(calibration), QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        kept = []
        for place in (folder / MODEL, path):
            wider = Path(aside) / f"wide_{place.name}"
            qdq_loss_debug.modify_model_output_intermediate_tensors(place, wider)
            seen = qdq_loss_debug.collect_activations(str(wider), Reader(few))
            kept.append({n: v for n, v in seen.items() if all(np.ndim(one) for one in v)})
        activations = qdq_loss_debug.compute_activation_error(
            qdq_loss_debug.create_activation_matching(kept[1], kept[0])
        )
        matched = qdq_loss_debug.create_weight_matching(str(folder / MODEL), str(path))
        stored = {named[name].input[1] for name in products(model)}  # single numbers are no arrays
        weights = qdq_loss_debug.compute_weight_error(
            {name: pair for name, pair in matched.items() if name in stored}
        )
    found: dict[str, Scores] = {"weights": {}, "own rounding": {}, "against float": {}}
    for name in products(model):
        weight, output = named[name].input[1], named[name].output[0]
        if weight in weights:
            found["weights"][name] = -weights[weight]
        errors = activations.get(output, {})
        for title, key in (("own rounding", "qdq_err"), ("against float", "xmodel_err")):
            if key in errors:
                found[title][name] = -errors[key]
    told({f"qdq_loss_debug, {title}": scores for title, scores in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
