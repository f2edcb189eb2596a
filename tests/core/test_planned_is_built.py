"""What is planned is what is built: for every layer and precision that a plan offers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.decide.assess.outcome import outcome
from core.engines.torch.simulate.folding import stored_tensors
from core.errors import ModelError
from core.estimate.size import layer_bytes
from core.numerics import precision as registry
from core.numerics.storage import GRID_BYTES, storage
from core.onnx_graph.layered_graph import layer_of_node
from core.onnx_graph.node_table import RECURRENT
from core.onnx_graph.surgery import HALF, MARK
from core.runtime.build import Built
from core.runtime.stored import stored_size
from core.source import samples
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core.runtime_case import Case, case_of, decibels
from tests.zoo import fusing, passes
from tests.zoo.beside import SMALL_IMAGES, Beside, beside
from tests.zoo.sources import source_of

WALKED = (
    "vectors",
    "images",
    "small images",
    "tokens",
    "sequences of 6",
    "sequences of 8",
    "steps",
)
SOURCES: dict[str, Callable[[], ModelSource]] = {
    **{name: lambda name=name: beside(name) for name in WALKED},  # type: ignore[misc]
    "digits_vit": lambda: samples.load("digits_vit"),
    "digits_resnet": lambda: samples.load("digits_resnet"),
}
NOT_IN_FILE = {"parts.Branches.dead", "parts.FrozenBuffers.calls"}
"""Layers and tensors that the judged output does not need."""
TAKEN_APART = {("sequences of 8", "INT8"): 2 * GRID_BYTES}
"""A weight of three parts that the exporter takes apart: each has a grid, and one is planned."""


@cache
def _case(name: str) -> Case:
    return case_of(SOURCES[name]())


def _stored_bytes(built: Built) -> dict[str, int]:
    """Bytes of the numbers of the file that each layer's nodes read; shapes and indices are none."""
    read: defaultdict[str, set[str]] = defaultdict(set)
    grids = set()
    for node in built.model.graph.node:
        if node.op_type == "DequantizeLinear":
            grids |= set(node.input)
        read[layer_of_node(node) or ""] |= set(node.input)
    held = {
        one.name: onnx.numpy_helper.to_array(one)
        for one in built.model.graph.initializer
        if one.data_type != onnx.TensorProto.INT64 and (one.dims or one.name in grids)
    }
    return {
        layer: sum(held[n].nbytes for n in names & held.keys()) for layer, names in read.items()
    }


def _is_within(array: NDArray[Any], stored: NDArray[Any]) -> bool:
    """Whether every number of `array` is one of `stored`, which is sorted."""
    at = np.searchsorted(stored, array).clip(1, max(len(stored) - 1, 1))
    near = [stored[np.minimum(i, len(stored) - 1)] for i in (at - 1, at)]
    close = [np.isclose(array, one, rtol=1e-3, atol=1e-5) for one in near]
    return bool(np.logical_or(*close).all())


def _constants(case: Case, built: Built) -> int:
    """Bytes of the exporter's own: shapes, axes, single numbers, and what the model's code computes
    from nothing that is stored.
    """
    state = stored_tensors(case.analysis.layers, case.source.model).values()
    known = [np.sort(t.detach().numpy(), axis=None) for t in state if t.numel()]
    nodes = case.graph.model.graph.node
    recurrent = {given for n in nodes if n.op_type in RECURRENT for given in n.input[1:4]}

    def is_own(constant: Any) -> bool:
        if constant.name in recurrent or constant.name.startswith("model."):
            return False  # gates in another order, directions stacked; a tensor under its own name
        array = onnx.numpy_helper.to_array(constant)
        if array.size == 1 or (array.dtype == np.int64 and array.size < 100):
            return True
        return array.dtype == np.float32 and not any(_is_within(array, one) for one in known)

    exported = {c.name: c for c in case.graph.model.graph.initializer}
    own = {name for name, constant in exported.items() if is_own(constant)}
    return sum(
        onnx.numpy_helper.to_array(c).nbytes
        for c in built.model.graph.initializer
        if c.name.removesuffix(HALF) in own
        or c.name == f"zero{MARK}"
        or (c.name not in exported and c.data_type == onnx.TensorProto.INT64)
    )


