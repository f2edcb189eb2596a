"""Kinds of models, told apart without loading what runs them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from core.source.onnx_model import OnnxModel


def is_graph(model: Any) -> TypeGuard[OnnxModel]:
    """Whether `model` is an ONNX graph. ONNX and ONNX Runtime, which take half a second and 40 MB,
    are loaded by those who have one.
    """
    loaded = sys.modules.get("core.source.onnx_model")
    return loaded is not None and isinstance(model, loaded.OnnxModel)
