"""The vocabulary of layers: what a person gives one precision.

A `Layer` is a decision. It is a unit (an attention or feed-forward block declared by the source,
or a built-in type such as `nn.LSTM`) or a leaf module with operations. Layers carry the person's
own module path, always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.errors import listed
from core.files import Count, Position

ROLES: tuple[str, ...] = (
    "attention",
    "feed_forward",
    "layer_norm",
    "output_projection",
    "embedding",
    "convolution",
    "activation",
    "positional_encoding",
    "dropout",
    "pooling",
    "linear",
    "recurrent",
    "batch_norm",
    "glue",
    "other",
)
"""The ten roles of the sensitivity method, then five that other models need."""

ROOT = "(model)"
"""Name of the model itself where it is a layer: its own module path is empty."""

State = Literal["computes", "stores", "rounds output", "rounds input", "float", "nothing"]
"""What an integer precision means for a layer on the target (docs/method.md, "States").

computes: the layer's kernel works on integers.  stores: only its weight is kept as integers.
rounds output, rounds input: it runs in float between quantize and dequantize.  float: the target
has no kernel and rounds nothing.  nothing: it does nothing at inference (dropout, or a batch norm
that is folded into the layer before it).
"""

UNREACHED = (
    "No calibration sample reached {}: in every map what they hold stays as trained and in FP32, "
    "also where evaluation samples reach it."
)
SOMETIMES = (
    "Which layers run depends on the sample: {} run for some alone. Multiply-accumulates and data "
    "flow are means over a batch of calibration samples."
)

TensorKind = Literal["weight", "table", "bias", "float", "complex"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A stored tensor that a layer owns.

    `kind`: *weight* of a matrix product or convolution (integers per output channel), *table* of
    an embedding (integers per tensor), *bias* of a quantized product (int32), *float* for all
    that stays in a float format, *complex* numbers (complex64 in every precision). `channels` is the number of scales a quantized weight has.
    `operation` is the number, in call order within its layer, of the first product, convolution
    or look-up that reads it (-1: none does). `weight` names, for a bias, the weight of the same
    product, which another layer may own where weights are tied. `channel_axis` is the axis of a
    weight that has one scale per index; it says nothing where `channels` is 1. `width` are the bits
    of a value that no precision changes (a table of indices, a mask; 0: float32, which precisions
    change). `grids` are the scales that a bias is stored with, one per channel and product that
    reads it (0: it has none of its own). `group_axis` is the axis of a matrix along which the inputs
    of its product lie, or of a table along which its rows do, where formats of weights alone have
    groups (-1: none of them takes it).
    """

    name: str
    shape: tuple[Count, ...]
    kind: TensorKind
    channels: Count = 1
    operation: Position = -1
    weight: str = ""
    channel_axis: Count = 0
    width: Count = 0
    grids: Count = 0
    group_axis: Position = -1

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def on_grid(self) -> bool:
        """Whether an integer precision keeps it as integers with scales of its own."""
        return self.kind in ("weight", "table")

    @property
    def scale_axis(self) -> int | None:
        """The axis with one scale per index; None where one scale serves the whole tensor."""
        if self.channels == 1 or len(self.shape) < 2:
            return None
        return self.channel_axis if self.shape[self.channel_axis] == self.channels else 1


