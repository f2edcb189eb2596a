"""The command line that gives a map again."""

from __future__ import annotations

import shlex

from core.decide.policy.allowed import format_allowed
from core.decide.policy.budget import BYS, format_budget, loss_by
from core.decide.policy.decision import BY_OVERRIDE, PrecisionMap
from core.decide.policy.policy import GOES_TO, Policy
from core.source import onnx_file

MAX_OVERRIDES = 20
"""A longer command is no help to a person; the map file holds the rest."""

FOLDER = "DIR"
MAP = "map.json"


def plan_command(chosen: PrecisionMap, folder: str = FOLDER) -> str | None:
    """A `plan` command that decides `chosen` again, or None where no command line can say it."""
    policy, default = chosen.policy, Policy()
    overrides = dict(policy.overrides)
    overrides |= {
        chosen.layers.names[i]: name
        for i, name in enumerate(chosen.assigned)
        if chosen.origin[i] == BY_OVERRIDE and name is not None
    }
    overrides = {name: p for name, p in overrides.items() if name in chosen.layers.index}
    rules = [*policy.pins, *overrides.items()]
    patterns = (*(pattern for pattern, _ in rules), *policy.groups)
    if len(overrides) > MAX_OVERRIDES or not all(_sayable(pattern) for pattern in patterns):
        return None
    words = ["python", "-m", "core", "plan", folder]

    def option(name: str, value: object, usual: object = None) -> None:
        if value != usual:
            # One word, so that a value which begins with a dash is not taken for an option.
            words.append(f"--{name}={value}")

    if policy.strategy == "budget":
        for budget in policy.budgets:
            option("budget", format_budget(budget))
        option("loss-by", loss_by(policy.budgets), BYS[0])
        option("minimise", policy.minimise)
        words += ["--labels"] if policy.target == "labels" else []
    else:
        option("strategy", policy.strategy, default.strategy)
    if policy.strategy == "top-k":
        option("top-k", policy.top_k)
    if policy.weights != default.weights:
        option("weights", ",".join(f"{name}={weight!r}" for name, weight in policy.weights))
    bounds = (policy.high_threshold, policy.medium_threshold)
    if bounds != (default.high_threshold, default.medium_threshold):
        option("thresholds", f"{bounds[0]!r},{bounds[1]!r}")
    option("allow", format_allowed(policy.allowed), "")
    for name in GOES_TO:
        option(name, getattr(policy, name), getattr(default, name))
    for pattern, precision in policy.pins:
        option("pin", f"{pattern}={precision}")
    for layer, precision in overrides.items():
        option("override", f"{layer}={precision}")
    for pattern in policy.groups:
        option("group", pattern)
    option("hardware", policy.hardware, default.hardware)
    return shlex.join([*words, "--out", MAP])


def file_commands(
    chosen: PrecisionMap, form: str, out: str, folder: str = FOLDER
) -> tuple[str, ...]:
    """Commands that write `chosen` as `out`; without a `plan` command they begin with map.json.

    Empty where that file is all there is.
    """
    planned = plan_command(chosen, folder)
    lines = () if planned is None else (planned,)
    if form == "json":
        return lines
    words = ["python", "-m", "core", "export", folder, MAP, "--format", form, "--out", out]
    return (*lines, shlex.join(words))


def analyze_command(source: str, *, expand_units: bool = False, folder: str = FOLDER) -> str:
    """An `analyze` command for `source`, which a stranger's file may have named."""
    named = source if source and source.isprintable() else "SOURCE"
    words = ["python", "-m", "core", "analyze", *onnx_file.words(named), "--out", folder]
    return shlex.join([*words, "--expand-units"] if expand_units else words)


def _sayable(pattern: str) -> bool:
    """Whether the command line reads `pattern` back as it is: commas part rules."""
    return pattern.isprintable() and pattern == pattern.strip() and "," not in pattern