def _shared_grids(case: Case, built: Built) -> int:
    """Bytes of activation grids that were planned by layer and that layers share in the file."""
    stored = {c.name for c in built.model.graph.initializer}
    nodes = built.model.graph.node
    of_weights = {n.input[1] for n in nodes
                  if n.op_type == "DequantizeLinear" and n.input[0] in stored}  # fmt: skip
    grids = {n.input[1] for n in nodes if n.op_type == "QuantizeLinear"} - of_weights
    planned = sum(
        layer.activation_scales for layer in case.analysis.layers if layer.name not in NOT_IN_FILE
    )
    return 5 * (planned - len(grids))


def planned(case: Case, name: str) -> int:
    """Bytes that a plan says the map of one precision takes."""
    size = outcome(case.study, case.uniform(name)).totals["size_bytes"].value
    assert size is not None
    return int(size)


def check_size(case: Case, built: Built, name: str) -> None:
    """Tensors of the file are the planned bytes to the last one, but for the exporter's own
    constants, shared grids, layers and tensors left out, and what it takes apart.
    """
    shared = _shared_grids(case, built) if name == "INT8" else 0
    left_out = sum(
        layer_bytes(layer, registry.get(name))
        if layer.name in NOT_IN_FILE
        else sum(
            storage(t, registry.get(name)).bytes for t in layer.tensors if t.name in NOT_IN_FILE
        )
        for layer in case.analysis.layers
    )
    apart = TAKEN_APART.get((case.source.name, name), 0)
    in_file = planned(case, name) - shared - left_out + apart
    assert built.tensor_bytes == in_file + _constants(case, built), name
    assert shared >= 0
    assert stored_size(built, planned(case, name) - left_out).as_planned


def _answers(case: Case, found: Any) -> dict[str, Any]:
    """Outputs part by part where models stand side by side."""
    model = case.source.model
    if not isinstance(model, Beside):
        return {"": found}
    widths, x = {}, case.source.selection.inputs
    for name, part in model.parts.items():
        with torch.no_grad():
            widths[name] = Beside({name: part})(x[:2]).shape[1]
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(found, ends, axis=1), strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", SOURCES)
def test_what_is_planned_is_what_is_built(name: str) -> None:
    """Every layer gets the INT8, with ranges set while it runs too, the FP16 and the weights by groups
    that a plan offers it, its weights take the bytes that are planned and no float copy stays, and the
    file answers as it was simulated.
    """
    case = _case(name)
    x = case.source.selection.inputs
    reference = case.simulator.run({}, x)
    for precision in ("FP32", "FP16", "INT8", "INT8-dynamic", "INT8-W", "INT4-g32"):
        built = case.built(case.uniform(precision))
        no_kernel = "weights are stored in FP16 and computed with in FP32"
        wrong = [
            (row.name, row.why)
            for row in built.report
            if not (row.as_asked or row.name in NOT_IN_FILE)
            and not (precision == "FP16" and no_kernel in row.why)
        ]
        assert wrong == [], precision
        stored = _stored_bytes(built)
        for layer in case.analysis.layers if precision == "INT8" else ():
            if layer.state == "stores" or layer.dynamic:
                # EmbeddingBag's own loop holds one number more.
                most = 4 + TAKEN_APART.get((name, precision), 0)
                assert 0 <= stored[layer.name] - layer_bytes(layer, registry.get("INT8")) <= most, (
                    layer.name
                )
        check_size(case, built, precision)
        ran, simulated = case.ran(built, x), case.simulated(built, x)
        parts = [_answers(case, found) for found in (ran, simulated, reference)]
        for part, own in parts[0].items():
            if precision in ("FP32", "FP16"):
                continue
            error = decibels(parts[2][part], own - parts[1][part])
            rounding = decibels(parts[2][part], parts[1][part] - parts[2][part])
            # MatMulNBits may multiply bytes; 100: what sums in floats differ by.
            margin = 15 if precision == "INT8" else 10
            assert error > min(rounding + margin, 100), (part, error, rounding)
        if precision in ("FP32", "FP16"):
            assert decibels(reference, ran - reference) > 25


