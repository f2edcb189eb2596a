"""Finished work lasts: it is taken up again with the same bits, and nothing depends on it."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.cli.main import main
from core.evidence.evidence import Measured
from core.evidence.measure import run_cache
from core.evidence.measure.cache import Cache, Unit, default_folder
from core.evidence.measure.cache_key import content_key, run_key
from core.evidence.measure.cache_store import FILE, STALE_SECONDS, sha256
from core.evidence.measure.measure import make_simulator, measure
from core.evidence.options import MeasureOptions
from core.layers import LayerTable
from core.numerics.precision import FP16, INT8, Precision
from core.numerics.scheme import ORT_CPU, Scheme
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.conftest import REPOSITORY
from tests.core.foreign import unwritable
from tests.core.killing import digest, finished
from tests.zoo import awkward, models, passes
from tests.zoo.sources import source_of, tiny_source

KILLS = 20
PRECISIONS = (FP16, INT8)


class Counted:
    """An analysis of a small model that counts the runs it makes, beside what it is told."""

    def __init__(self, source: ModelSource, precisions: tuple[Precision, ...] = PRECISIONS) -> None:
        self.source, self.precisions = source, precisions
        self.layers: LayerTable = take_inventory(source)
        self.made: set[tuple[str, int, int]] = set()
        self.said: list[str] = []

    def measure(self, cache: Path | Cache | None) -> Measured:
        """Measure with the cache in a folder; `made` and `said` are of this call."""
        self.made, self.said = set(), []
        if isinstance(cache, Path):
            cache = Cache(cache)
        if cache is not None:
            cache.say = self.said.append
        add = run_cache.RunCache.add

        def counted(at: run_cache.RunCache, unit) -> None:  # noqa: ANN001 (as it is)
            self.made.add((unit.run, unit.start, unit.stop))
            add(at, unit)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_cache.RunCache, "add", counted)
            options = MeasureOptions(precisions=self.precisions, probes=2)
            return measure(self.source, self.layers, options, cache=cache)


@pytest.fixture
def counted() -> Counted:
    """An analysis of the tiny transformer."""
    return Counted(tiny_source())


@pytest.fixture(scope="module")
def expected() -> str:
    """What it gives without any cache."""
    return digest(Counted(tiny_source()).measure(None).evidence)


def _arrays(folder: Path) -> list[Path]:
    return sorted(folder.glob("arrays/*/*.npy"))


@pytest.mark.slow
def test_killed_analyses_are_taken_up_with_the_same_bits(tmp_path: Path) -> None:
    """After each of 20 kills at random instants nothing finished is made again, and the analysis
    that ends has the bits of one that was never killed; so have two that run at once.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.killing", str(tmp_path), str(KILLS), "20211"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)

    assert found["killing"]["killed"] == KILLS
    assert found["killing"]["repeated"] == found["killing"]["wrong"] == 0
    assert found["killing"]["taken_up"] >= KILLS // 4
    assert found["two"]["well"] == [True, True]
    assert max(found["two"]["made"]) <= found["two"]["kept"]


def test_an_analysis_is_found_as_it_was_left(
    counted: Counted, expected: str, tmp_path: Path
) -> None:
    """A second analysis makes no run, has the same bits and notes, and says what it found."""
    first = counted.measure(tmp_path)
    made = counted.made
    second = counted.measure(tmp_path)

    assert digest(first.evidence) == digest(second.evidence) == expected
    assert len(made) == len(finished(tmp_path)) > 0
    assert counted.made == set()
    layers = int(counted.layers.computes.sum())
    assert counted.said == [f"Resuming: 100% of the work found, {layers} of {layers} layers whole."]


def test_an_interrupted_analysis_keeps_what_it_made(
    counted: Counted, expected: str, tmp_path: Path
) -> None:
    """Ctrl-C loses nothing that was finished; the rest alone is made afterwards."""

    def stop(done: int, total: int, label: str) -> None:
        if done == total // 3:
            raise KeyboardInterrupt

    options = MeasureOptions(precisions=PRECISIONS, probes=2)
    with pytest.raises(KeyboardInterrupt):
        measure(counted.source, counted.layers, options, cache=Cache(tmp_path), progress=stop)
    before = finished(tmp_path)
    found = counted.measure(tmp_path)

    assert before
    assert not before & counted.made
    assert before | counted.made == finished(tmp_path)
    assert digest(found.evidence) == expected
    assert counted.said[0].startswith("Resuming: ")


