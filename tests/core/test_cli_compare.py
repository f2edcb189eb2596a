"""The command line on several maps, and on reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.analysis import store
from core.cli.main import main
from core.decide.policy.names import unique_names
from tests.core.hostile import named
from tests.core.synthetic import synthetic_analysis


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A written analysis folder."""
    store.save(synthetic_analysis(28), tmp_path / "analysis")
    return str(tmp_path / "analysis")


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_compare_puts_maps_side_by_side(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files and built-in names, named by their stems, with differences from the reference."""
    paths = [str(tmp_path / name / "map.json") for name in ("a", "b")]
    for path, uniform in zip(paths, ("FP16", "INT8"), strict=True):
        Path(path).parent.mkdir()
        assert _run(capsys, "plan", folder, "--strategy", "uniform", "--uniform", uniform,
                    "--out", path)[0] == 0  # fmt: skip

    code, out, _ = _run(capsys, "compare", folder, *paths, "all-fp32", "--json",
                        "--reference", "3")  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert [s["name"] for s in found["strategies"]] == ["map", "map-2", "all-fp32"]
    assert found["reference"] == "all-fp32"
    for s in found["strategies"]:
        change = s["against_reference"]["size_bytes"]["change"]
        base = found["strategies"][2]["totals"]["size_bytes"]["value"]
        assert change == s["totals"]["size_bytes"]["value"] - base
    assert found["layers"][0]["precisions"] == {"map": "FP16", "map-2": "INT8", "all-fp32": "FP32"}

    code, out, _ = _run(capsys, "compare", folder, *paths, "document", "--reference", paths[1])
    assert code == 0
    for text in ("Against map-2", "Layers that differ", "in all", "exact", "layers differ"):
        assert text in out


def test_compare_says_when_maps_are_the_same(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same map twice gets two names and one sentence in place of a table."""
    code, out, _ = _run(capsys, "compare", folder, "all-int8", "all-int8")

    assert code == 0
    assert "all-int8 and all-int8-2 are the same map." in out
    assert "The strategies give the same map." in out
    assert "Layers that differ" not in out


def test_compare_prices_all_maps_on_one_device(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map for another device is priced on the reference's, which is said."""
    path = str(tmp_path / "t4.json")
    assert _run(capsys, "plan", folder, "--hardware", "datacenter-gpu-t4", "--out", path)[0] == 0

    code, out, err = _run(capsys, "compare", folder, "all-int8", path, "--json")
    assert code == 0
    assert json.loads(out)["hardware"] == "server-cpu-vnni"
    assert f"{path} was made for datacenter-gpu-t4 and is priced on server-cpu-vnni" in err

    code, out, err = _run(
        capsys, "compare", folder, "all-int8", path, "--json", "--reference", "t4"
    )
    assert json.loads(out)["hardware"] == "datacenter-gpu-t4"
    assert err == ""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a", "a", "a-2"], ["a", "a-3", "a-2"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
    ],
)
def test_names_become_unique(names: list[str], expected: list[str]) -> None:
    """Later duplicates are numbered past the names that are taken."""
    assert unique_names(names) == expected


def test_reports_and_pages_are_written(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`report` and `export --format markdown` give the same text; `--json` gives its parts."""
    path = str(tmp_path / "map.json")
    assert _run(capsys, "plan", folder, "--out", path)[0] == 0
    code, out, _ = _run(capsys, "report", folder, path)
    assert code == 0
    assert out.startswith("# Quantization sensitivity of ")

    files = [tmp_path / "report.md", tmp_path / "export.md", tmp_path / "report.html"]
    assert _run(capsys, "report", folder, path, "--out", str(files[0]))[0] == 0
    for target, form in ((files[1], "markdown"), (files[2], "html")):
        code, _, _ = _run(capsys, "export", folder, path, "--format", form, "--out", str(target))
        assert code == 0
    assert files[0].read_text("utf-8") == files[1].read_text("utf-8") == out
    assert files[2].read_text("utf-8").startswith("<!doctype html>")

    code, out, _ = _run(capsys, "report", folder, path, "--json")
    assert code == 0
    assert {"overview", "layers", "limits"} <= {s["key"] for s in json.loads(out)["sections"]}


def test_names_with_brackets_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets and colons in a layer's name are no markup of the terminal."""
    store.save(named("[bold]x[/] :warning:").analysis, tmp_path / "odd")

    code, out, _ = _run(capsys, "show", str(tmp_path / "odd"))

    assert code == 0
    assert "[bold]x[/] :warning:" in out
