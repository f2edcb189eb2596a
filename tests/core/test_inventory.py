"""The inventory counts what was executed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis.analyze import analyze
from core.decide.study import Study
from core.errors import ModelError
from core.estimate.size import layer_bytes
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import BF16, FP16, FP32, INT8
from core.numerics.rounding import round_table
from core.numerics.scheme import SCHEMES, Scheme
from core.numerics.states import under
from core.source.contract import check_weights
from core.source.inventory import take_inventory
from core.source.roles import role_of
from tests.zoo import models
from tests.zoo.sources import source_of, tiny_source


def test_units_absorb_their_parts_and_leave_activations() -> None:
    """A unit owns the linear layers below it; its activation and dropout stay layers."""
    layers = take_inventory(tiny_source())

    assert layers.names == (
        "embed",
        "blocks.0.norm", "blocks.0.attention", "blocks.0.dropout",
        "blocks.0.feed_forward", "blocks.0.feed_forward.1",
        "blocks.1.norm", "blocks.1.attention", "blocks.1.dropout",
        "blocks.1.feed_forward", "blocks.1.feed_forward.1",
        "head",
    )  # fmt: skip
    attention = layers.layers[2]
    assert attention.role == "attention"
    assert attention.parts == ("blocks.0.attention.qkv", "blocks.0.attention.out")
    assert [t.name for t in layers.glue_tensors] == ["token"]


def test_expanding_units_gives_their_parts_and_keeps_every_parameter() -> None:
    """Expanded layers hold the same parameters and multiply-accumulates as their units."""
    source = tiny_source()

    folded, expanded = take_inventory(source), take_inventory(source, expand_units=True)

    assert "blocks.0.attention.qkv" in expanded.index
    assert "blocks.0.attention" in expanded.index  # it multiplies activations on its own
    assert expanded.params.sum() == folded.params.sum()
    assert expanded.macs.sum() == folded.macs.sum()


def test_parameters_equal_the_models_own_count() -> None:
    """Layers and glue together hold every parameter exactly once."""
    source = tiny_source()

    layers = take_inventory(source)

    glue = sum(t.size for t in layers.glue_tensors)
    assert layers.params.sum() + glue == sum(p.numel() for p in source.model.parameters())


def test_macs_match_a_count_by_hand() -> None:
    """Multiply-accumulates equal the textbook formulas for every kind of operation."""
    tiny = take_inventory(tiny_source())
    conv = take_inventory(source_of(models.ConvNet(), (1, 8, 8)))
    by_name = dict(zip(tiny.names, tiny.macs, strict=True))
    tokens, width = 6, 16

    assert by_name["embed"] == 5 * 6 * 16
    assert by_name["blocks.0.attention"] == (
        tokens * width * 3 * width + tokens * width * width + 2 * tokens * tokens * width
    )
    assert dict(zip(conv.names, conv.macs, strict=True)) == {
        "conv1": 6 * 8 * 8 * 9,
        "bn": 0, "act": 0, "pool": 0,
        "conv2": 8 * 2 * 2 * 3 * 9,
        "up": 8 * 2 * 2 * 4 * 2 * 2,
        "head": 4 * 4,
    }  # fmt: skip


def test_macs_agree_with_torchs_own_flop_counter() -> None:
    """PyTorch's FlopCounterMode counts two operations per multiply-accumulate of ours."""
    from torch.utils.flop_counter import FlopCounterMode

    for source in (tiny_source(), source_of(models.ConvNet(), (1, 8, 8))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            source.model(source.calibration.inputs[:1])

        assert counter.get_total_flops() == 2 * take_inventory(source).macs.sum()


def test_tied_weights_are_counted_once() -> None:
    """The second owner of a tied weight keeps only its bias."""
    layers = take_inventory(source_of(models.TiedWeights(), (5,)))

    assert layers.params.tolist() == [30, 5]


def test_a_shared_module_is_one_layer_with_all_its_calls() -> None:
    """A module called three times is one layer whose work counts three times."""
    layers = take_inventory(source_of(models.LoopedModule(), (5,)))

    assert layers.names == ("step", "head")
    assert layers.macs.tolist() == [3 * 25, 15]


def test_data_flow_passes_through_glue() -> None:
    """Edges lead from the layers whose values arrive, through dropout and reshapes; a residual
    add is a join that both branches flow into and that is read once.
    """
    layers = take_inventory(tiny_source())
    nodes = [*layers.names, *(f"join {k}" for k in range(layers.joins))]
    flows = {(nodes[e.source], nodes[e.target]) for e in layers.edges}

    assert layers.joins == 4  # two residual adds in each of two blocks
    assert {
        ("embed", "blocks.0.norm"), ("blocks.0.norm", "blocks.0.attention"),
        ("embed", "join 0"), ("blocks.0.attention", "join 0"),
        ("join 0", "blocks.0.feed_forward"), ("join 0", "join 1"),
        ("blocks.0.feed_forward", "join 1"), ("join 1", "blocks.1.norm"),
        ("blocks.0.feed_forward", "blocks.0.feed_forward.1"), ("join 3", "head"),
    } <= flows  # fmt: skip
    assert all(source != target for source, target in flows)
    readers = [target for source, target in flows if source == "join 0"]
    assert sorted(readers) == ["blocks.0.feed_forward", "join 1"]


def test_a_layer_that_is_never_called_is_listed_apart() -> None:
    """Unused modules are no layers, and their tensors are in no file, but kept apart."""
    layers = take_inventory(source_of(models.NeverCalled(), (5,)))

    assert layers.names == ("used",)
    assert layers.uncalled == ("unused",)
    assert sum(t.size for t in layers.unread_tensors) == 5 * 7 + 7
    assert layers.glue_tensors == ()


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [(models.NoLayers(), (3,), 0), (models.DictOutput(), (5,), 1)],
)
def test_very_small_models(model: nn.Module, shape: tuple[int, ...], count: int) -> None:
    """Models with no layer or one layer have tables of that length."""
    assert len(take_inventory(source_of(model, shape))) == count


