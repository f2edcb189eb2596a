"""What weights by groups cost and lose: `python -m tests.benchmarks.weight_formats`.

**Quantizers** (`--only quantizers`): all layers of a sample in one format, by the quantizer whose grid
its groups lie on: bits stored a weight, scales and zero points included, and mean KL in nats with its
standard error on the selection split. A format of twice as many groups takes the bytes of zero points
for scales.

**Kernels** (`--only kernels`): time of MatMulNBits over that of MatMul in FP32, one thread, runs in turns, at both accuracy levels;
and how far each level lies from the product of the unpacked weight, beside what rounding the weight
costs. The rule in `core.onnx_graph.group_weights.accuracy_level` rests on it. HQQ's zero points are
floats, which the kernel knows no level for. And time of looking rows up in a packed table.
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
from rich.console import Console
from rich.table import Table

from core.estimate.metrics import kl_per_sample
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.evidence.scorers.logits import log_softmax
from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics.groups import Grouped, grouped, grouped_rows
from core.numerics.precision import Precision, TensorFormat
from core.numerics.quantizers import HQQ
from core.numerics.storage import storage
from core.onnx_graph.group_weights import BYTES, FLOATS, NBITS, accuracy_level
from core.onnx_graph.group_weights import ROWS as LOOK_UP
from core.onnx_graph.weights_only import MICROSOFT
from core.source import samples
from core.source.inventory import take_inventory

SHAPES = ((64, 64), (64, 256), (128, 128), (192, 192), (256, 64), (512, 512), (1024, 1024))
ROWS = (1, 8, 60)
ROUNDS = 40
SAMPLES = ("digits_vit", "informer")
FORMATS = (
    registry.INT4_G128, registry.INT4_G32, registry.INT2_G32,
    Precision("INT4-g16", TensorFormat("integer", 4, "group", 16), None),
    Precision("INT2-g16", TensorFormat("integer", 2, "group", 16), None),
)  # fmt: skip

Floats = NDArray[np.float32]


def _session(node: onnx.NodeProto, held: dict[str, NDArray[np.generic]], inputs: int, outputs: int) -> ort.InferenceSession:  # fmt: skip
    kind = TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(n, kind, ["n", w]) for n, w in (("x", inputs), ("y", outputs)))  # fmt: skip
    if not inputs:  # ids of rows
        x = onnx.helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in held.items()]
    graph = onnx.helper.make_graph([node], "product", [x], [y], constants)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(MICROSOFT, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _packed(found: Grouped, group: int, level: int) -> ort.InferenceSession:
    outputs = len(found.codes)
    held = {"codes": found.packed().numpy(), "scales": found.scales.numpy()}
    if found.zeros is not None:
        held["zeros"] = found.zeros.numpy()
    node = onnx.helper.make_node(
        NBITS, ["x", *held], ["y"], domain=MICROSOFT, K=found.inputs, N=outputs,
        bits=found.bits, block_size=group, accuracy_level=level,
    )  # fmt: skip
    return _session(node, held, found.inputs, outputs)


def _decibels(signal: Floats, error: Floats) -> float:
    return float(10 * np.log10(np.square(signal).sum() / max(float(np.square(error).sum()), 1e-30)))


def by_quantizer(name: str) -> None:
    """Print a row for every format and quantizer: what all layers of a sample lose in it."""
    source = samples.load(name)
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    inputs = source.selection.inputs
    reference = simulator.run({}, inputs)
    weights = [spec for layer in layers for spec in layer.tensors if spec.group_axis >= 0]
    table = Table("format", "quantizer", "bits a weight", "KL", "error", title=name)
    for precision in FORMATS:
        for quantizer in quantizers.QUANTIZERS.values():
            placed = quantizer.of(precision)
            held = sum(storage(spec, placed).bytes for spec in weights)
            outputs = simulator.run(dict.fromkeys(simulator.varied, placed), inputs)
            kl = kl_per_sample(log_softmax(reference), outputs)
            table.add_row(
                precision.name, quantizer.name, f"{8 * held / sum(s.size for s in weights):.2f}",
                f"{kl.mean():.2e}", f"{kl.std() / np.sqrt(len(kl)):.0e}",
            )  # fmt: skip
    Console(width=100).print(table)


def look_ups(rounds: int) -> None:
    """Print a row for every format: time of looking rows of a packed table up over that of Gather."""
    rng = np.random.default_rng(0)
    entries, width, count = 30_000, 384, 512
    table = rng.standard_normal((entries, width)).astype(np.float32)
    ids = rng.integers(0, entries, count)
    gather = onnx.helper.make_node("Gather", ["table", "x"], ["y"])
    sessions = {"FP32": _session(gather, {"table": table}, 0, width)}
    for precision in (p for p in map(registry.get, registry.names()) if p.is_weights_only):
        kept = precision.weights
        found = grouped_rows(torch.from_numpy(table), kept)
        held = {"codes": found.packed_rows().numpy(), "scales": found.scales.numpy()}
        node = onnx.helper.make_node(
            LOOK_UP, ["codes", "x", "scales"], ["y"], domain=MICROSOFT, bits=kept.bits,
            block_size=kept.group, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        sessions[precision.name] = _session(node, held, 0, width)
    times: dict[str, list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"x": ids})
            times[key].append(time.perf_counter() - start)
    base = float(np.median(times.pop("FP32")))
    print(f"{count} rows of a table of {entries} x {width}, time over Gather in FP32:")
    for name, found_times in times.items():
        print(f"{name:10} {float(np.median(found_times)) / base:.2f}")


def kernels(rounds: int) -> None:
    """Print a row for every format, number of rows and shape."""
    rng = np.random.default_rng(0)
    names = [name for name in registry.names() if registry.get(name).is_weights_only]
    print("format             rows  inputs outputs  level 0  level 4  rule  weight dB  level 4 dB")
    for rows in ROWS:
        for inputs, outputs in SHAPES:
            weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
            x = rng.standard_normal((rows, inputs)).astype(np.float32)
            node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
            sessions = {("FP32", 0): _session(node, {"w": weight.T.copy()}, inputs, outputs)}
            formats = {n: registry.get(n).weights for n in names}
            formats |= {
                f"{n} {HQQ.name}": HQQ.of(registry.get(n)).weights
                for n in names
                if HQQ.takes(registry.get(n).weights)
            }
            kept = {n: grouped(torch.from_numpy(weight), one) for n, one in formats.items()}
            for name, level in ((n, level) for n in formats for level in (FLOATS, BYTES)):
                sessions[name, level] = _packed(kept[name], formats[name].group, level)
            times: dict[tuple[str, int], list[float]] = {key: [] for key in sessions}
            for _ in range(rounds):
                for key, session in sessions.items():
                    start = time.perf_counter()
                    session.run(None, {"x": x})
                    times[key].append(time.perf_counter() - start)
            base = float(np.median(times["FP32", 0]))
            for name, one in formats.items():
                ratio = {level: float(np.median(times[name, level])) / base for level in (FLOATS, BYTES)}  # fmt: skip
                unpacked = kept[name].restored().numpy()
                exact = x @ unpacked.T
                (found,) = sessions[name, BYTES].run(None, {"x": x})
                chosen = (
                    FLOATS
                    if kept[name].zeros is not None
                    else accuracy_level(one.bits, rows, inputs)
                )
                print(
                    f"{name:17} {rows:5} {inputs:7} {outputs:7} {ratio[FLOATS]:8.2f} {ratio[BYTES]:8.2f}"
                    f" {chosen:5} {_decibels(weight, weight - unpacked):10.1f}"
                    f" {_decibels(exact, found - exact):11.1f}"
                )


def main() -> None:
    """Print what was asked for, by default both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=("quantizers", "kernels"))
    parser.add_argument("--sample", choices=SAMPLES, help="default: both")
    options = parser.parse_args()
    if options.only != "kernels":
        for name in [options.sample] if options.sample else SAMPLES:
            by_quantizer(name)
    if options.only != "quantizers":
        look_ups(options.rounds)
        kernels(options.rounds)


if __name__ == "__main__":
    main()
