"""A source with its stored ranges and its exported graph, as builds and verifications need them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.engines.torch.simulate.simulator import Simulator
from core.evidence.evidence import Identity, SplitSizes
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.calibrate.calibration import Calibration
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.layered_graph import LayeredGraph
from core.onnx_graph.session import open_session
from core.runtime.build import Built, assemble
from core.runtime.inference import BATCH, run
from core.runtime.torch_export import export
from core.source.batches import Inputs
from core.source.contract import ModelSource
from core.source.inventory import take_inventory

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Case:
    """Everything but evidence: nothing was measured."""

    source: ModelSource
    analysis: Analysis
    study: Study
    graph: LayeredGraph
    simulator: Simulator

    def on_grid(self, quantizer: str) -> Case:
        """The same with weights by groups on the grid of another quantizer."""
        analysis = replace(self.analysis, quantizer=quantizer)
        return replace(self, analysis=analysis, study=Study(analysis))

    def map(self, given: Mapping[str, str], rest: str = "FP32") -> PrecisionMap:
        """The map that `given` names, with every other layer in `rest`."""
        return answer.decide(
            self.study, Policy(strategy="manual", high=rest, overrides=tuple(given.items()))
        )

    def uniform(self, name: str) -> PrecisionMap:
        """Every layer in one precision."""
        return answer.decide(self.study, Policy(strategy="uniform", uniform=name))

    def built(self, chosen: PrecisionMap) -> Built:
        """The map as a model."""
        return assemble(self.graph, self.analysis, chosen)

    def ran(self, built: Built, inputs: Inputs) -> Floats:
        """Outputs of ONNX Runtime."""
        alone = built.sets_ranges and self.simulator.samples_apart(inputs)
        session = open_session(built.model, built.disabled)
        return run(session, built, inputs, 1 if alone else BATCH)

    def simulated(self, built: Built, inputs: Inputs) -> Floats:
        """Outputs of the simulation of what the built model runs."""
        precision = self.analysis.precision
        assignment = {r.name: precision(r.got) for r in built.report if r.got is not None}
        return self.simulator.run(assignment, inputs)


def case_of(source: ModelSource) -> Case:
    """Take stock of `source`, calibrate it and export it."""
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    return with_ranges(source, simulator, layers_graph=export(source, layers))


def with_ranges(source: ModelSource, simulator: Simulator, layers_graph: LayeredGraph) -> Case:
    """A case whose analysis holds the ranges that `simulator` has now."""
    layers = take_inventory(source)
    analysis = Analysis(
        identity=Identity(source.name, source.fingerprint(), ""),
        title="",
        description="",
        task=source.task,
        class_names=source.class_names,
        layers=layers,
        scheme=ORT_CPU.name,
        splits=SplitSizes(1, 1, 1),
        tool_version="",
        created="",
        data_description="",
        source="",
        expanded_units=False,
        holdout_accuracy=None,
        majority_accuracy=None,
        seconds=None,
        notes=(),
        ranges=tuple(
            Calibration(*site, seen.low, seen.high)
            for site, seen in sorted(simulator.ranges.items())
        ),
    )
    return Case(source, analysis, Study(analysis), layers_graph, simulator)


def decibels(signal: Floats, difference: Floats) -> float:
    """Energy of `signal` about its mean over samples against that of `difference`."""
    about = signal.astype(np.float64) - signal.mean(axis=0)
    noise = float(np.square(difference, dtype=np.float64).sum())
    return float(10 * np.log10(np.square(about).sum() / max(noise, 1e-30)))


def flips(first: Floats, second: Floats) -> float:
    """Share of samples whose largest output differs."""
    return float((first.argmax(axis=1) != second.argmax(axis=1)).mean())


def as_asked_or_why(built: Built) -> Iterable[str]:
    """Layers that neither run as asked nor say why."""
    return [row.name for row in built.report if not row.as_asked and not row.why]
