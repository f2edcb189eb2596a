"""The Informer's structure, size and determinism."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from sample_models.informer.attention import ProbSparseAttention, fixed_key_sample, sparse_count
from sample_models.informer.model import UNITS, InformerClassifier, InformerConfig, units

DOCUMENT_INVENTORY = {
    "embedding": 1,
    "positional_encoding": 1,
    "attention": 8,
    "feed_forward": 8,
    "layer_norm": 16,
    "dropout": 8,
    "output_projection": 1,
    "activation": 8,
    "convolution": 4,
    "pooling": 2,
}
STAYS_LAYER = (nn.GELU, nn.Dropout, nn.LayerNorm, nn.MaxPool1d)
TYPE_ROLES: dict[type[nn.Module], str] = {
    nn.LayerNorm: "layer_norm",
    nn.Dropout: "dropout",
    nn.GELU: "activation",
    nn.Conv1d: "convolution",
    nn.MaxPool1d: "pooling",
}


@pytest.fixture(scope="module")
def model() -> InformerClassifier:
    """Build an untrained model in evaluation mode."""
    torch.manual_seed(7)
    return InformerClassifier().eval()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    """Draw 24 windows of noise."""
    return torch.randn(24, 64, 12, generator=torch.Generator().manual_seed(3))


def inventory(model: nn.Module, paths_of_units: list[str]) -> Counter[str]:
    """Count layers by role: units absorb what is beneath them except norm, dropout and the like."""
    special = {
        "embedding": "embedding",
        "positional_encoding": "positional_encoding",
        "head": "output_projection",
    }
    counts: Counter[str] = Counter()
    for path, module in model.named_modules():
        absorbed = any(path.startswith(f"{unit}.") for unit in paths_of_units)
        if path in paths_of_units:
            counts[path.rsplit(".", 1)[1]] += 1
        elif path in special:
            counts[special[path]] += 1
        elif isinstance(module, STAYS_LAYER) or (not absorbed and type(module) in TYPE_ROLES):
            counts[TYPE_ROLES[type(module)]] += 1
        elif not absorbed and not list(module.children()):
            counts["unexpected"] += 1
    return counts


def test_inventory_is_the_documents(model: InformerClassifier) -> None:
    """The model has the document's 57 layers, role by role."""
    counts = inventory(model, UNITS)
    assert dict(counts) == DOCUMENT_INVENTORY
    assert counts.total() == 57


def test_units_are_modules_of_the_model(model: InformerClassifier) -> None:
    """Each of the 16 unit paths names a module."""
    paths = {path for path, _ in model.named_modules()}
    assert len(UNITS) == 16
    assert set(units()) <= paths


def test_size_is_the_documents(model: InformerClassifier) -> None:
    """FP32 parameters come to 19.4 MB within 2 %, and nothing else is stored."""
    size_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size_bytes == pytest.approx(19.4e6, rel=0.02)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_lengths_halve_twice() -> None:
    """The series is 64, 32 and 16 steps long before, between and after the distilling stages."""
    assert InformerConfig().block_lengths() == (64, 64, 32, 32, 32, 16, 16, 16)


def test_evaluation_is_bit_identical(model: InformerClassifier, inputs: Tensor) -> None:
    """Two evaluation runs agree to the last bit and leave the global random state alone."""
    before = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(model(inputs), model(inputs))
    assert torch.equal(before, torch.get_rng_state())


def test_training_draws_fresh_keys(inputs: Tensor) -> None:
    """In training mode with dropout off, two runs differ because the sampled keys do."""
    model = InformerClassifier(InformerConfig(dropout=0.0)).train()
    with torch.no_grad():
        assert not torch.equal(model(inputs[:4]), model(inputs[:4]))


@pytest.mark.slow
def test_output_does_not_depend_on_the_batch(model: InformerClassifier, inputs: Tensor) -> None:
    """A window's logits are the same alone, in order, and among other windows."""
    with torch.no_grad():
        together = model(inputs)
        alone = torch.cat([model(window.unsqueeze(0)) for window in inputs])
        reversed_order = model(inputs.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(reversed_order, together, atol=1e-5, rtol=0.0)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_export_equals_eager(model: InformerClassifier, inputs: Tensor) -> None:
    """The exported graph with a dynamic batch gives the eager outputs, also for one window."""
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (inputs[:4],), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for count in (1, 2, 24):
            expected = model(inputs[:count])
            torch.testing.assert_close(exported(inputs[:count]), expected, atol=1e-6, rtol=0.0)


def test_ties_go_to_the_earlier_query(model: InformerClassifier) -> None:
    """Where all queries are equal, the first ones are chosen, in order."""
    attention = model.get_submodule("blocks.0.attention")
    assert isinstance(attention, ProbSparseAttention)
    flat = torch.zeros(2, 8, 64, 24)
    top = attention._top_queries(flat, flat)
    assert torch.equal(top[1, 5], torch.arange(sparse_count(3, 64)))


def test_sampled_keys_come_from_their_own_seed() -> None:
    """The fixed sample depends on its seed only and stays within the series."""
    first, again, other = (fixed_key_sample(64, 15, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert int(first.min()) >= 0
    assert int(first.max()) < 64


def test_full_sampling_is_ordinary_attention() -> None:
    """When every query is chosen, ProbSparse attention is softmax attention."""
    torch.manual_seed(0)
    attention = ProbSparseAttention(d_model=16, heads=2, length=8, factor=8, seed=0).eval()
    x = torch.randn(3, 8, 16)
    with torch.no_grad():
        parts = (attention.q_proj(x), attention.k_proj(x), attention.v_proj(x))
        query, key, value = (p.unflatten(-1, (2, 8)).transpose(1, 2) for p in parts)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        expected = attention.out_proj(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)


def test_other_shapes_are_refused(model: InformerClassifier) -> None:
    """A window of another length or width is an error, not a silent broadcast."""
    for shape in ((2, 1, 12), (2, 64, 11)):
        with pytest.raises(ValueError, match="inputs are"):
            model(torch.zeros(shape))
