"""Analyses of one precision: everything that decides answers with what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.analysis import store
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide.policy.policy import Policy, default_policy
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from tests.zoo.sources import tiny_source

PLANS = (
    (), ("--top-k", "3"), ("--strategy", "uniform"), ("--strategy", "manual"),
    ("--budget", "size=0.9"), ("--budget", "loss=5", "--stability", "--certify", "1"),
)  # fmt: skip


@pytest.fixture(scope="module", params=["INT8", "BF16"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis that holds one precision beside the reference."""
    target = tmp_path_factory.mktemp(request.param) / "analysis"
    options = MeasureOptions(precisions=(registry.get(request.param),), probes=2)
    store.save(analyze(tiny_source(), options), target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("options", PLANS, ids=" ".join)
def test_one_precision_is_enough_for_every_command(
    options: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plans, budgets, comparisons, reports and files need no precision that was not measured."""
    home, map_ = folder.parent, str(folder.parent / "map.json")
    assert main(["plan", str(folder), *options, "--out", map_]) == 0, capsys.readouterr().err
    first = json.loads(Path(map_).read_text())["layers"][0]["name"]
    of_no_map = [[word, str(folder)] for word in ("show", "frontier") if not options]
    for words in (
        *of_no_map,
        ["show", str(folder), map_],
        ["compare", str(folder), map_, "all-fp32", "top-k-50"],
        ["explain", str(folder), map_, first],
        ["report", str(folder), map_],
        ["export", str(folder), map_, "--format", "html", "--out", str(home / "html")],
        ["export", str(folder), map_, "--format", "torchao", "--nearest", "--out", str(home / "t")],
    ):
        code = main(words)
        assert code == 0, (words, capsys.readouterr().err)


def test_what_was_not_measured_gives_way_to_what_is_as_wide() -> None:
    """The document's precisions are kept where they were measured; else the narrowest that is as
    wide stands in, the reference if none is.
    """

    def of(*measured: str) -> tuple[str, str, str, str]:
        found = default_policy(("FP32", *measured), Policy().hardware)
        return found.high, found.medium, found.low, found.uniform

    assert of("FP16", "INT8") == ("FP16", "INT8", "INT8", "INT8")
    assert of("INT8") == ("FP32", "INT8", "INT8", "INT8")
    assert of("FP16") == ("FP16", "FP16", "FP16", "FP16")
    assert of("BF16", "INT8") == ("BF16", "INT8", "INT8", "INT8")
    assert of() == ("FP32",) * 4


@pytest.mark.slow
def test_a_precision_that_is_named_must_be_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person asks for by name is refused, not replaced."""
    missing = "FP16" if folder.parent.name.startswith("INT8") else "INT8"

    assert main(["plan", str(folder), "--high", missing]) == 2
    assert f"no evidence for {missing}" in capsys.readouterr().err
