"""What ONNX Runtime's profiler says of a built model: time by layer, and what boundaries took."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from core.layers import LayerTable
from core.onnx_graph.executed_kernels import FLOAT, INTEGER, executed_layers
from core.onnx_graph.session import Feed, executed, open_session, options
from core.runtime.build import Built

RUNS, WARM_UP = 12, 3
CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Cast", "ReorderInput", "ReorderOutput"}
)
"""Operators that a boundary causes; a Transpose that the exported graph does not have is one too."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Profiled:
    """Times of one map in ms per sample: `layers` [L], `boundaries` and `rest` (glue)."""

    layers: Floats
    boundaries: float
    rest: float

    @property
    def total(self) -> float:
        """All nodes together."""
        return float(self.layers.sum()) + self.boundaries + self.rest


def middle(passes: Sequence[Profiled]) -> Profiled:
    """The median over several passes of one map, figure by figure."""
    return Profiled(
        np.median([one.layers for one in passes], axis=0),
        float(np.median([one.boundaries for one in passes])),
        float(np.median([one.rest for one in passes])),
    )


class Charger:
    """Runs one built model under the profiler and charges its nodes.

    A fused kernel carries the name of the activation that it ends with; it is charged to the
    layer whose product it computes.
    """

    def __init__(self, built: Built, layers: LayerTable, *, threads: int = 1) -> None:
        self._built, self._threads = built, threads
        self._count = len(layers)
        self._own_nodes = {node.name for node in built.model.graph.node}
        graph = executed(built.model, built.disabled)
        head = {behind: before for before, behind in layers.kernels}
        self._layer: dict[str, int] = {}
        owners = executed_layers(graph, built.model)
        for node, name in zip(graph.graph.node, owners, strict=True):
            if name:
                i = layers.index[name]
                multiplies = node.op_type in FLOAT | INTEGER
                self._layer[node.name] = head.get(i, i) if multiplies else i

    def profiled(self, given: Feed, batch: int) -> Profiled:
        """Run `given`, `batch` samples, a few times in a session of its own."""
        layers = np.zeros(self._count)
        boundaries = rest = 0.0
        for name, (operator, ms) in self._node_times(given).items():
            added = operator == "Transpose" and name not in self._own_nodes
            if operator in CONVERSIONS or added:
                boundaries += ms / batch
            elif name in self._layer:
                layers[self._layer[name]] += ms / batch
            else:
                rest += ms / batch
        return Profiled(layers, boundaries, rest)

    def _node_times(self, given: Feed) -> Mapping[str, tuple[str, float]]:
        """Node -> operator and ms of a call."""
        with tempfile.TemporaryDirectory() as folder:
            settings = options(self._threads)
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "profile")
            session: ort.InferenceSession = open_session(
                self._built.model, self._built.disabled, settings=settings
            )
            for _ in range(WARM_UP + RUNS):
                session.run(None, given)
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        times: dict[str, list[float]] = {}
        operator: dict[str, str] = {}
        for event in events:
            name = str(event.get("name", ""))
            if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
                continue
            node = name.removesuffix("_kernel_time")
            operator[node] = event["args"]["op_name"]
            times.setdefault(node, []).append(event["dur"] / 1e3)
        return {
            node: (operator[node], _per_call(durations, WARM_UP + RUNS))
            for node, durations in times.items()
        }


def _per_call(durations: Sequence[float], calls: int) -> float:
    """Mean of the faster half of the calls; nodes of one name in one call are added up."""
    per = max(len(durations) // calls, 1)
    usable = np.array(durations[: per * (len(durations) // per)]).reshape(-1, per).sum(axis=1)
    return float(np.sort(usable[WARM_UP:])[: RUNS // 2].mean())
