"""What is said beside a control that changes nothing, against moving it over all its places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.policy.scoring import LOW
from core.decide.study import Study
from core.evidence.scorers import SCORERS
from core.layers import LayerTable
from core.source import samples
from dashboard.session import idle
from dashboard.session.budget_controls import AXIS_OF, budget_ends
from dashboard.session.control import Value
from dashboard.session.controls import controls, movable_layers, to_policy, weight_key
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open, failures, said

ALL_INT8 = {"high": "INT8", "medium": "INT8", "low": "INT8"}
CASES: list[dict[str, Value]] = [
    {},
    {"high": "FP16", "medium": "FP16", "low": "INT8"},
    {"high": "FP16", "medium": "INT8", "low": "FP32"},
    {"high_at": 1.0, "medium_at": 1.0, "high": "FP32", "medium": "FP16"},
    {**ALL_INT8},
    {"pins": "*=FP16"},
    {"overrides": "block.0.attention=FP16"},
    {"w_importance": 0.0, "w_empirical": 0.0},
    {"strategy": "top-k", "k": 0},
    {"strategy": "top-k", "k": 2},
    {"strategy": "top-k", "k": 1_000},
    {"strategy": "top-k", **ALL_INT8},
    {"strategy": "top-k", "pins": "*=INT8"},
    {"strategy": "top-k", "w_importance": 0.0, "w_empirical": 0.0, "k": 2},
    {"strategy": "uniform"},
    {"strategy": "uniform", "pins": "*=INT8"},
    {"strategy": "manual", "groups": "block.*"},
    {"strategy": "manual", "pins": "*=INT8"},
    {"strategy": "size budget"},
    {"strategy": "size budget", "pins": "*=INT8"},
    {"strategy": "size budget", "also": "size=0.9"},
    {"strategy": "latency budget"},
    {"strategy": "loss budget"},
]


@cache
def _study() -> Study:
    return Study(synthetic_analysis(8, samples=20))


def _shown(values: dict[str, Value]) -> Any:
    study = _study()
    policy, problems = to_policy(values, Policy(), study)
    assert not problems
    chosen = answer.decide(study, policy)
    return SimpleNamespace(
        study=study, policy=policy, now=SimpleNamespace(chosen=chosen), unkept=None
    )


def _places(key: str, values: dict[str, Value], shown: Any) -> Iterator[Value]:
    """Where the control `key` can be moved to: a threshold with a reason only as far as it does not
    take the other one along.
    """
    if key == "k":
        yield from range(movable_layers(shown.study) + 1)
    elif key in {"high_at", "medium_at"}:
        idle_there = key in idle.reasons(shown, values)
        least = values["medium_at"] if idle_there and key == "high_at" else 0.0
        most = values["high_at"] if idle_there and key == "medium_at" else 1.0
        yield from np.linspace(float(least), float(most), 41).tolist()
    elif key.startswith("w_"):
        yield from (0.05, 0.3, 0.7, 1.0)
    elif key.endswith("_at"):
        axis = AXIS_OF[str(values["strategy"])]
        yield from np.linspace(*budget_ends(shown.study, shown.policy, axis), 9).tolist()
    else:
        yield from shown.study.precisions


def _changes(key: str, values: dict[str, Value], shown: Any) -> bool:
    def at(place: Value) -> Any:
        other = {"high_at": "medium_at", "medium_at": "high_at"}.get(key)
        pushed = min if key == "high_at" else max
        beside = {} if other is None else {other: pushed(float(values[other]), float(place))}
        return _shown({**values, **beside, key: place}).now.chosen.codes

    places = _places(key, values, shown)
    return any((at(place) != shown.now.chosen.codes).any() for place in places)


@pytest.mark.parametrize("case", CASES, ids=[str(case) for case in CASES])
def test_a_control_says_that_it_changes_nothing_where_that_is_so(case: dict[str, Value]) -> None:
    """Moved over all its places, a control with a reason beside it changes no layer, and one
    without changes some; scorer weights with a reason change none.
    """
    known = controls(_study())
    values = {key: control.default for key, control in known.items()} | case
    values["k"] = min(int(values["k"]), movable_layers(_study()))
    shown = _shown(values)

    why = idle.reasons(shown, values)

    for key in (key for key in idle.STEERS[str(values["strategy"])] if key != idle.WEIGHTS):
        assert _changes(key, values, shown) != (key in why), (key, why)
    for key in map(weight_key, SCORERS):
        if key in why or (idle.WEIGHTS in why and key.removeprefix("w_") in shown.study.scores):
            assert "n/a" in why.get(key, "") or not _changes(key, values, shown), (key, why)


def test_a_scorer_that_tells_no_layers_apart_changes_no_order() -> None:
    """Where all layers have one role, its score is one for all, and top-k does not hear of it."""
    layers = tuple(replace(layer, role="linear") for layer in _study().layers.layers)
    study = Study(replace(synthetic_analysis(8, samples=20), layers=LayerTable(layers)))
    values = {key: control.default for key, control in controls(study).items()}
    values |= {"strategy": "top-k"}
    policy, _ = to_policy(values, Policy(), study)
    chosen = answer.decide(study, policy)
    shown: Any = SimpleNamespace(
        study=study, policy=policy, now=SimpleNamespace(chosen=chosen), unkept=None
    )

    assert "changes no order" in idle.reasons(shown, values)["w_theory"]


def test_a_level_whose_layers_wait_is_said_to_have_some() -> None:
    """Where what LOW goes to means nothing for the one layer that is LOW, it waits in FP32, and
    sending LOW elsewhere moves it: nothing says that no layer is LOW.
    """
    study = Study(store.load(samples.get("digits_vit").analysis))
    values = {key: control.default for key, control in controls(study).items()}
    values |= {"low": "INT4-g32"}
    policy, _ = to_policy(values, Policy(), study)
    chosen = answer.decide(study, policy)
    low = [i for i in np.flatnonzero(study.layers.computes) if chosen.levels[i] == LOW]
    shown: Any = SimpleNamespace(
        study=study, policy=policy, now=SimpleNamespace(chosen=chosen), unkept=None
    )

    assert low
    assert {chosen.assigned[i] for i in low} == {"FP32"}
    assert "low" not in idle.reasons(shown, values)


def test_reasons_stand_beside_their_controls(open_app: Open) -> None:
    """The next thing below a slider that changes nothing says why; below one that does, nothing."""
    app = open_app("measured")
    below = list(app.sidebar)

    def next_to(key: str) -> str:
        place = next(i for i, one in enumerate(below) if getattr(one, "key", None) == key)
        return str(getattr(below[place + 1], "value", ""))

    assert next_to("medium_at") == "MEDIUM and LOW go to INT8: no layer changes between them."
    assert "no layer" not in next_to("high_at")
    app.pills(key="strategy").set_value("uniform").run()
    assert "Scores decide nothing under uniform." in said(app)
    assert failures(app) == []
