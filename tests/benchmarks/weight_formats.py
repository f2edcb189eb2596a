"""What a product costs with its weight by groups: `python -m tests.benchmarks.weight_formats`.

Time of MatMulNBits over that of MatMul in FP32, one thread, runs in turns, at both accuracy levels;
and how far each level lies from the product of the unpacked weight, beside what rounding the weight
costs. The rule in `core.onnx_graph.group_weights.accuracy_level` rests on it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from core.numerics import precision as registry
from core.numerics.groups import Grouped, grouped
from core.onnx_graph.group_weights import BYTES, FLOATS, NBITS, accuracy_level
from core.onnx_graph.weights_only import MICROSOFT

SHAPES = ((64, 64), (64, 256), (128, 128), (192, 192), (256, 64), (512, 512), (1024, 1024))
ROWS = (1, 8, 60)
ROUNDS = 40

Floats = NDArray[np.float32]


def _session(node: onnx.NodeProto, held: dict[str, NDArray[np.generic]], inputs: int, outputs: int) -> ort.InferenceSession:  # fmt: skip
    kind = TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(n, kind, ["n", w]) for n, w in (("x", inputs), ("y", outputs)))  # fmt: skip
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in held.items()]
    graph = onnx.helper.make_graph([node], "product", [x], [y], constants)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(MICROSOFT, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _packed(found: Grouped, group: int, level: int) -> ort.InferenceSession:
    outputs = len(found.codes)
    node = onnx.helper.make_node(
        NBITS, ["x", "codes", "scales"], ["y"], domain=MICROSOFT, K=found.inputs, N=outputs,
        bits=found.bits, block_size=group, accuracy_level=level,
    )  # fmt: skip
    held = {"codes": found.packed().numpy(), "scales": found.scales.numpy()}
    return _session(node, held, found.inputs, outputs)


def _decibels(signal: Floats, error: Floats) -> float:
    return float(10 * np.log10(np.square(signal).sum() / max(float(np.square(error).sum()), 1e-30)))


def main() -> None:
    """Print a row for every format, number of rows and shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    names = [name for name in registry.names() if registry.get(name).is_weights_only]
    print("format     rows  inputs outputs  level 0  level 4  rule  weight dB  level 4 dB")
    for rows in ROWS:
        for inputs, outputs in SHAPES:
            weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
            x = rng.standard_normal((rows, inputs)).astype(np.float32)
            node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
            sessions = {("FP32", 0): _session(node, {"w": weight.T.copy()}, inputs, outputs)}
            kept = {n: grouped(torch.from_numpy(weight), registry.get(n).weights) for n in names}
            for name, level in ((n, level) for n in names for level in (FLOATS, BYTES)):
                group = registry.get(name).weights.group
                sessions[name, level] = _packed(kept[name], group, level)
            times: dict[tuple[str, int], list[float]] = {key: [] for key in sessions}
            for _ in range(rounds):
                for key, session in sessions.items():
                    start = time.perf_counter()
                    session.run(None, {"x": x})
                    times[key].append(time.perf_counter() - start)
            base = float(np.median(times["FP32", 0]))
            for name in names:
                ratio = {level: float(np.median(times[name, level])) / base for level in (FLOATS, BYTES)}  # fmt: skip
                unpacked = kept[name].restored().numpy()
                exact = x @ unpacked.T
                (found,) = sessions[name, BYTES].run(None, {"x": x})
                chosen = accuracy_level(registry.get(name).bits, rows, inputs)
                print(
                    f"{name:9} {rows:5} {inputs:7} {outputs:7} {ratio[FLOATS]:8.2f} {ratio[BYTES]:8.2f}"
                    f" {chosen:5} {_decibels(weight, weight - unpacked):10.1f}"
                    f" {_decibels(exact, found - exact):11.1f}"
                )


if __name__ == "__main__":
    main()
