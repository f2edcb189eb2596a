"""What people bring in the place of a plain float module: taken apart, or refused in a line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from core.engines.torch.simulate.folding import stored_tensors
from core.errors import ModelError
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT8
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """PyTorch calls its older hooks and its own quantization deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _x(n: int = 40) -> Tensor:
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def _source(model: Any, x: Tensor | None = None, **changes: Any) -> ModelSource:
    given = _x() if x is None else x
    base = {"model": model, "calibration": given, "evaluation": (given, None), "holdout": None}
    return model_source({"task": "classification", **base, **changes})


class Net(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 6, 6] -> [N, 3]."""
        return self.head(torch.relu(self.conv(x)).flatten(1))


class Doubled(nn.Module):
    """A person's own parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        """Twice the weight."""
        return 2 * weight


def _by(*steps: Callable[[nn.Module], Any]) -> nn.Module:
    """A trained-looking `Net` whose two layers have gone through `steps`."""
    net = Net()
    for step in steps:
        step(net.conv)
        step(net.head)
    net(_x(4)).sum().backward()  # what hooks have computed then carries a gradient
    return net


COMPUTED = {
    "weight_norm": lambda: _by(parametrizations.weight_norm),
    "spectral_norm": lambda: _by(parametrizations.spectral_norm),
    "weight_norm hook": lambda: _by(nn.utils.weight_norm),
    "spectral_norm hook": lambda: _by(nn.utils.spectral_norm),
    "pruned": lambda: _by(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "pruned twice": lambda: _by(
        lambda m: prune.l1_unstructured(m, "weight", 0.3),
        lambda m: prune.ln_structured(m, "weight", 0.3, n=2, dim=0),
    ),
    "own": lambda: _by(lambda m: parametrize.register_parametrization(m, "weight", Doubled())),
    "weight and bias": lambda: _by(
        parametrizations.weight_norm,
        lambda m: parametrize.register_parametrization(m, "bias", Doubled()),
    ),
    "twice": lambda: _by(
        parametrizations.weight_norm,
        lambda m: parametrize.register_parametrization(m, "weight", Doubled()),
    ),
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_computed_weight_is_the_weight_of_its_layer(kind: str) -> None:
    """Layers, bytes, simulation and answers are those of the model that stores the weights which
    the person's model computes, and theirs is left as it was.
    """
    theirs = COMPUTED[kind]().eval()
    names = list(theirs.state_dict())
    stored = Net().eval()
    with torch.no_grad():
        answer = theirs(_x())
        for layer in ("conv", "head"):
            given, own = theirs.get_submodule(layer), stored.get_submodule(layer)
            own.weight.copy_(given.weight)
            own.bias.copy_(given.bias)
    source, plain = _source(theirs), _source(stored)
    layers = take_inventory(source)

    assert list(theirs.state_dict()) == names
    assert torch.equal(theirs(_x()), answer)
    assert torch.equal(source.model(_x()), answer)
    assert layers == take_inventory(plain)
    assert {t.name: t.kind for x in layers for t in x.tensors} == {
        "conv.weight": "weight", "conv.bias": "bias", "head.weight": "weight", "head.bias": "bias",
    }  # fmt: skip
    assert layers.glue_tensors == ()
    held = stored_tensors(layers, source.model)
    assert torch.equal(held["head.weight"], stored.head.weight)
    both = [make_simulator(s, take_inventory(s), MeasureOptions()) for s in (source, plain)]
    for precision in (FP16, INT8):
        runs = [s.run({"conv": precision, "head": precision}, _x()) for s in both]
        assert runs[0].tobytes() == runs[1].tobytes()
    assert "'conv', 'head'" in source.notes[0]


class Standardized(nn.Conv2d):
    """A convolution whose weight has mean 0, variance 1 and a learned gain, as in NF-ResNets."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution."""
        var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(var + 1e-6) * self.gain
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Equalized(nn.Linear):
    """A linear layer whose weight and bias are scaled at every call, as in StyleGAN."""

    def forward(self, x: Tensor) -> Tensor:
        """As a linear layer."""
        return nn.functional.linear(x, self.weight * 0.3, self.bias * 0.5)


class Bare(nn.Module):
    """No subclass of a layer, and a product all the same."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        """As a linear layer without a bias."""
        return nn.functional.linear(x, self.weight * 0.1)


class Noisy(nn.Linear):
    """Its weight depends on chance."""

    def forward(self, x: Tensor) -> Tensor:
        """As a linear layer."""
        return nn.functional.linear(x, self.weight + torch.randn_like(self.weight), self.bias)


class Padded(Standardized):
    """Pads what it is given by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution of what is padded."""
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))[..., 1:-1, 1:-1]


class Activated(Equalized):
    """Does more than a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out], above 0."""
        return torch.relu(super().forward(x))


class Adaptive(nn.Linear):
    """Its weight depends on what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """As a linear layer."""
        return nn.functional.linear(x, self.weight * x.abs().mean(), self.bias)


def _with(conv: nn.Module, head: nn.Module) -> Net:
    net = Net()
    net.conv, net.head = conv, head  # type: ignore[assignment]
    return net.eval()


def test_a_weight_made_in_forward_is_the_weight_of_its_layer() -> None:
    """Standardized and scaled weights are stored as what they come to, what they came from is
    gone, and the person's model keeps its own.
    """
    torch.manual_seed(0)
    theirs = _with(Standardized(1, 4, 3), Equalized(64, 3))
    source = _source(theirs)
    layers = take_inventory(source)

    assert torch.equal(source.model(_x()), theirs(_x()))
    assert {t.name: (t.kind, t.channels) for x in layers for t in x.tensors} == {
        "conv.weight": ("weight", 4), "conv.bias": ("bias", 1),
        "head.weight": ("weight", 3), "head.bias": ("bias", 1),
    }  # fmt: skip
    assert torch.equal(source.model.head.bias, theirs.head.bias * 0.5)
    assert type(theirs.conv) is Standardized
    assert (
        "'conv', 'head' are computed from other tensors (Equalized, Standardized)"
        in (source.notes[0])
    )


@pytest.mark.parametrize("head", [Activated, Adaptive, Noisy])
def test_a_forward_that_does_more_is_left_alone(head: type[nn.Linear]) -> None:
    """Where a plain layer with the stored weight would answer otherwise, the module stays, and
    others beside it do not.
    """
    net = _with(nn.Conv2d(1, 4, 3), head(64, 3))
    beside = _with(Standardized(1, 4, 3), head(64, 3))

    assert _source(net).model is net
    assert _source(_with(Padded(1, 4, 3), nn.Linear(64, 3))).notes == ()
    found = _source(beside).model
    assert type(found.conv) is nn.Conv2d
    assert type(found.head) is head


def test_a_product_of_a_bare_module_becomes_a_layer() -> None:
    """A module that multiplies by a scaled weight is a linear layer with what that comes to; a
    shared one is so under both names.
    """
    torch.manual_seed(0)
    bare = Bare(6, 6)
    conv = Standardized(1, 4, (3, 2), (2, 1), (1, 0), (1, 2))
    for model, x in ((bare, torch.randn(9, 6)), (nn.Sequential(bare, nn.ReLU()), torch.randn(9, 6)),
                     (conv, _x())):  # fmt: skip
        source = _source(model, x, task="regression")
        assert torch.equal(source.model(x), model(x))
        (layer, *_) = take_inventory(source)
        assert layer.kind in ("Linear", "Conv2d")
        assert {t.kind for t in layer.tensors} <= {"weight", "bias"}


def test_a_module_with_two_names_is_stored_under_both() -> None:
    """Whichever name it is called by, it is one layer."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.two = Equalized(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x.flatten(1))

    model = _source(Two()).model

    assert model.one is model.two
    assert type(model.one) is nn.Linear


def test_recurrent_weights_may_be_computed_too() -> None:
    """A hidden-to-hidden weight under weight norm is the weight of its LSTM, which answers as
    before.
    """
    torch.manual_seed(0)
    lstm = nn.LSTM(4, 6, batch_first=True).eval()
    parametrizations.weight_norm(lstm, "weight_hh_l0")
    x = torch.randn(20, 5, 4)
    source = _source(lstm, x, output=0)
    (layer,) = take_inventory(source)

    assert torch.equal(source.model(x)[0], lstm(x)[0])
    assert {t.name for t in layer.tensors} == {
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"
    }  # fmt: skip


class Noise(nn.Module):
    """Another weight at every look."""

    def forward(self, weight: Tensor) -> Tensor:
        """The weight and noise."""
        return weight + torch.randn_like(weight)


def test_a_weight_that_changes_from_call_to_call_is_refused() -> None:
    """Where a copy with stored weights answers otherwise, nothing is measured in its place."""
    net = Net()
    parametrize.register_parametrization(net.head, "weight", Noise())

    with pytest.raises(ModelError, match=r"'head' are computed .* gives other outputs"):
        _source(net)


def test_a_bias_may_be_declared_before_its_weight() -> None:
    """The bias of a product is known as such wherever it stands among the parameters."""

    class BiasFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))
            self.weight = nn.Parameter(torch.randn(3, 36))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x.flatten(1), self.weight, self.bias)

    (layer,) = take_inventory(_source(BiasFirst()))

    assert {t.name: (t.kind, t.weight) for t in layer.tensors} == {
        "bias": ("bias", "weight"), "weight": ("weight", ""),
    }  # fmt: skip


def test_low_rank_additions_are_layers_of_their_own() -> None:
    """What an adapter adds beside a layer is no weight computed from others: the model stays."""

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(36, 3)
            self.down, self.up = nn.Linear(36, 2, bias=False), nn.Linear(2, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x.flatten(1)) + self.up(self.down(x.flatten(1)))

    model = Adapted()
    source = _source(model)

    assert source.model is model
    assert source.notes == ()
    assert set(take_inventory(source).names) == {"base", "down", "up"}


WRAPPED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "parallel": (lambda: nn.DataParallel(Net()), "DataParallel"),
    "compiled": (lambda: torch.compile(Net()), "torch.compile"),
    "compiled and parallel": (
        lambda: nn.DataParallel(torch.compile(Net())), "DataParallel and torch.compile",
    ),
    "a part": (lambda: nn.Sequential(nn.Identity(), torch.compile(Net())), "torch.compile"),
    "a part of a part": (
        lambda: nn.Sequential(nn.Sequential(nn.DataParallel(torch.compile(Net())))),
        "DataParallel and torch.compile",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_wrapper_is_taken_off_and_named(kind: str) -> None:
    """Layers are called as without the wrapper, answers are the same, and a note names it; the
    person's own module keeps it.
    """
    make, said = WRAPPED[kind]
    given = make()
    names = [name for name, _ in given.named_modules()]
    source = _source(given)
    layers = take_inventory(source)

    assert [name.rpartition(".")[2] for name in layers.names] == ["conv", "head"]
    assert not any(part in name for name in layers.names for part in ("_orig_mod", "module"))
    assert torch.equal(source.model(_x()), Net().eval()(_x()))
    assert len(source.notes) == 1
    assert source.notes[0].startswith(f"The model came wrapped by {said};")
    assert [name for name, _ in given.named_modules()] == names


def _compiled_in_place() -> nn.Module:
    net = Net()
    net.conv.compile()
    return net


def test_a_layer_that_is_compiled_in_place_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`module.compile()` leaves no wrapper; the copy that is analyzed calls no compiler."""
    given = _compiled_in_place()
    monkeypatch.setattr(given.conv, "_compiled_call_impl", lambda *args: 1 / 0)
    source = _source(given)

    assert take_inventory(source).names == ("conv", "head")
    assert source.notes[0].startswith("The model came wrapped by torch.compile;")
    with pytest.raises(ZeroDivisionError):
        given(_x())


def test_paths_may_be_those_of_the_wrapped_model() -> None:
    """Units, roles and groups are called as the person's model prints them, or as without."""
    for inside in ("module.0._orig_mod", "0"):
        given = nn.DataParallel(nn.Sequential(torch.compile(Net())))
        conv, head = f"{inside}.conv", f"{inside}.head"
        source = _source(
            given, units=[conv], roles={head: "other"}, groups=[[conv, head]], name="wrapped"
        )
        layers = take_inventory(source)

        assert source.units == ("0.conv",)
        assert dict(source.roles) == {"0.head": "other"}
        assert layers.groups == ((0, 1),)


def test_parts_that_share_a_weight_share_it_without_their_wrappers() -> None:
    """A weight that is tied across a wrapper is stored once."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first, second = nn.Linear(36, 36), nn.Linear(36, 36)
            second.weight = first.weight
            self.first, self.second = torch.compile(first), torch.compile(second)
            self.last = second

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.first(x.flatten(1))))

    model = _source(Tied()).model

    assert model.first.weight is model.second.weight
    assert model.second is model.last


def test_a_wrapped_part_may_have_computed_weights() -> None:
    """Older hooks leave tensors with a gradient behind, which no plain copy takes."""
    inner = COMPUTED["weight_norm hook"]()
    source = _source(nn.Sequential(nn.DataParallel(inner)))

    assert torch.equal(source.model(_x()), inner.eval()(_x()))
    assert len(source.notes) == 2
    assert {t.kind for x in take_inventory(source) for t in x.tensors} == {"weight", "bias"}


def test_a_graph_module_is_taken_as_it_is() -> None:
    """What torch.fx traced keeps its modules, which are layers."""
    source = _source(torch.fx.symbolic_trace(Net()))

    assert take_inventory(source).names == ("conv", "head")
    assert source.notes == ()


def _exported() -> Any:
    return torch.export.export(Net().eval(), (_x(),))


def _held(name: str, tensor: Tensor) -> nn.Module:
    """A linear layer that holds its weight as integers under `name`, as other libraries do."""
    layer = nn.Linear(36, 3)
    layer.register_buffer(name, tensor)
    return nn.Sequential(nn.Flatten(), layer)


def _int8_parameter() -> nn.Module:
    layer = nn.Linear(36, 3)
    layer.weight = nn.Parameter(torch.zeros(3, 36, dtype=torch.int8), requires_grad=False)
    return nn.Sequential(nn.Flatten(), layer)


def _dynamic() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}, torch.qint8)


def _converted() -> nn.Module:
    net = nn.Sequential(
        torch.ao.quantization.QuantStub(), nn.Conv2d(1, 3, 6), nn.Flatten(),
        torch.ao.quantization.DeQuantStub(),
    )  # fmt: skip
    net.qconfig = torch.ao.quantization.get_default_qconfig("onednn")
    prepared = torch.ao.quantization.prepare(net.eval())
    prepared(_x())
    return torch.ao.quantization.convert(prepared)


def _trained_for_it() -> nn.Module:
    net = Net().train()
    net.qconfig = torch.ao.quantization.get_default_qat_qconfig("onednn")
    return torch.ao.quantization.prepare_qat(net)


class Functional(nn.Module):
    """Quantizes by hand, in functions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 6, 6] -> [N, 3]."""
        small = torch.quantize_per_tensor(x.flatten(1), 0.1, 0, torch.qint8)
        return self.head(small.dequantize())


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "program": (_exported, "is an ExportedProgram", "that was exported"),
    "exported": (lambda: _exported().module(), "made by torch.export", "that was exported"),
    "an exported part": (
        lambda: nn.Sequential(_exported().module()), "'0' was made by torch.export", "exported",
    ),
    "unflattened": (
        lambda: torch.export.unflatten(_exported()), "made by torch.export", "that was exported",
    ),
    "scripted": (lambda: torch.jit.script(Net()), "TorchScript", "scripted or traced"),
    "dynamic": (_dynamic, "'head' is quantized already", "float model"),
    "static": (_converted, "is quantized already", "float model"),
    "trained for it": (_trained_for_it, "rounds to integers already", "float model"),
    "packed elsewhere": (
        lambda: _held("qweight", torch.zeros(3, 9, dtype=torch.int32)),
        "'1' is quantized already", "float model",
    ),
    "an integer parameter": (_int8_parameter, "'1.weight' is quantized already", "float model"),
    "functions": (Functional, "The model itself computes on quantized tensors", "float model"),
    "a state dict": (lambda: Net().state_dict(), "not an nn.Module", "Return the module"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_measured_is_refused_with_the_way_out(kind: str) -> None:
    """The error names the module and what to bring in its place."""
    make, cause, way_out = REFUSED[kind]

    with pytest.raises(ModelError) as caught:
        take_inventory(_source(make()))
    assert cause in caught.value.cause
    assert way_out in caught.value.next_step


class Subclassed(Tensor):
    """A weight that holds integers and looks like floats, as torchao's do."""

    held: Tensor

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """The tensors inside."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> Subclassed:
        """The wrapper around them."""
        return _wrapped(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Detached as a copy of itself."""
        return _wrapped(args[0].held) if func is torch.ops.aten.detach.default else NotImplemented


def _wrapped(held: Tensor) -> Subclassed:
    """A float tensor of the shape of `held`, around it."""
    make: Any = Tensor._make_wrapper_subclass
    found: Subclassed = make(Subclassed, held.shape, dtype=torch.float32)
    found.held = held
    return found


def test_a_tensor_of_another_library_is_refused() -> None:
    """A weight that is a wrapper around other tensors is named, with its type."""
    net = Net()
    net.head.weight = nn.Parameter(
        _wrapped(torch.zeros(3, 64, dtype=torch.int8)), requires_grad=False
    )

    with pytest.raises(ModelError, match=r"'head.weight' is quantized already \(Subclassed\)"):
        _source(net)


def test_float_helpers_of_quantizable_models_are_no_quantized_modules() -> None:
    """`FloatFunctional` lies among PyTorch's quantized modules and adds floats."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.add = nn.Linear(36, 36), torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x: Tensor) -> Tensor:
            return self.add.add(x.flatten(1), self.head(x.flatten(1)))

    assert "head" in take_inventory(_source(Residual())).names