def test_built_in_attention_is_a_unit_with_its_products() -> None:
    """`nn.MultiheadAttention` owns its bare projection weights and both of its products."""
    source = source_of(models.Encoder(), (5, 8))
    layers = take_inventory(source)
    attention = layers.layers[layers.index["layer.self_attn"]]

    assert attention.role == "attention"
    assert dict(attention.operations)["linear"] == 2
    assert dict(attention.operations)["matmul"] == 2
    assert attention.macs == 5 * 8 * 24 + 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert {t.name: t.kind for t in attention.tensors} == {
        "layer.self_attn.in_proj_weight": "weight",
        "layer.self_attn.in_proj_bias": "bias",
        "layer.self_attn.out_proj.weight": "weight",
        "layer.self_attn.out_proj.bias": "bias",
    }


def test_states_say_what_an_integer_precision_means() -> None:
    """Products compute, tables are stored, norms round, dropout does nothing."""
    tiny = {layer.name: layer.state for layer in take_inventory(tiny_source())}
    tokens = take_inventory(source_of(models.TokenModel(), (4,), ids=20))

    assert tiny["embed"] == "computes"
    assert tiny["blocks.0.norm"] == "rounds output"
    assert tiny["blocks.0.dropout"] == "nothing"
    assert tokens.layers[0].state == "stores"


def test_the_model_is_left_as_it_was() -> None:
    """No hook stays and no weight changes."""
    source = tiny_source()
    before = source.fingerprint()

    take_inventory(source)

    assert source.fingerprint() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in source.model.modules())


def test_a_failing_forward_is_a_clear_error() -> None:
    """A model that cannot run on its own calibration data is named as the cause."""
    source = tiny_source()
    bad = type(source.calibration)(source.calibration.inputs[:, :, :3])

    with pytest.raises(ModelError, match="failed on one calibration sample"):
        take_inventory(type(source)(**{**_fields(source), "calibration": bad}))


def _fields(source: object) -> dict[str, object]:
    return {name: getattr(source, name) for name in source.__dataclass_fields__}  # type: ignore[attr-defined]


def test_arrays_agree_with_layers() -> None:
    """The struct of arrays repeats the layers' own numbers."""
    layers = take_inventory(tiny_source())

    np.testing.assert_array_equal(layers.params, [layer.params for layer in layers])
    assert [layers.index[name] for name in layers.names] == list(range(len(layers)))


class Fourier(nn.Module):
    """Products in the frequency domain, with complex weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, 4, dtype=torch.complex64))
        self.register_buffer("turn", torch.ones(4, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 8] -> the same."""
        f = torch.fft.rfft(x)[..., :4] * self.turn
        return torch.fft.irfft(torch.einsum("bim,iom->bom", f, self.weight), n=8)


