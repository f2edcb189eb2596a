"""Shared fixtures: small sources, their analyses, and golden files."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from core.analysis.analysis import Analysis
from core.decide.study import Study
from core.records import user_folders
from tests.processors import NO_VNNI, VNNI

# How long an example takes says something of the machine's load, nothing of the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.evidence.measure.cache.default_folder", lambda: folder)
        patch.setenv("XDG_CACHE_HOME", str(folder))  # for the processes that tests start
        yield


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """What a file's tests begin with is not looked through for garbage again.

    Every analysis collects garbage when it has measured; among the hundreds of thousands of objects
    that tests import, each time would take longer than a tiny model does.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["with VNNI", "without VNNI"])
def vnni(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor has VNNI, as far as this process can tell: once so, once so."""
    found = VNNI if request.param == "with VNNI" else NO_VNNI
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    return found is VNNI


@pytest.fixture
def no_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes its processor for one without VNNI."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: NO_VNNI)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--overwrite` rewrites golden files in place of comparing with them."""
    parser.addoption("--overwrite", action="store_true", help="rewrite golden files")


@pytest.fixture(scope="session", autouse=True)
def _jobs_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees or changes the jobs of whoever runs it; servers that tests start neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(user_folders.VARIABLE, str(tmp_path_factory.mktemp("jobs") / "all"))
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with tests/golden/NAME, or with a file elsewhere by its full path, or rewrite
    that under --overwrite.
    """

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--overwrite"):
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; run pytest --overwrite and read the diff"
        assert path.read_text(encoding="utf-8") == text

    return compare


@pytest.fixture(scope="session")
def tiny_analysis() -> Analysis:
    """The measured analysis of a tiny transformer."""
    from core.analysis.analyze import analyze
    from tests.zoo.sources import tiny_source

    return analyze(tiny_source())


@pytest.fixture(scope="session")
def tiny_study(tiny_analysis: Analysis) -> Study:
    """A study of `tiny_analysis`."""
    return Study(tiny_analysis)


@pytest.fixture(scope="session")
def informer_study() -> Study:
    """The shipped analysis of the Informer."""
    from core.analysis import store
    from core.source import samples

    return Study(store.load(samples.get("informer").analysis))
