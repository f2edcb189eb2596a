"""Model Explorer's own classes read our node data."""

from __future__ import annotations

import json
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
    builder = sample.needs("model_explorer.node_data_builder", "model-explorer")
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
