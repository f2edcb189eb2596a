"""Why a model cannot be exported: the operator and the layer, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import ModelError, QuantscapeError

_PATH = re.compile(r"L__self___model_?([\w.]*)|'model\.([\w.]+)'|model\.([\w.]+)")
_OPERATOR = re.compile(r"\b((?:aten|torchvision|prims|torch\.ops\.\w+)(?:::|\.)[\w.]+)")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in found:
        found.append(now)
        now = now.__cause__ or now.__context__
    return found


def explained(error: Exception, owner: Mapping[str, str | None]) -> QuantscapeError:
    """The error of an export that raised `error`."""
    chain = _chain(error)
    for one in reversed(chain):
        if isinstance(one, QuantscapeError):
            return one
    text = "\n".join(str(one) for one in chain)
    operator = _OPERATOR.search(text)
    layer = _layer(text, owner)
    said = next((line.strip() for line in str(chain[-1]).splitlines() if line.strip()),
                type(chain[-1]).__name__)  # fmt: skip
    what = f" operator {operator.group(1)}" if operator else ""
    where = f" in layer {layer!r}" if layer else ""
    return ModelError(
        f"PyTorch cannot export{what}{where} to ONNX: {said.rstrip('.')}.",
        "Everything but build, verify and profile works without it; "
        "rewrite that part of the model with operators that ONNX has.",
    )


def _layer(text: str, owner: Mapping[str, str | None]) -> str | None:
    for match in _PATH.finditer(text):
        path = next((g for g in match.groups() if g), "")
        while path:
            if owner.get(path) is not None:
                return owner[path]
            path = path.rpartition(".")[0]
    return None
