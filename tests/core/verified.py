"""Verifications and profiles made up for maps of a study, for tests of what reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis.analysis import Analysis
from core.decide import answer
from core.decide.assess.outcome import accuracy_totals
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.quantity import Quantity
from core.records.machine_profile import Conversion, MachineProfile
from core.records.verification import LayerRun, Machine, Timing, Verification

MACHINE = Machine("a processor", ("avx512_vnni",), 2, 1, "Linux x86_64", "onnxruntime 1.32.0")


def verification(
    study: Study, chosen: PrecisionMap, *, factor: float = 1.0, ratio: float = 0.5,
    got: dict[str, str] | None = None, label: str = "a map", created: str = "2026-01-01T00:00:00",
) -> Verification:  # fmt: skip
    """A run whose divergence is `factor` times the projected one, and whose other figures are the
    projected ones, `ratio` times as long as FP32.
    """
    projected = accuracy_totals(study, study.project(chosen.codes))
    figures = {
        name: Quantity((q.value or 0.0) * (factor if name in {"kl", "relative_mse"} else 1.0),
                       q.unit, "measured", q.low, q.high)
        for name, q in projected.items()
        if q.value is not None
    }  # fmt: skip
    ran = got or {}
    return Verification(
        schema_version=1, tool_version="0", created=created, label=label,
        identity=study.analysis.identity, scheme=study.analysis.scheme, machine=MACHINE,
        layers=tuple(
            LayerRun(name, asked, ran.get(name, asked), "kernel", "why" if name in ran else "")
            for name, asked in chosen.by_layer.items()
        ),
        figures=figures, same_samples=figures, split="holdout", samples=100, agreement_db=55.0,
        error_db=30.0, simulated_error_db=30.0, disagreements=0,
        timing=Timing(
            Quantity(2.0 * ratio, "ms", "measured", 1.9 * ratio, 2.1 * ratio),
            Quantity(2.0, "ms", "measured", 1.9, 2.1),
            Quantity(ratio, "x", "measured", 0.95 * ratio, 1.05 * ratio), 1, 20, 1.5,
        ),
        file_bytes=1_000, tensor_bytes=900, reference_file_bytes=4_000, predicted_file_bytes=1_010,
        peak_bytes=None, reference_peak_bytes=None, left_out=(), overflow=(), seconds=1.0,
    )  # fmt: skip


def with_runs(analysis: Analysis, *runs: Verification) -> Study:
    """A study of `analysis` with these verifications."""
    return Study(replace(analysis, verifications=runs))


def narrowed(study: Study, count: int, **changes: str) -> PrecisionMap:
    """The first `count` computing layers in the narrowest precision, the rest in FP32."""
    names = [layer.name for layer in study.layers if layer.computes_at_inference][:count]
    given = tuple((name, study.score_precision) for name in names)
    return answer.decide(study, Policy(strategy="manual", high="FP32", overrides=given, **changes))  # type: ignore[arg-type]


def profile(analysis: Analysis, seed: int = 0) -> MachineProfile:
    """A profile in which INT8 takes 0.4 of FP32, with a price for conversions."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.1, 1.0, len(analysis.layers)) * analysis.layers.computes
    rows = tuple(tuple(float(x) for x in base * share) for share in (1.0, 1.1, 0.4))
    return MachineProfile(
        1, "0", "2026-01-01T00:00:00", analysis.identity, analysis.scheme, MACHINE, 1,
        ("FP32", "FP16", "INT8"), analysis.layers.names, rows, 0.3, Conversion(0.01, 1e-6),
        Conversion(0.02, 0.0), 0.05, 1.0, 13, ("profiler",) * len(analysis.layers), 1.0,
    )  # fmt: skip
