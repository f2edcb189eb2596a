"""The rules of thumb of the sensitivity method, read from `priors.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("theory", "importance", "empirical")


@cache
def table() -> dict[str, Any]:
    """The parsed file: tiers, theory, importance and empirical entries by role."""
    return tomllib.loads(files("core.evidence.scorers").joinpath("priors.toml").read_text("utf-8"))


@cache
def scores(kind: str) -> dict[str, float]:
    """Role -> score in [0, 1], higher = more sensitive.

    Tiers become their values; importance is the weight divided by the largest weight (0.35).
    """
    data = table()
    if kind == "importance":
        largest = max(entry["weight"] for entry in data["importance"].values())
        return {role: entry["weight"] / largest for role, entry in data["importance"].items()}
    return {role: data["tiers"][entry["tier"]] for role, entry in data[kind].items()}


def score_roles(kind: str, roles: Sequence[str]) -> NDArray[np.float64]:
    """Scores of `roles` under prior `kind`, shape (L,)."""
    by_role = scores(kind)
    return np.array([by_role[role] for role in roles], dtype=np.float64)


def reason(role: str) -> str:
    """Why the method rates `role` as it does, in one clause."""
    return str(table()["theory"][role]["reason"])
