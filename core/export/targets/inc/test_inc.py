"""Intel Neural Compressor rounds exactly the modules of INT8 layers when it runs our script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")

PRODUCTS = ("aten.conv2d", "aten.linear", "aten.convolution", "aten.addmm", "aten.mm")


def _rounded(quantized: Any) -> dict[str, set[bool]]:
    """Module -> whether the weights of its products are dequantized."""
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
    return rounded


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

    rounded = _rounded(quantized)
    wanted = sample.integer_layers(study, chosen)
    assert wanted
    assert all(len(found) == 1 for found in rounded.values())
    done = {module for module, found in rounded.items() if found == {True}}
    assert done == {module for module in rounded if sample.module_layer(study, module) in wanted}
    assert {sample.module_layer(study, module) for module in done} == wanted
    with torch.no_grad():
        error = (quantized(x) - before).abs().max()
    assert 0 < error < 0.3 * before.abs().max()


@pytest.mark.parametrize("precision", sample.FORMATS)
def test_weights_by_groups_have_the_measured_codes(precision: str, tmp_path: Path) -> None:
    """What such modules multiply with is what the codes of the evidence stand for with its scales in
    FP16, rounded to FP16, but for weights half way between two in 8 bits, in exactly these modules; others are in INT8 in the same graph.
    """
    sample.needs("neural_compressor.torch.quantization", "inc")
    study, chosen = sample.in_turns("digits_vit", "inc", None, ("INT8", "FP32", precision))
    x = sample.inputs_of("digits_vit")
    model = sample.model_of("digits_vit")
    expected = sample.packed_modules(study, chosen, model, whole=False)
    script = sample.script_of(study, chosen, "inc", tmp_path)
    packed = script.by_groups(sample.model_of("digits_vit"))
    quantized = script.quantize(model, (x,), lambda m: m(x))

    done = {n: m for n, m in packed.named_modules() if type(m).__name__ == "INCWeightOnlyLinear"}
    assert {p for p, _ in expected.values()} == {precision}
    assert done.keys() == expected.keys()
    for name, (_, kept) in expected.items():
        half = replace(kept, scales=kept.scales.half().float())
        assert done[name].bits == kept.bits
        assert torch.equal(done[name].scales.T.float(), half.scales)
        other = done[name].recover() != half.restored().half()
        assert other.float().mean() < (2e-3 if kept.bits == 8 else 1e-9)  # halves go to even there
    integer = {n for n, found in _rounded(quantized).items() if found == {True}} - expected.keys()
    assert integer
    assert {chosen.by_layer[sample.module_layer(study, n)] for n in integer} == {"INT8"}
    with torch.no_grad():
        assert 0 < (quantized(x) - packed(x)).abs().max() < 0.2 * packed(x).abs().max()
