"""The rules of the house: who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import REPOSITORY

VOCABULARY = ("errors", "files", "lru", "quantity", "task", "layers")
"""What core keeps in its root, each standing only on those before it."""
ROAD = (
    "numerics", "onnx_graph", "source", "engines", "evidence", "records", "analysis", "estimate",
    "decide", "runtime", "export", "jobs", "cli",
)  # fmt: skip
DECIDE = ("policy", "study", "solve", "stability", "answer", "assess", "advise")
DASHBOARD = ("guard", "pages", "display", "session", "charts", "frame", "app_pages", "app")
SCREENS = {"streamlit", "plotly", "altair", "dashboard"}
PICKLING = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
WORKERS = "core/evidence/measure/workers.py"
FACES = {"core", "core.__main__", "core.decide", "dashboard.__main__"}
"""What hands names on, or starts everything."""


def _modules(*folders: str) -> dict[str, Path]:
    found = {}
    for folder in folders:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text("utf-8"))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file names in an import, for types alone or inside a function too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _edges(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules that it imports; a package is meant only where nothing inside is."""
    edges = {}
    for name, path in modules.items():
        met = {given for given in _imports(_tree(path)) if given in modules} - {name}
        edges[name] = {m for m in met if not any(other.startswith(f"{m}.") for other in met)}
    return edges


def _backwards(edges: Mapping[str, Iterable[str]], base: str, order: tuple[str, ...]) -> list[str]:
    """Imports within `base` from a room to one on its right, and rooms that have no place."""
    place = {f"{base}.{room}": i for i, room in enumerate(order)}
    depth = base.count(".") + 2

    def room(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    inside = [m for m in edges if m.startswith(f"{base}.") and m not in FACES]
    found = [f"{m} has no place on the road" for m in inside if room(m) not in place]
    for module in inside:
        found += [
            f"{module} imports {other}"
            for other in edges[module]
            if place.get(room(other), -1) > place.get(room(module), len(place))
        ]
    return found


def test_core_knows_no_screen() -> None:
    """No file of core imports streamlit, plotly, altair or the dashboard."""
    offenders = [
        name
        for name, path in _modules("core").items()
        if {given.split(".")[0] for given in _imports(_tree(path))} & SCREENS
    ]

    assert not offenders


def test_the_road_runs_one_way() -> None:
    """Every file of core, those in its root too, stands only on rooms to its left."""
    edges = _edges(_modules("core"))

    assert not _backwards(edges, "core", (*VOCABULARY, *ROAD))


def test_deciding_runs_one_way() -> None:
    """Within `decide`, what was asked comes before tables, searches, answers and advice."""
    edges = _edges(_modules("core"))

    assert not _backwards(edges, "core.decide", DECIDE)


def test_the_dashboard_runs_one_way() -> None:
    """What is shown stands on nothing but core; then sessions, charts, the frame, the pages."""
    edges = _edges(_modules("dashboard"))

    assert not _backwards(edges, "dashboard", DASHBOARD)


def test_no_page_imports_another() -> None:
    """What two pages share stands in a room before them, so that a page is its folder alone."""
    edges = _edges(_modules("dashboard/app_pages"))

    def page(module: str) -> str:
        return module.split(".")[2]

    assert not [
        f"{module} imports {other}"
        for module, met in edges.items()
        for other in met
        if other.count(".") > 1 and page(module) != page(other)
    ]


def test_no_circle_of_imports() -> None:
    """No files import each other in a circle, also not for types alone."""
    edges = _edges(_modules("core", "dashboard"))
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_a_class_name_stands_for_one_thing() -> None:
    """No two classes of core and dashboard share a name, a leading underscore aside."""
    places: dict[str, list[str]] = {}
    for name, path in _modules("core", "dashboard").items():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(name)

    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_reading_an_analysis_does_not_import_torch() -> None:
    """Deciding and pricing need NumPy alone, so that a page opens without loading torch or a runtime."""
    code = (
        "import sys, core.analysis.store, core.decide.answer, core.jobs.jobs, "
        "core.decide.advise.advice, core.decide.advise.document, core.export.map.precision_map, "
        "core.export.map.csv_table, core.cli.main; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'scipy', 'onnx', 'onnxruntime')))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_an_analysis_of_a_module_loads_no_onnx() -> None:
    """What runs ONNX graphs takes half a second and 40 MB of every process: it is loaded with one."""
    code = (
        "import sys, core.analysis.analyze, core.evidence.measure.workers, core.source.contract; "
        "sys.exit(any(n in sys.modules for n in ('onnx', 'onnxruntime')))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def _unpickling(text: str) -> Iterator[str]:
    """What a file imports or calls that may read a pickle: modules, and functions of torch,
    NumPy and pandas.
    """
    tree = ast.parse(text)
    for name in _imports(tree):
        if name.split(".")[0] in PICKLING:
            yield name.split(".")[0]
        if name in {"torch.load", "torch.save", "pandas.read_pickle"}:
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in {"read_pickle", "to_pickle"}:
                yield node.attr
            if node.attr in {"load", "save"} and ast.unparse(node.value) == "torch":
                yield ast.unparse(node)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            closed = isinstance(node.value, ast.Constant) and node.value.value is False
            yield from () if closed else ("allow_pickle",)


def test_no_file_unpickles() -> None:
    """Only the workers of the program itself exchange pickles; nothing that was read from a file
    is unpickled.
    """
    found = {
        (str(path.relative_to(REPOSITORY)), way)
        for path in _modules("core", "dashboard", "sample_models").values()
        for way in _unpickling(path.read_text("utf-8"))
    }

    assert found == {(WORKERS, "cloudpickle"), (WORKERS, "joblib")}


def test_every_way_to_unpickle_is_seen() -> None:
    """Imports inside functions, aliases, functions of torch, NumPy and pandas count; closed ones
    do not.
    """
    ways = {
        "import pickle as p": {"pickle"},
        "def f():\n    from dill import loads": {"dill"},
        "import marshal, shelve": {"marshal", "shelve"},
        "torch.load(path)": {"torch.load"},
        "from torch import load": {"torch.load"},
        "np.load(path, allow_pickle=yes)": {"allow_pickle"},
        "frame = pd.read_pickle(path)": {"read_pickle"},
        "np.load(path, allow_pickle=False)": set(),
        "json.load(file)": set(),
    }

    assert {text: set(_unpickling(text)) for text in ways} == ways
