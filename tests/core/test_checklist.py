"""The checklist of a map: a sound one passes, and each check finds what it is there for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.analysis import store
from core.cli.main import main
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError
from core.export.map import checklist, precision_map
from core.export.map.checklist import MAX_NAMED, Check, checks
from core.layers import LayerTable
from core.quantity import unknown
from tests.core.hostile import EVIL, named
from tests.core.synthetic import synthetic_analysis, synthetic_evidence, synthetic_layers

STUDY = Study(synthetic_analysis(28, samples=600))
POLICY = Policy(pins=(("block.1?.*", "FP16"),), overrides=(("block.0.attention", "FP32"),))
CHOSEN = answer.decide(STUDY, POLICY)
IDLE = int(np.flatnonzero(~STUDY.layers.computes)[0])


def found(title: str, study: Study = STUDY, chosen: PrecisionMap = CHOSEN, **figures: Any) -> Check:
    """One check of a map; `figures` are exchanged in its outcome, which is of the sound map."""
    sound = outcome(study, answer.decide(study, chosen.policy))
    every = checks(study, chosen, replace(sound, **figures))
    assert len({check.title for check in every}) == len(every)
    return next(check for check in every if check.title == title)


def test_a_sound_map_fails_nothing() -> None:
    """Every check passes but for the warnings that come with the map."""
    every = checks(STUDY, CHOSEN, outcome(STUDY, CHOSEN))

    assert {c.title for c in every if c.status != "passed"} <= {"Other warnings"}
    assert all(c.detail.endswith(".") for c in every)


def _layers(*names: str) -> PrecisionMap:
    kept = [replace(STUDY.layers.layers[0], name=name) for name in names]
    return replace(CHOSEN, layers=LayerTable(tuple(kept)), codes=CHOSEN.codes[: len(names)],
                   origin=CHOSEN.origin[: len(names)])  # fmt: skip


@pytest.mark.parametrize(("chosen", "said"), [
    (_layers(*STUDY.layers.names[1:]), "1 missing layer: block.0.attention"),
    (_layers(*STUDY.layers.names, "ghost"), "1 unknown layer: ghost"),
    (_layers(*STUDY.layers.names, "block.0.attention"), "1 repeated layer: block.0.attention"),
    (_layers(*STUDY.layers.names[::-1]), "another order"),
    (replace(CHOSEN, codes=CHOSEN.codes[:-1]), "27 precisions for 28 layers"),
])  # fmt: skip
def test_every_layer_is_there_exactly_once(chosen: PrecisionMap, said: str) -> None:
    """A layer that is missing, strange, doubled or misplaced is named."""
    check = found("Layers", chosen=chosen)

    assert check.status == "failed"
    assert said in check.detail
    assert found("File reads back", chosen=chosen).status == "failed"


def test_a_model_without_layers_is_a_warning() -> None:
    """An empty map is right for an empty model, and worth a word; it still reads back."""
    study = Study(synthetic_analysis(0, samples=20))
    chosen = answer.decide(study, Policy())

    assert found("Layers", study, chosen) == Check(
        "Layers", "warning", "The model has no layers, so the map is empty."
    )
    assert found("File reads back", study, chosen).status == "passed"
    assert found("Rows add up", study, chosen).status == "passed"


def _coded(place: int, code: int) -> PrecisionMap:
    codes = CHOSEN.codes.copy()
    codes[place] = code
    return replace(CHOSEN, codes=codes)


@pytest.mark.parametrize(("chosen", "said"), [
    (_coded(0, 3), "without a known precision: block.0.attention"),
    (_coded(0, -1), "without a known precision: block.0.attention"),
    (_coded(IDLE, 0), f"nothing to compute: {STUDY.layers.names[IDLE]}"),
    (replace(CHOSEN, precisions=("FP32", "FP16")), "The map speaks of FP32, FP16"),
])  # fmt: skip
def test_every_computing_layer_has_a_known_precision(chosen: PrecisionMap, said: str) -> None:
    """A precision that the analysis does not know, none, or one too many is named."""
    check = found("Precisions", chosen=chosen)

    assert check.status == "failed"
    assert said in check.detail
    assert found("File reads back", chosen=chosen).detail.startswith("Not tried")


def test_precisions_are_counted() -> None:
    """The counts add up to the layers."""
    counts = [CHOSEN.count(name) for name in STUDY.precisions]

    detail = found("Precisions").detail
    assert all(f"{n} {name}" in detail for n, name in zip(counts, STUDY.precisions, strict=True))
    assert f"{28 - sum(counts)} with none" in detail


def test_the_file_is_really_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file would lose is found: an origin, a policy, or the file itself."""
    origin = CHOSEN.origin.copy()
    origin[3] = 2
    lost = found("File reads back", chosen=replace(CHOSEN, origin=origin))
    assert lost.status == "failed"
    assert STUDY.layers.names[3] in lost.detail

    moved = found("File reads back", chosen=_coded(5, (CHOSEN.codes[5] + 1) % 3))
    assert STUDY.layers.names[5] in moved.detail

    real = precision_map.from_json
    monkeypatch.setattr(
        checklist.precision_map, "from_json",
        lambda raw, study: replace(real(raw, study), policy=Policy()),
    )  # fmt: skip
    assert "its policy differs" in found("File reads back").detail

    def refuse(*_: object) -> None:
        raise MapError("The map is torn.", "Mend it.")

    monkeypatch.setattr(checklist.precision_map, "from_json", refuse)
    assert found("File reads back") == Check(
        "File reads back", "failed", "The map is torn. Mend it."
    )


