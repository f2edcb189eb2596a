"""Measuring a layer of a graph by a graph that is cut before it, from values of one full pass.

ONNX Runtime may sum in another order where a graph is cut, so that numbers are those of a full pass
within the order of summation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from core.engines.engine import Floats, Pair
from core.engines.onnx.runner import GraphRunner, flat
from core.onnx_graph.cut import Cutter, Part
from core.onnx_graph.forms import chunks, with_outputs
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.read_model import reads_of
from core.onnx_graph.session import Feed
from core.source.batches import Inputs, count, take


class OnnxReplay:
    """Runs layers of a graph alone (`core.engines.engine.Replay`). Layers that do not reach the
    judged output have no part. `check` are pairs as they will be run.
    """

    def __init__(self, runner: GraphRunner, check: Sequence[Pair] = ()) -> None:
        self.refusal = ""
        self.full_passes = 0
        self._runner, self._forms = runner, runner.model.forms
        cutter = Cutter(runner.graph, self._forms)
        found = {name: cutter.after(name) for name in runner.varied}
        self.parts = {name: part for name, part in found.items() if part is not None}
        self._cutter = cutter
        given = set(runner.graph.inputs)
        read = {name for part in self.parts.values() for name in part.reads}
        self.keep = tuple(sorted(read - given))
        self._graphs: dict[str, LayeredGraph] = {}
        self._holds_copies = any(runner.sets_ranges({name: one}) for name, one in check)

    def run(self, batch: Inputs, pairs: Sequence[Pair], first: int = 0) -> Iterator[Floats]:
        """Outputs [N, K] of the graph as it is, then of each layer alone in its precision.

        Kept values are let go once no layer in `pairs` reads them any more.
        """
        samples = count(batch)
        if self.refusal:
            for assignment in ({}, *({name: precision} for name, precision in pairs)):
                yield self._runner.run(assignment, batch, samples, first)
            return
        kept, clean = self._recorded(batch, self._runner.model.batch)
        alone: list[tuple[Feed, int]] = []
        yield clean
        last = self._last_use(pairs)
        for i, (name, precision) in enumerate(pairs):
            part, values, size = self.parts.get(name), kept, self._runner.model.batch
            if part is not None and self._runner.one_by_one({name: precision}, batch):
                alone = alone or self._one_by_one(batch, pairs[i:])
                values, size = alone, self._runner.copies
            yield (
                clean
                if part is None
                else self._replayed(part, (name, precision), values, size, clean)
            )
            for tensor in last.get(i, ()):
                for held, _ in (*kept, *alone):
                    held.pop(tensor, None)

    def _one_by_one(self, batch: Inputs, pairs: Sequence[Pair]) -> list[tuple[Feed, int]]:
        """The kept values of passes of single samples that `pairs` read."""
        used = [self.parts[name] for name, _ in pairs if name in self.parts]
        read = {tensor for part in used for tensor in part.reads}
        found = []
        for i in range(count(batch)):
            one = take(batch, i, i + 1)
            for values, number in self._recorded(one, self._runner.copies)[0]:
                found.append(({n: v for n, v in values.items() if n in read}, number))
        return found

    def _recorded(self, batch: Inputs, size: int | None) -> tuple[list[tuple[Feed, int]], Floats]:
        """The kept values of a full pass, in parts of `size` samples, with how many samples of each
        count; and the outputs.
        """
        runner = self._runner
        wanted = [runner.graph.output, *self.keep]
        session = runner.recording(lambda: with_outputs(runner.graph.model, wanted, self._forms))
        kept, outputs = [], []
        for part, number in chunks(runner.model.feed(batch), size):
            values: list[Any] = session.run(wanted, part)
            outputs.append(_outputs(values[0], number, size))
            kept.append(({**part, **dict(zip(self.keep, values[1:], strict=True))}, number))
        return kept, np.concatenate(outputs)

    def _replayed(
        self, part: Part, pair: Pair, kept: list[tuple[Feed, int]], size: int | None, clean: Floats
    ) -> Floats:
        runner = self._runner
        made = runner.session(lambda: self._graph(part), dict([pair]), part.layer)
        if made.unchanged:
            return clean
        found = []
        for values, number in kept:
            feed = {name: values[name] for name in part.reads}
            (output,) = made.session.run([runner.graph.output], feed)
            found.append(_outputs(output, number, size))
        return np.concatenate(found)

    def _graph(self, part: Part) -> LayeredGraph:
        """The graph of the part that was asked for last: its layer comes in several precisions."""
        if part.layer not in self._graphs:
            self._graphs = {part.layer: self._cutter.graph_of(part)}
        return self._graphs[part.layer]

    def _last_use(self, pairs: Sequence[Pair]) -> dict[int, list[str]]:
        """Position in `pairs` -> kept values that nothing after it reads."""
        last: dict[str, int] = {}
        for i, (name, _) in enumerate(pairs):
            if name in self.parts:
                last |= dict.fromkeys(self.parts[name].reads, i)
        found: dict[int, list[str]] = {}
        for tensor, i in last.items():
            found.setdefault(i, []).append(tensor)
        return found

    # ---- what it costs

    def shares(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that runs again when it changes, by its nodes' work."""
        cost = self._costs()
        total = sum(cost) or 1.0
        return {
            name: sum(cost[i] for i in self.parts[name].nodes) / total
            if name in self.parts
            else 0.0
            for name in self._runner.varied
        }

    def looks(self, batch: Inputs) -> dict[str, float]:
        """Layer -> part of a pass that its own nodes take, by their work."""
        layer_of = self._runner.graph.layer_of
        of = [layer_of[node.name] for node in self._runner.graph.model.graph.node]
        found = dict.fromkeys(self._runner.varied, 0.0)
        cost = self._costs()
        total = sum(cost) or 1.0
        for name, one in zip(of, cost, strict=True):
            if name in found:
                found[name] += one / total
        return found

    def _costs(self) -> list[float]:
        """The work of each node: values that it makes, and the multiply-accumulates of its layer
        with its first product.
        """
        macs = {layer.name: layer.macs for layer in self._runner.layers}
        found = []
        for node in self._runner.graph.model.graph.node:
            own = macs.pop(self._runner.graph.layer_of[node.name] or "", 0)
            made = sum(self._forms[n].per_sample / 4 for n in node.output if n in self._forms)
            found.append(own + made)
        return found

    def value_bytes(self) -> tuple[int, int]:
        """Bytes a sample of the values that replays read, and of those alive at once in a pass."""
        size = {name: form.per_sample for name, form in self._forms.items()}
        graph = self._runner.graph
        last = {n: i for i, node in enumerate(graph.model.graph.node) for n in reads_of(node)}
        alive = peak = sum(size.get(name, 0.0) for name in graph.inputs)
        for i, node in enumerate(graph.model.graph.node):
            alive += sum(size.get(name, 0.0) for name in node.output)
            peak = max(peak, alive)
            alive -= sum(
                size.get(n, 0.0) for n in {*reads_of(node), *node.output} if last.get(n, i) == i
            )
        times = 1 + self._runner.copies * self._holds_copies
        return round(times * sum(size[name] for name in self.keep)), round(peak)


def _outputs(values: Any, number: int, size: int | None) -> Floats:
    """Outputs [N, K] of the first `number` samples, of `size` that were run if that is fixed."""
    return flat(values if size is None else values[:number], number)
