"""Sessions of one ONNX graph with chosen layers in other precisions, and their outputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto

from core.engines.engine import Assignment, Floats
from core.layers import LayerTable
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.precision import Precision
from core.numerics.ranges import Ranges
from core.numerics.scheme import Scheme, check_built
from core.numerics.states import sets_ranges
from core.onnx_graph.assemble import assembled
from core.onnx_graph.executed_kernels import executed_kernels
from core.onnx_graph.float8_simulated import round_products
from core.onnx_graph.forms import FEW, FLOAT
from core.onnx_graph.half_simulated import round_halves
from core.onnx_graph.layered_graph import LAYER_KEY, LayeredGraph
from core.onnx_graph.session import open_session
from core.source.batches import Inputs, Output, count, sizes_differ, take
from core.source.onnx_model import OnnxModel, layered, run_session

RECORDING = "values"
SAMPLES_SEEN, SAME = 3, 1e-3
"""Samples that are run together and one by one, and how far their outputs may differ relatively."""
SESSION_COPIES = 2
"""How often a session holds weights: as they are, and packed for a kernel."""


@dataclass(frozen=True, eq=False)
class Made:
    """A session for one assignment. `unchanged` says that nothing in it is rounded."""

    session: ort.InferenceSession
    unchanged: bool


class GraphRunner:
    """The graph of `model` under `scheme`; `ranges` are set once they are known."""

    def __init__(
        self, model: OnnxModel, layers: LayerTable, scheme: Scheme, output: Output = None,
        calibrator: Calibrator = MIN_MAX,
    ) -> None:  # fmt: skip
        check_built(scheme)
        self.model, self.layers, self.scheme, self.calibrator = model, layers, scheme, calibrator
        self.graph = layered(model, layers, output)
        self.ranges = Ranges()
        self.varied = tuple(layer.name for layer in layers if layer.computes_at_inference)
        self.owner: dict[str, str | None] = {}
        self.floats = {name for name, form in model.forms.items() if form.kind == FLOAT}
        self._limit, self._held = 0, 0
        self._sessions: dict[Hashable, Made] = {}
        self._apart: bool | None = None

    # ---- runs

    def run(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0
    ) -> Floats:
        """Outputs [N, K] of the graph with `assignment` applied to `inputs` of N samples."""
        return np.concatenate(list(self.run_batches(assignment, inputs, batch_size, first)))

    def run_batches(
        self, assignment: Assignment, inputs: Inputs, batch_size: int = 100, first: int = 0
    ) -> Iterator[Floats]:
        """The outputs that `run` gives, batch by batch, so that not all of them need be held."""
        made, width = self.session(lambda: self.graph, assignment), None
        size = self.model.batch
        if self.one_by_one(assignment, inputs):
            batch_size, size = 1, self.copies
        for start in range(0, count(inputs), batch_size):
            batch = take(inputs, start, start + batch_size)
            feed = self.model.feed(batch)
            (values,) = run_session(made.session, (self.graph.output,), feed, size)
            found = flat(values, count(batch))
            if width not in (None, found.shape[1]):
                raise sizes_differ()
            width = found.shape[1]
            yield found

    @property
    def copies(self) -> int:
        """As how many copies a sample is run by itself."""
        return self.model.batch or FEW

    def one_by_one(self, assignment: Assignment, inputs: Inputs) -> bool:
        """Whether samples are run one by one: a kernel sets ranges over what one run takes in, and
        figures shall not depend on how samples are divided into batches.
        """
        return self.sets_ranges(assignment) and self.samples_apart(inputs)

    def sets_ranges(self, assignment: Assignment) -> bool:
        """Whether a kernel sets ranges over what one run takes in."""
        found = self.layers.index
        return any(
            sets_ranges(self.layers.layers[found[name]], precision)
            for name, precision in assignment.items()
        )

    def samples_apart(self, inputs: Inputs) -> bool:
        """Whether samples of `inputs` give one by one what they give in a batch."""
        if count(inputs) < 2:
            return True
        if self._apart is None:
            few = take(inputs, 0, SAMPLES_SEEN)
            together = self._outputs(few, self.model.batch)
            alone = np.concatenate(
                [self._outputs(take(few, i, i + 1), self.copies) for i in range(count(few))]
            )
            apart = np.linalg.norm(alone - together) <= SAME * np.linalg.norm(together)
            self._apart = bool(apart)
        return self._apart

    def _outputs(self, inputs: Inputs, size: int | None) -> Floats:
        made, feed = self.session(lambda: self.graph, {}), self.model.feed(inputs)
        (values,) = run_session(made.session, (self.graph.output,), feed, size)
        return flat(values, count(inputs))

    def session(
        self, graph: Callable[[], LayeredGraph], assignment: Assignment, part: str = ""
    ) -> Made:
        """A session of `graph` under `assignment`; `part` names the graph where it is a part."""
        key = part, tuple(sorted(assignment.items()))
        found = self._sessions.get(key)
        if found is None:
            model, disabled, unchanged = self.assembled(graph(), assignment)
            found = Made(self.open(model, disabled), unchanged)
            self._keep(key, found, model)
        return found

    def recording(self, model: Callable[[], onnx.ModelProto]) -> ort.InferenceSession:
        """A session of the graph as it is that gives values beside the output."""
        found = self._sessions.get(RECORDING)
        if found is None:
            made = model()
            found = Made(self.open(made), unchanged=True)
            self._keep(RECORDING, found, made)
        return found.session

    def _keep(self, key: Hashable, made: Made, model: onnx.ModelProto) -> None:
        size = SESSION_COPIES * model.ByteSize()
        if self._held + size <= self._limit:
            self._held += size
            self._sessions[key] = made

    def assembled(
        self, graph: LayeredGraph, assignment: Assignment, ranges: Ranges | None = None
    ) -> tuple[onnx.ModelProto, tuple[str, ...], bool]:
        """The graph with what is rounded under `assignment`, on `ranges` in place of those that
        calibration saw; the optimisers to leave out; and whether nothing in it is rounded.
        """
        asked = {n: p for n, p in assignment.items() if p.float_dtype != "float32"}
        scaled = {n: p for n, p in asked.items() if p.is_scaled}
        halves = {n: p for n, p in asked.items() if p.is_cast and not has_kernels(p)}
        built = {n: p for n, p in asked.items() if n not in scaled and n not in halves}
        model, unchanged = graph.model, not asked
        disabled: tuple[str, ...] = ()
        if built:
            made = assembled(
                graph, self.layers, built, (ranges or self.ranges).to_store(), self.scheme
            )
            model, disabled = made.model, made.disabled
            unchanged = built.keys() <= made.integers.reasons.keys()
        if halves or scaled:
            model = onnx.ModelProto.FromString(model.SerializeToString())
            before = model.ByteSize()
            round_halves(model, halves, self.floats)
            if scaled:
                found = ranges or self.ranges
                round_products(model, graph, self.layers, scaled, found, self.scheme)
            unchanged = not built and model.ByteSize() == before
        return model, disabled, unchanged

    def open(self, model: onnx.ModelProto, disabled: Sequence[str] = ()) -> ort.InferenceSession:
        """A session with as many threads as PyTorch takes."""
        return open_session(model, disabled, threads=torch.get_num_threads())

    def hold_weights(self, most_bytes: int) -> None:
        """Hold sessions of at most so many bytes; others are opened each time."""
        self._limit = most_bytes
        if self._held > most_bytes:
            self._sessions.clear()
            self._held = 0

    def stored_bytes(self) -> tuple[int, int, int]:
        """Bytes of the constants, 0, and of the largest one."""
        sizes = [c.ByteSize() for c in self.model.graph.graph.initializer]
        return SESSION_COPIES * sum(sizes), 0, max(sizes, default=0)


def flat(values: Any, samples: int) -> Floats:
    """Outputs [N, K] float32 of `samples`, for whatever shape they have."""
    if samples == 1 and (values.ndim == 0 or values.shape[0] != 1):
        values = values[None]
    return np.ascontiguousarray(values, dtype=np.float32).reshape(len(values), -1)


@cache
def has_kernels(precision: Precision) -> bool:
    """Whether ONNX Runtime multiplies in a half format on this processor."""
    if precision.float_dtype != "float16":
        return False
    kind = TensorProto.FLOAT16
    weight = onnx.numpy_helper.from_array(np.ones((2, 2), np.float16), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    node.metadata_props.add(key=LAYER_KEY, value="product")
    given, made = (onnx.helper.make_tensor_value_info(n, kind, ["n", 2]) for n in "xy")
    graph = onnx.helper.make_graph([node], "probe", [given], [made], [weight])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10
    )
    return executed_kernels(model).runs_half("product")
