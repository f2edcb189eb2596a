"""A PyTorch model and the file that it was exported to err alike, and as ONNX Runtime's own quantizer
makes a layer err.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.engines.engine import Engine
from core.engines.engines import engine_of, layers_of
from core.engines.onnx.engine import OnnxEngine
from core.evidence.diagnose.local_measure import with_local
from core.evidence.evidence import Evidence, Measured
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.scheme import ORT_CPU
from core.onnx_graph.read_model import from_bytes
from core.onnx_graph.read_nodes import module_of
from core.runtime.torch_export import export_as_deployed
from core.source.contract import ModelSource, model_source
from core.source.onnx_model import OnnxModel
from tests.core.static_quantizer import alone
from tests.core.test_onnx_engine import source_of as graph_source
from tests.zoo import models
from tests.zoo.sources import source_of, tiny_source

LEAST_DB = 10.0
"""Below the effect of a layer itself, at which two engines agree."""
QUANTIZER_DB = 20.0


def _db(signal: NDArray[Any], noise: NDArray[Any]) -> float:
    energy = float(np.square(noise, dtype=np.float64).sum())
    whole = float(np.square(signal, dtype=np.float64).sum())
    return 10 * np.log10(whole / energy) if energy else np.inf


def _exported(source: ModelSource, units: tuple[str, ...]) -> ModelSource:
    model = export_as_deployed(source, layers_of(source, ORT_CPU))
    return model_source(
        {"model": OnnxModel(from_bytes(model.SerializeToString(), "exported")),
         "calibration": source.calibration.inputs, "holdout": None, "units": units,
         "evaluation": (source.selection.inputs, source.selection.targets), "task": source.task}
    )  # fmt: skip


def _calibrated(source: ModelSource) -> Engine:
    found = engine_of(source, layers_of(source, ORT_CPU), ORT_CPU)
    found.calibrate(source.calibration.inputs)
    return found


def _conv_net() -> ModelSource:
    torch.manual_seed(0)
    return source_of(models.ConvNet(), (1, 8, 8))


def _pairs(torch_engine: Engine, source: ModelSource) -> Iterator[tuple[str, str]]:
    """Layers of the exported file with the layers of the module that they came from: by the weight
    that they hold, else by the module that the exporter names.
    """
    assert isinstance(source.model, OnnxModel)
    found = layers_of(source, ORT_CPU)
    node = {n.name: n for n in source.model.graph.graph.node}
    for layer in found:
        held = [s.name.rpartition(".")[0] for s in layer.tensors if s.kind in ("weight", "table")]
        modules = [module_of(node[part]) for part in layer.parts]
        wanted = next((n for n in (layer.name, *held, *modules) if n in torch_engine.varied), None)
        if wanted is not None:
            yield layer.name, wanted


@pytest.mark.parametrize(
    ("make", "units", "least"),
    [(tiny_source, ("blocks.*.attention", "blocks.*.feed_forward"), 10), (_conv_net, (), 5)],
)
def test_both_engines_agree_layer_by_layer(
    make: Callable[[], ModelSource], units: tuple[str, ...], least: int
) -> None:
    """What a layer alone costs in INT8 and BF16 is the same of the module and of its file, 10 dB
    below the effect.
    """
    source = make()
    exported = _exported(source, units)
    module, file = _calibrated(source), _calibrated(exported)
    inputs = exported.selection.inputs
    base = module.run({}, source.selection.inputs)
    assert _db(base, base - file.run({}, inputs)) > 100

    pairs = list(_pairs(module, exported))
    assert len(pairs) >= least
    for name in ("INT8", "BF16"):
        precision = registry.get(name)
        replayed = file.replay(inputs).run(inputs, [(layer, precision) for layer, _ in pairs])
        clean = next(replayed)
        for (layer, owner), outputs in zip(pairs, replayed, strict=True):
            if name == "BF16" and owner.endswith("feed_forward"):
                continue  # the graph rounds what its GELU, another layer, hands back to it
            effect = module.run({owner: precision}, source.selection.inputs) - base
            assert _db(effect, effect - (outputs - clean)) > LEAST_DB, (layer, owner, name)


@pytest.mark.parametrize(
    ("make", "units"), [(tiny_source, ("blocks.*.attention",)), (_conv_net, ())]
)
def test_remedies_of_a_file_are_those_of_its_module(
    make: Callable[[], ModelSource], units: tuple[str, ...]
) -> None:
    """What rounding weights or activations alone, other ranges, equalised channels and FP16 do to a
    layer's own output is the same of the module and of its file, within 0.2 dB.
    """
    source = make()
    exported = _exported(source, units)
    differences = []
    found = []
    for one in (source, exported):
        layers = layers_of(one, ORT_CPU)
        engine = _calibrated(one)
        options = MeasureOptions(precisions=(registry.FP16, registry.INT8))
        whole = Measured(_nothing_measured(layers), engine.ranges.to_store(), 0.0)
        found.append((engine, layers, with_local(one, layers, options, whole).local))
    (module, own, told), (_, others, seen) = found
    assert told is not None
    assert told.sqnr_db is not None
    assert seen is not None
    assert seen.sqnr_db is not None
    assert seen.gradient_error is None
    for layer, owner in _pairs(module, exported):
        if owner.endswith("attention"):
            continue  # other tensors leave the unit of the file than the module's forward returns
        pair = seen.sqnr_db[:, others.index[layer]], told.sqnr_db[:, own.index[owner]]
        known = np.isfinite(pair[0]) & np.isfinite(pair[1])
        differences += list(np.abs(pair[0] - pair[1])[known])

    assert len(differences) >= 20
    assert max(differences) < 0.2


def _nothing_measured(layers: LayerTable) -> Evidence:
    """Evidence of no samples, in FP16 and INT8."""
    none = np.zeros((2, len(layers), 0, 1), np.float32)
    return Evidence(
        precisions=("FP16", "INT8"), scheme="ort-cpu", baseline=none[0, 0], targets=None,
        perturbations=none, whole=none[:, 0], probes=none[:0, 0],
        probe_codes=np.zeros((0, len(layers)), np.int8),
        weight_sqnr_db=np.zeros((2, len(layers))), allowed=np.ones((2, len(layers)), np.bool_),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layers"),
    [("norm_left", ("last",)), ("opset_11", ("Conv@0", "Conv@1", "MatMul@0")),
     ("odd_names", ("/enc.0/fc/MatMul", "it's \"odd\" `${x}`", "y"))],
)  # fmt: skip
def test_a_layer_alone_is_what_the_static_quantizer_makes_of_it(
    name: str, layers: tuple[str, ...]
) -> None:
    """The effect of a product in INT8 is that of a file in which `quantize_static` was given that
    node alone, 20 dB below the effect. Where others read its operand too, that quantizer rounds it
    for them as well, so that no such product is looked at.
    """
    source = graph_source(name)
    engine = _calibrated(source)
    assert isinstance(engine, OnnxEngine)
    inputs = source.selection.inputs
    base = engine.run({}, inputs)
    for layer in layers:
        nodes = engine.layers.layers[engine.layers.index[layer]].parts
        theirs = alone(engine.graph.model, nodes, source, engine.graph.output)
        ours = engine.run({layer: registry.INT8}, inputs)
        assert _db(ours - base, ours - theirs) > QUANTIZER_DB, layer
