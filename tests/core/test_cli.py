"""The command line: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.analysis import store
from core.analysis.analysis import Analysis
from core.cli.main import main, parser
from core.evidence.options import PROBES
from core.numerics import precision as registry
from core.source import samples
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tiny_analysis: Analysis, tmp_path: Path) -> str:
    """A written analysis folder."""
    store.save(tiny_analysis, tmp_path / "analysis")
    return str(tmp_path / "analysis")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_help_names_every_command() -> None:
    """`python -m core --help` works as a person would call it and has a line for each command."""
    done = subprocess.run(
        [sys.executable, "-m", "core", "--help"], cwd=REPOSITORY, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    (commands,) = (a.choices for a in parser()._actions if a.choices and a.dest != "help")
    assert re.findall(r"^    ([a-z]+) +[a-z]", done.stdout, re.MULTILINE) == list(commands or ())


def test_the_installed_command_is_the_same_program() -> None:
    """`quantscape` is installed beside Python and prints its version."""
    script = Path(sys.executable).parent / "quantscape"
    if not script.exists():
        pytest.skip("not installed into this environment; `make setup` does it")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("quantscape ")


def test_samples_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`samples` lists the Informer, for people and for programs."""
    code, out, _ = _run(capsys, "samples")
    assert code == 0
    assert "sample:informer" in out

    code, out, _ = _run(capsys, "samples", "--json")
    assert code == 0
    assert "sample:informer" in {row["source"] for row in json.loads(out)}


