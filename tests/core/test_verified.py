"""Runs of maps take the place of projections, and teach how far those hold."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from core.analysis import store
from core.cli.runtime_tables import figures_table
from core.decide import answer
from core.decide.advise import advice
from core.decide.advise.corrections import ENOUGH, correction, in_words, residuals
from core.decide.assess.compare import compare, strategy
from core.decide.assess.frontier import frontier
from core.decide.assess.gains import gains
from core.decide.assess.loss import loss_at_most
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.assess.parallel import axes
from core.decide.assess.verified import (
    agreement_in_words,
    faster_without_half,
    half_layers,
    ran_codes,
    sentences,
    without_half,
)
from core.decide.policy.budget import parse_budgets
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.estimate.hardware import DEFAULT, THIS_MACHINE
from core.export.map import precision_map
from core.export.map.checklist import checks
from core.export.map.words import amount
from core.quantity import Quantity
from core.records import machine_profile, record_files
from core.records.verification import AsDeployed
from core.source import samples
from tests.core.synthetic import synthetic_analysis
from tests.core.verified import narrowed, profile, verification, with_runs

ANALYSIS = synthetic_analysis(24, samples=200)
PLAIN = Study(ANALYSIS)


def test_a_run_takes_the_place_of_the_projection() -> None:
    """The outputs of a verified map are measured, and so is its confidence; another map's are not."""
    chosen, other = narrowed(PLAIN, 6), narrowed(PLAIN, 7)
    run = verification(PLAIN, chosen, factor=3.0)
    study = with_runs(ANALYSIS, run)

    found, beside = outcome(study, chosen), outcome(study, other)

    assert found.confidence == "measured"
    for name in ("accuracy", "accuracy_drop_pts", "kl", "flips_pct"):
        assert found.totals[name] == run.figures[name]
        assert found.totals[name].kind == "measured"
        assert beside.totals[name].kind == "projected"
    assert (beside.confidence, outcome(PLAIN, chosen).confidence) == ("projected", "projected")
    assert found.totals["size_bytes"].kind == "exact"


def test_the_latest_run_counts() -> None:
    """Of two runs of one map the later one is shown."""
    chosen = narrowed(PLAIN, 6)
    first = verification(PLAIN, chosen, factor=3.0)
    second = verification(PLAIN, chosen, factor=5.0, created="2026-02-01T00:00:00")

    found = outcome(with_runs(ANALYSIS, first, second), chosen)

    assert found.totals["kl"] == second.figures["kl"]


def test_measured_is_said_only_of_what_ran_as_asked() -> None:
    """Where a layer in half precision ran in FP32, the map stays projected, and the run says why and
    what would be better.
    """
    name = PLAIN.layers.names[0]
    chosen = answer.decide(
        PLAIN, Policy(strategy="manual", high="FP32", overrides=((name, "FP16"),))
    )
    run = verification(PLAIN, chosen, got={name: "FP32"}, ratio=1.2)
    found = outcome(with_runs(ANALYSIS, run), chosen)

    assert found.confidence == "projected"
    assert found.totals["kl"].kind == "projected"
    said = " ".join(sentences(PLAIN, run))
    assert "1 layer asked for FP16 ran in FP32" in said
    assert "1.20 times as slow as FP32" in said
    assert half_layers(PLAIN, run) == [name]
    assert set(sentences(PLAIN, run)) <= set(found.warnings)
    better = answer.decide(PLAIN, without_half(replace(chosen.policy, high="FP16")))
    assert set(better.assigned) <= {"FP32", "INT8", None}


def test_a_run_with_exact_sums_says_so() -> None:
    """A run on a processor without VNNI names what kept its sums exact; one with VNNI does not."""
    run = verification(PLAIN, narrowed(PLAIN, 6))
    exact = msgspec.structs.replace(
        run, machine=msgspec.structs.replace(run.machine, exact_sums=True)
    )

    assert not any("VNNI" in said for said in sentences(PLAIN, run))
    assert any("session.x64quantprecision=1" in said for said in sentences(PLAIN, exact))


def test_fp32_is_offered_where_half_precisions_gain_no_speed() -> None:
    """Where a device has no FP16 kernels the same map with FP32 in its place is offered, and it
    is estimated faster; nothing is offered where FP16 runs, for FP32 maps, and for budgets.
    """
    chosen = answer.decide(PLAIN, Policy())
    assert "FP16" in chosen.assigned

    better = faster_without_half(PLAIN, chosen)

    assert better is not None
    assert [b for b in better.assigned if b != "FP32"] == [
        c for c in chosen.assigned if c not in {"FP32", "FP16"}
    ]
    now, then = (
        PLAIN.latency(DEFAULT).estimate(m.codes).total.value or 0.0 for m in (chosen, better)
    )
    assert then < now
    assert faster_without_half(PLAIN, better) is None
    assert (
        faster_without_half(PLAIN, answer.decide(PLAIN, Policy(hardware="datacenter-gpu-t4")))
        is None
    )
    budget = Policy(strategy="budget", budgets=parse_budgets("size=0.6"))
    assert faster_without_half(PLAIN, answer.decide(PLAIN, budget)) is None


