"""Model Explorer's own classes read our node data, and Netron's viewer our attachment."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.export.targets.names import kept_nodes
from core.onnx_graph.node_table import lay_over
from core.source import samples
from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("target", ["model-explorer", "model-explorer-precisions"])
def test_its_classes_read_the_file(target: str, tmp_path: Path) -> None:
    """Built from the file, `GraphNodeData` writes the same data back."""
    sample.needs("model_explorer.node_data_builder", "model-explorer")
    from model_explorer import node_data_builder as builder

    name = "digits_vit"
    table = kept_nodes(samples.get(name).analysis)
    assert table is not None
    graph = lay_over(table, sample.study_of(name).layers)
    given = json.loads(sample.written(name, target, tmp_path, graph).read_text("utf-8"))
    data = builder.GraphNodeData(
        **{
            **given,
            "results": {n: builder.NodeDataResult(**r) for n, r in given["results"].items()},
            "thresholds": [builder.ThresholdItem(**t) for t in given.get("thresholds", [])],
        }
    )
    again = json.loads(data.to_json_string())

    assert {key: again[key] for key in given} == given
    assert set(given["results"]) == {n.name for nodes in graph.of.values() for n in nodes}


def test_netron_reads_these_keys() -> None:
    """The keys of our attachment are those that Netron's viewer looks for."""
    sample.needs("netron", "model-explorer")
    found = find_spec("netron")
    assert found is not None
    assert found.origin is not None
    text = (Path(found.origin).parent / "view.js").read_text("utf-8")
    reader = text.split("metadata.Attachment = class")[1].split(
        "metadata.Attachment.Container = class"
    )
    entries = reader[1].split("model(value)")[0]

    assert "'netron:attachment'" in reader[0]
    assert "Container('metadata')" in reader[0]
    assert "Container('metrics')" in reader[0]
    for key in ("item.kind", "'target' in item", "item.name", "item.value"):
        assert key in entries
