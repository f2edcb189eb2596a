"""TensorRT up to 10: `trtexec` with a precision for every layer by name.

Syntax: `trtexec --help` of TensorRT 10, --layerPrecisions and --layerOutputTypes; later entries
win, "*" is the default, and both are ignored without --precisionConstraints.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from core.errors import MapError
from core.export.map.checklist import named
from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.script import comment

TOKENS: Mapping[str, str] = {"FP32": "fp32", "FP16": "fp16", "INT8": "int8"}


def render(request: ExportRequest) -> str:
    """A shell script. Raises `MapError` for names that the flags' syntax cannot hold."""
    chosen = dict.fromkeys(request.integers, "int8")
    for precision in ("FP16", "FP32"):
        chosen |= {n: TOKENS[precision] for n in nodes_in(request, precision) if n not in chosen}
    broken = [n for n in chosen if set(n) & set(",:+*\"'") or not n.isprintable()]
    if broken:
        raise MapError(
            f"trtexec cannot name {named(broken)}: its flags hold no commas, colons, quotes or control characters in a name.",
            "Use tensorrt-qdq, which writes the map into the graph.",
        )
    nodes = request.graph.nodes if request.graph is not None else ()
    computing = [n.name for n in nodes if n.name in chosen]
    default = "fp32"
    precisions = [f"*:{default}", *(f"{name}:{chosen[name]}" for name in computing)]
    # Products leave floats; asking for INT8 outputs would round what the next layer reads.
    types = {name: "fp16" if chosen[name] == "fp16" else "fp32" for name in computing}
    outputs = [f"*:{default}", *(f"{name}:{types[name]}" for name in computing)]
    words = [
        'trtexec --onnx="$1" --calib="$2" --saveEngine="$3"',
        *(f"--{flag}" for flag, name in (("int8", "int8"), ("fp16", "fp16"))
          if name in chosen.values()),
        "--precisionConstraints=obey",
        f"--layerPrecisions={shlex.quote(','.join(precisions))}",
        f"--layerOutputTypes={shlex.quote(','.join(outputs))}",
        "--exportLayerInfo=layers.json --profilingVerbosity=detailed",
    ]  # fmt: skip
    said = comment(
        (
            *request.head,
            "Usage: sh THIS_FILE model.onnx calibration.cache out.engine",
            "layers.json then says in which precision TensorRT runs each layer: look there.",
        )
    )
    command = " \\\n  ".join(words)
    return f"#!/bin/sh\n{said}\nset -eu\n\n{command}\n"
