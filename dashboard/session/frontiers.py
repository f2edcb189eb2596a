"""Frontiers made beside the page: they take seconds once, and sliders must not wait for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import streamlit as st

from core.decide.assess.compare import Cost
from core.decide.assess.frontier import Frontier, frontier, frontier_policy
from core.decide.policy.policy import Policy
from dashboard.session.studies import MANY_LAYERS, Opened

MOST = 24


class _FrontierCache:
    """Frontiers by what they depend on; one is made at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="frontier")
        self._made: dict[tuple[str, Policy, Cost], Future[Frontier]] = {}

    def knows(self, opened: Opened, policy: Policy, axis: Cost) -> bool:
        """Whether the frontier was asked for."""
        return (opened.key, frontier_policy(policy), axis) in self._made

    def ask(self, opened: Opened, policy: Policy, axis: Cost) -> Future[Frontier]:
        """The frontier, made or in the making."""
        key = (opened.key, frontier_policy(policy), axis)
        if key not in self._made:
            while len(self._made) >= MOST:
                self._made.pop(next(iter(self._made))).cancel()
            self._made[key] = self._pool.submit(frontier, opened.study, key[1], axis)
        return self._made[key]


@st.cache_resource(show_spinner=False)
def _frontier_cache() -> _FrontierCache:
    return _FrontierCache()


def is_quick(opened: Opened) -> bool:
    """Whether solving budgets takes seconds, not minutes."""
    return int(opened.study.layers.computes.sum()) <= MANY_LAYERS


def asked(opened: Opened, policy: Policy, axis: Cost) -> bool:
    """Whether the frontier is there, or in the making."""
    return is_quick(opened) or _frontier_cache().knows(opened, policy, axis)


def ready(opened: Opened, policy: Policy, axis: Cost, *, wanted: bool = False) -> Frontier | None:
    """The frontier under the rules of `policy`, or None while it is in the making.

    For a model with many layers it takes minutes, and is made only if `wanted`, or once it was.
    Raises what making it raised.
    """
    if opened.study.analysis.evidence is None:
        return None
    if not (wanted or is_quick(opened) or _frontier_cache().knows(opened, policy, axis)):
        return None
    found = _frontier_cache().ask(opened, policy, axis)
    return found.result() if found.done() else None
