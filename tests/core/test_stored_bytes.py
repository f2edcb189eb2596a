"""What a file holds, the size holds: tensors of built files against the planned bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import nn

from core.analysis.analysis import Analysis
from core.cli.tables import totals_table
from core.decide import answer
from core.decide.assess.outcome import outcome
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.report import assemble as reports
from core.export.report import markdown
from core.runtime.stored import stored_size
from core.source.contract import ModelSource
from core.source.inventory import take_inventory
from tests.core.runtime_case import Case, case_of
from tests.core.test_planned_is_built import check_size, planned
from tests.core.test_runtime_build import ZOO
from tests.zoo.sources import source_of
from tests.zoo.tables import Tables

onnx = pytest.importorskip("onnx")


def _tables() -> ModelSource:
    torch.manual_seed(0)
    return source_of(Tables(), (4, 8), name="tables", samples=16)


def _all_different(model: nn.Module) -> None:
    """No two tensors are equal: an exporter keeps equal ones once."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


TWICE = "tied embedding"
"""A table that a product reads transposed: the exporter stores both."""
OF_ZOO = (
    "several inputs",
    "inputs in a dict, a mask among them",
    "one module called several times",
)
SOURCES: dict[str, Callable[[], ModelSource]] = {
    "tables": _tables,
    **{name: ZOO[name] for name in (*OF_ZOO, TWICE)},
}
"""What does not stand side by side with other models (`test_planned_is_built` walks those)."""


@cache
def _case(name: str) -> Case:
    torch.manual_seed(1)
    source = SOURCES[name]()
    if name in ZOO:
        _all_different(source.model)
    return case_of(source)


@pytest.mark.parametrize("name", [n for n in SOURCES if n != TWICE])
@pytest.mark.slow
def test_a_file_holds_what_was_planned(name: str) -> None:
    """Tensors of the file are the planned bytes in every precision that is built."""
    case = _case(name)
    for precision in ("FP32", "FP16", "INT8"):
        check_size(case, case.built(case.uniform(precision)), precision)


def test_tensors_of_no_layer_are_counted_once() -> None:
    """Tables count whether they are saved or not and whatever they hold, and what nothing reads
    does not.
    """
    layers = take_inventory(_tables())
    table = 1200 * 8

    glue = {spec.name: (spec.size, spec.width) for spec in layers.glue_tensors}
    assert glue == {
        "scale": (8, 0), "saved": (table, 0), "unsaved": (table, 0), "order": (1200, 64),
        "plain": (table, 0),
    }  # fmt: skip
    assert {spec.name for spec in layers.unread_tensors} == {"unused.weight", "unused.bias"}
    assert layers.holds_all
    case = _case("tables")
    assert case.study.glue_bytes == 4 * (3 * table + 8) + 8 * 1200
    own = [spec.name for layer in layers for spec in layer.tensors]
    assert own.count("a.weight") == 1
    assert "again.weight" not in own


def test_budgets_and_shares_use_the_same_total() -> None:
    """A reduction is a share of all bytes of the FP32 file, the fixed part included."""
    case = _case("tables")
    full, small = planned(case, "FP32"), planned(case, "INT8")

    found = outcome(case.study, case.uniform("INT8"))

    assert found.totals["size_reduction_pct"].value == pytest.approx(100 * (1 - small / full))
    assert found.layer_bytes.sum() + found.glue_bytes == small
    assert small > case.study.glue_bytes > 0.9 * full


def test_an_integer_bias_has_a_scale_for_each_product_that_reads_it() -> None:
    """ONNX stores an int32 bias with a float32 scale and an int32 zero point per channel, once for
    each Conv or Gemm; what is added after a MatMul stays float32.
    """
    loop, flat = _case("one module called several times"), _case("tables")
    biases = {
        spec.name: (spec.size, spec.grids)
        for case in (loop, flat)
        for layer in case.analysis.layers
        for spec in layer.tensors
        if spec.kind == "bias"
    }

    assert biases["step.bias"] == (5, 15)
    assert biases["a.bias"] == (8, 0)  # [N, 4, 8] is no Gemm
    assert biases["last.bias"] == (3, 3)


def test_a_file_that_differs_says_both_sizes_and_its_largest_tensors() -> None:
    """A table that the exporter stores twice is in the sentence of `build`; sizes within the
    overhead of a graph are said without more.
    """
    twice, case = _case(TWICE), _case("tables")
    built = case.built(case.uniform("FP32"))
    again = twice.built(twice.uniform("FP32"))

    fine = stored_size(built, planned(case, "FP32"))
    apart = stored_size(again, planned(twice, "FP32") // 4)

    assert fine.as_planned
    assert f"{fine.tensors:,} bytes" in fine.in_words()
    assert "differ" not in fine.in_words()
    assert not apart.as_planned
    assert f"{apart.tensors - apart.planned:+,} bytes" in apart.in_words()
    assert apart.largest[0][0] in apart.in_words()


def test_the_fixed_part_is_a_row_of_its_own_and_unknown_in_older_folders(
    tiny_analysis: Analysis,
) -> None:
    """Reports and the command line show what belongs to no layer, as n/a where an analysis of an
    older version did not count all of it.
    """
    old = replace(tiny_analysis, layers=replace(tiny_analysis.layers, holds_all=False))
    fixed = 64  # the class token of 16 values

    def shown(analysis: Analysis) -> tuple[str, str]:
        study = Study(analysis)
        chosen = answer.decide(study, Policy())
        report = markdown.render(reports.build(study, chosen))
        wide = Console(width=200, file=StringIO())
        wide.print(totals_table(study, outcome(study, chosen), chosen.policy.hardware))
        printed = wide.file.getvalue()  # type: ignore[attr-defined]
        return (
            next(line for line in report.splitlines() if "of it in no layer" in line),
            next(line for line in printed.splitlines() if "in no layer" in line),
        )

    assert all(str(fixed) in line for line in shown(tiny_analysis))
    assert all("n/a" in line and str(fixed) not in line for line in shown(old))
