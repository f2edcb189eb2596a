"""Estimated latency against measured, on maps whose share of INT8 rises from 0 to 100 %.

    python -m tests.benchmarks.latency [--sample NAME ...] [--maps 20]

Times maps that the profile has not seen, twice: in turn with the maps of the profile, and once
more after it. Beside the estimate stand the sum of the layers' times without the price of
boundaries, and one constant for every map, the mean of the measured times. `noise` is the
half-width of the middle 90 % of the FP32 rounds, `drift` how much slower FP32 had become when
the maps were timed again: where both are below 3 % the machine was quiet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from core.analysis import store
from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.estimate.hardware import THIS_MACHINE
from core.onnx_graph.session import open_session
from core.records.machine_profile import Conversion, MachineProfile
from core.runtime import profile as profiling
from core.runtime import verify as verifying
from core.runtime.build import assemble
from core.runtime.timing import interleaved
from core.source import samples

SEED = 77
Floats = NDArray[np.float64]


def stratified(study: Study, count: int) -> list[PrecisionMap]:
    """Maps of FP32 and INT8 with 0 to 100 % of the layers in INT8, drawn anew for each share."""
    rng = np.random.default_rng(SEED)
    names = [layer.name for layer in study.layers if layer.computes_at_inference]
    maps = []
    for share in np.linspace(0, 1, count):
        narrow = rng.permutation(names)[: round(share * len(names))]
        given = tuple((str(name), "INT8") for name in sorted(narrow))
        maps.append(
            answer.decide(
                study,
                Policy(strategy="manual", high="FP32", overrides=given, hardware=THIS_MACHINE),
            )
        )
    return maps


def _line(name: str, guess: Floats, truth: Floats) -> str:
    error = np.abs(guess / truth - 1)
    ranks = spearmanr(guess, truth).statistic if np.ptp(guess) > 0 else float("nan")
    return (f"  {name:<28} mean error {100 * error.mean():5.1f} %   worst {100 * error.max():5.1f} %"
            f"   rank correlation {ranks:5.2f}")  # fmt: skip


def measure(name: str, count: int, rounds: int) -> None:
    """Print the comparison for one sample."""
    analysis = store.load(samples.get(name).analysis)
    bench = verifying.prepare(samples.load(samples.PREFIX + name), analysis)
    probes = profiling.open_probes(bench)
    maps = stratified(bench.study, count)
    keys = [f"unseen {i}" for i in range(count)]
    sessions = {}
    for key, one in zip(keys, maps, strict=True):
        built = assemble(bench.graph, analysis, one)
        sessions[key] = open_session(built.model, built.disabled)
    start = time.perf_counter()
    seen, timed = profiling.observe(probes, rounds, beside=sessions)
    seconds = time.perf_counter() - start
    again = interleaved(sessions, probes.given, probes.batch, rounds)
    profile = profiling.conclude(bench, probes, seen, timed, seconds)
    guess, additive = (
        np.array(
            [_study(analysis, p).latency(THIS_MACHINE).estimate(m.codes).total.value for m in maps],
            dtype=np.float64,
        )
        for p in (profile, without_prices(profile))
    )
    beside, after = (np.array([r.median(key) for key in keys]) for r in (timed, again))
    print(f"{name}: {count} maps, batch {probes.batch}, {beside.min():.3f} to {beside.max():.3f} ms"
          f" per sample, noise ±{timed.noise_pct(keys[0]):.1f} %,"
          f" drift {100 * (after[0] / beside[0] - 1):+.1f} %")  # fmt: skip
    for when, truth in (("in turn with the profile", beside), ("after it", after)):
        constant = np.full(count, truth.mean())
        print(f" {when}")
        print(_line("estimate", guess, truth))
        print(_line("sum without boundaries", additive, truth))
        print(_line("constant (mean measured)", constant, truth))
        ratio = np.abs(guess / truth - 1).mean() / np.abs(constant / truth - 1).mean()
        print(f"  estimate ÷ constant: {ratio:.2f}")


def _study(analysis: Analysis, profile: MachineProfile) -> Study:
    return Study(replace(analysis, profile=profile))


def without_prices(profile: MachineProfile) -> MachineProfile:
    """The same profile with boundaries for nothing."""
    free = Conversion(0.0, 0.0)
    return msgspec.structs.replace(profile, quantized=free, half=free)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="append", choices=samples.names())
    parser.add_argument("--maps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=profiling.ROUNDS)
    options = parser.parse_args(arguments)
    for name in options.sample or samples.names():
        measure(name, options.maps, options.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
