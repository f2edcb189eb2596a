"""Sources from a person's own Python file, and what their dict may hold."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.cli.main import main
from core.errors import DataError, ModelError, QuantscapeError
from core.numerics.saturation import WARNING
from core.source import python_file
from core.source.batches import count
from core.source.contract import ModelSource, model_source
from core.source.data import HOLDOUT_SHARE, read_inputs
from core.source.trees import tensors
from tests.conftest import REPOSITORY

GOOD = """
    import torch
    from torch import nn

    def load():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        x = torch.randn(60, 4)
        return {
            "model": model,
            "calibration": torch.randn(20, 4),
            "evaluation": (x, model(x).argmax(1)),
            "task": "classification",
        }
"""


def _file(tmp_path: Path, text: str, name: str = "mine.py") -> str:
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def _spec(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": nn.Linear(4, 3),
        "calibration": torch.randn(8, 4),
        "evaluation": (torch.randn(30, 4), torch.randint(3, (30,))),
        "task": "classification",
    }
    return {**base, **changes}


def test_a_file_and_function_become_a_source(tmp_path: Path) -> None:
    """The function's dict is checked, named after it, and its evaluation data are split."""
    reference = f"{_file(tmp_path, GOOD)}:load"

    source = python_file.load(reference)

    assert (source.name, source.reference) == ("mine.load", reference)
    assert not source.model.training
    assert source.holdout is not None
    assert (len(source.calibration), len(source.selection), len(source.holdout)) == (20, 40, 20)


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    """A person's helper module is found, and the import path is as before afterwards."""
    import sys

    before = list(sys.path)
    _file(tmp_path, GOOD, "beside_it.py")
    path = _file(tmp_path, "from beside_it import load\n")

    assert len(python_file.load(f"{path}:load").calibration) == 20
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "load", "There is no file"),
        (GOOD, "laod", "has no function 'laod'. Its functions: load."),
        ("x = 1\n", "x", "has no function 'x'"),
        ("def load(size): ...\n", "load", "without arguments: missing a required argument: 'size'"),
        ("\n\nimport nothing_of_the_kind\n", "load", "at line 3: ModuleNotFoundError"),
        ("def load(:\n", "load", "at line 1: SyntaxError"),
        ("def load():\n    raise ValueError('no data\\nhere')\n", "load", "line 2: ValueError: no data."),
        ("def load():\n    raise SystemExit(3)\n", "load", "at line 2: SystemExit"),
        ("def load():\n    return 3\n", "load", "returned int, no dict"),
        ("def load():\n    return {'model': 1}\n", "load", "gives no 'calibration', 'task'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(
    text: str | None, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line names file, function and line, and exits with 2."""
    path = str(tmp_path / "ghost.py") if text is None else _file(tmp_path, text)

    code = main(["analyze", f"{path}:{name}", "--dry-run"])

    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert path in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evalution": 1}, "unknown key 'evalution'. Did you mean 'evaluation'?"),
        ({"task": "guessing"}, "Task 'guessing' is not supported"),
        ({"model": "x"}, "'model' is a str"),
        ({"model": nn.Linear(4, 3).double()}, "float64, not float32"),
        ({"calibration": 3}, "'calibration' holds int"),
        ({"calibration": []}, "'calibration' holds no sample"),
        ({"calibration": torch.zeros(0, 4)}, "'calibration' holds no sample"),
        ({"calibration": np.zeros((3, 4))}, "'calibration' is a ndarray, not a tensor"),
        ({"calibration": (torch.zeros(3, 4), np.zeros(3))}, "'calibration'[1] is a ndarray"),
        ({"calibration": torch.tensor(1.0)}, "is a single number"),
        ({"calibration": {"a": torch.zeros(3, 4), "b": torch.zeros(2)}}, "['a'] has 3, ['b'] has 2"),
        ({"calibration": [torch.zeros(3, 4), torch.zeros(3, 5)]}, "batch 1 is torch.float32[3, 5]"),
        ({"calibration": torch.full((3, 4), torch.nan)}, "NaN or infinity, first in sample 0"),
        ({"evaluation": torch.zeros(3, 4)}, "'evaluation' is not a pair"),
        ({"evaluation": (torch.zeros(3, 4), torch.zeros(2))}, "3 inputs and targets of another"),
        ({"holdout": (torch.zeros(3, 4), 7)}, "'holdout' hold no tensor, but a int"),
        ({"roles": {"ghost": "linear"}}, "'roles' names 'ghost'"),
        ({"units": ["ghost"]}, "'units' names 'ghost'"),
        ({"groups": ["head"]}, "'groups' is no list of lists"),
        ({"output": 1.5}, "'output' is a float"),
        ({"metric": max}, "has its own metric"),
        ({"task": "custom"}, "needs a 'metric'"),
        ({"task": "custom", "metric": max}, "which way its metric points"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_dict_names_its_key(changes: dict[str, Any], message: str) -> None:
    """Every refusal names the key and what is wrong with it, and says what to do."""
    with pytest.raises(QuantscapeError) as caught:
        model_source(_spec(**changes))

    assert message in str(caught.value)
    assert caught.value.next_step


def test_nan_weights_are_named() -> None:
    """A parameter or buffer with NaN is refused by name; a mask of minus infinity is not."""
    broken = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    broken.get_buffer("1.running_mean")[1] = torch.nan
    with pytest.raises(ModelError, match=r"'1\.running_mean' holds NaN"):
        model_source(_spec(model=broken))

    endless = nn.Linear(4, 3)
    with torch.no_grad():
        endless.weight[0, 0] = torch.inf
    with pytest.raises(ModelError, match="'weight' holds NaN or infinity"):
        model_source(_spec(model=endless))

    masked = nn.Linear(4, 3)
    masked.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert model_source(_spec(model=masked)).model is masked


def test_a_mask_of_minus_infinity_is_an_input() -> None:
    """An additive mask may hold minus infinity beside zeros, a value may not."""
    mask = torch.zeros(8, 4)
    mask[:, 2] = -torch.inf

    source = model_source(_spec(calibration=(torch.randn(8, 4), mask)))

    assert count(source.calibration.inputs) == 8
    with pytest.raises(DataError, match=r"'calibration'\[1\] holds NaN or infinity, first"):
        model_source(_spec(calibration=(torch.randn(8, 4), mask + 1)))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (torch.arange(24.0).reshape(6, 4), torch.Tensor),
        ((torch.arange(24.0).reshape(6, 4),), torch.Tensor),
        ((torch.zeros(6, 4), torch.ones(6, dtype=torch.int64)), tuple),
        ({"ids": torch.zeros(6, 2), "mask": None, "deep": [torch.ones(6)]}, dict),
        ([torch.zeros(4, 4), torch.ones(2, 4)], torch.Tensor),
        ([(torch.zeros(4, 4), torch.ones(4)), (torch.zeros(2, 4), torch.ones(2))], tuple),
    ],
)
def test_inputs_come_in_many_shapes(given: Any, kind: type) -> None:
    """A tensor, a tuple, a dict, and batches of them all become one tree of six samples."""
    inputs = read_inputs(given, "calibration")

    assert isinstance(inputs, kind)
    assert count(inputs) == 6
    assert {len(tensor) for tensor in tensors(inputs)} == {6}


def test_batches_may_come_from_a_loader() -> None:
    """A DataLoader of pairs is joined in its own order."""
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)

    source = model_source(_spec(evaluation=loader, holdout=None))

    assert isinstance(source.selection.inputs, torch.Tensor)
    torch.testing.assert_close(source.selection.inputs, x)
    torch.testing.assert_close(source.selection.targets, y)


def test_evaluation_is_split_with_a_seed() -> None:
    """Selection and holdout share no sample, lose none, and are the same every time."""
    x = torch.arange(30.0).repeat(4, 1).T
    parts: list[ModelSource] = [
        model_source(_spec(evaluation=(x, torch.arange(30) % 3))) for _ in range(2)
    ]
    first, again = parts
    assert first.holdout is not None
    assert again.holdout is not None
    chosen, held = (set(s.inputs[:, 0].tolist()) for s in (first.selection, first.holdout))

    assert chosen | held == set(range(30))
    assert not chosen & held
    assert len(held) == round(30 * HOLDOUT_SHARE)
    assert again.holdout.inputs[:, 0].tolist() == first.holdout.inputs[:, 0].tolist()
    assert (first.holdout.inputs[:, 0] % 3).tolist() == first.holdout.targets.tolist()


def test_what_the_person_split_stays_split() -> None:
    """A holdout that is given is used; None holds nothing back."""
    given = (torch.randn(5, 4), torch.randint(3, (5,)))

    with_holdout = model_source(_spec(holdout=given))
    without = model_source(_spec(holdout=None))

    assert with_holdout.holdout is not None
    assert (len(with_holdout.selection), len(with_holdout.holdout)) == (30, 5)
    assert (len(without.selection), without.holdout) == (30, None)


def test_without_evaluation_the_calibration_inputs_serve() -> None:
    """They are measured without labels, and the source says that this is optimistic."""
    spec = _spec()
    del spec["evaluation"]

    source = model_source(spec)

    assert source.optimistic
    assert source.selection.targets is None
    assert source.holdout is None
    assert len(source.selection) == len(source.calibration)
    assert not model_source(_spec()).optimistic


def test_fingerprints_see_every_input() -> None:
    """Another value in any tensor of the inputs is other data; weights have their own hash."""
    torch.manual_seed(0)
    x = {"a": torch.zeros(6, 4), "b": torch.ones(6)}
    spec = _spec(calibration=x)
    source = model_source(spec)
    other = model_source({**spec, "calibration": {**x, "b": torch.zeros(6)}})

    assert source.data_fingerprint() != other.data_fingerprint()
    assert source.fingerprint() == other.fingerprint()


def test_what_is_unusual_is_said_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without evaluation data the command says that figures are optimistic, for people and
    programs.
    """
    text = GOOD.replace('"evaluation": (x, model(x).argmax(1)),', "")
    out = str(tmp_path / "analysis")

    assert main(["analyze", f"{_file(tmp_path, text)}:load", "--out", out, "--json"]) == 0
    said = capsys.readouterr()
    assert "quantscape: note: Optimistic" in said.err
    assert json.loads(said.out)["optimistic"] is True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_is_refused_and_a_compiled_one_unwrapped() -> None:
    """TorchScript hides its layers; what `torch.compile` wraps is the model itself."""
    plain = nn.Sequential(nn.Linear(4, 3))
    scripted = torch.jit.trace(plain, torch.zeros(1, 4))

    with pytest.raises(ModelError, match="TorchScript"):
        model_source(_spec(model=nn.Sequential(scripted)))
    assert model_source(_spec(model=torch.compile(plain))).model is plain


def test_only_the_command_line_runs_a_persons_file() -> None:
    """One function loads what a person names, and no room but the command line calls it; others
    only ask whether a text names code.
    """

    def users(pattern: str) -> set[str]:
        return {
            str(path.relative_to(REPOSITORY))
            for folder in ("core", "dashboard")
            for path in (REPOSITORY / folder).rglob("*.py")
            if re.search(pattern, path.read_text("utf-8"))
        }

    assert users(r"python_file\.load\b|python_file import .*\bload\b") == {"core/source/sources.py"}
    assert users(r"\bsamples\.load\(|samples import .*\bload\b") == {"core/source/sources.py"}
    assert users(r"import (\w+, )*sources\b|source\.sources\b") == {
        f"core/cli/{name}.py" for name in ("commands", "export", "runtime")
    }


def test_a_csv_is_refused_for_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--csv` belongs to samples that take one."""
    reference = f"{_file(tmp_path, GOOD)}:load"

    assert main(["analyze", reference, "--csv", "x.csv", "--dry-run"]) == 2
    assert "takes no CSV" in capsys.readouterr().err


def test_a_file_is_analyzed_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`analyze file.py:function --out DIR` writes a folder that `show` reads."""
    out = str(tmp_path / "analysis")
    reference = f"{_file(tmp_path, GOOD)}:load"

    assert main(["analyze", reference, "--out", out]) == 0
    assert main(["show", out, "--json"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "note" in line and WARNING not in line] == []
    assert main(["show", out, "--json"]) == 0
    assert '"accuracy_drop_pts"' in capsys.readouterr().out
