"""A precision map as a model of ONNX Runtime, with what every layer asked for and got.

"Got INT8" means a kernel that ONNX Runtime executes on integers, read off the graph that it runs
after its own optimisations; Q and DQ in the file prove nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from core.analysis.analysis import Analysis
from core.decide.policy.decision import PrecisionMap
from core.errors import ModelError, PolicyError
from core.layers import Layer
from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics.precision import Precision
from core.numerics.scheme import check_built
from core.onnx_graph.assemble import Assembled, assembled
from core.onnx_graph.executed_kernels import SET_RANGES, Executed
from core.onnx_graph.group_weights import FLOATS, NBITS, ROWS
from core.onnx_graph.layered_graph import LayeredGraph, float_kernels
from core.onnx_graph.quantize import Integers
from core.runtime import one_way
from core.runtime.graph import graph_of
from core.source.contract import ModelSource

BUILDABLE_FLOATS = ("float32", "float16")
NARROW = "INT8"
"""What ONNX Runtime's integer kernels compute in."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What one layer asked for and what it got.

    `got` is the precision in which it runs, None where it does nothing. `how` says by what
    means, `why` why it is not what was asked ("" where it is). `kernels` are the operators that
    are executed for it.
    """

    name: str
    asked: str | None
    got: str | None
    how: str
    why: str = ""
    kernels: tuple[str, ...] = ()

    @property
    def as_asked(self) -> bool:
        """Whether the layer runs in the precision that it was given."""
        return self.asked == self.got


@dataclass(frozen=True, eq=False)
class Built:
    """A map that can be run. `disabled` names the optimisers of ONNX Runtime without which more
    layers run on integers: sessions have to leave them out. `notes` say where the file is not the
    whole model.
    """

    model: onnx.ModelProto
    report: tuple[LayerReport, ...]
    disabled: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    kernels: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return int(self.model.ByteSize())

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(onnx.numpy_helper.to_array(c).nbytes for c in self.model.graph.initializer)

    @property
    def sets_ranges(self) -> bool:
        """Whether a kernel sets ranges over what one run gives it."""
        return not SET_RANGES.isdisjoint(self.kernels)

    @property
    def as_asked(self) -> bool:
        """Whether every layer runs in the precision that it was given."""
        return all(row.as_asked for row in self.report)


def build(
    source: ModelSource, analysis: Analysis, chosen: PrecisionMap, graph: LayeredGraph | None = None
) -> Built:
    """Build `chosen` for ONNX Runtime on the CPU.

    `graph` is what `graph_of` gave for the same source: it is the same for every map. Ranges are
    those of the analysis; nothing is calibrated. Does not change `source`. Raises `ModelError`
    where the model cannot be exported or is not the one that was analyzed, `PolicyError` for a
    precision that is simulated alone.
    """
    check_built(analysis.rounding)
    check_kernels(chosen)
    check_same_model(source, analysis)
    if graph is None:
        graph = graph_of(source, analysis.layers, expand_units=analysis.expanded_units)
    return replace(assemble(graph, analysis, chosen), notes=one_way.notes(source, graph))


def assemble(graph: LayeredGraph, analysis: Analysis, chosen: PrecisionMap) -> Built:
    """`build` from an exported graph."""
    layers = analysis.layers
    asked = {
        name: analysis.precision(given)
        for name, given in chosen.by_layer.items()
        if given is not None
    }
    made = assembled(graph, layers, asked, analysis.ranges, analysis.rounding)
    found = made.executed
    floats = float_kernels(analysis.rounding)
    report = tuple(_report(layer, asked.get(layer.name), graph, made, floats) for layer in layers)
    return Built(made.model, report, made.disabled, graph.inputs, graph.output, found.counts)


def check_kernels(chosen: PrecisionMap) -> None:
    """Raise `PolicyError` for a map with a precision whose products ONNX Runtime has no kernels for
    on any CPU.
    """
    for name in dict.fromkeys(chosen.assigned):
        if name is None or not registry.get(name).is_scaled:
            continue
        layers = chosen.count(name)
        raise PolicyError(
            f"{layers} layer{'' if layers == 1 else 's'} of this map {'is' if layers == 1 else 'are'} "
            f"in {name}, which is simulated: ONNX Runtime's CPU provider multiplies no {name}, so that "
            "nothing can be built, verified or timed.",
            f"Give these layers another precision, or keep {name} for a device with kernels for it.",
        )


def check_same_model(source: ModelSource, analysis: Analysis) -> None:
    """Raise `ModelError` unless `source` holds the model that was analyzed."""
    if source.fingerprint() != analysis.identity.weights_sha256:
        raise ModelError(
            f"The model of {analysis.source or source.name} has other weights than the analysis.",
            "Analyze it again, or restore the checkpoint that was analyzed.",
        )


def _report(
    layer: Layer, precision: Precision | None, graph: LayeredGraph, made: Assembled,
    floats: frozenset[str],
) -> LayerReport:  # fmt: skip
    integers, found = made.integers, made.executed
    kernels = found.of(layer.name)
    if precision is None:
        into = layer.folded_into
        how = f"folded into {into}" if into else f"{layer.idles.lower()} at inference"
        return LayerReport(layer.name, None, None, how)
    asked, reference = precision.name, registry.REFERENCE
    host = integers.merged.get(layer.name)
    if host is not None:
        how = f"runs in the integer kernel of {host}"
        return LayerReport(layer.name, asked, asked, how, kernels=kernels)
    if layer.name not in graph.layer_of.values():
        why = (
            "it was folded into its neighbours when the model was exported"
            if not layer.tensors
            else "the output that is judged does not need it, so the file leaves it out"
        )
        return LayerReport(layer.name, asked, reference, "no node of its own", why)
    if precision.is_calibrated:
        return _integer_report(layer, asked, integers, found, floats)
    if precision.is_dynamic:
        return _dynamic_report(layer, asked, made, floats)
    if precision.is_weights_only:
        return _packed_report(layer, precision, made)
    on_integers, _ = found.split(layer.name)
    if on_integers:
        why = "ONNX Runtime quantized its weights by itself, between two quantized neighbours"
        return LayerReport(layer.name, asked, NARROW, "integer kernel", why, kernels)
    if asked == reference:
        return LayerReport(layer.name, asked, asked, "float kernel", kernels=kernels)
    why = (
        f"ONNX Runtime has no {asked} kernels on this CPU: weights are stored in {asked} and "
        f"computed with in {reference}"
        if precision.float_dtype in BUILDABLE_FLOATS
        else f"ONNX Runtime's CPU provider has no {asked} operators: it was built in {reference}"
    )
    ran = reference
    if precision.float_dtype in BUILDABLE_FLOATS and found.runs_half(layer.name):
        ran, why = asked, ""
    return LayerReport(layer.name, asked, ran, "float kernel", why, kernels)


def _dynamic_report(
    layer: Layer, asked: str, made: Assembled, floats: frozenset[str]
) -> LayerReport:
    if layer.dynamic:
        return _integer_report(layer, asked, made.integers, made.executed, floats)
    kernels = made.executed.of(layer.name)
    on_integers, in_float = made.executed.split(layer.name)
    reason = made.integers.reasons.get(layer.name, "")
    if not layer.packs_products and not reason:
        return LayerReport(layer.name, asked, asked, "stores integers", "", kernels)
    if not on_integers and not reason:
        reason = f"ONNX Runtime runs {', '.join(in_float) or 'it'} in float"
    if reason:
        return LayerReport(layer.name, asked, registry.REFERENCE, "float kernel", reason, kernels)
    besides = f"; {', '.join(sorted(set(in_float)))} in float" if in_float else ""
    how = f"integer kernel, ranges set while it runs{besides}"
    return LayerReport(layer.name, asked, asked, how, "", kernels)


def _packed_report(layer: Layer, precision: Precision, made: Assembled) -> LayerReport:
    kernels = made.executed.of(layer.name)
    reason = made.integers.reasons.get(layer.name, "")
    is_table = ROWS in kernels and NBITS not in kernels
    if not (reason or is_table or NBITS in kernels):
        reason = f"ONNX Runtime runs {', '.join(kernels) or 'it'} in its place"
    if reason:
        return LayerReport(
            layer.name, precision.name, registry.REFERENCE, "float kernel", reason, kernels
        )
    with_bytes = made.levels[layer.name] != FLOATS
    how = "8-bit integers" if with_bytes else registry.REFERENCE
    grid = quantizers.of_format(precision.weights)
    if is_table:
        name = (quantizers.DEFAULT if grid.has_zeros else grid).name
        how = f"{ROWS}: a table in {precision.bits} bits ({name}), rows unpacked as they are read"
        return LayerReport(layer.name, precision.name, precision.name, how, "", kernels)
    return LayerReport(
        layer.name, precision.name, precision.name,
        f"{NBITS}: weights in {precision.bits} bits ({grid.name}), multiplied in {how}", "", kernels,
    )  # fmt: skip


def _integer_report(
    layer: Layer, asked: str, integers: Integers, found: Executed, floats: frozenset[str]
) -> LayerReport:
    kernels = found.of(layer.name)
    reason = integers.reasons.get(layer.name, "")
    on_integers, in_float = found.split(layer.name, floats)
    if layer.state == "rounds output" and not reason:
        return LayerReport(
            layer.name, asked, asked, "rounds its output, runs in float", "", kernels
        )
    if layer.state == "stores" and not reason:
        return LayerReport(layer.name, asked, asked, "stores integers", "", kernels)
    if on_integers and not in_float and not reason:
        besides = sorted(floats & set(kernels))
        how = f"integer kernel; {', '.join(besides)} in float" if besides else "integer kernel"
        return LayerReport(layer.name, asked, asked, how, "", kernels)
    if layer.role == "pooling" and not reason:
        how = "rounds its output, runs in float"
        return LayerReport(layer.name, asked, asked, how, "", kernels)
    if not reason:
        reason = (
            f"ONNX Runtime runs {', '.join(in_float) or 'it'} in float although its operands are "
            "quantized"
        )
    how = "integer kernels in part" if on_integers else "float kernel"
    return LayerReport(layer.name, asked, registry.REFERENCE, how, reason, kernels)
