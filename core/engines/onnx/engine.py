"""The engine of ONNX graphs: what is measured of one is what ONNX Runtime computes.

Integers are what `build` builds: Q and DQ around the nodes of a layer, and the kernels that ONNX
Runtime executes for them. FP16 goes the way of the builder's converter where the runtime has half
kernels, else it is simulated (`core.onnx_graph.half_simulated`), as bfloat16
always is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnxruntime as ort
import torch

from core.engines.engine import Pair
from core.engines.onnx.replay import OnnxReplay
from core.engines.onnx.runner import GraphRunner, has_kernels
from core.numerics.calibrate.calibration import OUTPUT
from core.numerics.calibrate.choose import Observed
from core.numerics.kernel_table import BODIES
from core.numerics.precision import Precision
from core.numerics.ranges import MODULE_OUTPUT, Site
from core.onnx_graph.forms import chunks, with_outputs
from core.onnx_graph.marking import LayerMarks
from core.onnx_graph.session import exact_sums
from core.source.batches import Inputs, count, take

GATHERED_BYTES = 256 * 10**6
"""Of activations that are fetched at once while ranges are found."""
AT_ONCE = 16
"""Samples of a pass that fetches activations."""

SIMULATED = (
    "ONNX Runtime {version} has no kernels for {names} on this processor: a layer in {names} was "
    "simulated in the graph, its weights and every result of its nodes rounded, sums in FP32. INT8 is "
    "what its kernels computed."
)
SCALED = (
    "ONNX Runtime multiplies no {names} on CPUs: a layer in {names} was simulated in the graph, what its "
    "products take in rounded, sums in FP32."
)
EXACT = (
    "This processor has no VNNI: sessions kept sums of 8-bit products exact "
    "(session.x64quantprecision=1), which a plain session does not."
)
NO_GRADIENTS = "ONNX Runtime computes no gradients: scorers that need them (gradient_error, trace_error) are n/a."
OWN_GRAPHS = "{names} hold graphs of their own: they stay in FP32 in every map."


class OnnxEngine(GraphRunner):
    """A graph as an engine (`core.engines.engine.Engine`)."""

    def calibrate(self, inputs: Inputs) -> None:
        """Find the range of every activation that the scheme may round, from graph outputs."""
        self.ranges = observed = Observed(self.calibrator, self.scheme)
        self.record(inputs, lambda site, value: observed.observe(site, torch.from_numpy(value)))
        observed.settle()

    def record(self, inputs: Inputs, observe: Callable[[Site, Any], None]) -> None:
        """Tell `observe` of every activation that the scheme may round, in the graph as it is."""
        sites = self._sites()
        total, few = count(inputs), self.model.batch or AT_ONCE
        for names in self._groups(list(dict.fromkeys(sites.values())), few):
            session = self.open(with_outputs(self.graph.model, names, self.model.forms))
            for start in range(0, total, few):
                feed = self.model.feed(take(inputs, start, start + few))
                for part, _ in chunks(feed, self.model.batch):
                    values = dict(zip(names, session.run(names, part), strict=True))
                    for site, tensor in sites.items():
                        if tensor in values:
                            observe(site, values[tensor])

    def _sites(self) -> dict[Site, str]:
        """Where activations are rounded, and the tensor that stands there."""
        marks = LayerMarks(self.graph, (), self.scheme)
        found: dict[Site, str] = {}
        for layer in self.layers:
            if layer.state in ("float", "nothing", "stores") or layer.dynamic:
                continue
            if layer.role == "pooling" or layer.state == "rounds output":
                own = marks.own_outputs(layer.name)
                found |= {(layer.name, *MODULE_OUTPUT): name for name in own[:1]}
                continue
            for number, node in enumerate(self.graph.products(layer.name)):
                mine = marks.node[node.name]
                for slot in marks.slots(mine):
                    found[layer.name, number, slot] = mine.input[slot]
                if node.op_type in marks.grids.rounded:
                    clip = marks.clip_behind(mine)
                    found[layer.name, number, OUTPUT] = (clip or mine).output[0]
        return {site: name for site, name in found.items() if name in self.floats}

    def _groups(self, names: list[str], samples: int) -> Iterator[list[str]]:
        """`names` in groups of which `samples` fit into memory."""
        group: list[str] = []
        total = 0.0
        for name in names:
            size = self.model.forms[name].per_sample * samples
            if group and total + size > GATHERED_BYTES:
                yield group
                group, total = [], 0.0
            group.append(name)
            total += size
        if group:
            yield group

    def replay(self, pilot: Inputs, check: Sequence[Pair] = ()) -> OnnxReplay:
        """Replays by graphs that are cut before a layer; a graph has one way, so that none has to
        be held against full passes.
        """
        return OnnxReplay(self, check)

    def identity(self) -> Mapping[str, Any]:
        """ONNX Runtime, how its sessions are set, and the units of the graph."""
        return {
            "onnxruntime": ort.__version__,
            "session": exact_sums(),
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "parts": [layer.parts for layer in self.layers],
        }

    def notes(self, precisions: Sequence[Precision]) -> tuple[str, ...]:
        """What was simulated, what was set, and what cannot be known."""
        halves = [p.name for p in precisions if p.is_cast and not has_kernels(p)]
        found = []
        if halves:
            found.append(SIMULATED.format(version=ort.__version__, names=" and ".join(halves)))
        scaled = [p.name for p in precisions if p.is_scaled]
        if scaled:
            found.append(SCALED.format(names=" and ".join(scaled)))
        if exact_sums():
            found.append(EXACT)
        found.append(NO_GRADIENTS)
        bodies = [layer.name for layer in self.layers if layer.kind in BODIES]
        return (*found, *((OWN_GRAPHS.format(names=", ".join(bodies)),) if bodies else ()))