def test_another_precision_finds_the_work_of_the_first(tmp_path: Path) -> None:
    """Layers measured in FP16 are found when INT8 is asked for too; the result is as if anew."""
    source = tiny_source()
    Counted(source, (FP16,)).measure(tmp_path)
    before = finished(tmp_path)
    both = Counted(source)
    found = both.measure(tmp_path)

    layers = int(both.layers.computes.sum())
    assert len(before) > layers
    assert not before & both.made
    assert digest(found.evidence) == digest(Counted(source).measure(None).evidence)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0xFF
    path.write_bytes(content)


DAMAGES: list[Callable[[Path], None]] = [
    _flip,
    lambda path: path.write_bytes(path.read_bytes()[:-10]),
    lambda path: path.write_bytes(b""),
    lambda path: path.unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=("flipped", "cut short", "empty", "gone"))
def test_damaged_arrays_are_measured_again(
    counted: Counted, expected: str, tmp_path: Path, damage: Callable[[Path], None],
) -> None:  # fmt: skip
    """A damaged file is said, thrown away and made again; what lies beside it is found."""
    counted.measure(tmp_path)
    files = _arrays(tmp_path)
    damage(files[0])

    found = counted.measure(tmp_path)

    assert digest(found.evidence) == expected
    assert any("1 files" in s and "damaged or gone" in s for s in counted.said)
    assert 0 < len(counted.made) < len(finished(tmp_path))
    again = counted.measure(tmp_path)
    assert digest(again.evidence) == expected
    assert counted.made == set()


def test_a_damaged_database_starts_empty(counted: Counted, expected: str, tmp_path: Path) -> None:
    """A file that is no database is replaced, with a message, and the analysis is kept anew."""
    counted.measure(tmp_path)
    for path in tmp_path.glob(f"{FILE}-*"):
        path.unlink()
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)

    found = counted.measure(tmp_path)

    assert digest(found.evidence) == expected
    assert any("is damaged: it starts empty" in sentence for sentence in counted.said)
    assert finished(tmp_path) == counted.made


def test_a_read_only_cache_is_said_and_left(counted: Counted, expected: str) -> None:
    """Where nothing can be written the analysis says so once, with a remedy, and goes on."""
    with unwritable() as folder:
        found = counted.measure(folder)
        assert list(folder.iterdir()) == []

    assert digest(found.evidence) == expected
    (sentence,) = counted.said
    assert str(folder) in sentence
    assert "goes on without it" in sentence
    assert "--no-cache" in sentence


def test_a_file_in_the_place_of_the_cache_is_said(
    counted: Counted, expected: str, tmp_path: Path
) -> None:
    """A path that is no folder stops the cache and not the analysis."""
    path = tmp_path / "taken"
    path.write_text("mine")

    assert digest(counted.measure(path).evidence) == expected
    assert len(counted.said) == 1
    assert path.read_text() == "mine"


