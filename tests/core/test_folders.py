"""Folders that take the place of others: whole at every instant, whatever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from core.analysis import store, swap
from core.errors import AnalysisError
from tests.conftest import REPOSITORY
from tests.core.synthetic import synthetic_analysis


def killed(folder: Path, way: str) -> dict[str, list[str]]:
    """What was found after a save was killed at each of its steps."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.swapping", str(folder), way],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["exchange", "aside"])
@pytest.mark.slow
def test_a_save_killed_at_any_step_leaves_a_whole_analysis(tmp_path: Path, way: str) -> None:
    """Opening finds the old analysis or the new one after a kill before every step, never none;
    the next saves clear away what the killed ones left.
    """
    told = killed(tmp_path, way)

    assert len(told["found"]) > 20
    assert set(told["found"]) == set(told["titles"])
    assert told["found"][0] != told["found"][-1] == told["titles"][1]
    assert told["found"] == sorted(told["found"], key=told["titles"].index)
    # Only a system that cannot exchange names is ever without the folder, and only for a step.
    assert (told["aside"] > 0) == (way == "aside" or not exchanges(tmp_path))
    assert told["left"] == ["analysis"]


def exchanges(folder: Path) -> bool:
    """Whether this system can exchange two names."""
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    return swap.exchange(one, other)


def test_a_folder_that_stepped_aside_is_found_by_opening(tmp_path: Path) -> None:
    """The latest of the hidden folders takes its name back; a folder that is there stays."""
    for title, name in (("older", ".a.00000000.old"), ("newer", ".a.ffffffff.old")):
        store.save(replace(synthetic_analysis(2, samples=4), title=title), tmp_path / "x")
        (tmp_path / "x").rename(tmp_path / name)
    (tmp_path / ".a.123.old").mkdir()

    assert store.load(tmp_path / "a").title == "newer"
    assert store.load(tmp_path / "a").title == "newer"
    assert (tmp_path / ".a.00000000.old").exists()
    with pytest.raises(AnalysisError, match="does not exist"):
        store.load(tmp_path / "b")


@pytest.mark.slow
def test_a_folder_can_be_read_while_it_is_exchanged(tmp_path: Path) -> None:
    """A reader never meets a mixture of two analyses, however often the folder changes."""
    folder, over = tmp_path / "a", threading.Event()
    pair = [synthetic_analysis(layers, samples=samples) for layers, samples in ((2, 4), (3, 5))]
    store.save(pair[0], folder)

    def write() -> None:
        for turn in range(150):
            store.save(pair[turn % 2], folder)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    shapes = set()
    while not over.is_set():
        try:
            found = store.load(folder)
        except AnalysisError:  # it changed under the reader's hands five times in a row
            continue
        evidence = found.evidence
        assert evidence is not None
        shapes.add((len(found.layers), evidence.samples, evidence.perturbations.shape[1]))
    writer.join()

    assert shapes <= {(2, 4, 2), (3, 5, 3)}
    assert shapes