class Frequencies(nn.Module):
    """Such a layer beside a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.skip = Fourier(), nn.Conv1d(2, 2, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2, 8] -> [N, 3]."""
        return self.head((self.body(x) + self.skip(x)).flatten(1))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_complex_weights_count_and_stay_in_float(scheme: Scheme) -> None:
    """They take eight bytes each whatever the precision, their products count fourfold, and INT8
    changes nothing of their layer.
    """
    torch.manual_seed(0)
    source = source_of(Frequencies(), (2, 8))
    layers = under(take_inventory(source), scheme)
    body = layers.layers[layers.index["body"]]
    simulator = make_simulator(source, layers, MeasureOptions(scheme=scheme))
    inputs = source.selection.inputs

    assert body.state == "float"
    assert body.params == 16
    assert body.macs == 4 * 2 * 2 * 4
    assert {t.name: t.kind for t in body.tensors} == {
        "body.weight": "complex", "body.turn": "complex",
    }  # fmt: skip
    for precision in (FP32, FP16, BF16, INT8):
        assert layer_bytes(body, precision) == 8 * (16 + 4)
    before = simulator.run({}, inputs)
    assert simulator.run({"body": INT8}, inputs).tobytes() == before.tobytes()
    assert simulator.run({"skip": INT8}, inputs).tobytes() != before.tobytes()


def test_a_model_with_complex_weights_is_analyzed() -> None:
    """Every figure of such a model is finite, and its bytes in FP32 are those it has."""
    torch.manual_seed(0)
    model = Frequencies()
    analysis = analyze(source_of(model, (2, 8)), MeasureOptions(probes=2))
    study = Study(analysis)
    held = [*model.parameters(), *model.buffers()]

    assert study.size_bytes[0].sum() == sum(t.numel() * t.element_size() for t in held)
    assert analysis.evidence is not None
    assert np.isfinite(analysis.evidence.perturbations).all()


def test_complex_weights_are_checked_like_others() -> None:
    """NaN is named, and so is a width that no figure is relative to."""
    for change, message in (
        (lambda w: w.mul_(float("nan")), "'body.weight' holds NaN"),
        (lambda w: setattr(w, "data", w.data.to(torch.complex128)), "complex128, not complex64"),
    ):
        model = Frequencies()
        with torch.no_grad():
            change(model.body.weight)
        with pytest.raises(ModelError, match=message):
            check_weights(model)


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_an_embedding_bag_is_a_table(mode: str) -> None:
    """Its rows are stored in 8 bits on one grid and averaged in float; bytes are those of a table."""
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(20, 8, mode=mode)
    source = source_of(nn.Sequential(bag, nn.Linear(8, 3)), (6,), ids=20)
    layers = take_inventory(source)
    table = layers.layers[0]
    ids = source.selection.inputs
    assert isinstance(ids, Tensor)

    rounded = torch.nn.functional.embedding_bag(
        ids, round_table(bag.weight.detach(), INT8), mode=mode
    )
    simulated = make_simulator(source, layers, MeasureOptions()).run({"0": INT8}, ids)
    assert (table.role, table.state, table.macs) == ("embedding", "stores", 0)
    assert layer_bytes(table, FP32) == 4 * 20 * 8
    assert layer_bytes(table, INT8) == 20 * 8 + 5
    with torch.no_grad():
        np.testing.assert_array_equal(simulated, source.model[1](rounded).numpy())


@pytest.mark.parametrize(
    ("path", "module", "role"),
    [
        ("embed", nn.Linear(3, 4), "linear"),
        ("a.pos_emb", nn.Linear(3, 4), "linear"),
        ("patch_embed", nn.Conv2d(1, 4, 2), "convolution"),
        ("layer_norm", nn.Linear(3, 4), "linear"),
        ("projection", nn.Linear(3, 4), "linear"),
        ("attn", nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), "linear"),
        ("head", nn.Embedding(3, 4), "embedding"),
        ("head", nn.Linear(3, 4), "output_projection"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_a_type_says_more_than_a_name(path: str, module: nn.Module, role: str) -> None:
    """A built-in type decides the role whatever the module is called; a name alone places a head."""
    is_unit = next(module.children(), None) is not None
    assert role_of(path, module, is_unit=is_unit, is_last_product=False) == role
