"""What every test with a real tool starts from: a sample, a mixed map, its file, and the truth."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from core.analysis import store
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.targets.legality import legality
from core.export.targets.packed import PRODUCTS as PACKED_PRODUCTS
from core.export.targets.registry import export, get
from core.numerics import precision as registry
from core.numerics.groups import Grouped, grouped
from core.numerics.precision import Precision
from core.onnx_graph import read_nodes
from core.onnx_graph.node_table import PRODUCTS, Graph, lay_over
from core.source import samples
from core.source.contract import ModelSource
from core.source.inventory import take_inventory

SAMPLES = ("digits_vit", "digits_resnet")
FORMATS = tuple(name for name in registry.names() if registry.get(name).is_weights_only)
"""Precisions of weights alone, by groups."""
Exported = tuple[Path, Path, Graph]
"""A sample as ONNX, its calibration data as .npz, and its nodes laid over its layers."""
OnnxOf = Callable[[str], Exported]


def needs(module: str, tool: str) -> Any:
    """A module of the tool. Where it is not installed the test is skipped, with how to run it; in
    the tool's own environment (`INTEROP=required`) it fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        said = f"{tool} is not usable here ({error})"
        if os.environ.get("INTEROP") == "required":
            pytest.fail(said)
        pytest.skip(f"{said}; `make test-interop-{tool}` tests with it")


@cache
def source_of(name: str) -> ModelSource:
    """A sample's model and data. Tools change models: take `model_of` for them."""
    return samples.load(f"{samples.PREFIX}{name}")


def model_of(name: str) -> nn.Module:
    """A fresh copy of a sample's model."""
    return samples.load(f"{samples.PREFIX}{name}").model.eval()


def inputs_of(name: str, count: int = 64) -> Tensor:
    """The first calibration samples."""
    found: Any = source_of(name).calibration.inputs
    return found[:count]  # type: ignore[no-any-return]


@cache
def study_of(name: str) -> Study:
    """A sample's shipped analysis."""
    return Study(store.load(samples.get(name).analysis))


@cache
def open_study_of(name: str) -> Study:
    """A sample without evidence, so that its maps take any precision that is registered."""
    analysis = study_of(name).analysis
    layers = take_inventory(source_of(name), expand_units=analysis.expanded_units)
    return Study(replace(analysis, layers=layers, evidence=None))


def in_turns(
    name: str, target: str, graph: Graph | None, turns: Sequence[str]
) -> tuple[Study, PrecisionMap]:
    """Layers with products in `turns` of precisions, everything else in FP32, made legal for
    `target`.
    """
    study = open_study_of(name)
    products = [layer.name for layer in study.layers if _multiplies(study, layer.name)]
    wanted = tuple((layer, turns[i % len(turns)]) for i, layer in enumerate(products))
    policy = Policy(strategy="manual", high="FP32", overrides=wanted)
    return study, legality(study, answer.decide(study, policy), get(target), graph).legal


def script_of(
    study: Study, chosen: PrecisionMap, target: str, folder: Path, graph: Graph | None = None
) -> ModuleType:
    """The script of a map for `target`, imported."""
    path = folder / get(target).file
    path.write_bytes(export(study, chosen, target, graph=graph).content)
    return imported(path)


def packed_modules(
    study: Study, chosen: PrecisionMap, model: nn.Module, *, whole: bool
) -> dict[str, tuple[str, Grouped]]:
    """Linear modules of `model` that the map keeps by groups, with the precision and the bits that
    evidence has; where `whole`, those alone whose inputs the groups divide.
    """
    found = {}
    for path, module in model.named_modules():
        precision = chosen.by_layer.get(module_layer(study, path))
        if not isinstance(module, nn.Linear) or precision not in FORMATS:
            continue
        kept = registry.get(precision).weights
        if not (whole and module.in_features % kept.group) and "attention" not in path:
            found[path] = precision, grouped(module.weight, kept)
    return found


