"""Weights on the grid of an integer precision, held against rounding itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analysis import store
from core.analysis.analysis import Analysis
from core.errors import AnalysisError
from core.evidence.diagnose.weight_profile import BINS, WeightProfile, axis_ends, weight_profiles
from core.layers import Layer, LayerTable, TensorSpec
from core.numerics.precision import INT8
from core.numerics.rounding import scales_of


def profile_of(tensor: torch.Tensor, kind: str, channels: int) -> WeightProfile:
    """The profile of one tensor of a made-up layer."""
    spec = TensorSpec("w", tuple(tensor.shape), kind, channels, 0)  # type: ignore[arg-type]
    layer = Layer("layer", "linear", "X", "computes", spec.size, 0, (), (), tensors=(spec,))
    (found,) = weight_profiles(LayerTable((layer,)), {"w": tensor})
    return found


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), axis=st.sampled_from([0, 1]))
def test_counts_are_the_levels_that_rounding_gives(seed: int, axis: int) -> None:
    """Every weight is counted on the level that 8-bit rounding per channel puts it on."""
    torch.manual_seed(seed)
    weight = torch.randn(5, 7, 3)
    channels = weight.shape[axis]

    found = profile_of(weight, "weight", channels)

    scales = scales_of(weight, INT8.weights, axis).reshape(
        [-1 if i == axis else 1 for i in range(3)]
    )
    levels = torch.round(weight / scales).long().flatten().numpy() + BINS // 2
    assert found.counts.sum() == weight.numel()
    # Division by the scale and by the channel's largest weight may differ in the last bit.
    moved = np.abs(np.bincount(levels, minlength=BINS) - found.counts).sum()
    assert moved <= 2
    flat = weight.transpose(0, axis).flatten(1)
    assert found.low == pytest.approx(flat.min(1).values.numpy())
    assert found.high == pytest.approx(flat.max(1).values.numpy())


def test_a_table_is_counted_over_its_own_range() -> None:
    """An embedding has one affine grid, whose range is widened to hold 0."""
    table = torch.tensor([[0.5, 1.0], [2.0, 1.5]])

    found = profile_of(table, "table", 1)

    assert axis_ends(found) == (0.0, 2.0)
    assert list(np.flatnonzero(found.counts)) == [64, 127, 190, 254]


def test_a_channel_of_zeros_sits_on_level_zero() -> None:
    """An all-zero channel has no largest weight to be divided by."""
    found = profile_of(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), "weight", 2)

    assert found.counts[BINS // 2] == 2
    assert found.counts[0] == found.counts[-1] == 1


def test_derived_figures() -> None:
    """Levels, effective bits and imbalance of a tensor that can be worked out by hand."""
    weight = torch.tensor([[1.0, -1.0], [10.0, 10.0], [2.0, 2.0]])

    found = profile_of(weight, "weight", 3)

    assert found.levels_used == 2
    share = np.array([1 / 6, 5 / 6])
    assert found.effective_bits == pytest.approx(float(-(share * np.log2(share)).sum()))
    assert found.imbalance == pytest.approx(5.0)
    assert profile_of(torch.zeros(2, 2), "weight", 2).imbalance is None


def test_an_analysis_carries_its_profiles(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """Profiles come back from a folder as they were, one for each tensor with a grid."""
    store.save(tiny_analysis, tmp_path / "a")

    back = store.load(tmp_path / "a").weights

    expected = [
        (layer.name, t.name)
        for layer in tiny_analysis.layers
        for t in layer.tensors
        if t.kind in {"weight", "table"}
    ]
    assert [(w.layer, w.tensor) for w in back] == expected
    for ours, theirs in zip(tiny_analysis.weights, back, strict=True):
        assert (ours.counts == theirs.counts).all()
        assert (ours.low == theirs.low).all()
        assert (ours.high == theirs.high).all()


def test_a_folder_without_profiles_still_opens(tiny_analysis: Analysis, tmp_path: Path) -> None:
    """A folder of an older version has no profiles, and everything else."""
    store.save(tiny_analysis, tmp_path / "a")
    path = tmp_path / "a" / store.FILE
    content = json.loads(path.read_text())
    del content["weights"]
    path.write_text(json.dumps(content))

    assert store.load(tmp_path / "a").weights == ()


@pytest.mark.parametrize("name", ["weight_counts", "weight_ranges"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_damaged_profiles_are_named(
    name: str, damage: str, tiny_analysis: Analysis, tmp_path: Path
) -> None:
    """A missing or short array is an error that names the file."""
    store.save(tiny_analysis, tmp_path / "a")
    path = tmp_path / "a" / store.ARRAYS / f"{name}.npy"
    array = np.load(path)
    path.unlink()
    if damage == "short":
        np.save(path, array[:-1])

    with pytest.raises(AnalysisError, match=f"{name}.npy"):
        store.load(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