def test_plan_show_export_walk_the_road(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A planned map is shown and exported with the same layers and totals."""
    path = str(tmp_path / "map.json")
    code, out, _ = _run(capsys, "plan", folder, "--out", path, "--json", "--pin", "head*=FP32",
                        "--thresholds", "0.8,0.3", "--weights", "theory=1,output_error=1",
                        "--medium", "fp16", "--hardware", "datacenter-gpu-t4")  # fmt: skip
    planned = json.loads(out)
    assert code == 0
    assert planned["policy"]["high_threshold"] == 0.8
    by_name = {row["name"]: row for row in planned["layers"]}
    assert by_name["head"]["precision"] == "FP32"
    assert by_name["blocks.0.dropout"]["precision"] is None
    assert by_name["blocks.0.dropout"]["document_precision"] in {"INT8", "FP16"}

    code, out, _ = _run(capsys, "show", folder, path, "--json")
    assert code == 0
    assert json.loads(out)["layers"] == planned["layers"]
    assert json.loads(out)["totals"] == planned["totals"]

    for form in ("json", "csv"):
        target = tmp_path / f"copy.{form}"
        code, _, _ = _run(capsys, "export", folder, path, "--format", form, "--out", str(target))
        assert code == 0
        assert target.stat().st_size > 0
    assert (tmp_path / "copy.json").read_bytes() == Path(path).read_bytes()


def test_show_prints_tables_for_people(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a map `show` prints layers, statistics and totals with kinds and ranges."""
    code, out, _ = _run(capsys, "show", folder)

    assert code == 0
    for text in ("blocks.0.attention", "quantizable", "tensor bytes", "exact", "projected"):
        assert text in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--strategy", "uniform", "--uniform", "FP16"), {"FP16"}),
        (("--top-k", "3", "--high", "FP32"), {"FP32", "INT8"}),
        (("--strategy", "thresholds", "--low", "FP32", "--medium", "FP32"), {"FP32", "FP16"}),
        (("--strategy", "manual", "--high", "FP32", "--override", "embed=INT8"), {"FP32", "INT8"}),
    ],
)
def test_strategies_of_plan(
    options: tuple[str, ...], expected: set[str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each strategy uses exactly the precisions it should."""
    code, out, _ = _run(capsys, "plan", folder, "--json", *options)

    assert code == 0
    used = {row["precision"] for row in json.loads(out)["layers"]} - {None}
    assert used == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "{}", "--weights", "magic=1"), "Unknown scorer 'magic'"),
        (("plan", "{}", "--weights", "theory=x"), "not NAME=NUMBER"),
        (("plan", "{}", "--thresholds", "0.4"), "not two numbers"),
        (("plan", "{}", "--thresholds", "0.2,0.9"), "lies above"),
        (("plan", "{}", "--medium", "INT3"), "Unknown precision 'INT3'"),
        (("plan", "{}", "--pin", "head"), "not LAYER=PRECISION"),
        (("plan", "{}", "--override", "ghost=INT8"), "No layer is called 'ghost'"),
        (("plan", "{}", "--strategy", "top-k"), "needs --top-k"),
        (("plan", "{}", "--hardware", "abacus"), "Unknown hardware"),
        (("plan", "{}", "--out", "/nowhere/at/all/map.json"), "cannot be written"),
        (("plan", "/nowhere"), "does not exist"),
        (("show", "{}", "/nowhere/map.json"), "cannot be read"),
        (("compare", "{}", "all-int8"), "Compare 2 to 8 maps"),
        (("compare", "{}", *["all-int8"] * 9), "9 maps given"),
        (("compare", "{}", "all-int8", "nope"), "neither a map file nor a built-in name"),
        (("compare", "{}", "all-int8", "nope.json"), "cannot be read"),
        (("compare", "{}", "all-int8", "document", "--reference", "3"), "not among the maps"),
        (("compare", "{}", "all-int8", "document", "--hardware", "abacus"), "Unknown hardware"),
        (("report", "{}", "/nowhere/map.json"), "cannot be read"),
        (("analyze", "sample:ghost", "--out", "x"), "no sample 'ghost'"),
        (("analyze", "model.pt", "--out", "x"), "is no source"),
        (("analyze", "sample:informer"), "No folder to write to"),
    ],
)
def test_bad_requests_exit_with_2_and_one_line(
    arguments: tuple[str, ...], message: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every refusal is one line on stderr that names the cause, with exit code 2."""
    code, out, err = _run(capsys, *(a.replace("{}", folder) for a in arguments))

    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command is a usage error."""
    with pytest.raises(SystemExit) as caught:
        main(["guess"])

    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_an_unexpected_failure_exits_with_1(
    folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect of the program is no fault of the input: exit code 1, with the traceback logged."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("core.decide.answer.decide", fail)

    assert main(["show", folder]) == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_pin_that_matches_nothing_is_noted(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wildcard without a match is no error, but it is said."""
    code, _, err = _run(capsys, "plan", folder, "--json", "--pin", "ghost*=FP32")

    assert code == 0
    assert "no layer matches 'ghost*'" in err


@pytest.mark.slow
def test_a_persons_own_prices_run_through_the_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--csv` takes the person's bars: fewer rows give fewer windows, and the cost follows."""
    from sample_models.informer.market import generate_market

    path = tmp_path / "mine.csv"
    generate_market(1_500, seed=3).bars.to_csv(path, index=False)

    code, out, err = _run(
        capsys, "analyze", "sample:informer", "--csv", str(path), "--dry-run", "--json"
    )

    assert code == 0, err
    assert 64 <= json.loads(out)["samples"] < 1_500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "open"),
        ("open,high,low,close,volume\n1,2,1,lots,5\n", "close"),
        ("", "empty"),
    ],
)
def test_a_csv_of_nonsense_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad columns, text in numbers and empty files are one clear line with exit code 2."""
    path = tmp_path / "mine.csv"
    path.write_text(text)

    code, _, err = _run(capsys, "analyze", "sample:informer", "--csv", str(path), "--dry-run")

    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_dry_run_counts_and_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run prints layers, predicted time, and a pass for the baseline, for every precision of
    each computing layer and of the whole, and for every probe; it leaves no folder. Weights by
    groups are measured where a layer has such.
    """
    layers = store.load(samples.get("digits_vit").analysis).layers
    out_dir = tmp_path / "a"
    for options, precisions in ((("--precisions", "int8"), 1), ((), 3)):
        code, out, err = _run(
            capsys, "analyze", "sample:digits_vit", "--out", str(out_dir), "--dry-run", "--json",
            *options,
        )  # fmt: skip

        assert code == 0, err
        plan = json.loads(out)
        assert plan["layers"] == len(layers)
        in_groups = (
            0 if options else 1 + 5 * 2 + 1
        )  # attention, feed-forward, the head; all at once
        expected = 1 + precisions * (int(layers.computes.sum()) + 1) + in_groups + PROBES
        assert plan["runs"] == expected
        assert plan["predicted_seconds"] > 0
        added = plan["adds_seconds"]
        assert set(added) == ({"INT8"} if options else set(registry.FIRST_VISIT))
        assert 0 < sum(added.values()) < plan["predicted_seconds"]
        assert options or added["INT4-g32"] < added["INT8"]  # it means something for fewer layers
    assert not out_dir.exists()


@pytest.mark.parametrize(("text", "message"), [
    ("int4", "Unknown precision 'int4'"), ("fp32", "leaves nothing to measure"),
])  # fmt: skip
def test_precisions_to_measure_are_checked(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown precision, or the reference alone, is refused with the names that there are."""
    code, _, err = _run(capsys, "analyze", "sample:digits_vit", "--dry-run", "--precisions", text)

    assert code == 2
    assert message in err
    assert "BF16" in err
