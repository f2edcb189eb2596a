"""A map's tensors written for real: the file that the size estimate is checked against.

One safetensors file with every tensor in the type its precision stores: floats cast, weights as
integers with a float32 scale and a zero point per output channel, biases as int32 with a float32
scale and an int32 zero point per channel for each Conv or Gemm that reads them, and a scale and zero
point per rounded activation. What is no float32 stays as it is. Widths below 8 bits are packed, low bits first. Nothing here
asks `core.numerics.storage`, whose figures it judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from core.analysis.analysis import Analysis
from core.decide.policy.decision import PrecisionMap
from core.engines.torch.simulate.folding import stored_tensors
from core.errors import MapError
from core.layers import Layer, TensorSpec
from core.numerics import precision as registry
from core.numerics.activation_grids import grid_of
from core.numerics.groups import grouped, grouped_rows
from core.numerics.precision import Precision
from core.numerics.rounding import Range, affine_grid, scales_of


def write_tensors(analysis: Analysis, chosen: PrecisionMap, model: nn.Module, path: Path) -> int:
    """Write `model`'s tensors under `chosen` to `path`; returns the bytes of all tensors.

    Needs the analysis's calibration ranges for integer layers. Does not change `model`.
    """
    state = stored_tensors(analysis.layers, model)
    stored: dict[str, Tensor] = {}
    reference = registry.get(registry.REFERENCE)
    for layer, name in zip(chosen.layers, chosen.assigned, strict=True):
        if name is None:
            continue
        precision = analysis.precision(name)
        for spec in layer.tensors:
            stored |= _tensor(spec, state, precision, layer, analysis)
        if precision.is_calibrated or (precision.is_dynamic and layer.dynamic):
            stored |= _activation_grids(layer, analysis)
        if precision.is_scaled:
            stored |= _product_scales(layer, analysis)
    for spec in chosen.layers.glue_tensors:
        stored |= _tensor(spec, state, reference, chosen.layers.layers[0], analysis)
    contiguous = {name: tensor.contiguous().clone() for name, tensor in stored.items()}
    save_file(contiguous, path, metadata={"format": "quantscape-tensors-1"})
    return sum(tensor.numel() * tensor.element_size() for tensor in contiguous.values())


def _tensor(
    spec: TensorSpec, state: Mapping[str, Tensor], precision: Precision, layer: Layer,
    analysis: Analysis,
) -> dict[str, Tensor]:  # fmt: skip
    value = state[spec.name].detach()
    if value.dtype != torch.float32:
        return {spec.name: value}
    if precision.is_weights_only:
        return _groups(spec, value, precision)
    if precision.is_scaled:
        return _scaled(spec, value, layer)
    if precision.is_dynamic and not layer.dynamic and spec.kind != "table":
        if spec.group_axis < 0:
            return {spec.name: value}
        scales = value.abs().amax(spec.group_axis) / 127
        integers = torch.round(value / scales.unsqueeze(spec.group_axis))
        return {spec.name: integers.to(torch.int8), f"{spec.name}.scale": scales}
    if precision.is_cast:
        return {spec.name: value.to(getattr(torch, precision.float_dtype))}
    if spec.kind == "weight":
        axis = spec.scale_axis
        scales = scales_of(value, precision.weights, axis)
        shape = [1] * value.ndim
        if axis is not None:
            shape[axis] = -1
        limit = 2 ** (precision.bits - 1) - 1
        integers = torch.clamp(torch.round(value / scales.reshape(shape)), -limit, limit)
        return {
            spec.name: _packed(integers.to(torch.int8), precision.bits),
            f"{spec.name}.scale": scales,
            f"{spec.name}.zero_point": torch.zeros(spec.channels, dtype=torch.int8),
        }
    if spec.kind == "table":
        scale, zero = affine_grid(Range(float(value.min()), float(value.max())), precision.bits)
        levels = torch.clamp(torch.round(value / scale) + zero, 0, 2**precision.bits - 1)
        return {
            spec.name: _packed(levels.to(torch.uint8), precision.bits),
            f"{spec.name}.scale": torch.tensor([scale]),
            f"{spec.name}.zero_point": torch.tensor([zero], dtype=torch.uint8),
        }
    if spec.kind == "bias":
        integers, step = _integer_bias(spec, state, precision, layer, analysis)
        found = {spec.name: integers}
        for k in range(spec.grids // len(integers)):
            found |= {
                f"{spec.name}.{k}": integers,
                f"{spec.name}.{k}.scale": step.float(),
                f"{spec.name}.{k}.zero_point": torch.zeros(len(integers), dtype=torch.int32),
            }
        if spec.grids:
            del found[spec.name]
        return found
    return {spec.name: value}


def _groups(spec: TensorSpec, value: Tensor, precision: Precision) -> dict[str, Tensor]:
    """A weight of matrix products by groups, as MatMulNBits reads it, a table as GatherBlockQuantized
    does; all else as it is.
    """
    if spec.group_axis < 0:
        return {spec.name: value}
    if spec.kind == "table":
        rows = grouped_rows(value, precision.weights)
        return {spec.name: rows.packed_rows(), f"{spec.name}.scale": rows.scales}
    found = grouped(value if spec.group_axis == 1 else value.T, precision.weights)
    zeros = {} if found.zeros is None else {f"{spec.name}.zero_point": found.zeros}
    return {spec.name: found.packed(), f"{spec.name}.scale": found.scales} | zeros


def _scaled(spec: TensorSpec, value: Tensor, layer: Layer) -> dict[str, Tensor]:
    """A weight of products in FP8 with a float32 scale per output channel; all else as it is."""
    is_product = layer.state == "computes" and not layer.dynamic and layer.role != "pooling"
    if not is_product or spec.kind != "weight" or spec.operation < 0:
        return {spec.name: value}
    axis = spec.scale_axis
    others = [a for a in range(value.ndim) if a != axis]
    scales = value.abs().amax(others, keepdim=True) / 448
    kept = (value / scales).to(torch.float8_e4m3fn)
    return {spec.name: kept, f"{spec.name}.scale": scales.flatten()}


def _product_scales(layer: Layer, analysis: Analysis) -> dict[str, Tensor]:
    """A float32 scale of each activation that a product of `layer` takes in."""
    return {
        f"{layer.name}.activation.{seen.operation}.{seen.operand}.scale": torch.tensor(
            [max(-seen.low, seen.high) / 448]
        )
        for seen in analysis.ranges
        if seen.layer == layer.name and seen.operation >= 0 and seen.operand >= 0
    }


def _integer_bias(
    spec: TensorSpec, state: Mapping[str, Tensor], precision: Precision, layer: Layer,
    analysis: Analysis,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """int32 at scale s_x * s_w of the product that reads the bias, and that scale."""
    bias = state[spec.name].detach()
    weight = state[spec.weight].detach()
    site = (layer.name, spec.operation)
    grids = (r for r in analysis.ranges if (r.layer, r.operation) == site and r.operand >= 0)
    grid = next(grids, None)
    if grid is None:
        raise MapError(
            f"The analysis holds no calibration range for layer {layer.name!r}.",
            "Analyze the model again.",
        )
    scale = grid_of(Range(grid.low, grid.high), analysis.rounding).scale
    read = next((t for t in layer.tensors if t.name == spec.weight), None)
    axis = read.scale_axis if read else (0 if len(bias) == weight.shape[0] else 1)
    scales = scales_of(weight, precision.weights, axis).double()
    # A transposed convolution in groups has the channels of one group on that axis.
    step = scale * scales.repeat(max(len(bias) // len(scales), 1))
    limit = 2**31 - 1
    return torch.clamp(torch.round(bias.double() / step), -limit, limit).to(torch.int32), step


def _activation_grids(layer: Layer, analysis: Analysis) -> dict[str, Tensor]:
    grids = [r for r in analysis.ranges if r.layer == layer.name]
    found: dict[str, Tensor] = {}
    for seen in grids:
        grid = grid_of(Range(seen.low, seen.high), analysis.rounding)
        label = f"{layer.name}.activation.{seen.operation}.{seen.operand}"
        found[f"{label}.scale"] = torch.tensor([grid.scale])
        kind = torch.int8 if grid.low < 0 else torch.uint8
        found[f"{label}.zero_point"] = torch.tensor([grid.zero_point], dtype=kind)
    return found


def _packed(values: Tensor, bits: int) -> Tensor:
    if bits >= 8:
        return values
    flat: NDArray[np.uint8] = values.flatten().numpy().astype(np.uint8) & (2**bits - 1)
    per_byte = 8 // bits
    padded = np.zeros(-(-len(flat) // per_byte) * per_byte, dtype=np.uint8)
    padded[: len(flat)] = flat
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    joined = (padded.reshape(-1, per_byte) << shifts).sum(axis=1, dtype=np.uint8)
    return torch.from_numpy(joined)
