"""What a module does in a network, from its type, then its position and its path.

Only a guess where a path decides: a person's own `roles` always win.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from core.errors import ModelError
from core.layers import ROLES

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign,
    nn.GLU, nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
DROPOUTS: tuple[type[nn.Module], ...] = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
NORMS: tuple[type[nn.Module], ...] = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
POOLINGS: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
CONVOLUTIONS: tuple[type[nn.Module], ...] = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
RECURRENTS: tuple[type[nn.Module], ...] = (
    nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell,
)  # fmt: skip
BUILT_IN_UNITS: tuple[type[nn.Module], ...] = (nn.MultiheadAttention, nn.LSTM, nn.GRU, nn.RNN)

OWN_LAYER_INSIDE_UNIT = (*ACTIVATIONS, *DROPOUTS, *NORMS, *POOLINGS, *BATCH_NORMS, *RECURRENTS)
"""Modules that stay layers of their own when a unit above them absorbs the rest."""

_BY_TYPE: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (DROPOUTS, "dropout"),
    (ACTIVATIONS, "activation"),
    (BATCH_NORMS, "batch_norm"),
    (NORMS, "layer_norm"),
    (POOLINGS, "pooling"),
    ((nn.MultiheadAttention,), "attention"),
    (RECURRENTS, "recurrent"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    (CONVOLUTIONS, "convolution"),
)
BY_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"pos(itional)?_?(enc|emb)"), "positional_encoding"),
    (re.compile(r"feed_?forward|\bffn?\b|\bmlp\b"), "feed_forward"),
    (re.compile(r"\b(self_?|cross_?)?att(entio)?n\b|attention"), "attention"),
    (re.compile(r"embed"), "embedding"),
)
_NORM = re.compile(r"(rms|layer|group)_?norm")
"""A person's own norm; the prefix keeps out `normalize_inputs` and the like."""
_HEAD = re.compile(r"\b(head|classifier|lm_head|output|out_proj|fc_out)\b")


def _words(path: str, module: nn.Module) -> str:
    """The last path element and the class name as lower-case words."""
    camel = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(module).__name__)
    return f"{path.rsplit('.', 1)[-1]} {camel}".lower()


def role_of(path: str, module: nn.Module, *, is_unit: bool, is_last_product: bool) -> str:
    """The role of the layer at `path`: its type decides, and the words of its path and class where
    the type says nothing.

    `is_last_product` marks the last matrix product of the forward pass: a linear layer there
    is the output projection.
    """
    for types, role in _BY_TYPE:
        if isinstance(module, types):
            return role
    words = _words(path, module)
    if isinstance(module, nn.Linear):
        is_head = is_last_product or ("." not in path and _HEAD.search(words))
        return "output_projection" if is_head else "linear"
    for pattern, role in BY_WORDS:
        if pattern.search(words) and (is_unit or role in ("positional_encoding", "embedding")):
            return role
    return "layer_norm" if not is_unit and _NORM.search(words) else "other"


def check_roles(roles: Mapping[str, str]) -> None:
    """Raise `ModelError` for a role that is not in `ROLES`."""
    for path, role in roles.items():
        if role not in ROLES:
            raise ModelError(
                f"Layer {path!r} is given the unknown role {role!r}.",
                f"Use one of: {', '.join(ROLES)}.",
            )