@dataclass(frozen=True, slots=True)
class Fused:
    """What a runtime computes in one kernel with the product or convolution that reads `weight`.

    `weight` is the name of a stored tensor of the layer. `batch_norm` is the module path of the
    batch norm whose factors go into that weight and its bias ("" = none). Where the result, after
    the batch norm if there is one, is read by nothing but an activation that only clips it,
    `low` (0) and `high` (None = unbounded) are the ends, both None where there is none; and
    `activation` names the layer that is this activation and no other ("" = a function of a
    container, or a module shared with others).
    """

    weight: str
    batch_norm: str = ""
    activation: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model.

    Shapes are per sample (no batch axis). `macs` counts multiply-accumulates per sample.
    `operations` are the kinds of operation it runs (`linear`, `conv`, `matmul`, ...), with the
    number of calls. `parts` are the module paths that own its weights. `activation_scales` is
    the number of activation tensors that get a scale and zero point when the layer is quantized,
    `product_scales` how many of them a product takes in.
    `params` counts what the model has; `tensors` are what a runtime stores, so that those of a
    folded batch norm are in the weight and bias of the layer `folded_into` ("" = not folded).
    `fused` says what follows its products in the same kernel. `dynamic` tells that the integer
    kernel takes floats and sets the ranges of its activations while it runs. `in_groups` tells that
    a product of it reads a matrix, or a look-up a table, that formats of weights alone keep by
    groups, its own or one that another layer owns.
    """

    name: str
    role: str
    kind: str
    state: State
    params: Count
    macs: Count
    input_shape: tuple[Count, ...]
    output_shape: tuple[Count, ...]
    parts: tuple[str, ...] = ()
    operations: tuple[tuple[str, Count], ...] = ()
    tensors: tuple[TensorSpec, ...] = ()
    activation_scales: Count = 0
    product_scales: Count = 0
    quantizes_output: bool = False
    input_elements: Count = 0
    output_elements: Count = 0
    folded_into: str = ""
    fused: tuple[Fused, ...] = ()
    dynamic: bool = False
    in_groups: bool = False

    @property
    def takes_scales(self) -> bool:
        """Whether floats over scales mean something for it: for the products that integers on ranges
        found before compute.
        """
        return self.state == "computes" and not self.dynamic and self.role != "pooling"

    @property
    def packs_products(self) -> bool:
        """Whether a product of it reads a matrix that formats of weights alone keep by groups."""
        return self.in_groups and any(kind == "linear" for kind, _ in self.operations)

    @property
    def takes_dynamic(self) -> bool:
        """Whether integers whose ranges are set while it runs mean something for it: for its products
        with matrices, a kernel that sets them in any case, or a table that integers store.
        """
        return self.packs_products or self.dynamic or any(s.kind == "table" for s in self.tensors)

    @property
    def idles(self) -> str:
        """What a layer does that has no precision, as the start of a sentence."""
        moves = any(kind != "dropout" for kind, _ in self.operations)
        return "Only moves values" if moves else "Does nothing"

    @property
    def computes_at_inference(self) -> bool:
        """False for a layer that is no operation of its own at inference (dropout, a folded
        batch norm).
        """
        return self.state != "nothing"


@dataclass(frozen=True, slots=True)
class Edge:
    """`elements` values per sample flow from `source` to `target`.

    Both are layer indices; from the number of layers on they count the table's joins.
    """

    source: Count
    target: Count
    elements: Count


@dataclass(frozen=True)
class LayerTable:
    """All layers of a model in execution order, with the data flow between them.

    `glue` names containers that own operations or tensors which are no layer (residual adds,
    reshapes) because the scheme rounds none of them; they stay in the reference precision, are
    listed and not counted. A container whose operations a scheme does round is a layer of the role
    "glue", and what is below it stays as it is. `joins` counts
    glue results that several producers flow into (a residual add): nodes of the data flow that
    are no layers, numbered so that producers come first. `glue_tensors` are what a file holds
    besides the tensors of layers, all of it where `holds_all`: analyses of older versions left out
    what a model does not save or keeps as no float, and counted what nothing reads, which are the
    parameters in `unread_tensors` now. `groups` are the positions of layers
    that have to share one precision; a layer is in one group at most.
    """

    layers: tuple[Layer, ...]
    edges: tuple[Edge, ...] = ()
    glue: tuple[str, ...] = ()
    glue_tensors: tuple[TensorSpec, ...] = ()
    uncalled: tuple[str, ...] = field(default=())
    joins: Count = 0
    groups: tuple[tuple[Count, ...], ...] = ()
    sometimes: tuple[str, ...] = ()
    unread_tensors: tuple[TensorSpec, ...] = ()
    holds_all: bool = False

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Layer names in execution order."""
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each layer by name."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def unreached(self) -> tuple[str, ...]:
        """Modules that hold weights and that no calibration sample reached: they are no layers,
        and stay as trained in every map.
        """
        held = (*self.unread_tensors, *self.glue_tensors)
        homes = {spec.name.rpartition(".")[0] or ROOT for spec in held}
        return tuple(name for name in self.uncalled if name in homes)

    def unreached_in_words(self) -> str:
        """What to know of the modules in `unreached`, as a sentence."""
        return UNREACHED.format(listed(self.unreached))

    def sometimes_in_words(self) -> str:
        """What to know where which layers run depends on the sample, as a sentence."""
        return SOMETIMES.format(listed(self.sometimes))

    @cached_property
    def kernels(self) -> tuple[tuple[int, int], ...]:
        """Positions of convolutions and of the activation that runs in the same kernel."""
        found = []
        for i, layer in enumerate(self.layers):
            kinds = dict(layer.operations)
            runs_with_next = "conv" in kinds and not {"linear", "conv_transpose"} & kinds.keys()
            if runs_with_next and len(layer.fused) == 1:
                activation = self.index.get(layer.fused[0].activation)
                found += [] if activation is None else [(i, activation)]
        return tuple(found)

    @cached_property
    def group_of(self) -> dict[int, int]:
        """Number of the group, from 1, by position; layers in no group are absent."""
        return {i: number for number, group in enumerate(self.groups, 1) for i in group}

    def beside(self, i: int) -> tuple[str, ...]:
        """Names of the layers that share a group with layer `i`."""
        number = self.group_of.get(i)
        group = () if number is None else self.groups[number - 1]
        return tuple(self.names[j] for j in group if j != i)

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Role of each layer."""
        return tuple(layer.role for layer in self.layers)

    @cached_property
    def params(self) -> NDArray[np.int64]:
        """Parameters per layer, shape (L,); tied weights are counted in their first owner."""
        return np.array([layer.params for layer in self.layers], dtype=np.int64)

    @cached_property
    def macs(self) -> NDArray[np.int64]:
        """Multiply-accumulates per sample and layer, shape (L,)."""
        return np.array([layer.macs for layer in self.layers], dtype=np.int64)

    @cached_property
    def computes(self) -> NDArray[np.bool_]:
        """Which layers do anything at inference, shape (L,)."""
        return np.array([layer.computes_at_inference for layer in self.layers], dtype=np.bool_)

    @cached_property
    def in_float(self) -> NDArray[np.bool_]:
        """Which layers stay in float in INT8, shape (L,)."""
        return np.array([layer.state == "float" for layer in self.layers], dtype=np.bool_)

    @cached_property
    def takes_groups(self) -> NDArray[np.bool_]:
        """Which layers formats of weights alone mean something for, shape (L,)."""
        return np.array([layer.in_groups for layer in self.layers], dtype=np.bool_)

    @cached_property
    def takes_scales(self) -> NDArray[np.bool_]:
        """Which layers floats over scales mean something for, shape (L,)."""
        return np.array([layer.takes_scales for layer in self.layers], dtype=np.bool_)

    @cached_property
    def takes_dynamic(self) -> NDArray[np.bool_]:
        """Which layers integers with ranges set while they run mean something for, shape (L,)."""
        return np.array([layer.takes_dynamic for layer in self.layers], dtype=np.bool_)