def test_an_overflow_in_simulation_beats_a_clean_run() -> None:
    """A run in wider floats does not clear a map that overflows in simulation."""
    import msgspec

    chosen = narrowed(PLAIN, 6)
    run = msgspec.structs.replace(verification(PLAIN, chosen), overflow=("a layer",))

    found = outcome(with_runs(ANALYSIS, run), chosen)

    assert found.confidence == "projected"
    assert any("overflowed in simulation" in warning for warning in found.warnings)


def test_levels_of_other_samples_are_not_subtracted() -> None:
    """What was measured of the outputs is of the holdout split: its difference to what is projected is
    unknown. All FP32 loses nothing on any split.
    """
    chosen = narrowed(PLAIN, 6)
    study = with_runs(ANALYSIS, verification(PLAIN, chosen))
    ran = outcome(study, chosen)
    change = gains(outcome(study, narrowed(PLAIN, 7)), ran)
    lost = gains(outcome(study, narrowed(PLAIN, 0)), ran)

    for name in ("accuracy", "accuracy_drop_pts", "kl", "flips_pct"):
        assert change[name].change is None
    assert change["size_bytes"].change is not None
    assert lost["kl"].change == ran.totals["kl"].value


def test_maps_are_compared_by_figures_of_one_split() -> None:
    """What one map measured on the holdout split changes nothing in who beats whom, in charts, on
    frontiers or in recommendations: a lucky run makes no map better than those that were not run.
    """
    chosen, other = narrowed(PLAIN, 6), narrowed(PLAIN, 2)
    run = verification(PLAIN, chosen, factor=1e-6)
    none = {"accuracy_drop_pts": Quantity(-5.0, "pts", "measured", -5.1, -4.9)}
    lucky = with_runs(ANALYSIS, msgspec.structs.replace(run, figures=run.figures | none))

    def stand(study: Study) -> tuple[object, ...]:
        sides = [strategy(study, "run", chosen), strategy(study, "other", other)]
        found = compare(sides, "other")
        line = frontier(study, Policy(), "size", 3)
        return (
            found.dominances,
            found.fronts,
            axes(sides, study.score_precision),
            [line.dominating(s.outcome.comparable) is None for s in sides],
            advice.recommendations(study, Policy()),
        )

    assert outcome(lucky, chosen).totals["kl"].value != outcome(PLAIN, chosen).totals["kl"].value
    assert stand(lucky) == stand(PLAIN)


def test_of_equals_the_strategy_that_loses_least_is_recommended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """BF16 and FP16 take the same bytes and time, and the one that changes less is recommended."""
    study = Study(store.load(samples.get("digits_vit").analysis))
    totals = {
        name: outcome(study, uniform_map(study, name, DEFAULT)).totals
        for name in ("BF16", "FP16", "INT8")
    }
    moved = {name: one["kl"].value for name, one in totals.items()}
    limits = {name: loss_at_most(one) for name, one in totals.items()}
    monkeypatch.setattr(advice, "HIGH_PRECISION_DROP_PTS", limits["FP16"])
    found = {r.use: r.strategy for r in advice.recommendations(study, Policy())}

    assert limits["FP16"] is not None
    assert limits["INT8"] is not None
    assert limits["BF16"] == limits["FP16"] < limits["INT8"]
    assert moved["FP16"] is not None
    assert moved["BF16"] is not None
    assert moved["FP16"] < moved["BF16"]
    assert found["high precision"] == "All FP16"


def test_latency_is_measured_on_this_machine_alone() -> None:
    """A run replaces the latency on this machine, not that of a published device."""
    analysis = replace(ANALYSIS, profile=profile(ANALYSIS))
    plain = Study(analysis)
    here, there = (narrowed(plain, 6, hardware=name) for name in (THIS_MACHINE, DEFAULT))
    run = verification(plain, here, ratio=0.5)
    study = with_runs(analysis, run)

    found, elsewhere = outcome(study, here), outcome(study, there)

    assert found.totals["latency_ms"] == run.timing.map_ms
    assert found.totals["speedup"].value == pytest.approx(2.0)
    assert elsewhere.totals["latency_ms"].kind == "estimated"
    sums = next(check for check in checks(study, here, found) if check.title == "Rows add up")
    assert (sums.status, "measured" in sums.detail) == ("passed", True)
    assert precision_map.describe(study, here, found).totals["latency_ms"].kind == "measured"


