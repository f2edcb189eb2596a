"""Analyses that this dashboard was started with, and what they cost to ask, cached."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from core.analysis import store
from core.decide import answer
from core.decide.advise.advice import Recommendation, recommendations
from core.decide.advise.document import DocumentComparison, comparisons
from core.decide.assess.by_scorer import Trusted, trusting
from core.decide.assess.curves import CurvePoint, sweep_policy, threshold_curve
from core.decide.assess.layer_effect import LayerEffect, layer_effect
from core.decide.assess.outcome import Outcome, outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.stability import budget_stability
from core.decide.stability.resampling import Stability
from core.decide.study import Study
from core.errors import AnalysisError, PolicyError
from core.evidence.diagnose.agreement import Agreement, agreements
from core.evidence.evidence import Partial
from core.jobs import job_folder
from core.source import samples
from dashboard import FOLDERS_VARIABLE
from dashboard.session.give_way import give_way

MANY_LAYERS = 400
FIRST_SAMPLE = "informer"
"""The sample that opens when nothing is named at launch."""

POLICIES: dict[str | type[Any], Callable[[Any], Any]] = {
    Policy: repr
}  # Streamlit would pickle a slotted dataclass field by field


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One analysis on offer: the name in the link, and where it lies."""

    name: str
    folder: Path


@dataclass(frozen=True, eq=False, slots=True)
class Opened:
    """A study with the key under which its results are cached."""

    name: str
    key: str
    study: Study


def entries() -> dict[str, ModelEntry]:
    """Analyses on offer by name: named at launch, bundled, and measured by jobs, in this order."""
    named = [Path(text) for text in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if text]
    names = sorted(samples.names(), key=lambda name: name != FIRST_SAMPLE)
    bundled = [samples.get(name) for name in names]
    measured = [(folder.parent.name, folder) for folder in job_folder.analyses()]
    found: dict[str, ModelEntry] = {}
    for stem, folder in (
        [(p.name, p) for p in named] + [(s.name, s.analysis) for s in bundled] + measured
    ):
        if folder not in named and not folder.exists():
            continue  # a sample whose analysis was not shipped
        name, count = stem, 2
        while name in found:
            name, count = f"{stem}-{count}", count + 1
        found[name] = ModelEntry(name, folder)
    if not found:
        raise AnalysisError(
            "There is no analysis to show.",
            "Write one with `python -m core analyze sample:informer --out DIR`, then start "
            "`python -m dashboard DIR`.",
        )
    return found


def open_entry(entry: ModelEntry) -> Opened:
    """The study of `entry`, read again when its file changes. Raises `AnalysisError`."""
    stamp = store.stamp(entry.folder)
    key = f"{entry.folder.resolve()}@{stamp[0]}.{stamp[1]}"
    return Opened(entry.name, key, _study(str(entry.folder), stamp))


@st.cache_resource(max_entries=4, show_spinner=False)
def _study(folder: str, stamp: tuple[int, int]) -> Study:
    return Study(store.load(Path(folder)))


class OnDisk(NamedTuple):
    """What a page shows of the folders: analyses on offer, jobs, and whether the one on screen is
    whole, with its stamp. A partial one has none: it changes as long as it is measured.
    """

    models: tuple[str, ...]
    jobs: tuple[str, ...]
    whole: bool
    stamp: tuple[int, int] | None


def on_disk(entry: ModelEntry) -> OnDisk:
    """The folders as they are now; cheap enough to be asked every few seconds."""
    whole = partial_of(entry.folder) is None
    return OnDisk(
        tuple(entries()),
        job_folder.names(),
        whole,
        store.stamp(entry.folder) if whole else None,
    )


def partial_of(folder: Path) -> Partial | None:
    """How far the measurement of an analysis was; None for a whole one."""
    return _partial(str(folder), store.stamp(folder))


@st.cache_data(max_entries=64, show_spinner=False)
def _partial(folder: str, stamp: tuple[int, int]) -> Partial | None:
    return store.partial_of(Path(folder))


@st.cache_resource(max_entries=512, show_spinner=False, hash_funcs=POLICIES)
def _priced(key: str, policy: Policy, _study: Study) -> tuple[PrecisionMap, Outcome]:
    chosen = answer.decide(_study, policy)
    return chosen, outcome(_study, chosen)


