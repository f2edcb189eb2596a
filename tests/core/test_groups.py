"""Weights by groups: the bits of ONNX Runtime's own quantizer, and what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi import _pybind_state as native

from core.numerics import precision as registry
from core.numerics.groups import grouped, round_grouped
from core.numerics.precision import TensorFormat
from core.numerics.storage import SCALE_BYTES, grouped_bytes

FORMATS = [p for p in map(registry.get, registry.names()) if p.is_weights_only]


def _by_onnxruntime(
    weight: np.ndarray, kept: TensorFormat
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Packed codes and scales of `weight` [N, K] by what MatMulNBitsQuantizer calls."""
    n, k = weight.shape
    groups = -(-k // kept.group)
    given = np.ascontiguousarray(np.pad(weight.T, ((0, groups * kept.group - k), (0, 0))))
    packed = np.zeros((n, groups, kept.group * kept.bits // 8), np.uint8)
    scales = np.zeros((n, groups), np.float32)
    zeros = np.zeros((n, -(-groups * kept.bits // 8)), np.uint8)
    quantize = getattr(native, f"quantize_matmul_{kept.bits}bits")
    quantize(packed, given, scales, zeros, kept.group, n, k, True)
    return packed, scales


@pytest.mark.parametrize("precision", FORMATS, ids=lambda p: p.name)
@given(
    n=st.integers(1, 9), k=st.integers(1, 300), seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["normal", "heavy", "halves", "one sign", "zeros"]),
)  # fmt: skip
def test_packed_bits_are_those_of_onnxruntime(
    precision: registry.Precision, n: int, k: int, seed: int, kind: str
) -> None:
    """Codes and scales of any matrix equal, bit for bit, what ONNX Runtime's quantizer gives, ties,
    zeros and groups that are not full included.
    """
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n, k)).astype(np.float32)
    if kind == "heavy":
        weight = (weight**5).astype(np.float32)
    elif kind == "halves":
        weight = (rng.integers(-8, 9, (n, k)) / 2).astype(np.float32)
    elif kind == "one sign":
        weight = np.abs(weight)
    elif kind == "zeros":
        weight *= rng.random((n, k)) > 0.9
    found = grouped(torch.from_numpy(weight), precision.weights)
    packed, scales = _by_onnxruntime(weight, precision.weights)

    assert np.array_equal(found.scales.numpy(), scales)
    own = found.packed().numpy()
    whole = np.unpackbits(own, -1, bitorder="little").reshape(n, -1)
    theirs = np.unpackbits(packed, -1, bitorder="little").reshape(n, -1)
    used = (
        k * precision.weights.bits
    )  # what its quantizer leaves in the rest of a byte is left over
    assert np.array_equal(whole[:, :used], theirs[:, :used])
    assert not whole[:, used:].any()
    stored, count = grouped_bytes(n, k, precision.weights)
    assert (stored, count) == (packed.nbytes, scales.size)
    assert scales.nbytes == count * SCALE_BYTES


@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_a_group_keeps_its_largest_value_and_errs_by_half_a_step(k: int, n: int, seed: int) -> None:
    """The value with the largest magnitude of each group is met, others lie half a step away at most
    unless they are on the side where the grid ends a step earlier.
    """
    kept = registry.INT4_G32.weights
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    found = round_grouped(weight, kept, 1)
    scales = grouped(weight, kept).scales.repeat_interleave(kept.group, 1)[:, :k]

    for start in range(0, k, kept.group):
        part = slice(start, start + kept.group)
        at = weight[:, part].abs().argmax(1, keepdim=True)
        largest = weight[:, part].gather(1, at)
        assert torch.allclose(found[:, part].gather(1, at), largest, rtol=1e-6)
    beyond = weight / scales > 7
    error = (found - weight).abs() / scales.abs()
    assert bool((error[~beyond] <= 0.5 + 1e-4).all())
    assert bool((error[beyond] <= 1 + 1e-4).all())


def test_groups_lie_along_the_inputs_of_a_product() -> None:
    """A matrix [inputs, outputs] is rounded as its transpose is."""
    weight = torch.randn(40, 6)

    assert torch.equal(
        round_grouped(weight, registry.INT4_G32.weights, 0),
        round_grouped(weight.T, registry.INT4_G32.weights, 1).T,
    )