@pytest.mark.parametrize("late", [False, True], ids=("at once", "late"))
@pytest.mark.slow
def test_a_full_disk_is_said_and_left(
    counted: Counted, expected: str, tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writes begin to fail the analysis says so once and goes on; what was kept before is
    whole and is found afterwards.
    """
    monkeypatch.setattr(run_cache, "FLUSH_SECONDS", 0.0)
    counted.measure(tmp_path / "whole")
    whole = (tmp_path / "whole" / FILE).stat().st_size
    most = whole * 7 // 8 if late else 0  # bytes of any file; pages may be filled otherwise
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        found = counted.measure(tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert digest(found.evidence) == expected
    (sentence,) = counted.said
    assert "goes on without it" in sentence
    before = finished(tmp_path / "cache") if late else set()
    assert bool(before) == late
    assert digest(counted.measure(tmp_path / "cache").evidence) == expected
    assert not before & counted.made


def test_the_oldest_analyses_go_first(tmp_path: Path) -> None:
    """Beyond the limit other analyses are dropped, the longest unused first, files and all."""
    torch.manual_seed(0)
    each = [Counted(source_of(models.NeverCalled(), (5,), name=name)) for name in "abc"]
    for i, one in enumerate(each):  # three models
        with torch.no_grad():
            next(one.source.model.parameters()).add_(0.01 * i)
    each[0].measure(tmp_path)
    (only,) = Cache(tmp_path).entries()
    limit = int(only.bytes * 2.5)

    for one in each:
        one.measure(Cache(tmp_path, limit_bytes=limit))

    assert [entry.title for entry in Cache(tmp_path).entries()] == ["c", "b"]
    kept = sum(path.stat().st_size for path in _arrays(tmp_path))
    assert kept <= limit + 200 * len(_arrays(tmp_path))  # an array's file has a header
    assert len(list((tmp_path / "arrays").iterdir())) == 2


def test_an_analysis_larger_than_the_cache_is_kept_in_part(
    counted: Counted, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one analysis alone exceeds the limit the rest is not kept, and that is said once."""
    monkeypatch.setattr(run_cache, "FLUSH_SECONDS", 0.0)
    found = counted.measure(Cache(tmp_path, limit_bytes=20_000))

    assert digest(found.evidence) == expected
    (sentence,) = counted.said
    assert "is not kept" in sentence
    assert 0 < sum(entry.bytes for entry in Cache(tmp_path).entries()) <= 20_000


def test_what_killed_processes_left_is_swept(counted: Counted, tmp_path: Path) -> None:
    """Files that no one names go once they are old; young ones may be another process's."""
    counted.measure(tmp_path)
    folder = _arrays(tmp_path)[0].parent
    old, young = folder / f"{'0' * 32}.partial", folder / f"{'1' * 32}.npy"
    mine = folder / "thesis.npy"
    for path in (old, young, mine):
        path.write_bytes(b"x")
    for path in (old, mine):
        os.utime(path, (0, path.stat().st_mtime - 2 * STALE_SECONDS))

    counted.measure(tmp_path)

    assert not old.exists()
    assert young.exists()
    assert mine.exists()
    assert counted.made == set()


def _kept(folder: Path) -> tuple[str, Path]:
    """A cache with one analysis of made-up outputs: its key, and its only array."""
    key = "ab" * 32
    unit = Unit("run", 0, 4, np.ones((4, 3), np.float32), finite=True, in_full=False)
    Cache(folder).put(key, "one", [unit])
    (path,) = _arrays(folder)
    return key, path


def _sql(folder: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(folder / FILE)) as db:
        for statement, values in statements:
            db.execute(statement, values)
        db.commit()


@pytest.mark.parametrize("place", ["absolute", "above", "beside", "number", "link"])
def test_a_row_that_leads_elsewhere_deletes_and_reads_nothing(tmp_path: Path, place: str) -> None:
    """A crafted row names a person's file: it is neither read nor deleted, and the row goes."""
    folder, mine = tmp_path / "cache", tmp_path / "mine.npy"
    key, path = _kept(folder)
    np.save(mine, np.load(path))
    inside = folder / "arrays" / "mine.npy"
    inside.write_bytes(mine.read_bytes())
    if place == "link":
        path.unlink()
        path.symlink_to(mine)
    else:
        name = {"absolute": str(mine), "above": f"arrays/{key}/../../../mine.npy",
                "beside": "arrays/mine.npy", "number": 7}[place]  # fmt: skip
        _sql(folder, ("UPDATE units SET file = ?", (name,)), ("UPDATE files SET name = ?", (name,)))

    said: list[str] = []
    found = Cache(folder, say=said.append).find(key, 0, 4)

    assert found == {}
    assert "damaged or gone" in said[0]
    assert mine.exists()
    assert inside.exists()
    assert Cache(folder).find(key, 0, 4) == {}


@pytest.mark.parametrize("row", [-1, 10**12, "0", 1.5])
def test_a_row_that_is_none_of_the_array_is_damaged(tmp_path: Path, row: object) -> None:
    """A row below 0, beyond the array or that is no number finds nothing and breaks nothing."""
    key, _ = _kept(tmp_path)
    _sql(tmp_path, ("UPDATE units SET row = ?", (row,)))

    found = Cache(tmp_path).find(key, 0, 4)

    assert set(found) == ({"run"} if row == "0" else set())  # a column of integers takes that


@pytest.mark.parametrize("way", ["clear", "trim", "sweep", "anew"])
@pytest.mark.parametrize("place", ["above", "absolute", "short", "linked folder", "linked arrays"])
def test_nothing_outside_of_the_cache_is_removed(tmp_path: Path, way: str, place: str) -> None:
    """Whatever key a database holds and whatever is a link: clearing, trimming, sweeping and
    starting anew leave a person's folders alone.
    """
    folder, mine = tmp_path / "cache", tmp_path / "mine"
    key, _ = _kept(folder)
    hexes = mine / ("cd" * 32)
    hexes.mkdir(parents=True)
    thesis = hexes / f"{'e' * 32}.npy"
    for one in (thesis, mine / "thesis.npy"):
        one.write_bytes(b"years of work")
        os.utime(one, (0, 0))
    bad = {"above": "../../mine", "absolute": str(mine), "short": "..",
           "linked folder": hexes.name, "linked arrays": hexes.name}[place]  # fmt: skip
    if place == "linked folder":
        (folder / "arrays" / hexes.name).symlink_to(hexes)
    elif place == "linked arrays":
        (folder / "arrays").rename(folder / "old")
        (folder / "arrays").symlink_to(mine)
    _sql(folder, ("INSERT INTO entries VALUES (?, 'bad', 1)", (bad,)),
         ("INSERT INTO files VALUES ('bad', ?, 10)", (bad,)))  # fmt: skip

    said: list[str] = []
    cache = Cache(folder, limit_bytes=60, say=said.append)
    unit = Unit("other", 0, 4, np.ones((4, 3), np.float32), finite=True, in_full=False)
    if way == "clear":
        cache.clear()
        assert cache.entries() == []
    elif way == "trim":
        cache.put("ef" * 32, "new", [unit])
    elif way == "sweep":
        cache.begin(key, "one")
    else:
        (folder / FILE).write_bytes(b"no database at all" * 100)
        cache.begin(key, "one")

    assert thesis.read_bytes() == b"years of work"
    assert sorted(p.name for p in mine.iterdir()) == [hexes.name, "thesis.npy"]
    assert [p.name for p in hexes.iterdir()] == [thesis.name]


def test_a_cache_is_its_owner_s(tmp_path: Path) -> None:
    """Outputs of a person's model are nobody else's: the folder is made for its owner alone."""
    _kept(tmp_path / "new")

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (lambda f: _sql(f, ("PRAGMA user_version = 9", ())), "Update Quantscape"),
    "pipe": (lambda f: ((f / FILE).unlink(), os.mkfifo(f / FILE)), "--cache DIR"),
    "link": (lambda f: (f / FILE).rename(f / "x") and (f / FILE).symlink_to("x"), "--cache DIR"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_to_do_about_a_cache_follows_from_what_is_wrong(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newer cache asks for a newer program, and no other problem for room or an update."""
    key, path = _kept(tmp_path)
    spoil, advice = PROBLEMS[name]
    for end in ("-wal", "-shm"):
        (tmp_path / f"{FILE}{end}").unlink(missing_ok=True)
    spoil(tmp_path)

    said: list[str] = []
    found = Cache(tmp_path, say=said.append).find(key, 0, 4)

    assert found == {}
    assert path.exists()
    assert advice in said[0]
    assert "room" not in said[0]
    assert "space" not in said[0]
    assert main(["cache", "--cache", str(tmp_path)]) == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "advice"),
    [("SQLITE_FULL", "free some space"), ("SQLITE_READONLY", "read but not written"),
     ("SQLITE_BUSY", "Another process")],
)  # fmt: skip
def test_errors_of_the_database_have_their_own_advice(
    tmp_path: Path, code: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a place that may only be read and a busy database are told apart."""

    def broken(folder: Path) -> sqlite3.Connection:
        error = sqlite3.OperationalError("so it is")
        error.sqlite_errorcode = getattr(sqlite3, code)
        raise error

    monkeypatch.setattr("core.evidence.measure.cache.connect", broken)
    said: list[str] = []
    Cache(tmp_path, say=said.append).begin("ab" * 32, "one")

    assert "(so it is)" in said[0]
    assert advice in said[0]


class Scaled(nn.Module):
    """Multiplies by a plain attribute, which is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(5, 3), 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(x) * self.scale


def _key(source: ModelSource, scheme: Scheme = ORT_CPU) -> str:
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions(scheme=scheme))
    reference = simulator.run({}, source.selection.inputs)
    return content_key(source, layers, simulator, sha256(reference), everything=False)


def test_the_key_covers_what_a_run_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, data, a plain attribute, scheme, version and threads change the key; names do not."""
    torch.manual_seed(0)
    model = Scaled()
    source = source_of(model, (5,))
    key = _key(source)

    assert _key(replace(source, title="another", name="another")) == key
    assert _key(source, replace(ORT_CPU, activation_bits=7)) != key
    moved = replace(source.selection, inputs=source.selection.inputs + 1e-3)
    assert _key(replace(source, selection=moved)) != key
    with monkeypatch.context() as patch:
        patch.setattr("core.evidence.measure.cache_key.EVIDENCE_VERSION", 0)
        assert _key(source) != key
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        assert _key(source) != key
    model.scale = 1.5
    assert _key(source) != key
    model.scale = 1.0
    assert _key(source) == key
    with torch.no_grad():
        model.head.bias[0] += 1e-3
    assert _key(source) != key
    assert run_key({"a": FP16, "b": INT8}) == run_key({"b": INT8, "a": FP16})
    assert len({run_key({"a": FP16}), run_key({"a": INT8}), run_key({"b": FP16})}) == 3


def test_a_model_with_state_is_not_kept(tmp_path: Path) -> None:
    """Where a run taken up again would give other figures nothing is kept, and that is said."""
    torch.manual_seed(0)
    x = torch.randn(20, 5)
    one = Counted(
        model_source({"model": awkward.Counting(), "calibration": x, "evaluation": (x, None),
                      "holdout": None, "task": "classification"})
    )  # fmt: skip
    one.measure(tmp_path)

    assert "keeps state between calls" in one.said[0]
    assert finished(tmp_path) == set()


def test_notes_do_not_depend_on_what_was_found(tmp_path: Path) -> None:
    """How many runs were full passes is told alike by the first analysis and by the next."""
    torch.manual_seed(1)
    one = Counted(source_of(passes.ShapeBranch(), (5,)))
    first = one.measure(tmp_path)
    second = one.measure(tmp_path)

    assert one.made == set()
    assert "full passes" in first.notes[0]
    assert first.notes == second.notes


def test_outputs_for_a_metric_are_kept_whole(tmp_path: Path) -> None:
    """A custom metric of an analysis taken up again is what it was."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.randn(60, 3)
    source = model_source(
        {"model": nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), "calibration": x,
         "evaluation": (x, y), "holdout": None, "task": "custom", "higher_is_better": False,
         "metric": lambda outputs, targets: float((outputs - targets).abs().mean())}
    )  # fmt: skip
    one = Counted(source)
    first, second = one.measure(tmp_path).evidence, one.measure(tmp_path).evidence

    assert one.made == set()
    assert first.metrics is not None
    assert second.metrics is not None
    np.testing.assert_array_equal(first.metrics.alone, second.metrics.alone)
    np.testing.assert_array_equal(first.metrics.probes, second.metrics.probes)


def test_analyze_says_that_it_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command keeps its work where it is told, takes it up, and shows and clears the cache."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def load():\n"
        "    torch.manual_seed(0)\n"
        "    x = torch.randn(40, 4)\n"
        "    return {'model': torch.nn.Linear(4, 3), 'calibration': x, 'title': 'Mine',\n"
        "            'evaluation': (x, torch.arange(40) % 3), 'task': 'classification'}\n"
    )
    folder = str(tmp_path / "cache")
    command = ["analyze", f"{path}:load", "--out", str(tmp_path / "out")]

    assert main([*command, "--cache", folder]) == 0
    assert "Resuming" not in capsys.readouterr().err
    assert main([*command, "--cache", folder]) == 0
    assert "Resuming: 100% of the work found, 1 of 1 layers whole." in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*command, "--cache", folder, "--no-cache"]) == 0
    assert "Resuming" not in capsys.readouterr().err

    assert main(["cache", "--cache", folder]) == 0
    assert "Mine" in capsys.readouterr().out
    assert main(["cache", "--cache", folder, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["units"] == len(finished(Path(folder)))
    assert main(["cache", "--cache", folder, "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == []
    assert not list(Path(folder).glob("arrays/*/*"))


def test_the_cache_command_names_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to show is no error; a folder that cannot be used is one clear line."""
    assert main(["cache", "--cache", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == []
    assert not (tmp_path / "none").exists()
    (tmp_path / FILE).mkdir()

    assert main(["cache", "--cache", str(tmp_path)]) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_the_cache_lies_where_the_user_keeps_caches() -> None:
    """XDG_CACHE_HOME if it is absolute, else ~/.cache."""
    code = "from core.evidence.measure.cache import default_folder; print(default_folder())"
    for given, wanted in (("/somewhere", "/somewhere/quantscape"), ("here", None), ("", None)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
            check=True, env={**os.environ, "XDG_CACHE_HOME": given},
        )  # fmt: skip
        assert done.stdout.strip() == (wanted or str(Path.home() / ".cache" / "quantscape"))


def test_tests_use_a_cache_of_their_own() -> None:
    """No test writes to the user's cache."""
    from core.evidence.measure import cache

    assert cache.default_folder() is not default_folder()
