"""Which PyTorch modules carry a layer's weights: the names that PyTorch's own tools take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.layers import ROOT, Layer, TensorSpec

FUNCTIONAL = ("MultiheadAttention",)
"""Built-in modules that hand their weights to a function: parts below them are never called."""

RECURRENT = ("LSTM", "GRU", "RNN")
LEAF = re.compile(r"(Linear|Bilinear|(Lazy)?Conv(Transpose)?[123]d|Embedding(Bag)?)$")
NOT_CALLED = (
    "nn.MultiheadAttention hands its weights to a function, so none of its modules is called"
)
BARE = "its weights belong to no module that computes with them"
ROOTLESS = "the model itself is the layer, and it has no module path"


@dataclass(frozen=True, slots=True)
class Module:
    """A module by its path, with the class that it has or must have by its weight's shape."""

    path: str
    kind: str


def modules_of(layer: Layer) -> tuple[Module, ...]:
    """Modules that carry `layer` where a tool names modules, in order; empty where none does.

    A leaf is itself. Of a unit there are the modules below it that own weights, with their class
    read from the weight: a matrix is a Linear, more axes are a convolution, a table an Embedding.
    """
    if layer.name == ROOT or layer.kind in FUNCTIONAL:
        return ()
    if layer.kind in RECURRENT or not layer.parts:
        return (Module(layer.name, layer.kind),)
    if layer.parts == (layer.name,) and LEAF.match(layer.kind):
        return (Module(layer.name, layer.kind),)
    found = []
    for part in layer.parts:
        weight = next((t for t in layer.tensors if t.name == f"{part}.weight"), None)
        kind = "" if weight is None or part == layer.name else _class(weight)
        if kind:
            found.append(Module(part, kind))
        elif part == layer.name and not any(t.on_grid for t in layer.tensors):
            found.append(Module(part, layer.kind))
    return tuple(found)


def _class(weight: TensorSpec) -> str:
    if weight.kind == "table":
        return "Embedding"
    if weight.kind != "weight":
        return ""
    return "Linear" if len(weight.shape) == 2 else f"Conv{len(weight.shape) - 2}d"


def why_none(layer: Layer) -> str:
    """Why no module carries `layer`."""
    if layer.name == ROOT:
        return ROOTLESS
    return NOT_CALLED if layer.kind in FUNCTIONAL else BARE
