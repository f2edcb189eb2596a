"""Export a source's model to ONNX, so that its nodes can be named.

Module paths stay in each node's metadata. Needs the packages onnx and onnxscript.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import MapError
from core.source.batches import fused_attention_off
from core.source.contract import ModelSource

SAMPLES = 2
"""Samples in the example batch: one would let an exporter take the axis for a constant."""


def write(source: ModelSource, path: Path) -> None:
    """Write the model of `source` to `path` as ONNX; the first axis of every input is dynamic.

    Inputs are called x, or as the dict of inputs calls them. Raises `MapError` where PyTorch
    cannot export the model.
    """
    inputs: Any = source.calibration.inputs
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(inputs, Tensor):
        arguments = (inputs[:SAMPLES],)
    elif isinstance(inputs, dict):
        named = {name: value[:SAMPLES] for name, value in inputs.items()}
    else:
        arguments = tuple(value[:SAMPLES] for value in inputs)
    batch = {0: torch.export.Dim.DYNAMIC}
    shapes = tuple(dict(batch) for _ in arguments) or {name: dict(batch) for name in named}
    names = ["x"] if len(arguments) == 1 else list(named) or None
    try:
        with warnings.catch_warnings(), fused_attention_off(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                source.model.eval(),
                arguments,
                kwargs=named,
                dynamo=True,
                input_names=names,
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert program is not None
            program.save(str(path))
    except Exception as error:  # whatever the model's own code raises under export
        raise MapError(
            f"PyTorch cannot export {source.name!r} to ONNX: {str(error).splitlines()[0][:200]}",
            "Export the model yourself and give the file with --onnx.",
        ) from error
