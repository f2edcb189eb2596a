"""Which engine runs a source, and what each knows of a model before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from core.engines.engine import Engine
from core.engines.torch.engine import TorchEngine
from core.engines.torch.simulate.folding import stored_tensors as stored_by_module
from core.layers import LayerTable
from core.numerics.calibrate.calibration import Calibration
from core.numerics.calibrate.calibrators import MIN_MAX, Calibrator
from core.numerics.ranges import Ranges
from core.numerics.scheme import Scheme
from core.numerics.states import under
from core.source.batches import Output
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from core.source.kinds import is_graph
from core.source.ownership import layer_owners


def layers_of(source: ModelSource, scheme: Scheme, *, expand_units: bool = False) -> LayerTable:
    """The layers of `source` as `scheme` sees them. Does not change the model."""
    if is_graph(source.model):
        from core.source.onnx_inventory import take_onnx_inventory

        found = take_onnx_inventory(source, source.model, expand_units=expand_units)
    else:
        found = take_inventory(source, expand_units=expand_units, functions=scheme.functions)
    return under(found, scheme)


def engine_of(
    source: ModelSource, layers: LayerTable, scheme: Scheme, calibrator: Calibrator = MIN_MAX,
    *, expand_units: bool = False,
) -> Engine:  # fmt: skip
    """The engine of `source`, not calibrated yet."""
    owner: Mapping[str, str | None] = {}
    if not is_graph(source.model):
        owner = layer_owners(source, layers, expand_units=expand_units)
    return engine_for(source.model, layers, owner, scheme, source.output, calibrator)


def engine_for(
    model: nn.Module, layers: LayerTable, owner: Mapping[str, str | None], scheme: Scheme,
    output: Output = None, calibrator: Calibrator = MIN_MAX,
) -> Engine:  # fmt: skip
    """The engine of `model`, whose module paths, if it has some, `owner` gives to layers."""
    if is_graph(model):
        from core.engines.onnx.engine import OnnxEngine

        return OnnxEngine(model, layers, scheme, output, calibrator)
    return TorchEngine(model, layers, owner, scheme, output, calibrator)


def calibrated_engine(
    source: ModelSource, layers: LayerTable, scheme: Scheme, ranges: Iterable[Calibration],
    *, expand_units: bool = False,
) -> Engine:  # fmt: skip
    """The engine of `source` with `ranges` that calibration has found before."""
    engine = engine_of(source, layers, scheme, expand_units=expand_units)
    engine.ranges = Ranges.stored(ranges)
    return engine


def stored_tensors(layers: LayerTable, model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of `layers` by name as a runtime stores it in float32, on the CPU."""
    if is_graph(model):
        return {name: torch.from_numpy(values.copy()) for name, values in model.stored().items()
                if values.dtype.kind in "fiub"}  # fmt: skip
    return stored_by_module(layers, model)
