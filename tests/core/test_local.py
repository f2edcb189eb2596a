"""Each layer on its own: kurtosis, gradients and own outputs, against figures by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.decide.study import Study
from core.errors import AnalysisError
from core.evidence.diagnose.causes import diagnose
from core.evidence.diagnose.curvature import combination
from core.evidence.diagnose.weights import weight_kurtosis
from core.evidence.options import MeasureOptions
from core.evidence.scorers import SCORERS
from core.layers import Layer, LayerTable, TensorSpec
from core.source.contract import model_source
from tests.zoo import awkward, models
from tests.zoo.sources import source_of


def kurtosis_of(weight: Tensor, channels: int) -> float:
    """Kurtosis of a made-up layer with one weight."""
    spec = TensorSpec("w", tuple(weight.shape), "weight", channels, 0)
    layer = Layer("layer", "linear", "X", "computes", spec.size, 0, (), (), tensors=(spec,))
    return float(weight_kurtosis(LayerTable((layer,)), {"w": weight})[0])


def test_kurtosis_of_known_distributions() -> None:
    """Uniform 1.8, normal 3; scaling a channel changes nothing, an outlier raises it."""
    torch.manual_seed(0)
    uniform, normal = torch.rand(8, 20000), torch.randn(8, 20000)

    assert kurtosis_of(uniform, 8) == pytest.approx(1.8, rel=0.01)
    assert kurtosis_of(normal, 8) == pytest.approx(3.0, rel=0.02)
    scaled = normal * torch.logspace(-3, 3, 8)[:, None]
    assert kurtosis_of(scaled, 8) == pytest.approx(kurtosis_of(normal, 8))
    assert kurtosis_of(scaled, 1) > 10
    normal[0, 0] = 100
    assert kurtosis_of(normal, 8) > 100


def test_kurtosis_of_odd_weights() -> None:
    """Equal weights have no outlier, an infinite one is as bad as can be."""
    assert kurtosis_of(torch.ones(2, 3), 2) == 0
    assert kurtosis_of(torch.tensor([[1.0, torch.inf], [0.0, 1.0]]), 2) == np.inf


def test_the_combination_has_the_covariance_of_softmax() -> None:
    """E[u u^T] is diag(p) - p p^T for classes and the identity for values."""
    logits = torch.tensor([[0.0, 1.0, -2.0]]).repeat(200_000, 1)
    p = logits[0].softmax(0)
    generator = torch.Generator().manual_seed(0)

    u = combination(logits, 3, generator)
    v = combination(logits, None, generator)

    torch.testing.assert_close(u.T @ u / len(u), p.diag() - p.outer(p), atol=4e-3, rtol=0)
    torch.testing.assert_close(v.T @ v / len(v), torch.eye(3), atol=1e-2, rtol=0)


class Chain(nn.Module):
    """Two products and an activation that is the identity here; one output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.middle = nn.ReLU(inplace=True)
        self.last = nn.Linear(8, 1)
        with torch.no_grad():
            self.first.bias.fill_(50.0)  # every value is above 0
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, 6) to (N, 1)."""
        return self.last(self.middle(self.first(x)))


def chain_analysis() -> tuple[Chain, Analysis]:
    """A chain whose selection split is its calibration split."""
    torch.manual_seed(0)
    model = Chain().eval()
    source = model_source(
        {"model": model, "calibration": torch.randn(64, 6), "task": "regression", "name": "chain"}
    )
    return model, analyze(source, MeasureOptions(probes=2))


def test_gradient_times_error_is_exact_for_a_linear_model() -> None:
    """With one output and no curvature it equals the measured relative squared error."""
    model, analysis = chain_analysis()
    evidence = analysis.evidence
    assert evidence is not None
    assert evidence.local is not None
    assert evidence.local.gradient_error is not None

    measured = evidence.energy / evidence.spread

    np.testing.assert_allclose(evidence.local.gradient_error, measured, rtol=2e-3)
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_trace_times_weight_error_is_worked_out() -> None:
    """For the last product the mean squared input times the squared error of its weights."""
    model, analysis = chain_analysis()
    evidence = analysis.evidence
    assert evidence is not None
    assert evidence.local is not None
    assert evidence.local.trace_error is not None
    at = analysis.layers.index["last"]
    noise = 10 ** (-evidence.weight_sqnr_db[1, at] / 10) * float(model.last.weight.square().sum())

    # u is +1 or -1, so the gradient of the batch is a random sum: equal in expectation.
    found = evidence.local.trace_error[1, at] * evidence.spread / noise
    expected = 64 * 50.0**2
    assert 0.02 * expected < found < 20 * expected
    assert evidence.local.trace_error[1, analysis.layers.index["middle"]] == 0


def test_a_damaged_array_is_named(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """A local array of another shape or with NaN is an error that names the file."""
    folder = tmp_path / "a"
    store.save(tiny_analysis, folder)
    path = folder / store.ARRAYS / "local_gradient_error.npy"
    array = np.load(path)
    for damaged in (array[:, :-1], np.where(array > 0, np.nan, array), -array):
        np.save(path, damaged)
        with pytest.raises(AnalysisError, match="local_gradient_error"):
            store.load(folder)


@pytest.mark.parametrize(
    ("model", "shape", "differentiable"),
    [
        (awkward.Shared, (5,), True),
        (awkward.EinsumAttention, (5, 8), True),
        (awkward.DropoutAlwaysOn, (5,), True),
        (models.Encoder, (5, 8), True),
        (models.LoopedModule, (5,), True),
        (models.Overflowing, (5,), True),
        (awkward.LstmOnly, (7, 4), True),
        (awkward.InPlace, (6,), False),
    ],
)
def test_awkward_models_are_looked_at(
    model: Callable[[], nn.Module], shape: tuple[int, ...], differentiable: bool
) -> None:
    """Every computing layer's own output is seen; where PyTorch cannot differentiate, the scorers
    of gradients are absent and all else is there.
    """
    torch.manual_seed(0)
    analysis = analyze(source_of(model(), shape, samples=32), MeasureOptions(probes=1))
    assert analysis.evidence is not None
    local = analysis.evidence.local
    assert local is not None
    assert local.sqnr_db is not None

    seen = ~np.isnan(local.sqnr_db[0])
    np.testing.assert_array_equal(seen, analysis.layers.computes)
    assert (local.gradient_error is not None) == differentiable
    if differentiable and local.gradient_error is not None:
        at = list(analysis.evidence.precisions).index("INT8")
        assert (local.gradient_error[at][analysis.layers.computes] > 0).any()
    absent = set(SCORERS) - set(Study(analysis).scores)
    assert absent == (set() if differentiable else {"gradient_error", "trace_error"})


def test_an_overflow_is_infinitely_bad() -> None:
    """A layer whose own output is not finite in FP16 has an infinite figure, so it scores 1."""
    torch.manual_seed(0)
    analysis = analyze(source_of(models.Overflowing(), (5,), samples=32), MeasureOptions(probes=1))
    assert analysis.evidence is not None
    assert analysis.evidence.local is not None
    gradient = analysis.evidence.local.gradient_error
    assert gradient is not None
    at = analysis.evidence.precisions.index("FP16")
    forbidden = ~analysis.evidence.allowed[at]
    assert forbidden.any()

    assert np.isinf(gradient[at][forbidden]).all()
    said = [diagnose(analysis.evidence, int(i)) for i in np.flatnonzero(forbidden)]
    assert all(d is not None and "FP16 overflows" in d.half for d in said)
