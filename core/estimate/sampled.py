"""What a mean over some of the samples leaves open of the mean over all of them."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

QUANTILE = 0.95
BEYOND = 24.0
"""Over √n: how many times as far as the furthest of n drawn samples those move that were missed.
Divergence has a long tail: half of a map's may be that of one sample in ninety, which few draws hold.
"""


@cache
def t95(freedom: int) -> float:
    """95 % quantile of Student's t: the half-width of a 90 % range in deviations that were found with
    so many degrees of `freedom`.
    """
    from scipy.special import stdtrit  # late: opening an analysis needs no SciPy

    return float(stdtrit(freedom, QUANTILE))


def log_reach(moved: NDArray[np.float64], by: NDArray[np.float64], of: int) -> tuple[float, float]:
    """How far the logarithm of Σ `moved` / Σ `by` over all `of` samples may lie below and above that
    of the n that were drawn at random, `moved` and `by` (n,); 0 where they are all of them, infinite
    where they say nothing. Both ends are of a 90 % range.

    Below: standard errors of a ratio of means from a finite population (Cochran 1977, Sampling
    Techniques, 2.6 and 6.4), as many as Student's t of n - 1 has. Above: besides, the largest share
    of samples of which n draws hold none in one case of twenty, `BEYOND` / √n times as far as any
    of them.
    """
    n, mean = len(moved), float(moved.mean())
    if n >= of:
        return 0.0, 0.0
    if n < 2 or mean <= 0 or by.sum() <= 0:
        return np.inf, np.inf
    left = float(np.sqrt(1 - n / of))
    off = (moved - by * (moved.sum() / by.sum())).std(ddof=1) / np.sqrt(n)
    error = t95(n - 1) * float(off) / mean
    missed = float(1 - (1 - QUANTILE) ** (1 / n))
    tail = missed * BEYOND / np.sqrt(n) * moved.max() / mean
    return left * error, float(np.log1p(left * (error + tail)))