def test_rows_add_up() -> None:
    """One byte or one nanosecond too many is found, and an unknown latency is no zero."""
    good = outcome(STUDY, CHOSEN)
    assert found("Rows add up").status == "passed"
    assert found("Rows add up", glue_bytes=good.glue_bytes + 1).status == "failed"
    slow = found("Rows add up", boundaries_ms=good.boundaries_ms + 1e-6)
    assert slow.status == "failed"
    assert "ms" in slow.detail
    assert found("Rows add up", layer_ms=good.layer_ms[:-1]).status == "failed"
    totals = {**good.totals, "latency_ms": unknown("ms", "estimated")}
    assert found("Rows add up", totals=totals) == Check(
        "Rows add up", "warning",
        f"Size exactly ({good.totals['size_bytes'].value:,} B); the latency is n/a.",
    )  # fmt: skip


def test_rules_are_counted_and_strays_named() -> None:
    """Pins, overrides and the layers they set are counted; what matches nothing is named."""
    check = found("Pins and overrides")
    pinned = sum(name.startswith("block.1") and len(name.split(".")[1]) == 2
                 for name in STUDY.layers.names)  # fmt: skip
    assert check == Check(
        "Pins and overrides", "passed",
        f"1 pin, 1 override: {pinned} layers pinned, 1 set by hand.",
    )  # fmt: skip
    stray = answer.decide(STUDY, replace(POLICY, pins=(("ghost*", "FP16"),)))
    assert found("Pins and overrides", chosen=stray).status == "warning"
    assert "No layer matches ghost*." in found("Pins and overrides", chosen=stray).detail
    plain = found("Pins and overrides", chosen=answer.decide(STUDY, Policy()))
    assert plain.detail == "None: the strategy decides every layer."


def test_overflow_names_the_layers() -> None:
    """A layer whose outputs were not finite in its precision fails the map."""
    layers = synthetic_layers(6)
    allowed = np.ones((2, 6), np.bool_)
    allowed[:, 2] = False
    evidence = replace(synthetic_evidence(layers, 600), allowed=allowed)
    study = Study(replace(synthetic_analysis(6), evidence=evidence))
    chosen = answer.decide(study, Policy(strategy="uniform"))

    check = found("Overflow", study, chosen)

    assert check.status == "failed"
    assert study.layers.names[2] in check.detail
    assert found("Overflow").status == "passed"
    assert "not finite" not in found("Other warnings", study, chosen).detail


def test_the_model_is_named_with_short_fingerprints() -> None:
    """Name, weights, data and scheme are there; without a fingerprint it is a warning."""
    assert found("Model").detail == (
        "synthetic, weights 000000000000, data 111111111111 (SHA-256), scheme ort-cpu."
    )
    analysis = STUDY.analysis
    bare = Study(replace(analysis, identity=replace(analysis.identity, weights_sha256="")))
    check = found("Model", bare, answer.decide(bare, Policy()))
    assert check.status == "warning"
    assert "weights n/a" in check.detail


def test_what_was_never_measured_is_a_warning() -> None:
    """Without evidence there is no confidence, no overflow test and no sample."""
    bare = Study(synthetic_analysis(28, measured=False))
    chosen = answer.decide(bare, POLICY)

    for title in ("Overflow", "Confidence", "Samples"):
        assert found(title, bare, chosen).status == "warning", title
    assert found("Confidence").status == "passed"


def test_few_samples_are_a_warning_said_once() -> None:
    """The limit is the projection's own, and the sentence does not come twice."""
    few = Study(synthetic_analysis(28, samples=499))
    chosen = answer.decide(few, POLICY)

    assert found("Samples", few, chosen).status == "warning"
    assert "499 selection samples" in found("Samples", few, chosen).detail
    assert "499" not in found("Other warnings", few, chosen).detail
    assert found("Samples").status == "passed"


def test_warnings_of_the_map_are_repeated() -> None:
    """What the figures warn of stands in the checklist; without warnings it passes."""
    check = found("Other warnings", warnings=("Mind the gap.",))
    assert check == Check("Other warnings", "warning", "Mind the gap.")
    assert found("Other warnings", warnings=()).status == "passed"


def test_many_names_are_shortened() -> None:
    """A thousand missing layers are counted, and a few are named."""
    check = found("Layers", chosen=_layers(STUDY.layers.names[0]))

    assert "27 missing layers" in check.detail
    assert check.detail.count("block.") == MAX_NAMED


def test_names_of_strangers_stay_on_one_line() -> None:
    """Control characters of a name reach no terminal."""
    study = named(f"{EVIL}\x1b[2J\n")
    chosen = answer.decide(study, Policy(strategy="uniform"))
    broken = replace(chosen, codes=np.full(3, 9, np.int8))

    detail = found("Precisions", study, broken).detail
    assert EVIL in detail
    assert detail.isprintable()


def test_the_command_line_notes_what_did_not_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export` writes warnings to stderr, each on a line, and keeps stdout for its answer."""
    analysis = synthetic_analysis(5, samples=20)
    study = Study(analysis)
    store.save(analysis, tmp_path / "a")
    (tmp_path / "map.json").write_bytes(
        precision_map.to_json(study, answer.decide(study, Policy(pins=(("ghost*", "FP16"),))))
    )
    target = tmp_path / "map.csv"

    code = main(["export", str(tmp_path / "a"), str(tmp_path / "map.json"), "--format=csv",
                 f"--out={target}", "--json"])  # fmt: skip

    out = capsys.readouterr()
    assert code == 0
    assert json.loads(out.out) == {"file": str(target), "format": "csv"}
    assert "quantscape: note: Samples: Only 20 selection samples" in out.err
    assert "No layer matches ghost*." in out.err
    assert all(line.startswith("quantscape: note: ") for line in out.err.splitlines())
