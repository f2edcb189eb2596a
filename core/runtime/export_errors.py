"""Why a model cannot be exported: the operator and the layer, in a sentence."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from core.errors import ModelError, QuantscapeError

_OPERATOR = re.compile(
    r"\b((?:aten|prims|torchvision)(?:::|\.)\w+(?:\.\w+)?|torch\.ops\.\w+\.\w+|\w+::\w+)"
)
_PATH = re.compile(r"model((?:\.\w+)+)")
_NEXT = (
    "Rewrite that part of the model with operators that ONNX has; all but build, verify and "
    "profile works without, and nodes --onnx takes a file that you exported yourself."
)
_ON_VALUES = ("data-dependent", ".numpy() is not supported", "aten.equal.default")
"""What PyTorch says where Python looks at what a tensor holds."""
_ONE_WAY = (
    "Compute every way and choose with torch.where, or bring one way as a model of its own; all "
    "but build, verify and profile works without."
)
_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def explained(
    error: Exception, model: nn.Module, owner: Mapping[str, str | None]
) -> QuantscapeError:
    """The error of an export of `model` that raised `error`."""
    chain = list(_chain(error))
    text = "\n".join(str(one) for one in chain)
    on_values = any(mark in text for mark in _ON_VALUES)
    for one in reversed(chain):
        if isinstance(one, QuantscapeError) and not on_values:
            return one
    operator = _OPERATOR.search(text)
    path = _running(chain, model)
    layer = _layer(path, owner) if path is not None else _named(text, owner)
    what = f" operator {operator.group(1)}" if operator else ""
    where = f" in layer {layer!r}" if layer else f" in module {path!r}" if path else ""
    where = where or (" in the model's own forward" if path == "" else "")
    if on_values:
        raised = _line(chain)
        at = f", at line {raised[1]} of {raised[0]}" if raised else ""
        return ModelError(
            f"PyTorch cannot export the model to ONNX: which way it takes depends on values{where}"
            f"{at}, and a graph holds one way for all samples.",
            _ONE_WAY,
        )
    return ModelError(f"PyTorch cannot export{what}{where} to ONNX: {_said(chain)}.", _NEXT)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    now: BaseException | None = error
    met: set[int] = set()
    while now is not None and id(now) not in met:
        met.add(id(now))
        yield now
        now = now.__cause__ or now.__context__


def _said(chain: list[BaseException]) -> str:
    for one in reversed(chain):
        lines = [line.strip() for line in str(one).splitlines() if line.strip()]
        if lines:
            return lines[0].rstrip(".")[:300]
    return type(chain[-1]).__name__


def _running(chain: list[BaseException], model: nn.Module) -> str | None:
    """Path of the innermost module of `model` that was running when it failed; None if none was."""
    paths = {id(module): path for path, module in model.named_modules()}
    for one in reversed(chain):
        found: str | None = None
        frame = one.__traceback__
        while frame is not None:
            local = frame.tb_frame.f_locals
            path = paths.get(id(local.get("self")))  # "" is the model itself
            path = _traced(local.get("node")) if path is None else path
            found = path if path is not None else found
            frame = frame.tb_next
        if found is not None:
            return found
    return None


def _line(chain: list[BaseException]) -> tuple[str, int] | None:
    """File and line of the person's code that was running when it failed."""
    for one in reversed(chain):
        frames = traceback.extract_tb(one.__traceback__)
        own = [f for f in frames if f.lineno and not f.filename.startswith((*_NOT_THEIRS, "<"))]
        if own and own[-1].lineno:
            return Path(own[-1].filename).name, own[-1].lineno
    return None


def _traced(node: Any) -> str | None:
    """Path of the module that a node of PyTorch's graph was traced in."""
    if not isinstance(node, fx.Node):
        return None
    stack = [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
    found = [_PATH.search(str(path)) for path in stack]
    inner = [match.group(1)[1:] for match in found if match]
    return inner[-1] if inner else None


def _layer(path: str, owner: Mapping[str, str | None]) -> str | None:
    while path:
        found = owner.get(path)
        if found is not None:
            return found
        path = path.rpartition(".")[0]
    return owner.get("")


def _named(text: str, owner: Mapping[str, str | None]) -> str | None:
    """The layer of a module path that the error's words hold."""
    for match in _PATH.finditer(text):
        found = _layer(match.group(1)[1:], owner)
        if found is not None:
            return found
    return None
