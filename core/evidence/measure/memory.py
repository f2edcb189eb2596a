"""How much memory a measurement takes, and how many samples at a time fit.

A forecast from a recording of few samples: sizes of values are exact, what a kernel needs while it
runs is not seen, so the live part is counted twice.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from core.errors import PolicyError
from core.source.batches import Inputs
from core.source.trees import tensors

BATCH = 100
"""Samples of a full pass. Kernels may sum in another order for another number of rows."""

SMALLEST = 16
"""No batch is made smaller: parts then keep 8 rows or more, and with fewer the kernels measured
here did sum in another order."""

OVERHEAD_BYTES = 16 * 10**6
"""Python's own objects and what an allocator keeps back."""

M_MMAP_THRESHOLD = -3  # malloc.h

TEMPORARIES = 4
"""Tensors like the largest stored one that rounding it, or looking at it, needs for a while."""

WORKER_BYTES = 200 * 10**6
"""What a process takes that has loaded PyTorch."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a measurement holds at its peak, beside the model and its data: `fixed` ones,
    rounded `weights`, and more for each sample of a batch (`kept` values of the recorded pass, and
    `live` ones of the pass that is running).
    """

    fixed: int
    kept: int
    live: int
    weights: int = 0

    def shared(self, jobs: int, each: int) -> Footprint:
        """The footprint where `jobs` workers run batches, each with `each` bytes of its own."""
        fixed = self.fixed + jobs * (WORKER_BYTES + each)
        return Footprint(fixed, jobs * self.kept, jobs * self.live, (1 + jobs) * self.weights)

    def holding(self, weights: int) -> Footprint:
        """The footprint with no more than so many bytes of rounded weights."""
        return replace(self, weights=min(max(weights, 0), self.weights))

    def peak(self, batch: int, *, replay: bool = True) -> int:
        """Bytes at the peak with `batch` samples at a time; without replay nothing is kept."""
        return self.fixed + self.weights + batch * ((self.kept if replay else 0) + 2 * self.live)


def release() -> None:
    """Give back what is not needed any more: objects in circles, and what the allocator keeps."""
    gc.collect()
    with suppress(OSError, AttributeError):  # the C library of GNU alone has it
        ctypes.CDLL(None).malloc_trim(0)


def input_bytes(inputs: Inputs) -> int:
    """Bytes of all tensors in `inputs`."""
    return sum(t.numel() * t.element_size() for t in tensors(inputs))


def free_bytes(device: torch.device | None = None) -> int:
    """Bytes of memory that a new process could take; what the kernel or a container allows, and
    no more than a CUDA `device` has free.
    """
    found = [psutil.virtual_memory().available]
    try:
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text("ascii").strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass  # no container, or one that does not say
    if device is not None and device.type == "cuda":
        found.append(int(torch.cuda.mem_get_info(device)[0]))
    return max(min(found), 0)


def batch_size(need: Footprint, limit: int, samples: int, *, replay: bool) -> int:
    """The most samples at a time, at most `BATCH`, that stay within `limit` bytes; 0 if none."""
    for size in range(min(BATCH, max(samples, 1)), 0, -1):
        if need.peak(size, replay=replay) <= limit:
            return size if size >= min(SMALLEST, samples) else 0
    return 0


def batches(samples: int, size: int) -> list[slice]:
    """All samples in batches of `BATCH`, each in as many even parts as `size` asks for."""
    starts = range(0, samples, BATCH)
    return [p for a in starts for p in even_parts(a, min(a + BATCH, samples), size)]


def even_parts(start: int, stop: int, size: int) -> list[slice]:
    """`start` to `stop` in as few even parts as hold at most `size`."""
    count = stop - start
    parts = -(-count // size)
    edges = [start + count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def give_back_at_once() -> None:
    """Have the allocator return every tensor of a megabyte or more when it is let go.

    The C library of GNU learns from freed tensors to keep memory of their size, up to 32 MB each.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)


def held_bytes() -> int:
    """Resident memory that this process needs, which the model and its data are part of."""
    release()
    return int(psutil.Process().memory_info().rss)


def too_little(need: Footprint, limit: int) -> PolicyError:
    """The error where not even the smallest batches stay within `limit` bytes."""
    least, held = need.holding(0).peak(SMALLEST, replay=False), held_bytes()
    return PolicyError(
        f"Measuring needs about {least / 1e6:,.0f} MB, more than the {max(limit, 0) / 1e6:,.0f} MB "
        f"allowed beside the {held / 1e6:,.0f} MB that Python, model and data take.",
        f"Give --memory {(least + held) / 1e6:.0f}MB or more, or fewer selection samples.",
    )
