"""Weights by groups as torchao itself rounds them: `python -m tests.interop.torchao_groups`.

Run in the environment of the tool (`.venv-interop/torchao`); writes the bits that
`tests/core/test_groups.py` holds the quantizer `torchao` against.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

FILE = Path(__file__).resolve().parents[1] / "golden" / "torchao_groups.npz"
GROUPS = ((2, 32), (4, 32), (4, 64), (8, 64))
"""Bits and width of a group."""


def weights() -> dict[str, NDArray[np.float32]]:
    """Matrices [4, 64] with tails, ties, a sign, groups of zeros, and values near to nothing."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((4, 64))
    found = {
        "normal": normal,
        "heavy": normal**5,
        "halves": rng.integers(-15, 16, (4, 64)) / 2,
        "one sign": np.abs(normal),
        "zeros": normal * (rng.random((4, 64)) > 0.95),
        "tiny": normal * 1e-38,
    }
    return {name: weight.astype(np.float32) for name, weight in found.items()}


def main() -> None:
    """Write codes, scales and unpacked weights of every matrix in every width."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    made: dict[str, NDArray[np.generic]] = {}
    for name, weight in weights().items():
        made[name] = weight
        for bits, group in GROUPS:
            model = torch.nn.Sequential(torch.nn.Linear(weight.shape[1], len(weight), bias=False))
            model[0].weight.data = torch.from_numpy(weight)
            kind = getattr(torch, f"int{bits}")
            quantize_(model, IntxWeightOnlyConfig(weight_dtype=kind, granularity=PerGroup(group)))
            found = model[0].weight
            assert not found.zero_point.any()
            made[f"{name} {bits} {group} codes"] = found.qdata.numpy()
            made[f"{name} {bits} {group} scales"] = found.scale.numpy()
            made[f"{name} {bits} {group} values"] = found.dequantize().detach().numpy()
    np.savez_compressed(FILE, **made)


if __name__ == "__main__":
    main()
