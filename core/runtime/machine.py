"""Which machine a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import onnxruntime

from core.onnx_graph.session import exact_sums
from core.records.verification import Machine

TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8")
"""Instruction sets that decide how fast integers and half precisions are."""


def _cpuinfo(key: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return ""


def this_machine(threads: int) -> Machine:
    """Processor, instruction sets, cores, and the runtime that uses `threads` of them."""
    flags = set(_cpuinfo("flags").split())
    return Machine(
        processor=_cpuinfo("model name") or platform.processor() or platform.machine(),
        instructions=tuple(name for name in TELLING if name in flags),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}",
        runtime=f"onnxruntime {onnxruntime.__version__}",
        exact_sums=bool(exact_sums()),
    )
