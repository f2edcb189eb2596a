"""What a runtime fuses: batch norms that fold into the product before them, and activations that
it computes in the same kernel.

Both are read off the traced run, from which function's result is read by which other function
and by nothing else; names decide nothing. What folds is what `torch.nn.utils.fusion` and
ONNX exporters fold: y = (w x + b - mean) * f + beta with f = gamma / sqrt(var + eps) is a product
with the weight w f and the bias (b - mean) f + beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from core.layers import ROOT, Fused
from core.source.form import is_about_form
from core.source.operations import Operation, Stored, operand
from core.source.trees import tensors

Clip = tuple[float, float | None]
"""Least and largest value that an activation lets through; None = unbounded."""

_FROM_ZERO = frozenset((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_))
_HARDTANH = ("min_val", "max_val", -1.0, 1.0)
_CLAMP = ("min", "max", None, None)
_ENDS: Mapping[Callable[..., Any], tuple[str, str, float | None, float | None]] = {
    F.relu6: ("", "", 0.0, 6.0),
    F.hardtanh: _HARDTANH,
    F.hardtanh_: _HARDTANH,
    torch.clamp: _CLAMP,
    torch.clamp_: _CLAMP,
    Tensor.clamp: _CLAMP,
    Tensor.clamp_: _CLAMP,
}
"""Activations that clip: the keywords of their ends, and what these are by default."""
_NORM_ARGUMENTS = ("input", "running_mean", "running_var", "weight", "bias", "training")


@dataclass
class _Value:
    """A result that may be the middle of a kernel. `version` tells when it is written to."""

    tensor: Tensor
    version: int
    reads: list[_ResultReader] = field(default_factory=list)


@dataclass
class _ResultReader:
    """A function that reads such a result, in the module at `path`.

    `norm` is what came out if it is a batch norm with fixed statistics, `clip` its ends if it is
    an activation that clips.
    """

    path: str
    norm: _Value | None = None
    clip: Clip | None = None


@dataclass(frozen=True)
class _Product:
    """One call of a convolution or of `linear` with stored operands."""

    weight: Tensor
    bias: Tensor | None
    path: str
    folds: bool
    value: _Value


class Links:
    """Watches which function reads the result of which, in one pass of `model`."""

    def __init__(self, model: nn.Module, stored: Stored) -> None:
        self._model, self._stored = model, stored
        self._products: list[_Product] = []
        self._values: dict[int, _Value] = {}
        self._kept: list[_Value] = []  # ids are reused once a tensor is freed
        self._readers: dict[int, list[str]] = {}  # stored tensor -> module paths, one per read
        self._norms: dict[str, int] = {}  # batch norm -> calls
        self._clips: dict[str, int] = {}  # module -> calls of a clipping activation

    def note(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any],
        output: Any, operation: Operation | None, path: str,
    ) -> None:  # fmt: skip
        """Take note of a function that has run in the module at `path`."""
        made = tensors(output)
        if not made and is_about_form(func):
            return
        given = tensors((args, tuple(kwargs.values())))
        clip = _clip(func, args, kwargs)
        if clip is not None:
            self._clips[path] = self._clips.get(path, 0) + 1
        is_norm = func is F.batch_norm and self._is_fixed_norm(path, args, kwargs)
        if is_norm:
            self._norms[path] = self._norms.get(path, 0) + 1
        for tensor in given:
            root = self._stored.root(tensor)
            if root is not None:
                self._readers.setdefault(id(root), []).append(path)
            value = self._values.get(id(tensor))
            if value is None:
                continue
            is_first = bool(given) and tensor is given[0]
            norm = self._follow(made[0]) if is_norm and is_first else None
            value.reads.append(_ResultReader(path, norm, clip if is_first else None))
            if tensor._version != value.version:  # noqa: SLF001 (what is read later is another value)
                self._values.pop(id(tensor))
        if operation is not None and made:
            self._note_product(func, args, kwargs, made[0], operation, path)

    def returned(self, output: Any) -> None:
        """Take note of what the model returns: a reader like any other."""
        for tensor in tensors(output):
            if id(tensor) in self._values:
                self._values[id(tensor)].reads.append(_ResultReader(""))

    def _follow(self, tensor: Tensor) -> _Value:
        value = _Value(tensor, tensor._version)  # noqa: SLF001
        self._values[id(tensor)] = value
        self._kept.append(value)
        return value

    def _note_product(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any],
        output: Tensor, operation: Operation, path: str,
    ) -> None:  # fmt: skip
        if operation.kind != "conv" and func is not F.linear:
            return
        weight = operand(operation.weight, args, kwargs) if operation.weight else None
        bias = operand(operation.bias, args, kwargs) if operation.bias else None
        if weight is None or self._stored.root(weight) is not weight:
            return  # computed from other tensors, as by a parametrization
        folds = bias is None or self._stored.root(bias) is bias
        # Batch norm takes axis 1; the channels of a linear layer are the last.
        folds = folds and (operation.kind == "conv" or output.ndim == 2)
        self._products.append(_Product(weight, bias, path, folds, self._follow(output)))

    def _is_fixed_norm(self, path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call is that of a batch norm module in float32 with its running statistics."""
        module = self._model.get_submodule(path)
        if not isinstance(module, _BatchNorm):
            return False
        given = dict(zip(_NORM_ARGUMENTS, args, strict=False)) | dict(kwargs)
        mean, var = module.running_mean, module.running_var
        if given.get("training") or mean is None or var is None:
            return False
        own = (module.running_mean, module.running_var, module.weight, module.bias)
        read = tuple(given.get(name) for name in _NORM_ARGUMENTS[1:5])
        is_own = all(a is b for a, b in zip(own, read, strict=True))
        parts = [t for t in own if t is not None]
        is_plain = all(t.dtype == torch.float32 and bool(torch.isfinite(t).all()) for t in parts)
        return is_own and is_plain and bool((var + module.eps > 0).all())

    def fused(self, owner: Mapping[str, str | None]) -> dict[str, tuple[Fused, ...]]:
        """Layer (module path) -> what follows its products in the same kernel.

        `owner` maps module paths to layers.
        """
        names: dict[int, str] = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), name)  # a tied weight has several
        by_weight: dict[int, list[_Product]] = {}
        for product in self._products:
            by_weight.setdefault(id(product.weight), []).append(product)
        found: dict[str, list[Fused]] = {}
        for key, products in by_weight.items():
            layers = {owner.get(product.path) for product in products}
            layer = layers.pop()
            home = names.get(key, "").rpartition(".")[0]
            if layers or layer is None or key not in names or not is_inside(home, layer):
                continue
            norm, values = self._fold(products, owner)
            activation, clip = self._activation(values, owner)
            if norm is not None or clip is not None:
                low, high = clip or (None, None)
                one = Fused(names[key], norm or "", activation, low, high)
                found.setdefault(layer, []).append(one)
        return {layer: tuple(fused) for layer, fused in found.items()}

    def _fold(
        self, products: list[_Product], owner: Mapping[str, str | None]
    ) -> tuple[str | None, list[_Value]]:
        """The batch norm that folds into `products` of one weight, and what the kernel gives."""
        values = [product.value for product in products]
        reads = _only_reads(values)
        after = [read.norm for read in reads if read.norm is not None]
        if not reads or len(after) < len(reads):
            return None, values
        path = reads[0].path
        module = self._model.get_submodule(path)
        parts = (module.running_mean, module.running_var, module.weight, module.bias)
        stored = [id(part) for part in tensors(parts)]
        operands = {id(x): x for p in products for x in (p.weight, p.bias) if x is not None}
        if (
            any(read.path != path for read in reads)
            or self._norms[path] != len(reads)
            or owner.get(path) != path
            or not all(product.folds for product in products)
            or any(len(self._readers[key]) != len(products) for key in operands)
            or any(set(self._readers[part]) != {path} for part in stored)
        ):
            return None, values
        return path, after

    def _activation(
        self, values: list[_Value], owner: Mapping[str, str | None]
    ) -> tuple[str, Clip | None]:
        """The layer of the activation that alone reads `values` ("" = none of its own), and its
        ends (None = there is no such activation).
        """
        reads = _only_reads(values)
        clips = {read.clip for read in reads}
        if len(clips) != 1 or None in clips:
            return "", None
        clip = clips.pop()
        paths = {read.path for read in reads}
        path = paths.pop()
        is_leaf = next(self._model.get_submodule(path).children(), None) is None
        own = not paths and is_leaf and owner.get(path) == path and self._clips[path] == len(reads)
        return (path if own and path else ""), clip


