"""The commands that a report prints."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cli.commands import policy_from
from core.cli.main import parser
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map.reproduce import MAX_OVERRIDES, analyze_command, plan_command
from core.export.report.markdown import to_markdown
from tests.core.synthetic import synthetic_analysis

SYNTHETIC = Study(synthetic_analysis(28))


@settings(max_examples=200, deadline=None)
@given(
    strategy=st.sampled_from(["thresholds", "top-k", "uniform", "manual"]),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    weight=st.floats(0.001, 10),
    top_k=st.integers(0, 40),
    levels=st.tuples(*[st.sampled_from(["FP32", "FP16", "INT8"])] * 4),
    pins=st.lists(st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(["FP32", "INT8"])), max_size=3),
    hand=st.lists(st.sampled_from(SYNTHETIC.layers.names), max_size=3, unique=True),
)  # fmt: skip
@pytest.mark.slow
def test_the_command_gives_the_map_again(
    strategy: Any, bounds: tuple[float, float], weight: float, top_k: int,
    levels: tuple[str, ...], pins: list[tuple[str, str]], hand: list[str],
) -> None:  # fmt: skip
    """The `plan` command of a report, typed into a shell, decides the same precisions."""
    medium, high = sorted(bounds)
    policy = Policy(
        strategy=strategy, high_threshold=high, medium_threshold=medium, top_k=top_k,
        weights=(("theory", weight), ("output_error", 1.0)), high=levels[0], medium=levels[1],
        low=levels[2], uniform=levels[3], pins=tuple(pins),
        overrides=tuple((name, "FP32") for name in hand), hardware="datacenter-gpu-t4",
    )  # fmt: skip
    chosen = answer.decide(SYNTHETIC, policy)
    command = plan_command(chosen)
    if command is None:
        assert any("," in p or not p.isprintable() or p != p.strip() for p, _ in pins)
        return
    typed = parser().parse_args(shlex.split(command)[3:])
    again = answer.decide(SYNTHETIC, policy_from(typed, SYNTHETIC.default_policy))

    assert again.assigned == chosen.assigned
    assert again.policy.hardware == policy.hardware


def test_what_no_command_can_say_is_said_in_words() -> None:
    """With too many layers set by hand the report points to the file."""
    names = [n for n, c in zip(SYNTHETIC.layers.names, SYNTHETIC.layers.computes, strict=True) if c]
    chosen = answer.decide(
        SYNTHETIC, Policy(overrides=tuple((n, "FP32") for n in names[: MAX_OVERRIDES + 1]))
    )
    assert plan_command(chosen) is None
    assert b"no command line can say" in to_markdown(SYNTHETIC, chosen)


def test_commands_of_strangers_run_nothing() -> None:
    """A source named by a file is quoted."""
    assert shlex.split(analyze_command("x; rm -rf ~"))[4] == "x; rm -rf ~"
    assert analyze_command("a\nb").startswith("python -m core analyze SOURCE ")