def priced(opened: Opened, policy: Policy) -> tuple[PrecisionMap, Outcome]:
    """The map of `policy` and its figures. Raises `PolicyError`."""
    return _priced(opened.key, policy, opened.study)


def priced_on(opened: Opened, policy: Policy, hardware: str) -> tuple[PrecisionMap, Outcome]:
    """The map of `policy` priced on another device: figures of two devices cannot be compared."""
    return priced(opened, replace(policy, hardware=hardware))


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _curve(key: str, policy: Policy, _study: Study) -> tuple[CurvePoint, ...]:
    return threshold_curve(_study, policy)


def curve(opened: Opened, policy: Policy) -> tuple[CurvePoint, ...]:
    """The sweep of the high threshold, redrawn only when what it depends on changes."""
    return _curve(opened.key, sweep_policy(policy), opened.study)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _recommended(key: str, policy: Policy, _study: Study) -> tuple[Recommendation, ...]:
    return recommendations(_study, policy)


def recommended(opened: Opened, policy: Policy) -> tuple[Recommendation, ...]:
    """Recommended strategies; they depend on weights, precisions, what is allowed and hardware."""
    asked = replace(
        opened.study.default_policy, weights=policy.weights, high=policy.high, low=policy.low,
        hardware=policy.hardware, allowed=policy.allowed,
    )  # fmt: skip
    return _recommended(opened.key, asked, opened.study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _compared(key: str, hardware: str, _study: Study) -> tuple[DocumentComparison, ...]:
    return comparisons(_study, hardware)


def compared(opened: Opened, hardware: str) -> tuple[DocumentComparison, ...]:
    """The document's figures beside the recomputed ones."""
    return _compared(opened.key, hardware, opened.study)


@st.cache_resource(max_entries=8, show_spinner=False)
def _agreed(key: str, _study: Study) -> tuple[Agreement, ...]:
    return agreements(_study.scores, _study.layers.computes)


def agreed(opened: Opened) -> tuple[Agreement, ...]:
    """Rank agreement of every score with the measured output error."""
    return _agreed(opened.key, opened.study)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _stability(key: str, policy: Policy, _study: Study) -> Stability:
    return answer.stability(_study, policy)


def stability(opened: Opened, policy: Policy) -> Stability:
    """How often `policy` gives each layer each precision when the samples are drawn again.

    For a budget this takes seconds: see `resampled_already`.
    """
    return _stability(opened.key, _on_any_device(policy), opened.study)


def resampled_already(opened: Opened, policy: Policy) -> bool:
    """Whether `stability` answers at once."""
    return policy.strategy != "budget" or budget_stability.is_kept(opened.study, policy)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _trusted(key: str, policy: Policy, _study: Study) -> tuple[Trusted, ...]:
    return trusting(_study, answer.decide(_study, policy))


def trusted(opened: Opened, policy: Policy) -> tuple[Trusted, ...]:
    """The layers that change if one scorer is trusted alone, for every scorer with scores."""
    return _trusted(opened.key, _on_any_device(policy), opened.study)


def _on_any_device(policy: Policy) -> Policy:
    """`policy` without its device, which changes no precision unless a budget is solved on it."""
    return policy if policy.strategy == "budget" else replace(policy, hardware=Policy().hardware)


@st.cache_resource(max_entries=64, show_spinner=False)
def _effect(
    key: str, layer: str, precision: str, hardware: str, _study: Study
) -> LayerEffect | None:
    return layer_effect(_study, layer, precision, hardware)


def effect(opened: Opened, layer: str, precision: str, hardware: str) -> LayerEffect | None:
    """What `layer` in `precision` does to the whole; None where it does nothing at inference."""
    return _effect(opened.key, layer, precision, hardware, opened.study)


def fallback(opened: Opened, policy: Policy) -> Policy:
    """A policy that this analysis can answer: `policy`, the default, or all in the reference, on
    the device of `policy`.
    """
    uniform = Policy("uniform", uniform=opened.study.precisions[0], hardware=policy.hardware)
    default = replace(opened.study.default_policy, hardware=policy.hardware)
    for candidate in (policy, default, uniform):
        try:
            answer.decide(opened.study, candidate, give_way)
        except PolicyError:
            continue
        return candidate
    return uniform
