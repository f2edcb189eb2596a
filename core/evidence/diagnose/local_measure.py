"""Measuring each layer on its own, on calibration samples: bounded in samples and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.engines.engines import calibrated_engine, stored_tensors
from core.engines.torch.engine import TorchEngine
from core.engines.torch.simulate.folding import seen_at
from core.evidence.diagnose.curvature import Pulled, pull_back
from core.evidence.diagnose.own_output import LayerOutputs, Outputs, OwnOutputs, error_of
from core.evidence.diagnose.remedies import LayerProgress, examine
from core.evidence.diagnose.weights import squares, stored_in, weight_kurtosis
from core.evidence.evidence import Evidence, Measured, spread_by_sample
from core.evidence.layer_alone import LocalStatistics
from core.evidence.measure.cache import Cache
from core.evidence.measure.outputs import read
from core.evidence.measure.run_cache import LayerCache
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics import precision as registry
from core.numerics.precision import Precision
from core.numerics.states import kept_as
from core.source.batches import Inputs, count, pick, take
from core.source.contract import ModelSource
from core.source.kinds import is_graph

MOST_SAMPLES = 64
"""Calibration samples that layers are looked at with, spread evenly over the split."""
REMEDY_SAMPLES = 32
DRAWS = 8
"""Random combinations of the outputs per sample."""
BATCH_BYTES = 256 * 10**6
GRADIENT_SEED = 20217
LOCAL_VERSION = 2
"""To be raised with every change here that may change what is found of a single layer."""
NOTHING_KEPT = LayerCache(None, "", "", "")

Doubles = NDArray[np.float64]


def with_local(
    source: ModelSource, layers: LayerTable, options: MeasureOptions, measured: Measured,
    progress: LayerProgress = lambda place, name: None, cache: Cache | None = None,
) -> Evidence:  # fmt: skip
    """The evidence of `measured` with local statistics added. Does not change the model.

    `progress(place, name)` is called before each step, of which `local_steps` tells how many. What
    `cache` holds is not looked at again.
    """
    about = (LOCAL_VERSION, MOST_SAMPLES, REMEDY_SAMPLES, DRAWS, BATCH_BYTES, GRADIENT_SEED,
             measured.evidence.outputs, measured.evidence.baseline.shape[1], layers.layers)  # fmt: skip
    with LayerCache(cache, measured.key, source.title, about) as kept:
        return _with_local(source, layers, options, measured, progress, kept)


def _with_local(
    source: ModelSource, layers: LayerTable, options: MeasureOptions, measured: Measured,
    progress: LayerProgress, kept: LayerCache,
) -> Evidence:  # fmt: skip
    evidence = measured.evidence
    kurtosis = weight_kurtosis(layers, stored_tensors(layers, source.model))
    precisions = tuple(options.quantizer.of(registry.get(name)) for name in evidence.precisions)
    own, orders = layer_outputs(source, layers, options, measured), None
    if isinstance(own, OwnOutputs):
        limit = BATCH_BYTES if options.memory_bytes is None else options.memory_bytes // 4
        most_bytes = min(BATCH_BYTES, limit)
        orders = second_order(
            source, layers, precisions, own, evidence, progress, kept, most_bytes=most_bytes
        )
    gradient, trace = orders or (None, None)
    integers = [p for p in precisions if p.is_calibrated]
    local = LocalStatistics(weight_kurtosis=kurtosis, gradient_error=gradient, trace_error=trace)
    if integers:
        narrowest = min(integers, key=lambda p: p.bits)
        before = len(layers) if has_gradients(source) else 0
        local = _with_remedies(
            local, source, layers, own, precisions, narrowest, kept,
            lambda place, name: progress(before + place, name),
        )  # fmt: skip
    return replace(evidence, local=local)


def layer_outputs(
    source: ModelSource, layers: LayerTable, options: MeasureOptions, measured: Measured
) -> LayerOutputs:
    """What tells of single layers, on the ranges of `measured`."""
    engine = calibrated_engine(
        source, layers, options.scheme, measured.ranges, expand_units=options.expand_units
    )
    engine.hold_weights(0)  # each layer's are met a few times in a row, and then no more
    if isinstance(engine, TorchEngine):
        return OwnOutputs(engine, layers)
    from core.engines.onnx.engine import OnnxEngine
    from core.engines.onnx.layer_outputs import GraphLayerOutputs

    assert isinstance(engine, OnnxEngine)
    return GraphLayerOutputs(engine)


def has_gradients(source: ModelSource) -> bool:
    """Whether what runs `source` can be differentiated: PyTorch modules can."""
    return not is_graph(source.model)


def local_steps(source: ModelSource, layers: LayerTable) -> int:
    """How many steps `with_local` takes: the error of each layer, where there are gradients, then
    its remedies.
    """
    return (1 + has_gradients(source)) * len(layers)


def _with_remedies(
    local: LocalStatistics, source: ModelSource, layers: LayerTable, own: LayerOutputs,
    precisions: tuple[Precision, ...], integer: Precision, kept: LayerCache,
    progress: LayerProgress,
) -> LocalStatistics:  # fmt: skip
    """`local` with the layers' own outputs under every remedy, on one batch."""
    half = next((p for p in precisions if p.float_dtype == "float16"), None)
    inputs = few(source)
    batch = take(next(batches(inputs, layers, 2)), 0, REMEDY_SAMPLES)
    found = examine(
        own, layers, integer, half, source.calibration.inputs, batch,
        take(source.selection.inputs, 0, MOST_SAMPLES), progress, kept,
    )  # fmt: skip
    return replace(
        local,
        sqnr_db=found.sqnr_db,
        activation_outliers=found.outliers,
        activation_imbalance=found.imbalance,
        clipping=found.clipping,
        clipping_gain_db=found.clipping_gain_db,
        output_peak=found.peak,
        output_underflow=found.underflow,
    )


