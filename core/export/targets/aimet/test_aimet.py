"""AIMET quantizes exactly the nodes of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.onnx_graph.node_table import PRODUCTS
from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(
    name: str, tmp_path: Path, onnx_of: sample.OnnxOf
) -> None:
    """Enabled integer quantizers of weights are those of INT8 layers, and all of theirs."""
    sample.needs("aimet_onnx", "aimet")
    path, data, graph = onnx_of(name)
    study = sample.study_of(name)
    chosen = sample.mixed(study, "aimet", graph)
    script = sample.imported(sample.written(name, "aimet", tmp_path, graph))
    sim = script.simulate(str(path), str(data))

    products = sample.products_by_layer(graph)
    owner = {  # by what they give, since AIMET renames nodes that it joins
        node.outputs[0]: layer
        for node, layer in zip(graph.nodes, graph.owner, strict=True)
        if layer in products and (node.name in products[layer] or node.op_type == "Add")
    }
    got: dict[str, set[bool]] = {}
    half: dict[str, set[bool]] = {}
    for operation in sim.connected_graph.get_all_ops().values():
        layer = owner.get(operation.outputs[0].name if operation.outputs else "")
        if layer is None or operation.type not in PRODUCTS:
            continue
        _, _, parameters = sim.get_op_quantizers(operation)
        weight = parameters.get("weight")
        if weight is None:
            continue
        integer = bool(weight.enabled) and weight.data_type.name == "int" and weight.bitwidth == 8
        got.setdefault(layer, set()).add(integer)
        half.setdefault(layer, set()).add(bool(weight.enabled) and weight.data_type.name == "float")
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert {n for n, found in got.items() if found == {True}} == wanted
    assert all(len(found) == 1 for found in got.values())
    assert {n for n, found in half.items() if found == {True}} == {
        n for n in half if chosen.by_layer[n] == "FP16"
    }
