"""What is planned is what is built: for every layer and precision that a plan offers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.estimate.size import layer_bytes
from core.numerics import precision as registry
from core.onnx_graph.layered_graph import layer_of_node
from core.runtime.build import Built
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core.runtime_case import case_of, decibels
from tests.zoo.sources import source_of


class Up(nn.Module):
    """Transposed convolutions, in groups and with a batch norm, channels of unequal ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 6, 4, 2, 1)
        self.bn = nn.BatchNorm2d(6)
        self.grp = nn.ConvTranspose2d(6, 4, 3, 1, 1, groups=2)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.up.weight[:, 3] *= 30

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, H, W] -> [N, 3]."""
        found: Tensor = self.head(F.relu(self.grp(F.relu(self.bn(self.up(x))))).mean((2, 3)))
        return found


class Attention(nn.Module):
    """Attention written with einsum, weights with one and with several axes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(6, 2, 3))
        self.k = nn.Parameter(torch.randn(6, 2, 3))
        self.v = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 6] -> [N, 6]."""
        q, k = (torch.einsum("btd,dhe->bhte", x, w) for w in (self.q, self.k))
        scores = torch.einsum("bhte,bhse->bts", q, k).softmax(-1)
        return torch.einsum("bts,bsd->btd", scores, torch.einsum("...d,de->...e", x, self.v)).sum(1)


class Recurrent(nn.Module):
    """A recurrent layer, the mean over its steps, a head."""

    def __init__(self, kind: Callable[..., nn.Module], hidden: int = 8, **given: object) -> None:
        super().__init__()
        self.recurrent = kind(5, hidden, batch_first=True, **given)
        self.head = nn.Linear(hidden * (2 if given.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, 5] -> [N, 3]."""
        found: Tensor = self.head(self.recurrent(x)[0].mean(1))
        return found


def _padded() -> nn.Module:
    return nn.Sequential(
        nn.Identity(), nn.ZeroPad2d(1), nn.Conv2d(2, 4, 3), nn.ReflectionPad2d(1), nn.Dropout(),
        nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip


IMAGE, STEPS = (2, 4, 4), (7, 5)
CASES: dict[str, Callable[[], ModelSource]] = {
    "transposed": lambda: source_of(Up(), IMAGE),
    "einsum": lambda: source_of(Attention(), (7, 6)),
    "LSTM": lambda: source_of(Recurrent(nn.LSTM), STEPS),
    "LSTM both ways": lambda: source_of(
        Recurrent(nn.LSTM, num_layers=2, bidirectional=True), STEPS
    ),
    "GRU both ways": lambda: source_of(Recurrent(nn.GRU, num_layers=2, bidirectional=True), STEPS),
    "large LSTM": lambda: source_of(Recurrent(nn.LSTM, hidden=96), STEPS),
    "padded": lambda: source_of(_padded(), IMAGE),
}


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


@pytest.mark.parametrize("name", CASES)
def test_what_is_planned_is_what_is_built(name: str) -> None:
    """Every layer gets the INT8 that a plan offers it, its weights take the bytes that are planned
    and no float copy stays, and the file answers as it was simulated.
    """
    torch.manual_seed(0)
    case = case_of(CASES[name]())
    built = case.built(case.uniform("INT8"))

    assert [(row.name, row.why) for row in built.report if not row.as_asked] == []
    stored = _stored_bytes(built)
    for layer in case.analysis.layers:
        if layer.state == "stores" or layer.dynamic:
            assert stored[layer.name] == layer_bytes(layer, registry.get("INT8")), layer.name
    x = case.source.selection.inputs
    ran, simulated = case.ran(built, x), case.simulated(built, x)
    if not any(layer.dynamic for layer in case.analysis.layers):  # its ranges are of the batch
        assert (
            decibels(simulated, ran - simulated)
            > decibels(ran, simulated - case.simulator.run({}, x)) + 15
        )


def test_what_only_moves_values_gets_no_precision() -> None:
    """Padding, flattening and dropout compute nothing: a map gives them no precision."""
    layers = take_inventory(CASES["padded"]())
    deciding = [layer.kind for layer in layers if layer.computes_at_inference]
    assert deciding == ["Conv2d", "Conv2d", "Linear"]


def test_a_products_of_einsum_without_weights_has_no_integers_to_store() -> None:
    """An einsum of activations alone has no kernel for integers: INT8 takes as much as FP32."""

    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            """[N, T, 6] -> [N, T * T]."""
            return torch.einsum("btd,bsd->bts", x, x).flatten(1)

    (layer,) = take_inventory(source_of(Scores(), (3, 6)))
    assert (layer.state, layer.activation_scales) == ("float", 0)
