"""Frontiers made beside the page: they take seconds once, and sliders must not wait for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import streamlit as st

from core.decide.assess.compare import Cost
from core.decide.assess.frontier import Frontier, frontier, frontier_policy
from core.decide.policy.policy import Policy
from core.lru import LRU
from dashboard.session.studies import MANY_LAYERS, Opened

Key = tuple[str, Policy, Cost]


class _Frontiers:
    """Frontiers by what they depend on, made or in the making; one is made at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="frontier")
        self.made: LRU[Key, Future[Frontier]] = LRU(24, Future.cancel)

    def ask(self, opened: Opened, policy: Policy, axis: Cost) -> Future[Frontier]:
        """The frontier, made or in the making."""
        key = _key(opened, policy, axis)
        return self.made.get(key, lambda: self._pool.submit(frontier, opened.study, key[1], axis))


@st.cache_resource(show_spinner=False)
def _frontiers() -> _Frontiers:
    return _Frontiers()


def _key(opened: Opened, policy: Policy, axis: Cost) -> Key:
    return opened.key, frontier_policy(policy), axis


def is_quick(opened: Opened) -> bool:
    """Whether solving budgets takes seconds, not minutes."""
    return int(opened.study.layers.computes.sum()) <= MANY_LAYERS


def asked(opened: Opened, policy: Policy, axis: Cost) -> bool:
    """Whether the frontier is there, or in the making."""
    return is_quick(opened) or _key(opened, policy, axis) in _frontiers().made


def ready(opened: Opened, policy: Policy, axis: Cost, *, wanted: bool = False) -> Frontier | None:
    """The frontier under the rules of `policy`, or None while it is in the making.

    For a model with many layers it takes minutes, and is made only if `wanted`, or once it was.
    Raises what making it raised.
    """
    if opened.study.analysis.evidence is None:
        return None
    if not (wanted or is_quick(opened) or _key(opened, policy, axis) in _frontiers().made):
        return None
    found = _frontiers().ask(opened, policy, axis)
    return found.result() if found.done() else None
