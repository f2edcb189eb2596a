"""A layer's own output is taken from its modules alone, with the bits of a whole pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from core.engines.torch.replay.replayer import same_bits
from core.engines.variant import AS_USUAL, Variant
from core.evidence.diagnose.own_output import OwnOutputs
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT4_G32, INT8
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.core.test_planned_is_built import WALKED
from tests.core.test_replay import AWKWARD, CAPTURED, REFUSED
from tests.zoo import fusing
from tests.zoo.beside import beside
from tests.zoo.sources import source_of

LOOKS = (
    (INT8, AS_USUAL),
    (INT8, Variant(weights=False)),
    (INT8, Variant(activations=False)),
    (FP16, AS_USUAL),
    (INT4_G32, AS_USUAL),
)


def replayed(source: ModelSource, count: int = 8) -> tuple[int, int]:
    """How many looks at single layers were taken from their modules alone, of how many; each holds
    the bits of the pass up to the layer.
    """
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    own, whole = OwnOutputs(simulator, layers), OwnOutputs(simulator, layers)
    inputs = take(source.selection.inputs, 0, count)
    own.reference(inputs)
    whole.reference(inputs)
    passes = 0
    looks = [(name, *look) for name in simulator.varied for look in LOOKS]
    ran = OwnOutputs._run

    def counted(self: OwnOutputs, *given: Any) -> Any:
        nonlocal passes
        passes += self is own
        return ran(self, *given)

    with (
        patch.object(whole, "_can_replay", lambda *_: False),
        patch.object(OwnOutputs, "_run", counted),
    ):
        for name, precision, variant in looks:
            found = own.of(name, precision, inputs, variant)
            expected = whole.of(name, precision, inputs, variant)
            assert len(found) == len(expected), name
            assert all(map(same_bits, found, expected)), (name, precision.name, variant)
    return len(looks) - passes, len(looks)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("group", WALKED)
def test_every_layer_of_the_zoo_is_looked_at_alone(group: str) -> None:
    """No look runs what comes before a layer, where the whole model can be recorded; that with
    values of torch.vmap cannot.
    """
    alone, looks = replayed(beside(group))

    assert alone == 0 if group == "vectors" else alone > 0.9 * looks


@pytest.mark.parametrize("kind", [fusing.ConvNormRelu, fusing.SharedNorm, fusing.Returned])
def test_folded_layers_are_looked_at_behind_their_norm(kind: Callable[[], fusing.Norms]) -> None:
    """What is seen behind another module than the layer's own has the bits of a whole pass too."""
    torch.manual_seed(1)
    model = kind()
    alone, _ = replayed(source_of(fusing.trained(model), model.SHAPE))

    assert alone


@pytest.mark.parametrize(
    ("model", "shape", "ids"), CAPTURED, ids=lambda v: getattr(v, "__name__", "")
)
def test_what_can_be_replayed_is_looked_at_alone(
    model: Callable[[], nn.Module], shape: tuple[int, ...], ids: int
) -> None:
    """Layers that run several times, in place, or on tied weights give the bits of a whole pass."""
    torch.manual_seed(1)
    alone, looks = replayed(source_of(model(), shape, ids=ids))

    assert alone > 0.5 * looks or not looks


@pytest.mark.parametrize(
    ("model", "inputs", "reason"), AWKWARD, ids=lambda v: getattr(v, "__name__", "")
)
def test_awkward_models_are_looked_at_all_the_same(
    model: type[nn.Module], inputs: Callable[[], Any], reason: str
) -> None:
    """What cannot be replayed is seen in passes from the start."""
    if "random" in reason or "changes from pass to pass" in reason:
        pytest.skip("no two of its passes are equal")
    torch.manual_seed(1)
    x = inputs()
    source = model_source(
        {"model": model(), "calibration": x, "evaluation": (x, None), "holdout": None,
         "task": "regression"}
    )  # fmt: skip
    alone, looks = replayed(source)

    assert not (reason and alone)
    assert reason or 2 * alone >= looks


@pytest.mark.parametrize(
    "model", [made for made, why in REFUSED if "random" not in why and "from pass" not in why],
    ids=lambda v: getattr(v, "__name__", ""),
)  # fmt: skip
def test_what_cannot_be_replayed_is_seen_in_whole_passes(model: Callable[[], nn.Module]) -> None:
    """None of its layers is looked at alone, and nothing fails."""
    torch.manual_seed(1)
    made = model()
    units = ("part",) if hasattr(made, "part") else ()
    alone, _ = replayed(source_of(made, (5,), units=units))

    assert alone == 0
