"""What mixed maps over all formats gain over uniform ones, run and verified.

    python -m tests.benchmarks.format_maps [--sample digits_vit] [--samples 450] [--no-verify]

A sample is measured anew in FP16, INT8 and all weights by groups. Four tables are printed.
*Frontier*: each uniform format beside the map of no more bytes that a size budget gives, both run on
the selection split. *Bits a weight*: over the weights that formats by groups can take, scales
counted, all else in FP32: the map that the search finds at 3, 4, 5 and 6 bits, that of the additive
integer programme (losses of layers alone added up, HiGHS), and the widest uniform format that fits.
"Noise" is a 90 % interval of a ratio of KLs, from resampled samples. *Projected against run*: random
maps down to 4 bits, and down to 2. *Verified*: INT4-g32 wherever it
means something, on ONNX Runtime.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.analysis import store
from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.policy.budget import Budget
from core.decide.policy.kernels import without_kernel
from core.decide.policy.policy import Policy
from core.decide.solve.solver import Solver
from core.decide.study import Study
from core.errors import InfeasibleError
from core.evidence.measure.measure import measure
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from core.numerics.scheme import SCHEMES
from core.runtime import verify as verifying
from core.source import samples
from core.source.contract import ModelSource, Split
from tests.benchmarks.budgets import Codes, Run, additive, bytes_of, compared, figure, runner

FORMATS = ("FP16", "INT8", "INT8-W", "INT4-g32", "INT4-g128", "INT2-g32")
BITS = (3, 4, 5, 6)
VERIFIED = "INT4-g32"
MAPS, SEED = 30, 22

Running = Callable[[Codes], Run]


def measured_anew(source: ModelSource, analysis: Analysis) -> Analysis:
    """`analysis` with evidence of `FORMATS` in place of its own."""
    options = MeasureOptions(
        scheme=SCHEMES[analysis.scheme], precisions=tuple(map(registry.get, FORMATS))
    )
    found = measure(source, analysis.layers, options)
    splits = replace(analysis.splits, selection=len(source.selection))
    return replace(analysis, evidence=found.evidence, splits=splits)


def uniform(study: Study, name: str) -> Codes:
    """The map that gives every layer `name` for which it means something."""
    return answer.decide(study, Policy(strategy="uniform", uniform=name)).codes


def ratio_of(first: Run, second: Run | None) -> str:
    """Ratio of two mean KLs with its noise."""
    if second is None:
        return "-"
    ratio, (low, high) = compared(first.kl, second.kl)
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def solve(study: Study, policy: Policy) -> Codes | None:
    """The codes that the search finds under `policy`; None where no map keeps the budget."""
    try:
        return study.derived(Solver).solve(policy).found.codes
    except InfeasibleError:
        return None


def frontier_table(study: Study, run: Running, title: str) -> Table:
    """Uniform formats beside mixed maps of no more bytes."""
    table = Table(
        title=f"{title}: frontier over all formats against uniform ones (KL, points lost)"
    )
    for column in ("uniform", "bytes", "run", "mixed", "bytes", "mixed/uniform (noise)"):
        table.add_column(column, justify="right")
    for name in FORMATS:
        codes = uniform(study, name)
        policy = Policy(
            strategy="budget", budgets=(Budget("size", float(bytes_of(study, codes)), "bytes"),)
        )
        mixed = solve(study, policy)
        if mixed is None:
            continue
        table.add_row(
            name, f"{bytes_of(study, codes):,}", figure(run(codes)), figure(run(mixed)),
            f"{bytes_of(study, mixed):,}", ratio_of(run(mixed), run(codes)),
        )  # fmt: skip
    return table


def bits_table(study: Study, run: Running, title: str) -> Table:
    """Maps at so many bits a weight."""
    layers = study.layers
    takes = layers.takes_groups & layers.computes
    names = np.array(layers.names)
    pins = tuple((str(n), registry.REFERENCE) for n in names[~takes & layers.computes])
    weights = sum(
        spec.size
        for layer, wanted in zip(layers, takes, strict=True) if wanted
        for spec in layer.tensors if spec.group_axis >= 0
    )  # fmt: skip

    def kept(name: str) -> Codes:
        rules = (*pins, *((str(n), name) for n in names[takes]))
        return answer.decide(study, Policy(strategy="manual", overrides=rules)).codes

    plain = bytes_of(study, kept(registry.REFERENCE))
    table = Table(title=f"{title}: {weights:,} weights in groups (KL, points lost)")
    for column in ("bits", "uniform", "", "additive", "search", "search/uniform (noise)",
                   "search/additive (noise)"):  # fmt: skip
        table.add_column(column, justify="right")
    narrow = [n for n in FORMATS if registry.get(n).is_weights_only]
    for bits in BITS:
        amount = plain - weights * (32 - bits) / 8
        fitting = [n for n in narrow if bytes_of(study, kept(n)) <= amount]
        policy = Policy(
            strategy="budget", overrides=pins, budgets=(Budget("size", float(amount), "bytes"),)
        )
        mixed = solve(study, policy)
        if mixed is None:
            table.add_row(str(bits), *["-"] * 6)
            continue
        name = max(fitting, key=registry.width, default="")
        one = run(kept(name)) if name else None
        programme = additive(study, policy, mixed)
        other = None if programme is None else run(programme)
        table.add_row(
            str(bits), name or "none fits", figure(one), figure(other), figure(run(mixed)),
            ratio_of(run(mixed), one), ratio_of(run(mixed), other),
        )  # fmt: skip
    return table


def projection_table(study: Study, run: Running, title: str) -> Table:
    """Projected against run, on random maps whose share of narrow layers rises."""
    rng = np.random.default_rng(SEED)
    lacks = without_kernel(study.layers, study.precisions)
    layers = np.flatnonzero(study.layers.computes)
    table = Table(title=f"{title}: KL of {MAPS} maps, projected against run")
    for column in (
        "narrowest",
        "maps",
        "in the 90 % range",
        "mean log error",
        "run, least to most",
    ):
        table.add_column(column, justify="right")
    narrowest = (*(n for n in FORMATS if registry.get(n).bits > 2), *FORMATS[-1:])
    for least in (narrowest[-2], narrowest[-1]):
        codes_of = [study.precisions.index(n) for n in FORMATS if registry.width(n) >= registry.width(least)]  # fmt: skip
        inside, errors, seen = [], [], []
        for m in range(MAPS):
            codes = np.where(study.layers.computes, 0, -1).astype(np.int8)
            for i in layers[rng.random(len(layers)) < (m + 1) / MAPS]:
                codes[i] = rng.choice([c for c in codes_of if not lacks[c, i]])
            found = study.project(codes)
            assert found is not None
            kl = float(run(codes).kl.mean())
            projected = found.kl
            assert projected.value is not None
            inside.append((projected.low or 0.0) <= kl <= (projected.high or np.inf))
            errors.append(abs(np.log(max(projected.value, 1e-12) / max(kl, 1e-12))))
            seen.append(kl)
        table.add_row(
            least, str(MAPS), f"{np.mean(inside):.0%}", f"{np.mean(errors):.3f}",
            f"{min(seen):.1e} to {max(seen):.1e}",
        )  # fmt: skip
    return table


def verified_table(source: ModelSource, analysis: Analysis, title: str) -> Table:
    """The map of `VERIFIED` on ONNX Runtime."""
    study = Study(analysis)
    bench = verifying.prepare(source, analysis)
    chosen = answer.decide(study, Policy(strategy="uniform", uniform=VERIFIED))
    found = verifying.verify(bench, chosen)
    table = Table(title=f"{title}: {VERIFIED} on ONNX Runtime, {found.split} split")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    sizes: NDArray[np.int64] = np.array([found.tensor_bytes, bytes_of(study, chosen.codes)])
    table.add_row("tensors of the file, bytes", f"{sizes[0]:,} (planned {sizes[1]:,})")
    table.add_row("of FP32, bytes", f"{bytes_of(study, np.where(chosen.codes < 0, -1, 0)):,}")
    for name, figure_ in found.figures.items():
        table.add_row(name, f"{figure_.value:.4g} {figure_.unit}")
    timing = found.timing
    table.add_row("time over FP32", f"{timing.ratio.value:.2f} (noise {timing.noise_pct:.0f} %)")
    table.add_row("agreement, error (dB)", f"{found.agreement_db:.1f}, {found.error_db:.1f}")
    return table


def main() -> None:
    """Print the tables of one sample."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--sample", default="digits_vit")
    options.add_argument("--samples", type=int, help="selection samples; all")
    options.add_argument("--no-verify", action="store_true")
    chosen = options.parse_args()
    source = samples.load(chosen.sample)
    shipped = store.load(samples.get(chosen.sample).analysis)
    n = chosen.samples or len(source.selection)
    targets = source.selection.targets
    cut = replace(
        source,
        selection=Split(source.selection.inputs[:n], None if targets is None else targets[:n]),
    )
    analysis = measured_anew(cut, shipped)
    study = Study(analysis)
    run = runner(cut, analysis, study)
    console = Console(width=170)
    title = f"{chosen.sample}, {n:,} samples"
    console.print(frontier_table(study, run, title))
    console.print(bits_table(study, run, title))
    console.print(projection_table(study, run, title))
    if not chosen.no_verify:
        console.print(verified_table(source, shipped, chosen.sample))


if __name__ == "__main__":
    main()
