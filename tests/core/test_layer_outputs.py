"""Layers of an ONNX graph are looked at one by one: what each gives, under every remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.engines.onnx.engine import OnnxEngine
from core.engines.onnx.layer_outputs import GraphLayerOutputs
from core.engines.variant import Variant
from core.evidence.diagnose.activations import activation_statistics, equalised
from core.evidence.diagnose.own_output import Outputs
from core.numerics import precision as registry
from core.numerics.precision import Precision
from core.numerics.rounding import Range
from core.source.batches import take
from core.source.contract import ModelSource
from tests.core.test_onnx_engine import engine as engine_of_zoo
from tests.zoo.graphs import GRAPHS

WEIGHTS, ACTIVATIONS = Variant(activations=False), Variant(weights=False)


def _looked_at(name: str) -> tuple[ModelSource, OnnxEngine, GraphLayerOutputs, Outputs]:
    source, engine = engine_of_zoo(name)
    found = GraphLayerOutputs(engine)
    return source, engine, found, found.reference(take(source.calibration.inputs, 0, 16))


def _noise(found: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    assert [f.shape for f in found] == [r.shape for r in reference]
    return sum(
        float((f - r).double().square().sum()) for f, r in zip(found, reference, strict=True)
    )


@pytest.mark.parametrize("name", GRAPHS)
def test_every_layer_errs_alone_as_its_parts_do(name: str) -> None:
    """All that computes is seen; in FP32 nothing changes; of products the errors of weights and of
    activations add up to that of both, within a factor of 2.5.
    """
    source, engine, own, reference = _looked_at(name)
    inputs = take(source.calibration.inputs, 0, 16)
    for layer in engine.layers:
        if not layer.computes_at_inference:
            continue
        before = reference[layer.name]

        def error(precision: Precision, variant: Variant = Variant()) -> float:  # noqa: B008 (frozen)
            return _noise(own.of(layer.name, precision, inputs, variant), before)  # noqa: B023

        assert error(registry.FP32) <= 1e-9 * sum(float(b.square().sum()) for b in before)
        both = error(registry.INT8)
        products = engine.graph.products(layer.name)
        rounds = any(site[0] == layer.name and site[1] >= 0 for site in own.ranges)
        if layer.params and products and rounds and both:
            apart = error(registry.INT8, WEIGHTS) + error(registry.INT8, ACTIVATIONS)
            assert both / 2.5 < apart < 2.5 * both, layer.name


@pytest.mark.parametrize("name", ["residual", "opset_11", "odd_names", "fixed_batch", "u_net"])
def test_equalised_channels_leave_the_function_as_it_is(name: str) -> None:
    """Divided operands and multiplied weights give what the layer gave, in float; there are some,
    and their ranges are those of the divided operands.
    """
    source, _, own, reference = _looked_at(name)
    inputs = take(source.calibration.inputs, 0, 16)
    channels = equalised(activation_statistics(own, source.calibration.inputs))
    assert channels
    for site, one in channels.items():
        variant = Variant(factors={site: one.factors})
        found = own.of(site[0], registry.FP32, inputs, variant)
        for after, before in zip(found, reference[site[0]], strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
        assert float(one.factors.std()) > 0


def test_a_wide_channel_takes_the_levels_of_the_others() -> None:
    """With one channel a hundred times as wide, and its weights as much smaller, the layer errs by
    10 dB more and better: that is what equalising would win back.
    """
    source, _, own, _ = _looked_at("odd_names")
    inputs = take(source.calibration.inputs, 0, 16)
    widths = torch.ones(6)
    widths[2] = 100
    site = ('it\'s "odd" `${x}`', 0, 0)
    seen = activation_statistics(own, inputs)[site]
    assert seen.low is not None
    assert seen.high is not None
    span = Range(float((seen.low * widths).min()), float((seen.high * widths).max()))
    reference = own.reference(inputs)[site[0]]
    wide = Variant(ranges={site: span}, factors={site: 1 / widths})

    spoiled = _noise(own.of(site[0], registry.INT8, inputs, wide), reference)

    mended = _noise(own.of(site[0], registry.INT8, inputs), reference)
    assert 10 * np.log10(spoiled / mended) > 10
