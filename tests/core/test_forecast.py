"""What a dry run counts is what an analysis does."""

from __future__ import annotations

from typing import Any

import pytest

from core.analysis import analyze as analysing
from core.engines.torch.replay.replayer import OwnRuns, Replayer
from core.engines.torch.simulate.simulator import Simulator
from core.evidence.diagnose.local_measure import REMEDY_SAMPLES, local_steps, with_local
from core.evidence.diagnose.own_output import PILOT
from core.evidence.layer_alone import CLIPPED
from core.evidence.measure import forecast
from core.evidence.measure.measure import make_simulator, measure, planned_runs
from core.evidence.measure.outputs import read
from core.evidence.measure.runs import Runner, prepare
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import FP16, INT8, Precision
from core.source.batches import count
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.zoo.sources import tiny_source


def runner_of(source: ModelSource, layers: LayerTable, precisions: tuple[Precision, ...]) -> Runner:
    """A runner as a dry run has it."""
    options = MeasureOptions(precisions=precisions)
    simulator = make_simulator(source, layers, options)
    return prepare(simulator, source, read(source), len(planned_runs(layers, options)), options)


@pytest.mark.parametrize("precisions", [(FP16, INT8), (FP16,), (INT8,)])
def test_single_layers_are_counted_as_they_are_run(
    precisions: tuple[Precision, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every pass taken for a whole one, the samples forecast for the look at single layers
    are those that go through the model during it, but for what is seen of layers that clip.
    """
    source = tiny_source()
    layers = take_inventory(source)
    measured = measure(source, layers, MeasureOptions(precisions=precisions, probes=2))
    runner = runner_of(source, layers, precisions)
    ran: list[int] = []
    run, record = Simulator.run, Simulator.record

    def counted(self: Simulator, assignment: Any, inputs: Any, **options: Any) -> Any:
        ran.append(count(inputs))
        return run(self, assignment, inputs, **options)

    def looked(self: Simulator, inputs: Any, observe: Any) -> None:
        ran.append(count(inputs))
        record(self, inputs, observe)

    batch: list[int] = []
    begun, alone = Replayer.own_runs, OwnRuns.run

    def begins(self: Replayer, inputs: Any) -> OwnRuns:
        batch.append(count(inputs))
        ran.append(count(inputs))
        return begun(self, inputs)

    def looked_alone(self: OwnRuns, *given: Any) -> bool:
        ran.append(batch[-1])
        return alone(self, *given)

    monkeypatch.setattr(Replayer, "own_runs", begins)
    monkeypatch.setattr(OwnRuns, "run", looked_alone)
    monkeypatch.setattr(Simulator, "run", counted)
    monkeypatch.setattr(Simulator, "record", looked)
    local = with_local(source, layers, MeasureOptions(), measured).local
    assert local is not None
    clipped = 0 if local.clipping is None else int((local.clipping >= CLIPPED).sum())
    of_clipping = REMEDY_SAMPLES * (2 + 2 * clipped) if clipped else 0
    looks = dict.fromkeys(layers.names, 1.0)

    assert forecast._local_samples(runner, source, layers, precisions, looks) == (
        sum(ran) - PILOT - of_clipping
    )


def test_a_forecast_grows_with_what_there_is_to_do() -> None:
    """A look at a layer takes a part of a pass, all of them together no more than one where no layer
    lies in another; single layers take some of the time.
    """
    source = tiny_source()
    layers = take_inventory(source)
    precisions = (FP16, INT8)
    runner = runner_of(source, layers, precisions)
    looks = runner.replayer.looks(source.selection.inputs[:64])

    assert set(looks) == {layer.name for layer in layers if layer.computes_at_inference}
    assert all(part > 0 for part in looks.values())
    outer = [n for n in looks if not any(n.startswith(f"{other}.") for other in looks)]
    assert outer != list(looks)
    assert sum(looks[name] for name in outer) <= 1.0 + 1e-9
    assert forecast._local_samples(runner, source, layers, precisions, looks) > 64
    assert forecast._gradient_seconds(source, layers) > 0


def test_progress_counts_every_step_once() -> None:
    """An analysis tells its steps in order, runs first and single layers after, to the last one."""
    source = tiny_source()
    steps: list[tuple[int, int, str]] = []

    options = MeasureOptions(precisions=(INT8,), probes=2)
    found = analysing.analyze(source, options, progress=lambda *step: steps.append(step))

    done = [one for one, _, _ in steps]
    assert done == sorted(done)
    runs = len(planned_runs(found.layers, options)) * 3  # a first look, and two batches
    assert {total for _, total, _ in steps} == {runs + local_steps(source, found.layers)}
    assert steps[-1] == (
        runs + local_steps(source, found.layers),
        runs + local_steps(source, found.layers),
        "done",
    )
    alone = [label for one, _, label in steps if one >= runs and label.endswith("by itself")]
    assert len(alone) == 2 * len(found.layers)
