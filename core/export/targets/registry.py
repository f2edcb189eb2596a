"""Every export target by name, and the one function that writes a file for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import MapError, PolicyError, check_names, printable
from core.export.targets import (
    aimet,
    brevitas,
    capability,
    coremltools,
    inc,
    model_explorer,
    model_explorer_map,
    modelopt,
    modelopt_autocast,
    netron,
    nncf,
    onnxruntime,
    quanto,
    quark,
    tensorrt,
    tensorrt_qdq,
    torchao,
)
from core.export.targets.capability import Capability
from core.export.targets.contract import Exported, ExportRequest, Line, Render
from core.export.targets.express import cannot, common_float, lines
from core.export.targets.legality import Legality, legality
from core.export.targets.schemes import mismatch
from core.export.targets.script import head
from core.onnx_graph.node_table import Graph

_MODULES: Mapping[str, ModuleType] = {
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "tensorrt-qdq": tensorrt_qdq,
    "modelopt": modelopt,
    "modelopt-autocast": modelopt_autocast,
    "nncf": nncf,
    "torchao": torchao,
    "quanto": quanto,
    "inc": inc,
    "aimet": aimet,
    "coremltools": coremltools,
    "quark": quark,
    "brevitas": brevitas,
    "model-explorer": model_explorer,
    "model-explorer-precisions": model_explorer_map,
    "netron": netron,
}
TARGETS = tuple(_MODULES)
"""Names of all targets, in the order in which they are shown."""

MAX_SHOWN = 5


def get(name: str) -> Capability:
    """The table of target `name`; raises `PolicyError` with the known names otherwise."""
    if name not in _MODULES:
        raise PolicyError(f"Unknown export target {name!r}.", f"Use one of: {', '.join(TARGETS)}.")
    return capability.load(name)


def needs_graph(name: str) -> bool:
    """Whether a file for this target names ONNX nodes."""
    return get(name).speaks == "nodes"


def check_legal(found: Legality, target: Capability) -> None:
    """Raise `MapError` that names illegal choices, the nearest legal map and what it costs."""
    if not found.illegal:
        return
    by_why: dict[str, list[str]] = {}
    for one in found.illegal:
        by_why.setdefault(f"{one.why}, nearest {one.nearest}", []).append(one.layer)
    said = "; ".join(
        f"{', '.join(printable(n) for n in layers[:MAX_SHOWN])}"
        f"{f' and {len(layers) - MAX_SHOWN} more' if len(layers) > MAX_SHOWN else ''} ({why})"
        for why, layers in by_why.items()
    )
    raise MapError(
        f"{target.title} cannot run {len(found.illegal)} choices of this map: {said}. {found.said}",
        "Take the nearest legal map (--nearest), or change these layers.",
    )


def _written(said: tuple[Line, ...], target: Capability) -> list[str]:
    """Names that stand in the file: where there is one float format, those of integers."""
    kinds = target.integers if target.floats == "one" else target.precisions
    return [name for line in said if line.got in kinds for name in line.names]


def export(
    study: Study,
    chosen: PrecisionMap,
    name: str,
    *,
    graph: Graph | None = None,
    modules: tuple[str, ...] | None = None,
    nearest: bool = False,
) -> Exported:
    """Write `chosen` for target `name`.

    `graph` holds the ONNX nodes, needed where the target names nodes; `modules` are the module
    paths of the model at hand, against which names are checked. Illegal choices raise `MapError`
    unless `nearest` asks for the nearest legal map. The same map gives the same bytes.
    """
    target = get(name)
    if target.speaks == "nodes" and graph is None and not target.overlay:
        raise MapError(
            f"{target.title} names ONNX nodes, and none are known for this analysis.",
            "Give the exported model (--onnx model.onnx), or keep its nodes with the analysis: "
            "python -m core nodes DIR --onnx model.onnx.",
        )
    found = legality(study, chosen, target, graph)
    if not nearest:
        check_legal(found, target)
    chosen = found.legal
    said = lines(study, chosen, target, graph)
    if target.speaks == "modules" and modules is not None:
        check_names(_written(said, target), modules, "The model")
    limits = cannot(target, said, graph)
    other = mismatch(study, target)
    job = ExportRequest(
        study=study,
        chosen=chosen,
        target=target,
        lines=said,
        common=common_float(target, chosen),
        head=head(study, chosen, target, limits, other, found),
        graph=graph,
    )
    render: Render = _MODULES[name].render
    return Exported(name, render(job).encode(), said, limits, other)