def test_this_machine_adds_up() -> None:
    """The latency of any map is the sum of its layers' measured times, its conversions, and what
    belongs to no layer; searches see the same figure.
    """
    analysis = replace(ANALYSIS, profile=profile(ANALYSIS))
    study = Study(analysis)
    model, given = study.latency(THIS_MACHINE), profile(ANALYSIS)
    reference = np.array(given.layer_ms[0])
    rng = np.random.default_rng(3)
    for _ in range(20):
        names = {n: str(rng.choice(["FP32", "INT8"])) for n in study.layers.names}
        chosen = answer.decide(
            study, Policy(strategy="manual", high="FP32", overrides=tuple(names.items()))
        )
        crossing, silent = study.forms.changes(chosen.codes)
        own = np.where(chosen.codes == study.precisions.index("INT8"),
                       np.array(given.layer_ms[2]), reference)  # fmt: skip
        elements = np.array([e.elements for e in study.layers.edges])
        expected = (
            own[study.layers.computes & ~silent].sum() + 0.3 + 0.01 * crossing.sum()
            + 1e-6 * elements[crossing].sum()
        )  # fmt: skip

        found = model.estimate(chosen.codes)

        assert not silent.any()
        assert found.total.value == pytest.approx(expected)
        assert model.times_ms(chosen.codes[None])[0] == pytest.approx(expected)
        assert found.total.low < found.total.value < found.total.high  # type: ignore[operator]


def test_without_a_profile_the_usual_device_stands_in() -> None:
    """A map priced on this machine before it was profiled says whose latency it shows."""
    found = outcome(PLAIN, narrowed(PLAIN, 6, hardware=THIS_MACHINE))

    assert found.totals["latency_ms"] == outcome(PLAIN, narrowed(PLAIN, 6)).totals["latency_ms"]
    assert any("not profiled" in warning for warning in found.warnings)
    assert PLAIN.default_hardware == DEFAULT
    assert Study(replace(ANALYSIS, profile=profile(ANALYSIS))).default_hardware == THIS_MACHINE


def _runs(factors: list[float], slope: float = 0.0) -> Study:
    runs = []
    for i, factor in enumerate(factors):
        chosen = narrowed(PLAIN, 3 + 2 * i)
        kl = PLAIN.project(chosen.codes).kl.value  # type: ignore[union-attr]
        runs.append(verification(PLAIN, chosen, factor=factor * kl**slope,
                                 created=f"2026-01-01T00:00:{i:02d}"))  # type: ignore[operator] # fmt: skip
    return with_runs(ANALYSIS, *runs)


def test_residuals_are_of_the_same_samples() -> None:
    """The error of a projection is the log of measured over projected on the selection split."""
    study = _runs([2.0, 4.0, 0.5])

    found = residuals(study)

    assert [one.log_error("kl") for one in found] == pytest.approx(np.log([2.0, 4.0, 0.5]))
    assert "factor of 2.00" in in_words(study, found)
    assert "3 maps" in in_words(study, found)


@pytest.mark.parametrize("count", [0, 2])
def test_few_runs_are_said_to_be_few(count: int) -> None:
    """Nothing is concluded from no run, and little from two."""
    study = _runs([2.0] * count)
    said = in_words(study, residuals(study))

    assert ("No map" in said) if count == 0 else ("too little" in said)
    assert correction(study, residuals(study)) is None


def test_a_steady_error_is_corrected() -> None:
    """From eight maps on, an error that repeats is fitted, and helps on maps that were left out."""
    study = _runs([3.0, 3.1, 2.9, 3.0, 3.2, 2.8, 3.0, 3.1], slope=0.1)
    found = correction(study, residuals(study))

    assert found is not None
    assert (found.maps, found.helps) == (ENOUGH, True)
    assert found.slope == pytest.approx(1.1, abs=0.03)
    chosen = narrowed(PLAIN, 20)
    projected = PLAIN.project(chosen.codes).kl  # type: ignore[union-attr]
    truth = 3.0 * projected.value**1.1  # type: ignore[operator]
    corrected = found.applied(projected)
    assert corrected.value == pytest.approx(truth, rel=0.1)
    assert corrected.kind == "projected"
    assert corrected.low < corrected.value < corrected.high  # type: ignore[operator]


def test_chance_is_not_corrected() -> None:
    """Errors without a pattern give no correction that helps on maps left out."""
    study = _runs([0.3, 3.0, 0.4, 2.5, 3.5, 0.3, 0.25, 4.0])
    found = correction(study, residuals(study))

    assert found is not None
    assert not found.helps


