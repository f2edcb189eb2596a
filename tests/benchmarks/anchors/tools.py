"""Public tools, each asked in which order it would give up INT8: layer -> sensitivity.

Every function takes the same model and the same calibration inputs, and gives a number for every
product of the model, higher = more sensitive. What a tool cannot be asked for is not made up.
"""

from __future__ import annotations

import copy
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

Scores = dict[str, float]
INPUT = "input"


@dataclass(frozen=True)
class Task:
    """The model in PyTorch and in ONNX, calibration inputs [N, ...], and node -> layer."""

    model: nn.Module
    graph: onnx.ModelProto
    inputs: NDArray[np.float32]
    layer_of: dict[str, str]

    @property
    def layers(self) -> list[str]:
        """The products by layer."""
        return list(dict.fromkeys(self.layer_of.values()))


class Reader:
    """Calibration inputs as ONNX Runtime's quantizer takes them."""

    def __init__(self, inputs: NDArray[np.float32], batch: int = 32) -> None:
        self._batches = iter([{INPUT: inputs[i : i + batch]} for i in range(0, len(inputs), batch)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[Any]:
        return self._batches

    def __next__(self) -> Any:
        return next(self._batches)


def quantized(task: Task, nodes: list[str], folder: Path) -> Path:
    """`nodes` in INT8 by ONNX Runtime's static quantizer: U8S8, per channel, min-max."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    plain, path = folder / "plain.onnx", folder / f"quantized-{len(nodes)}.onnx"
    onnx.save(task.graph, plain)
    quantize_static(
        plain, path, Reader(task.inputs), quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "Relu"], per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=nodes,
    )  # fmt: skip
    return path


def ort_debugger(task: Task, which: str = "xmodel_err") -> Scores:
    """ONNX Runtime's `qdq_loss_debug`: SQNR of what each product gives in the whole quantized model
    (`xmodel_err`) or rounded on its own (`qdq_err`), in dB; less = more sensitive.
    """
    from onnxruntime.quantization import qdq_loss_debug as debug

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = folder / "float.onnx"
        onnx.save(task.graph, plain)
        int8 = quantized(task, list(task.layer_of), folder)
        seen = []
        for path in (plain, int8):
            augmented = folder / f"augmented-{path.name}"
            debug.modify_model_output_intermediate_tensors(path, augmented)
            seen.append(debug.collect_activations(str(augmented), Reader(task.inputs)))
        matched = debug.create_activation_matching(seen[1], seen[0])
        errors = debug.compute_activation_error(matched)
    made = {node.name: node.output[0] for node in task.graph.graph.node}
    behind = {given: node.output[0] for node in task.graph.graph.node if node.op_type == "Relu"
              for given in node.input}  # fmt: skip
    scores = {}
    for node, layer in task.layer_of.items():
        tensor = made[node]
        found = errors.get(tensor) or errors.get(behind.get(tensor, "")) or {}
        if which in found:
            scores[layer] = -float(found[which])
    return scores


def nncf_accuracy_control(task: Task) -> Scores:
    """NNCF's `quantize_with_accuracy_control`: the order in which it reverts layers when no drop is
    small enough; earlier = more sensitive.
    """
    import nncf

    session = ort.InferenceSession(task.graph.SerializeToString(),
                                   providers=["CPUExecutionProvider"])  # fmt: skip
    reference = session.run(None, {INPUT: task.inputs})[0]
    samples = [{INPUT: row[None], "row": i} for i, row in enumerate(task.inputs)]

    def given(sample: dict[str, Any]) -> dict[str, Any]:
        return {INPUT: sample[INPUT]}

    def one_less_kl(model: Any, data: Any) -> tuple[float, list[float]]:
        run = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        rows = [-kl_of(reference[s["row"]][None], run.run(None, given(s))[0]) for s in data]
        return 1 + float(np.mean(rows)), rows  # it divides by the metric of the reference

    reverted: list[str] = []
    with _heard("nncf") as lines:
        nncf.quantize_with_accuracy_control(
            copy.deepcopy(task.graph), nncf.Dataset(samples, given),
            nncf.Dataset(samples, lambda s: s), one_less_kl, max_drop=-1.0,
            subset_size=len(samples),
        )  # fmt: skip
    text = "\n".join(lines)
    for name in re.findall(r"\bnode_\w+\b", text[text.find("Reverted") :]):
        if name in task.layer_of and task.layer_of[name] not in reverted:
            reverted.append(task.layer_of[name])
    return {layer: float(len(task.layers) - place) for place, layer in enumerate(reverted)}


def modelopt(task: Task, method: str) -> Scores:
    """ModelOpt's `auto_quantize`: the score of each layer in INT8, by `gradient` or `kl_div`."""
    import modelopt.torch.quantization as mtq

    model = copy.deepcopy(task.model)
    batches = [torch.from_numpy(task.inputs[i : i + 32]) for i in range(0, len(task.inputs), 32)]
    arguments: dict[str, Any] = {"forward_step": lambda m, batch: m(batch), "method": method}
    if method == "gradient":  # labels are not part of the calibration data: the model's own answers
        arguments["loss_func"] = lambda out, batch: nn.functional.cross_entropy(
            out, out.detach().argmax(1)
        )
    _, state = mtq.auto_quantize(
        model, constraints={"effective_bits": 10.0},
        quantization_formats=[mtq.INT8_DEFAULT_CFG], data_loader=batches,
        num_calib_steps=len(batches), num_score_steps=len(batches), verbose=False, **arguments,
    )  # fmt: skip
    scores = {}
    for stats in state["candidate_stats"].values():
        for module in stats["module_names"]:
            scores[module] = float(max(stats["scores"]))
    return scores


def kl_of(reference: NDArray[np.float32], outputs: NDArray[np.float32]) -> float:
    """Mean KL divergence of two sets of logits, in nats."""
    p, q = (torch.from_numpy(x).double().log_softmax(1) for x in (reference, outputs))
    return float((p.exp() * (p - q)).sum(1).mean())


class _heard:  # noqa: N801 (a verb of a `with` statement)
    """What a logger says within a block, as lines."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self.lines: list[str] = []
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]

    def __enter__(self) -> list[str]:
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)
        return self.lines

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)


TOOLS: dict[str, Callable[[Task], Scores]] = {
    "ONNX Runtime, debugger (xmodel_err)": ort_debugger,
    "ONNX Runtime, debugger (qdq_err)": lambda task: ort_debugger(task, "qdq_err"),
    "NNCF, accuracy control": nncf_accuracy_control,
    "ModelOpt, auto_quantize (gradient)": lambda task: modelopt(task, "gradient"),
    "ModelOpt, auto_quantize (kl_div)": lambda task: modelopt(task, "kl_div"),
}