def _only_reads(values: Iterable[_Value]) -> list[_ResultReader]:
    """The one read of each value; none at all if one is read otherwise than once."""
    found = [value.reads for value in values]
    return [reads[0] for reads in found] if all(len(reads) == 1 for reads in found) else []


def _clip(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Clip | None:
    """The ends of an activation that clips from 0; None for any other function.

    Clipping from 0 commutes with rounding to any grid that holds 0, so that it does not matter
    on which side of the activation a kernel rounds.
    """
    if func in _FROM_ZERO:
        return 0.0, None
    if func not in _ENDS:
        return None
    *names, low, high = _ENDS[func]
    given = dict(zip(names, args[1:3], strict=False)) | dict(kwargs)
    low, high = given.get(names[0], low), given.get(names[1], high)
    if not isinstance(low, int | float) or not isinstance(high, int | float | None):
        return None
    top = None if high is None or high == math.inf else float(high)
    return (0.0, top) if low == 0 and (top is None or top > 0) else None


def contracted(
    flows: Mapping[tuple[str, str], int], folded: Mapping[str, str]
) -> dict[tuple[str, str], int]:
    """The data flow with every folded batch norm taken into its layer.

    `folded` maps batch norms to layers. What a batch norm gave its readers, the layer gives them.
    """
    found: dict[tuple[str, str], int] = {}
    for (source, target), elements in flows.items():
        if target not in folded:
            edge = (folded.get(source, source), target)
            found[edge] = max(found.get(edge, 0), elements)
    return found


def folded_norms(fused: Mapping[str, tuple[Fused, ...]]) -> dict[str, str]:
    """Batch norm -> the layer that it folds into."""
    return {f.batch_norm: layer for layer, of in fused.items() for f in of if f.batch_norm}


def is_inside(path: str, layer: str) -> bool:
    """Whether the module at `path` is `layer` itself or lies below it."""
    return layer in ("", ROOT) or path == layer or path.startswith(f"{layer}.")
