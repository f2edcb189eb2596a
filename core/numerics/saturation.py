"""Whether this processor's kernels add up U8S8 products without losing any.

The x86 instruction VPMADDUBSW adds pairs of products of unsigned and signed bytes in 16 bits, and
saturates; VNNI adds them in 32 (ONNX Runtime, "Quantize ONNX models", on U8S8 and reduce_range).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from core.numerics.scheme import Scheme

X86 = ("x86_64", "x86")
EXACT = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")


WARNING = (
    "This processor has no VNNI: kernels for unsigned activations and signed weights (U8S8) "
    "may saturate on it, which the simulation does not show. Run the model on a processor "
    "with VNNI, or keep its sums exact (session.x64quantprecision=1 in ONNX Runtime, which verify "
    "sets; verify --as-deployed measures what is lost without)."
)


def saturates(capabilities: Mapping[str, Any] | None = None) -> bool:
    """Whether a processor with these capabilities, as PyTorch names them, saturates on U8S8;
    without them, this one.
    """
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    is_x86 = str(found.get("architecture", "")).lower() in X86
    return is_x86 and not any(found.get(name) for name in EXACT)


def warning(scheme: Scheme, capabilities: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """What to say of an analysis under `scheme` on this processor; nothing where all is well."""
    return (WARNING,) if scheme.is_mixed_sign and saturates(capabilities) else ()
