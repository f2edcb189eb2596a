"""What is seen of a model: operations, recurrent layers in steps, trees of tensors."""

from __future__ import annotations

import collections
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from core.errors import ModelError
from core.evidence.options import MeasureOptions
from core.source.batches import (
    answers,
    fixed_random_state,
    joined,
    read_output,
    run_batch,
    state_kept,
    take,
)
from core.source.inventory import take_inventory
from core.source.operations import Stored, multiply_accumulates, recognise
from core.source.recurrent import STEP_BY_STEP
from core.source.trees import map_tensors, named_tensors, tensors
from tests.zoo import by_hand
from tests.zoo.sources import source_of


class _Steps(TorchFunctionMode):
    """Runs recurrent functions step by step and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in STEP_BY_STEP:
            self.seen += 1
            return STEP_BY_STEP[func](*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False, "bidirectional": True, "batch_first": True},
]


def _both(module: nn.Module, given: Any) -> tuple[Any, Any]:
    mode = _Steps()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oneDNN does without projections
        whole = module(given)
        with mode:
            stepped = module(given)
    assert mode.seen == 1
    return whole, stepped


@pytest.mark.parametrize("options", [*OPTIONS, {"proj_size": 2}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers_in_steps_equal_pytorchs_own(
    kind: type[nn.Module], options: dict[str, Any], packed: bool
) -> None:
    """Every layer, direction, projection and packed length gives PyTorch's outputs and states."""
    if "proj_size" in options and kind is not nn.LSTM:
        return  # only an LSTM has projections
    torch.manual_seed(0)
    module = kind(3, 4, **options).eval()
    x: Any = torch.randn(5, 6, 3)
    if packed:
        lengths = torch.tensor([6, 2, 3, 1, 6])
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    whole, stepped = _both(module, x)

    for expected, found in zip(tensors(whole), tensors(stepped), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_cells_equal_pytorchs_own(kind: type[nn.Module]) -> None:
    """One step of a cell gives PyTorch's state."""
    torch.manual_seed(0)
    whole, stepped = _both(kind(3, 4), torch.randn(5, 3))

    for expected, found in zip(tensors(whole), tensors(stepped), strict=True):
        torch.testing.assert_close(found, expected)


class _Products(nn.Module):
    """One product written in one of many ways."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6) / 2)
        self.bias = nn.Parameter(torch.zeros(6))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """[N, 6] -> [N, 6]."""
        found: Tensor = self.call(self, x)
        return found


WRITTEN = {
    "x @ W": (lambda m, x: x @ m.weight, 1),
    "x @ W.T": (lambda m, x: x @ m.weight.T, 0),
    "mm": (lambda m, x: torch.mm(x, m.weight), 1),
    "(W @ x.T).T": (lambda m, x: (m.weight @ x.T).T, 0),
    "addmm": (lambda m, x: torch.addmm(m.bias, x, m.weight), 1),
    "einsum": (lambda m, x: torch.einsum("ni,io->no", x, m.weight), 1),
    "einsum of a list": (lambda m, x: torch.einsum("oi,...i->...o", [m.weight, x]), 0),
    "F.linear": (lambda m, x: nn.functional.linear(x, m.weight, m.bias), 0),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_stored_matrix_is_a_weight_however_the_product_is_written(name: str) -> None:
    """Its output channels get a scale each, it takes a byte per value, and INT8 rounds it so;
    what it meets is rounded too, but in an einsum, for which no kernel takes integers.
    """
    from core.evidence.measure.measure import make_simulator
    from core.numerics.precision import INT8

    call, axis = WRITTEN[name]
    torch.manual_seed(0)
    model = _Products(call)
    source = source_of(model, (6,))
    layers = take_inventory(source)
    (layer,) = layers
    (spec,) = (t for t in layer.tensors if t.name == "weight")

    assert (spec.kind, spec.channels, spec.channel_axis) == ("weight", 6, axis)
    assert layer.macs == 36
    x = source.selection.inputs
    simulated = make_simulator(source, layers, MeasureOptions()).run({layer.name: INT8}, x)
    rounded = _Products(call)
    with torch.no_grad():
        rounded.weight.copy_(by_hand.symmetric(model.weight, axis))
        affine = by_hand.affine(x.numpy(), source.calibration.inputs.numpy())
        expected = rounded(x if "einsum" in name else affine)
    torch.testing.assert_close(torch.from_numpy(simulated), expected, atol=1e-5, rtol=0)


def test_a_vector_that_multiplies_is_a_weight_with_one_scale() -> None:
    """`x @ v` is analyzed, and all values of the vector lie on one grid."""
    from core.analysis.analyze import analyze

    class Vector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = nn.Parameter(torch.randn(6))
            self.head = nn.Linear(1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x @ self.v).unsqueeze(-1))

    analysis = analyze(source_of(Vector(), (6,)), MeasureOptions(probes=1))
    profile = next(w for w in analysis.weights if w.tensor == "v")

    assert (len(profile.low), int(profile.counts.sum())) == (1, 6)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((3, 4), (4, 5))),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("...ij,...jk", ((2, 3, 4), (2, 4, 5))),
        ("nhte,nhse->nhts", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("i,i->", ((7,), (7,))),
    ],
)
def test_einsum_counts_what_pytorch_counts(
    equation: str, shapes: tuple[tuple[int, ...], ...]
) -> None:
    """Multiply-accumulates of an einsum are half the flops that PyTorch counts for it."""
    given = [torch.randn(shape) for shape in shapes]
    stored = Stored(nn.Identity())
    args = (equation, *given)
    operation = recognise(torch.einsum, args, {}, stored)
    with FlopCounterMode(display=False) as counter:
        output = torch.einsum(equation, *given)

    assert operation is not None
    assert 2 * multiply_accumulates(operation, args, {}, output) == counter.get_total_flops()


Point = collections.namedtuple("Point", ["x", "y"])  # noqa: PYI024 (an untyped one, as people have)


def test_trees_keep_their_shape_and_their_identity() -> None:
    """Every tensor is found by its place; a change builds a new tree, none returns the old one."""
    tree = {"a": torch.zeros(2), "b": [Point(torch.ones(2), 3), None], "c": "text"}

    changed = map_tensors(tree, lambda t: t + 1)

    assert [path for path, _ in named_tensors(tree)] == ["['a']", "['b'][0].x"]
    assert changed["b"][0] == Point(changed["b"][0].x, 3)
    assert float(changed["b"][0].x[0]) == 2.0
    assert float(tree["b"][0].x[0]) == 1.0
    assert map_tensors(tree, lambda t: t) is tree


def test_batches_are_taken_apart_and_joined() -> None:
    """Joining the parts of a batch gives the batch; parts that differ are named."""
    batch = {"x": torch.arange(10), "deep": (torch.ones(10, 2), None)}
    parts = [take(batch, 0, 4), take(batch, 4, 10)]

    for (_, expected), found in zip(named_tensors(batch), tensors(joined(parts)), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="batch 1 is built otherwise"):
        joined([batch, {"x": torch.arange(3)}])


def test_a_batch_runs_the_same_way_twice() -> None:
    """`run_batch` flattens what `answers` gives, changes no input, and one seed is one result."""
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Dropout(0.5)).train()
    x = torch.randn(4, 2, 5)

    first, again, other = (run_batch(model, x, seed=s) for s in (1, 1, 2))

    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert first.shape == (4, 12)
    assert answers(model, x).shape == (4, 3, 4)
    with pytest.raises(ModelError, match=r"returned \[3, 4, 4\] for a batch of 4"):
        run_batch(_Swapped(model), x)


class _Swapped(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).transpose(0, 1)


@pytest.mark.parametrize(
    ("returned", "output", "message"),
    [
        (None, None, "no tensor"),
        ({"ids": torch.zeros(2, dtype=torch.int64)}, None, "no floating tensor"),
        ((torch.zeros(2),), 3, "no output 3"),
        (torch.zeros(2, 3), "logits", "no output 'logits'"),
    ],
)
def test_an_output_that_is_not_there_is_named(returned: Any, output: Any, message: str) -> None:
    """What the model returned and what was looked for are in the message."""
    with pytest.raises(ModelError, match=message):
        read_output(returned, output)


def test_buffers_come_back_as_they_were() -> None:
    """A buffer that a pass changes or replaces has its old values and its old place afterwards."""
    model = nn.BatchNorm1d(3)
    mean = model.running_mean
    with state_kept(model):
        model.train()(torch.randn(8, 3) + 5)
        model.register_buffer("running_var", torch.full((3,), 9.0))

    assert model.running_mean is mean
    assert not model.get_buffer("running_mean").any()
    torch.testing.assert_close(model.get_buffer("running_var"), torch.ones(3))
    assert int(model.get_buffer("num_batches_tracked")) == 0


def test_the_random_state_goes_on_outside() -> None:
    """Inside, numbers start from the seed; outside, as if nothing had been drawn."""
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), random.random(), float(np.random.rand())  # noqa: NPY002

    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = draw()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    inside = []
    for _ in range(2):
        with fixed_random_state(3):
            inside.append(draw())

    assert inside[0] == inside[1]
    assert draw() == expected