def modules_in(study: Study, chosen: PrecisionMap, model: nn.Module, precision: str) -> set[str]:
    """Linear and Conv2d modules of `model` whose layers the map puts in `precision`."""
    return {
        path for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and chosen.by_layer.get(module_layer(study, path)) == precision
    }  # fmt: skip


def packed_products(
    model: Any, chosen: PrecisionMap, graph: Graph, kinds: Sequence[str] = PACKED_PRODUCTS
) -> dict[str, tuple[Any, Precision]]:
    """Products of an ONNX model, of such `kinds`, whose constant matrix a map keeps by groups, by name."""
    held = {constant.name for constant in model.graph.initializer}
    return {
        n.name: (n, registry.get(chosen.by_layer[graph.owner_of[n.name]] or ""))
        for n in model.graph.node
        if n.op_type in kinds and n.input[1] in held
        and chosen.by_layer[graph.owner_of[n.name]] in FORMATS
    }  # fmt: skip


def mixed(study: Study, target: str, graph: Graph | None) -> PrecisionMap:
    """Every second layer in INT8, the others by turns in FP16 and FP32, made legal for `target`.

    Layers that run inside another's kernel go with it, so that no kernel is split.
    """
    turns = ("INT8", "FP16", "INT8", "FP32")
    names = [layer.name for layer in study.layers if layer.computes_at_inference]
    products = [n for n in names if _multiplies(study, n)]
    wanted = {name: turns[i % 4] for i, name in enumerate(products)}
    last = "FP32"
    for name in names:
        last = wanted.setdefault(name, last)
    policy = Policy(strategy="manual", high="FP32", overrides=tuple(wanted.items()))
    return legality(study, answer.decide(study, policy), get(target), graph).legal


def _multiplies(study: Study, name: str) -> bool:
    layer = study.layers.layers[study.layers.index[name]]
    return bool({"linear", "conv"} & {kind for kind, _ in layer.operations})


def integer_layers(study: Study, chosen: PrecisionMap) -> set[str]:
    """Layers with weights that the map puts in INT8: what the tool must make integers of."""
    return {name for name, p in chosen.by_layer.items() if p == "INT8" and _multiplies(study, name)}


def module_layer(study: Study, module: str) -> str:
    """The layer that a module belongs to: itself or the longest that it lies under."""
    while module and module not in study.layers.index:
        module = module.rpartition(".")[0]
    return module


def written(name: str, target: str, folder: Path, graph: Graph | None = None) -> Path:
    """The file for `target` on disk."""
    study = study_of(name)
    made = export(study, mixed(study, target, graph), target, graph=graph)
    path = folder / get(target).file
    path.write_bytes(made.content)
    return path


def imported(path: Path) -> ModuleType:
    """A generated script as a module."""
    name = f"generated_{path.stem}_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def exported(name: str, folder: Path) -> Exported:
    """The sample as ONNX, its calibration data as .npz, and its nodes laid over its layers."""
    import onnx

    from core.runtime.torch_export import export_as_deployed

    path, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    onnx.save(export_as_deployed(source_of(name), study_of(name).layers), path)
    np.savez(data, x=inputs_of(name).numpy())
    layers = study_of(name).layers
    return path, data, lay_over(read_nodes.read(path, layers), layers)


def products_by_layer(graph: Graph) -> dict[str, set[str]]:
    """Names of the product nodes with weights or activations, by layer."""
    found: dict[str, set[str]] = {}
    for node, layer in zip(graph.nodes, graph.owner, strict=True):
        if node.op_type in PRODUCTS and layer:
            found.setdefault(layer, set()).add(node.name)
    return found


def dequantized_products(model: Any) -> set[str]:
    """Names of product nodes of an `onnx.ModelProto` all of whose operands come from Q/DQ."""
    maker = {tensor: node for node in model.graph.node for tensor in node.output}
    through = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}

    def rounded(tensor: str) -> bool:
        node = maker.get(tensor)
        while node is not None and node.op_type in through:
            node = maker.get(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    return {
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and all(rounded(t) for t in node.input[:2])
    }
