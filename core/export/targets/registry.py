"""Every export target, found by its folder, and the one function that writes a file for it."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import MapError, PolicyError, check_names, printable
from core.export import targets
from core.export.targets import capability
from core.export.targets.capability import Capability
from core.export.targets.contract import Exported, ExportRequest, Line, Render
from core.export.targets.express import cannot, common_float, lines
from core.export.targets.legality import Legality, legality
from core.export.targets.schemes import mismatch
from core.export.targets.script import head
from core.onnx_graph.node_table import Graph
from core.source import onnx_file


def _found() -> dict[str, tuple[Capability, str]]:
    """Format -> its table and the module that writes it, of every folder beside this file."""
    found: list[tuple[Capability, str]] = []
    for tool in iter_modules(targets.__path__, f"{targets.__name__}."):
        if tool.ispkg:
            found += [
                (capability.load(path), f"{tool.name}.{path.name.removesuffix('.toml')}")
                for path in files(tool.name).iterdir()
                if path.name.endswith(".toml")
            ]
    found.sort(key=lambda one: (one[0].order, one[0].name))
    return {table.name: (table, module) for table, module in found}


_FORMATS = _found()
TARGETS = tuple(_FORMATS)
"""Names of all formats, in the order in which they are shown."""

MAX_SHOWN = 5


def get(name: str) -> Capability:
    """The table of target `name`; raises `PolicyError` with the known names otherwise."""
    if name not in _FORMATS:
        raise PolicyError(f"Unknown export target {name!r}.", f"Use one of: {', '.join(TARGETS)}.")
    return _FORMATS[name][0]


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
    """Names that stand in the file: where there is one float format, all others."""
    kinds = target.rounding_products if target.floats == "one" else target.precisions
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
    if target.speaks == "modules" and onnx_file.is_reference(study.analysis.source):
        others = [one for one in TARGETS if get(one).speaks == "nodes"]
        raise MapError(
            f"{target.title} takes PyTorch modules, and this analysis is of an ONNX file.",
            f"Take a tool that names nodes: {', '.join(others)}.",
        )
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
    limits = cannot(target, said, graph, study.analysis.quantizer)
    other = mismatch(study, target, chosen)
    request = ExportRequest(
        study=study,
        chosen=chosen,
        target=target,
        lines=said,
        common=common_float(target, chosen),
        head=head(study, chosen, target, said, limits, other, found),
        graph=graph,
    )
    render: Render = import_module(_FORMATS[name][1]).render
    return Exported(name, render(request).encode(), said, limits, other)
