"""Intel Neural Compressor rounds exactly the modules of INT8 layers when it runs our script."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")

PRODUCTS = ("aten.conv2d", "aten.linear", "aten.convolution", "aten.addmm", "aten.mm")


@pytest.mark.parametrize("name", sample.SAMPLES)
def test_exactly_the_intended_layers_are_int8(name: str, tmp_path: Path) -> None:
    """Products whose weight is dequantized belong to INT8 layers, and no others."""
    sample.needs("neural_compressor.torch.quantization", "inc")
    study = sample.study_of(name)
    chosen = sample.mixed(study, "inc", None)
    x = sample.inputs_of(name)
    model = sample.model_of(name)
    before = model(x)
    script = sample.imported(sample.written(name, "inc", tmp_path))
    quantized = script.quantize(model, (x,), lambda m: m(x))

    rounded: dict[str, set[bool]] = {}
    for node in quantized.graph.nodes:
        stack = [v[0] for v in (node.meta.get("nn_module_stack") or {}).values()]
        if node.op != "call_function" or not str(node.target).startswith(PRODUCTS) or not stack:
            continue
        weight = node.args[1]
        while "dequantize" not in str(weight.target) and str(weight.target).startswith(
            ("aten.t", "aten.permute")
        ):
            weight = weight.args[0]
        rounded.setdefault(stack[-1], set()).add("dequantize" in str(weight.target))
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert all(len(found) == 1 for found in rounded.values())
    done = {module for module, found in rounded.items() if found == {True}}
    assert done == {module for module in rounded if sample.module_layer(study, module) in wanted}
    assert {sample.module_layer(study, module) for module in done} == wanted
    with torch.no_grad():
        error = (quantized(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()
