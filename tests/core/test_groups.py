"""Weights by groups: the bits of each quantizer's tool, and what they stand for."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi import _pybind_state as native

from core.errors import PolicyError
from core.numerics import precision as registry
from core.numerics import quantizers
from core.numerics.groups import grouped, grouped_rows, round_grouped
from core.numerics.precision import TensorFormat
from core.numerics.quantizers import HQQ, TORCHAO
from core.numerics.storage import SCALE_BYTES, grouped_bytes
from tests.interop import torchao_groups

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


def _tool() -> Any:
    """ONNX Runtime's quantizers; whoever imports them first has logging set up, which is undone."""
    grouped(torch.ones(1, 32), HQQ.of(registry.INT4_G32).weights)
    from onnxruntime.quantization import matmul_nbits_quantizer

    return matmul_nbits_quantizer


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


@pytest.mark.parametrize("precision", FORMATS, ids=lambda p: p.name)
@pytest.mark.parametrize("k", [33, 64, 200])
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_hqq_is_what_onnxruntime_packs(precision: registry.Precision, k: int) -> None:
    """Codes, scales and zero points equal those that ONNX Runtime's HQQ quantizer writes into a graph;
    of 8 bits, which its kernel refuses, the default grid is kept.
    """
    kept = HQQ.of(precision).weights
    if kept.bits == 8:
        assert kept == precision.weights
        return
    rng = np.random.default_rng(k)
    weight = (rng.standard_normal((k, 6)) ** 3).astype(np.float32)
    weight[:32, 0] = 0  # a group without a range

    found = grouped(torch.from_numpy(weight.T.copy()), kept)

    tool = _tool()
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = onnx.helper.make_graph([node], "g", [], [], [onnx.numpy_helper.from_array(weight, "w")])
    config = tool.HQQWeightOnlyQuantConfig(block_size=kept.group, bits=kept.bits)
    (made,) = tool.HQQWeightOnlyQuantizer(config).quantize(node, [graph])
    held = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    codes, scales, zeros = (held[name] for name in made.input[1:])
    assert found.zeros is not None
    assert np.array_equal(found.scales.flatten().numpy(), scales)
    assert np.array_equal(found.zeros.flatten().numpy(), zeros)
    own, theirs = (
        np.unpackbits(one, -1, bitorder="little").reshape(6, -1)[:, : k * kept.bits]
        for one in (found.packed().numpy(), codes)
    )
    assert np.array_equal(own, theirs)


@pytest.mark.parametrize(("bits", "group"), torchao_groups.GROUPS)
def test_torchaos_grid_is_torchaos(bits: int, group: int) -> None:
    """Codes, scales and unpacked weights equal the bits that torchao 0.18 itself gave
    (`tests/interop/torchao_groups.py`).
    """
    kept = TensorFormat("integer", bits, "group", group, grid=TORCHAO.name)
    with np.load(torchao_groups.FILE) as held:
        for name in torchao_groups.weights():
            found = grouped(torch.from_numpy(held[name]), kept)
            at = f"{name} {bits} {group}"
            codes = found.codes.numpy().astype(np.int16).reshape(held[name].shape) - 2 ** (bits - 1)

            assert np.array_equal(codes, held[f"{at} codes"]), name
            assert np.array_equal(found.scales.numpy(), held[f"{at} scales"]), name
            assert np.array_equal(found.restored().numpy(), held[f"{at} values"]), name


def test_torchaos_last_group_is_filled_up_with_nothing() -> None:
    """Of a width that no group divides, which torchao refuses, whole groups are torchao's and the rest
    is a smaller group.
    """
    kept, weight = TORCHAO.of(registry.INT4_G32).weights, torch.randn(5, 40)
    rest = TensorFormat("integer", 4, "group", 8, grid=TORCHAO.name)

    found = round_grouped(weight, kept, 1)

    assert torch.equal(found[:, :32], round_grouped(weight[:, :32], kept, 1))
    assert torch.equal(found[:, 32:], round_grouped(weight[:, 32:], rest, 1))


@pytest.mark.parametrize("group", [32, 128])
@given(
    rows=st.integers(1, 5), width=st.integers(1, 40).map(lambda n: 4 * n),
    seed=st.integers(0, 2**31 - 1), is_halves=st.booleans(),
)  # fmt: skip
def test_rows_of_tables_are_those_of_onnxruntime(
    group: int, rows: int, width: int, seed: int, is_halves: bool
) -> None:
    """Codes and scales of a table in 4 bits equal what ONNX Runtime's quantizer writes for a Gather,
    ties and rows of zeros included; HQQ, which takes none, leaves them there.
    """
    kept = TensorFormat("integer", 4, "group", group)
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((rows, width)).astype(np.float32)
    if is_halves:
        table = (rng.integers(-8, 9, (rows, width)) / 2).astype(np.float32)
    table[0] = 0
    found = grouped_rows(torch.from_numpy(table), kept)
    by_hqq = grouped_rows(torch.from_numpy(table), replace(kept, grid=HQQ.name))

    with np.errstate(divide="ignore", invalid="ignore"):
        packed, scales, _ = _tool().DefaultWeightOnlyQuantizer.quantize_ndarray(
            table, 1, group, True
        )
    nibbles = np.stack([packed & 15, packed >> 4], -1).flatten()[: table.size].astype(np.int16)
    theirs = np.where(nibbles > 7, nibbles - 16, nibbles).reshape(table.shape)
    own = found.packed_rows().numpy()
    own = np.stack([own & 15, own >> 4], -1).reshape(table.shape).astype(np.int16) - 8

    assert np.array_equal(own, theirs)
    assert np.array_equal(found.scales.numpy(), scales)
    assert torch.equal(by_hqq.restored(), found.restored())


@pytest.mark.parametrize("name", quantizers.names())
def test_a_quantizer_places_formats_by_groups_alone(name: str) -> None:
    """Other precisions are the same under every quantizer, and a name stays what it was."""
    one = quantizers.get(name)
    for precision in map(registry.get, registry.names()):
        placed = one.of(precision)
        assert placed.name == precision.name
        assert quantizers.DEFAULT.of(placed) == precision
        if precision.is_weights_only:
            own = name if precision.bits in one.bits else quantizers.DEFAULT.name
            assert quantizers.of_format(placed.weights).name == own
        else:
            assert placed == precision


def test_an_unknown_quantizer_names_those_there_are() -> None:
    """A name that is none ends with the known ones."""
    with pytest.raises(PolicyError, match="ort-rtn, ort-hqq, torchao"):
        quantizers.get("gptq")


def test_hqq_leaves_logging_as_it_was() -> None:
    """The tool's file sets up logging when it is imported: not for who only measures."""
    program = (
        "import logging, torch\n"
        "from core.numerics.groups import grouped\n"
        "from core.numerics.precision import INT4_G32\n"
        "from core.numerics.quantizers import HQQ\n"
        "grouped(torch.randn(4, 32), HQQ.of(INT4_G32).weights)\n"
        "root = logging.getLogger()\n"
        f"assert (root.level, root.handlers) == ({logging.WARNING}, []), root.handlers\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
