"""NVIDIA ModelOpt AutoCast: the nodes of an ONNX model that must not go to FP16."""

from __future__ import annotations

from core.export.targets.contract import ExportRequest
from core.export.targets.floats import nodes_in
from core.export.targets.script import python


def render(job: ExportRequest) -> str:
    """A Python script with AutoCast's exclusions."""
    half = set(nodes_in(job, "FP16"))
    nodes = job.graph.nodes if job.graph is not None else ()
    return python(
        job, "modelopt_autocast", {"FP32_NODES": [n.name for n in nodes if n.name not in half]}
    )
