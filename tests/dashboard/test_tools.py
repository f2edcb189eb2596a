"""Export for another tool: legality and names first, then the file, its limits and the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.decide import answer
from core.decide.policy.policy import Policy, format_rules
from core.export import bundle
from core.export.targets.names import NODES_FILE
from core.export.targets.registry import TARGETS, export, get
from core.onnx_graph import node_table as graphs
from dashboard.app_pages.export import tool_file, tools
from dashboard.display.text import plain
from tests.core import deployable
from tests.dashboard.conftest import Open, failures, said
from tests.dashboard.test_policy import view

RULES = format_rules(deployable.MIXED)


@pytest.fixture
def open_model(
    open_app: Open,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """The page of the model by hand, whose nodes are kept with the analysis."""
    folder = tmp_path / "deployable"
    store.save(deployable.study().analysis, folder)
    (folder / NODES_FILE).write_bytes(graphs.to_json(deployable.node_table()))
    monkeypatch.setitem(folders, "deployable", folder)
    return open_app


def page(open_model: Open, folders: dict[str, Path], tool: str, overrides: str = RULES) -> AppTest:
    """The page with a tool chosen."""
    app = open_model("deployable", page="export", strategy="manual", overrides=overrides)
    app.selectbox(key=tool_file.TOOL).set_value(tool).run()
    return app


def button(app: AppTest, name: str) -> list[str]:
    """Labels of the download buttons of a tool's file."""
    return [b.label for b in app.download_button if b.label == f"Download {get(name).file}"]


def give(app: AppTest, name: str, content: bytes) -> None:
    """Upload names."""
    app.file_uploader(key=tool_file.NAMES).set_value((name, content, "text/plain")).run()


@pytest.mark.parametrize("name", TARGETS)
def test_every_tool_has_its_file(name: str, open_model: Open, folders: dict[str, Path]) -> None:
    """Under the nearest legal map the file is core's, previewed, with its limits in words."""
    app = page(open_model, folders, name)
    shown = view(app)
    assert shown.now.chosen.assigned == deployable.chosen(shown.study).assigned
    box = [c for c in app.checkbox if c.key == tool_file.NEAREST]
    if box:
        assert button(app, name) == []
        box[0].check().run()

    assert failures(app) == []
    assert get(name).purpose in said(app)  # Markdown of our own: `code` shows as code
    made = export(shown.study, shown.now.chosen, name, graph=deployable.graph(), nearest=bool(box))
    assert len(button(app, name)) == 1
    first = "\n".join(made.content.decode().splitlines()[:30])
    assert first.rstrip() in [block.value.rstrip() for block in app.code]
    for sentence in made.cannot:
        assert plain(sentence) in said(app)
    if made.mismatch is not None:
        assert plain(made.mismatch) in said(app)


def test_illegal_choices_are_told_before_the_file(
    open_model: Open, folders: dict[str, Path]
) -> None:
    """The layers, the reason and the cost of the nearest map stand there, and no button yet."""
    app = page(open_model, folders, "torchao")

    (warning,) = (w.value for w in app.warning if "cannot run" in w.value)
    assert "nearest legal map changes size" in warning
    table = next(d.value for d in app.dataframe if "why" in d.value)
    assert "stem.conv" in set(table["layer"])
    assert set(table["nearest"]) <= {"FP16", "FP32"}
    assert button(app, "torchao") == []
    app.checkbox(key=tool_file.NEAREST).check().run()
    assert len(button(app, "torchao")) == 1


def test_a_wrong_name_is_told_with_the_nearest(open_model: Open, folders: dict[str, Path]) -> None:
    """Module paths of another model are refused, and right ones clear the message."""
    app = page(open_model, folders, "torchao")
    app.checkbox(key=tool_file.NEAREST).check().run()

    give(app, "names.txt", b"mixer.linear1\nmixer.linear_2\nhead\n")
    (message,) = failures(app)
    assert plain("no mixer.linear2 (nearest: mixer.linear_2") in message
    assert button(app, "torchao") == []
    give(app, "names.txt", b"mixer.linear1\nmixer.linear2\nhead\n")
    assert failures(app) == []
    assert len(button(app, "torchao")) == 1


@pytest.mark.parametrize(("name", "content", "message"), [
    ("nodes.json", b"{]", "is no node table"),
    ("m.onnx", b"\x00\xff", "is no ONNX model"),
    ("names.txt", b"\xff\xfe\x00", "is no text"),
])  # fmt: skip
def test_files_that_hold_no_names_are_refused(
    name: str, content: bytes, message: str, open_model: Open, folders: dict[str, Path]
) -> None:
    """Garbage is named, and nothing else on the page is lost."""
    app = page(open_model, folders, "nncf")
    give(app, name, content)

    assert plain(message) in failures(app)[0]
    assert any(b.label == "Download JSON" for b in app.download_button)


def test_a_graph_of_another_model_is_refused(open_model: Open, folders: dict[str, Path]) -> None:
    """A node table that lacks a layer's products names the layer."""
    table = deployable.node_table()
    nodes = tuple(n for n in table.nodes if n.module != "head")
    app = page(open_model, folders, "nncf")
    give(app, "nodes.json", graphs.to_json(graphs.NodeTable(1, "x", nodes)))

    assert "has no head" in failures(app)[0]


def test_without_nodes_the_page_says_where_they_come_from(open_app: Open) -> None:
    """A tool of ONNX nodes needs them; a tool of modules does not."""
    app = open_app("measured", page="export", strategy="uniform", uniform="FP32")
    app.selectbox(key=tool_file.TOOL).set_value("nncf").run()
    (told,) = (i.value for i in app.info if "names ONNX nodes" in i.value)
    assert "python -m core nodes" in told
    assert button(app, "nncf") == []

    app.selectbox(key=tool_file.TOOL).set_value("torchao").run()
    assert failures(app) == []
    assert len(button(app, "torchao")) == 1


def test_the_bundle_is_cores(open_model: Open, folders: dict[str, Path]) -> None:
    """The page offers the .zip that core writes for the map at hand."""
    app = page(open_model, folders, "onnxruntime")
    shown = view(app)

    assert [b.label for b in app.download_button].count("Download the bundle") == 1
    known = tools.Known("test", "", deployable.graph())
    assert tools.bundled(shown.opened, shown.policy, known) == bundle.to_zip(
        shown.study, shown.now.chosen, deployable.graph()
    )


def test_the_bundled_samples_have_their_nodes(open_app: Open) -> None:
    """For a sample nothing has to be uploaded: its nodes are kept with its analysis."""
    app = open_app("measured", page="export")
    app.selectbox(key="model").set_value("informer").run()
    app.selectbox(key=tool_file.TOOL).set_value("onnxruntime").run()

    assert failures(app) == []
    assert "Names checked: kept with the analysis" in said(app)


def test_the_policy_of_a_row_is_the_maps(open_model: Open, folders: dict[str, Path]) -> None:
    """Another strategy of the page is exported when it is chosen."""
    app = page(open_model, folders, "quanto")
    app.checkbox(key=tool_file.NEAREST).check().run()
    app.selectbox(key="export_strategy").set_value("All INT8").run()

    one = view(app).study
    all8 = answer.decide(one, Policy(strategy="uniform", uniform="INT8"))
    made = export(one, all8, "quanto", graph=deployable.graph(), nearest=True)
    assert set(json.loads(made.content)) == {"stem.conv", "mixer.linear1", "mixer.linear2", "head"}
    assert made.content.decode().rstrip() in [block.value.rstrip() for block in app.code]