def few(source: ModelSource) -> Inputs:
    """The calibration samples that layers are looked at with."""
    total = count(source.calibration.inputs)
    rows = np.unique(np.linspace(0, total - 1, min(total, MOST_SAMPLES)).astype(np.int64))
    chosen: Inputs = pick(source.calibration.inputs, rows)
    return chosen


def batches(
    inputs: Inputs, layers: LayerTable, copies: int, most_bytes: int = BATCH_BYTES
) -> Iterator[Inputs]:
    """`inputs` in batches of which `copies` of the outputs of all layers fit into `most_bytes`."""
    size = 4 * copies * sum(layer.output_elements for layer in layers)
    most = int(min(max(most_bytes // max(size, 1), 1), MOST_SAMPLES))
    for start in range(0, count(inputs), most):
        yield take(inputs, start, start + most)


@dataclass(eq=False)
class _Sums:
    """What is added up over batches."""

    errors: Doubles  # [P, L] sum of (g . dy)^2
    weights: dict[str, float]  # squared norms of the gradients
    answers: int
    values: list[Tensor]  # the outputs, where they are values


def second_order(
    source: ModelSource, layers: LayerTable, precisions: tuple[Precision, ...],
    own: OwnOutputs, evidence: Evidence, progress: LayerProgress = lambda place, name: None,
    kept: LayerCache = NOTHING_KEPT, *, most_bytes: int = BATCH_BYTES,
) -> tuple[Doubles, Doubles] | None:  # fmt: skip
    """`gradient_error` and `trace_error`, each [P, L]; None where a layer's own output cannot be seen, or where
    PyTorch cannot differentiate the model.
    """
    known = [kept.get(f"orders {precision}", (2, len(layers))) for precision in precisions]
    if all(one is not None for one in known):
        for i, name in enumerate(layers.names):
            progress(i, name)
        gradient, trace = np.stack([one for one in known if one is not None], axis=1)
        return gradient, trace
    reader = read(source)
    classes = None if reader.outputs.kind == "values" else reader.classes
    stored = source.model.state_dict(keep_vars=True)
    parameters = {
        spec.name: tensor
        for layer in layers
        for spec in layer.tensors
        if isinstance(tensor := stored.get(spec.name), nn.Parameter) and tensor.is_floating_point()
    }
    sums = _Sums(np.zeros((len(precisions), len(layers))), dict.fromkeys(parameters, 0.0), 0, [])
    generator = torch.Generator().manual_seed(GRADIENT_SEED)
    # The outputs, their gradients for every draw, and what PyTorch keeps for them.
    parts = list(batches(few(source), layers, 3 + DRAWS, most_bytes))
    for b, batch in enumerate(parts):
        try:
            outputs, pulled = pull_back(
                source.model, seen_at(layers), parameters, batch, source.output, reader.all_of, classes,
                DRAWS, generator,
            )  # fmt: skip
        except RuntimeError:
            return None
        sums.answers += outputs.numel() // (classes or 1)
        if classes is None:
            sums.values.append(outputs)
        for draw in pulled:
            for name, square in draw.weights.items():
                sums.weights[name] += square

        def begin(i: int, before: int = b * len(layers)) -> None:
            progress((before + i) // len(parts), layers.names[i])

        if not _add_errors(sums.errors, layers, precisions, own, batch, pulled, begin,
                           kept, f"errors {b} by {count(parts[0])}"):  # fmt: skip
            return None
    # KL is half of the quadratic form, as a mean over answers; values are held against their spread.
    unit = 1 / (2 * sums.answers)
    if classes is None:
        found = torch.cat(sums.values).double().cpu().numpy()
        spread = float(spread_by_sample(found).sum())
        unit = 1 / spread if spread > 0 else math.inf
    with np.errstate(invalid="ignore"):
        gradient = np.where(sums.errors > 0, sums.errors * unit / DRAWS, 0.0)
    tensors = {name: tensor.detach() for name, tensor in parameters.items()}
    trace = np.zeros_like(gradient)
    for p, precision in enumerate(precisions):
        for i, layer in enumerate(layers):
            for spec in layer.tensors if layer.computes_at_inference else ():
                weight = tensors.get(spec.name)
                kept_in = kept_as(layer, precision)
                rounded = None if weight is None else stored_in(spec, weight, kept_in)
                if weight is None or rounded is None:
                    continue
                noise = squares(weight, rounded)
                mean = sums.weights[spec.name] / max(weight.numel(), 1) / DRAWS
                trace[p, i] += mean * noise * unit if mean * noise > 0 else 0.0
    gradient, trace = _known(gradient), _known(trace)
    for p, precision in enumerate(precisions):
        kept.keep(f"orders {precision}", np.stack([gradient[p], trace[p]]))
    return gradient, trace


def _known(values: Doubles) -> Doubles:
    """Not a number means that something was not finite: infinitely bad."""
    return np.where(np.isnan(values), np.inf, values)


def _add_errors(
    total: Doubles, layers: LayerTable, precisions: tuple[Precision, ...], own: OwnOutputs,
    batch: Inputs, pulled: list[Pulled], begin: Callable[[int], None], kept: LayerCache, called: str,
) -> bool:  # fmt: skip
    """Add (g . dy)^2 of every computing layer and precision to `total`. False where a layer's own
    output cannot be seen. `begin` is told the place of each layer first; `called` names the batch
    among what is `kept`.
    """
    reference: Outputs | None = None
    for i, layer in enumerate(layers):
        begin(i)
        for p, precision in enumerate(precisions if layer.computes_at_inference else ()):
            name = f"{called} {layer.name} {precision}"
            square = kept.get(name, (1,))
            if square is None:
                reference = own.reference(batch) if reference is None else reference
                before = reference.get(layer.name)
                if before is None:
                    return False
                square = _squared(layer.name, own.of(layer.name, precision, batch), before, pulled,
                                  count(batch))  # fmt: skip
                if square is None:
                    return False
                kept.keep(name, square)
            total[p, i] += square[0]
    return True


def _squared(
    layer: str, after: list[Tensor], before: list[Tensor], pulled: list[Pulled], samples: int
) -> Doubles | None:
    """The sum of (g . dy)^2 of a layer's own output, [1]; infinity where it is not finite, None
    where it cannot be seen.
    """
    errors = error_of(after, before)
    if errors is None or any(len(d.outputs.get(layer, before)) != len(before) for d in pulled):
        return None
    if not all(bool(torch.isfinite(error).all()) for error in errors):
        return np.array([math.inf])
    return np.array([sum(draw.squared_dot(layer, errors, samples) for draw in pulled)], np.float64)