def test_records_come_with_the_folder(tmp_path: Path) -> None:
    """What lies in an analysis folder is read with it, and its stamp tells that something came."""
    from core.records import verification as kept

    folder = tmp_path / "run"
    store.save(ANALYSIS, folder)
    before = store.stamp(folder)
    run = verification(PLAIN, narrowed(PLAIN, 6))
    kept.save(folder, run)
    machine_profile.save(folder, profile(ANALYSIS))

    found = store.load(folder)

    assert found.verifications == (run,)
    assert found.profile == profile(ANALYSIS)
    assert store.stamp(folder) != before
    assert not list(folder.glob("**/*.tmp"))


def test_a_profile_of_other_layers_is_left_out(tmp_path: Path) -> None:
    """A profile whose layers or rows are others is not used."""
    import msgspec

    store.save(ANALYSIS, tmp_path / "run")
    good = profile(ANALYSIS)
    for bad in (
        msgspec.structs.replace(good, layers=("other",) * len(good.layers)),
        msgspec.structs.replace(good, layer_ms=good.layer_ms[:1]),
        msgspec.structs.replace(good, schema_version=9),
    ):
        machine_profile.save(tmp_path / "run", bad)

    assert store.load(tmp_path / "run").profile is None


def test_records_of_samples_lie_outside_the_program(tmp_path: Path) -> None:
    """A bundled sample's folder belongs to the program; a person's own keeps its records."""
    sample = samples.get("digits_vit").analysis

    assert sample not in (record_files.home_of(sample), *record_files.home_of(sample).parents)
    assert record_files.home_of(tmp_path) == tmp_path


def test_a_profile_of_a_busy_machine_says_so() -> None:
    """What a profile says in words asks to take it again where FP32 rounds spread widely."""
    import msgspec

    from core.cli.runtime_tables import said_of

    quiet = msgspec.structs.replace(profile(ANALYSIS), noise_pct=2.0)
    busy = msgspec.structs.replace(quiet, noise_pct=40.0)

    assert not any("take the profile again" in line for line in said_of(quiet))
    assert any("±40.0 %" in line and "take the profile again" in line for line in said_of(busy))


def test_the_command_compares_figures_of_one_split() -> None:
    """`verify` heads every column of outputs with its split; beside the projection of what ran
    stands what was measured on the split that it is of.
    """
    chosen = narrowed(PLAIN, 6)
    run = verification(PLAIN, chosen, got={next(iter(chosen.by_layer)): "FP32"})
    level = run.figures["accuracy"]
    same = {"accuracy": replace(level, value=12.34)}
    run = msgspec.structs.replace(run, same_samples=same)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(figures_table(run, PLAIN))
    lines = console.export_text().splitlines()

    (heads,) = (line for line in lines if "measured, holdout split" in line)
    assert heads.index("measured, selection split") < heads.index(
        "projected for what ran, selection"
    )
    (accuracy,) = (line for line in lines if "Accuracy " in line and "loss" not in line)
    ran = outcome(PLAIN, replace(chosen, codes=ran_codes(PLAIN, run))).totals["accuracy"]
    places = [accuracy.index(amount(q)) for q in (level, same["accuracy"])]
    assert places == sorted(places)
    assert amount(ran) in accuracy[places[-1] + 1 :]


@pytest.mark.parametrize(
    ("agreement", "error", "simulated", "words"),
    [
        (43.9, 41.1, 41.5, ["agree to 43.9 dB", "itself is 41.1 dB", "not sample by sample"]),
        (60.0, 30.0, 30.0, ["holds sample by sample"]),
        (
            25.0,
            24.0,
            40.0,
            ["more than the 40.0 dB of the simulation", "does not hold for this file"],
        ),
        (None, 30.0, 30.0, ["give the same outputs"]),
        (90.0, None, None, ["there is no quantization error"]),
    ],
)
def test_agreement_is_said_in_words(
    agreement: float | None, error: float | None, simulated: float | None, words: list[str]
) -> None:
    """Beside the decibels stands what they mean for the projection, in one of a few sentences."""
    run = msgspec.structs.replace(
        verification(PLAIN, narrowed(PLAIN, 6)), agreement_db=agreement, error_db=error,
        simulated_error_db=simulated,
    )  # fmt: skip
    said = agreement_in_words(run)

    assert all(word in said for word in words)
    assert ("sample by sample" in said) == ("sample by sample" in " ".join(words))


def test_what_saturation_costs_is_said_beside_the_exact_run() -> None:
    """A run as deployed says its own loss in place of the one with exact sums; no other does."""
    run = verification(PLAIN, narrowed(PLAIN, 6))
    loss = Quantity(6.25, "pts", "measured")
    plain = AsDeployed(run.figures | {"accuracy_drop_pts": loss}, 24.0)
    said = agreement_in_words(msgspec.structs.replace(run, as_deployed=plain))

    assert "saturate" in said
    assert "agree to 24.0 dB" in said
    assert "6.25 pts in place of" in said
    assert "saturate" not in agreement_in_words(run)
