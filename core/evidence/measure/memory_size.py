"""Amounts of memory as people write them."""

from __future__ import annotations

import re

from core.errors import PolicyError

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
         "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
MOST_BYTES = 2**50
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-z]*)")


def parse_bytes(text: str) -> int:
    """`2 GB`, `1.5GiB` or `800000000` in bytes; raises `PolicyError` for what is no amount.

    Upper and lower case are one; MB is 10^6 bytes, MiB 2^20.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise PolicyError(f"{text!r} is no amount of memory.", "Write for instance 2 GB or 800 MB.")
    size = int(float(found[1]) * UNITS[found[2]])
    if not 0 < size <= MOST_BYTES:
        raise PolicyError(
            f"{text!r} is {size:,} bytes.",
            "Give more than 0, and less than this machine could hold.",
        )
    return size