class ReluTwice(fusing.Norms):
    """One activation behind two layer norms."""

    SHAPE = (4, 6)

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.act = nn.LayerNorm(6), nn.LayerNorm(6), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 6]."""
        found: Tensor = self.act(self.norm2(self.act(self.norm1(x)))).mean(1)
        return found


@pytest.mark.parametrize("kind", [fusing.Returned, fusing.SharedNorm, ReluTwice])
def test_what_the_exporter_would_fold_or_merge_answers_as_planned(kind: Any) -> None:
    """A batch norm that the plan does not fold stays apart in the file, and an activation that runs
    twice is rounded at each call: the file answers as it was simulated.
    """
    torch.manual_seed(0)
    case = case_of(source_of(fusing.trained(kind()), kind.SHAPE))
    x = case.source.selection.inputs
    built = case.built(case.uniform("INT8"))
    ran, simulated = case.ran(built, x), case.simulated(built, x)

    assert built.as_asked
    assert decibels(simulated, ran - simulated) > 100


def test_what_moves_values_gets_no_precision() -> None:
    """Padding, flattening and dropout compute nothing: a map gives them no precision, and says of
    what moves values that it does.
    """
    case = case_of(source_of(SMALL_IMAGES["padded"](), (2, 4, 4)))
    chosen = case.uniform("INT8")
    kinds = [layer.kind for layer in case.analysis.layers]
    said = {kind: chosen.reason(i) for i, kind in enumerate(kinds)}

    deciding = [layer.kind for layer in case.analysis.layers if layer.computes_at_inference]
    assert deciding == ["Conv2d", "Conv2d", "Linear"]
    assert said["Dropout"] == "Does nothing at inference, so it has no precision."
    for kind in ("ZeroPad2d", "ReflectionPad2d", "Flatten"):
        assert said[kind] == "Only moves values at inference, so it has no precision."


def test_products_of_einsum_without_weights_have_no_integers_to_store() -> None:
    """An einsum of activations alone has no kernel for integers: INT8 takes as much as FP32."""

    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """[N, T, 6] -> [N, T * T]."""
            return torch.einsum("btd,bsd->bts", x, x).flatten(1)

    (layer,) = take_inventory(source_of(Scores(), (3, 6)))
    assert (layer.state, layer.activation_scales) == ("float", 0)


def test_what_the_runtime_refuses_is_said_in_words() -> None:
    """A model that computes in bfloat16 inside has no kernels: the error says so and what to do."""
    case = case_of(source_of(passes.Autocast(), (5,)))
    with pytest.raises(ModelError, match="CPU provider cannot run the graph") as caught:
        case.built(case.uniform("FP32"))

    assert "float32" in caught.value.next_step


def test_a_layer_that_the_output_does_not_need_is_said_to_be_left_out() -> None:
    """The file holds what the judged output needs, and the report says which layers it lacks."""
    case = case_of(source_of(passes.Branches(), (5,)))
    row = next(r for r in case.built(case.uniform("INT8")).report if r.name == "dead")

    assert not row.as_asked
    assert "does not need it" in row.why


class _TwiceNormed(nn.Module):
    """One layer norm behind two layers whose outputs range differently."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 24), nn.Linear(24, 24)
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 40)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, T * 40]."""
        h = self.norm(torch.relu(self.first(x)))
        found: Tensor = self.head(self.norm(self.last(h)))
        return found.flatten(1)


def test_two_roundings_of_a_tensor_stay_two() -> None:
    """A norm that is called twice has one grid, its readers have their own: ONNX Runtime would make
    one rounding of the two, and is kept from it.
    """
    torch.manual_seed(0)
    case = case_of(source_of(_TwiceNormed(), (4, 6)))
    x = case.source.selection.inputs
    built = case.built(case.uniform("INT8"))

    assert [row.name for row in built.report if not row.as_asked] == []
    assert "DoubleQDQPairsRemover" in built.disabled
    assert decibels(case.simulated(built, x), case.ran(built, x) - case.simulated(built, x)) > 60
