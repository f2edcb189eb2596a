"""What INT8 means for a layer, by scheme and by what the layer runs: read from `kernel_table.toml`.

Facts of runtimes, each with its source; nothing here depends on a model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import get_args

from core.layers import Layer, State, TensorSpec

DEFAULT = "ort-cpu"
SAME_AS = {"openvino-mixed": "openvino"}
"""Schemes that differ in their grids alone."""

PRODUCTS = ("conv", "linear", "matmul")
BY_ROLE = ("layer_norm", "batch_norm", "activation", "glue")
UNLIKE_PRODUCTS = ("conv_transpose", "einsum_weight", "einsum")
"""Products whose kernels may not take integers although those of other products do: each such
operation of a layer follows its own row, whatever else the layer runs."""
BODIES = ("If", "Loop", "Scan")
"""Operators of ONNX that hold graphs of their own."""
ROWS = ("dropout", "body", "moves", "lstm", "recurrent", "unrolled", "pooling", *PRODUCTS,
        *UNLIKE_PRODUCTS, "embedding", *BY_ROLE, "complex", "other")  # fmt: skip
"""What a layer can run; every scheme says something of each. lstm: one without a projection;
recurrent: GRU; unrolled: RNN, cells and an LSTM with a projection, which the exporter writes step
by step; einsum: of activations alone, einsum_weight: of a weight; moves: values are laid elsewhere
and none is computed; body: a branch or loop with a graph of its own; glue: operations of a
container that are no products."""
MOVES = frozenset(
    [
        "pad",
        "flatten",
        "unflatten",
        "reshape",
        "view",
        "view_as",
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "contiguous",
        "clone",
        "identity",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "narrow",
        "select",
        "unbind",
        "detach",
        "to",
        "dropout",
    ]
)
"""Functions that lay values elsewhere and compute none."""
_UNROLLED = frozenset(("LSTM", "RNN", "LSTMCell", "GRUCell", "RNNCell"))


Rows = dict[str, dict[str, dict[str, str]]]
FORMATS, TABLES = "formats", "tables"
"""The parts of the file that speak of formats beside INT8 and those that are cast to: in products, and
of formats by groups in look-ups."""
FORMATS_AS = {**SAME_AS, "ort-cpu-all": "ort-cpu"}
"""Schemes of one runtime: it has the same kernels for such formats."""


@cache
def _file() -> dict[str, Rows]:
    return tomllib.loads(files("core.numerics").joinpath("kernel_table.toml").read_text("utf-8"))


@cache
def table() -> Rows:
    """Scheme -> what a layer runs, or its module type -> {state, source}."""
    found: Rows = {
        name: dict(rows)  # type: ignore[arg-type]
        for name, rows in _file().items()
        if name not in (FORMATS, TABLES)
    }
    return found


def format_row(scheme: str, precision: str) -> dict[str, str]:
    """`state` and `source` of products in such a format at the target of `scheme`."""
    return _file()[FORMATS][FORMATS_AS.get(scheme, scheme)][precision]


def look_up_row(scheme: str) -> dict[str, str]:
    """`state` and `source` of look-ups in tables that a format of weights alone packs, at the target of
    `scheme`.
    """
    return _file()[TABLES][FORMATS_AS.get(scheme, scheme)]  # type: ignore[return-value]


def row(scheme: str, runs: str, kind: str = "") -> dict[str, str]:
    """`state` and `source`, and how activations get their `ranges` if not by calibration, under `scheme` of a layer that runs `runs`, of module type `kind`."""
    rows = table()[SAME_AS.get(scheme, scheme)]
    return rows.get(kind) or rows[runs]


def state(scheme: str, runs: str, kind: str = "") -> State:
    """What INT8 means under `scheme`."""
    found = row(scheme, runs, kind)["state"]
    return next(one for one in get_args(State) if one == found)


def is_dynamic(scheme: str, runs: str, kind: str = "") -> bool:
    """Whether the kernel under `scheme` takes floats and sets ranges of activations itself."""
    return row(scheme, runs, kind).get("ranges") == "dynamic"


def operation_state(scheme: str, special: str) -> State:
    """What INT8 means under `scheme` for one product: a name in `UNLIKE_PRODUCTS`, or "" for any
    other product of a layer that computes on integers.
    """
    return state(scheme, special) if special else "computes"


def runs_of(role: str, operations: Mapping[str, int]) -> str:
    """What a layer that is neither dropout nor recurrent runs, as a row of the table: that of its
    plain products if it has any.
    """
    if role == "pooling":
        return "pooling"
    unlike = [name for name in UNLIKE_PRODUCTS if name in operations]
    products = [name for name in PRODUCTS if name in operations]
    if unlike and sum(operations[n] for n in products) <= sum(operations[n] for n in unlike):
        # Tables of older versions call an einsum of a weight an einsum.
        is_old = unlike == ["einsum"] and "linear" in operations
        return "einsum_weight" if is_old else unlike[0]
    heaviest = next((name for name in (*products, "embedding") if name in operations), None)
    return heaviest or (role if role in BY_ROLE else "other")


def is_complex(tensors: Iterable[TensorSpec], operations: Mapping[str, int]) -> bool:
    """Whether a layer computes with complex weights and with no real product beside them."""
    has_product = any(name in operations for name in PRODUCTS)
    return not has_product and any(spec.kind == "complex" for spec in tensors)


def runs(layer: Layer) -> str:
    """What `layer` runs, whatever scheme its `state` speaks of."""
    if layer.state == "nothing":
        return "dropout"
    if layer.kind in BODIES:
        return "body"
    operations = dict(layer.operations)
    if is_complex(layer.tensors, operations):
        return "complex"
    found = runs_of(layer.role, operations)
    if found in UNLIKE_PRODUCTS:
        return found
    projects = any("weight_hr" in spec.name for spec in layer.tensors)
    if layer.dynamic or (layer.kind == "LSTM" and not projects):
        return "lstm"
    if layer.kind in _UNROLLED:
        return "unrolled"
    has_product = any(name in operations for name in PRODUCTS)
    if layer.kind == "GRU" or (has_product and layer.state in ("stores", "float")):
        return "recurrent"  # only of a recurrent layer are plain products not computed in integers
    return found
