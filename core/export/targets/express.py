"""What a target's file says of each layer, and what it cannot say."""

from __future__ import annotations

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.map import words
from core.export.map.checklist import named
from core.export.targets.capability import Capability
from core.export.targets.contract import Line
from core.export.targets.legality import Meaning, meaning
from core.export.targets.packed import grid, holds
from core.numerics import precision as registry
from core.onnx_graph.node_table import Graph

IDLE = "does nothing at inference"


def common_float(target: Capability, chosen: PrecisionMap) -> str:
    """The one float format of a target that has one: the widest that the map asks for, of equally
    wide ones that of most layers.
    """
    asked = [name for name in target.precisions if name in chosen.assigned]
    floats = [n for n in asked if registry.get(n).is_cast]
    return max(
        floats,
        key=lambda n: (registry.get(n).bits, chosen.assigned.count(n)),
        default=registry.REFERENCE,
    )


def lines(
    study: Study, chosen: PrecisionMap, target: Capability, graph: Graph | None
) -> tuple[Line, ...]:
    """A line for every layer of a legal map, in the model's order."""
    common = common_float(target, chosen)
    found = []
    for i, layer in enumerate(study.layers):
        asked = chosen.assigned[i]
        if asked is None:
            found.append(Line(layer.name, None, None, note=IDLE))
            continue
        if target.overlay:
            found.append(Line(layer.name, asked, asked, (layer.name,)))
            continue
        what = meaning(target, layer, asked, graph)
        got, note = asked, ""
        if what.state == "float" and target.floats == "one":
            got = common
            if asked != common:
                note = f"{asked} becomes {common}, the one float format of the file"
        if what.state == "folded":
            note = "inside the kernel before it, in that one's precision"
        elif registry.get(asked).is_weights_only:
            note = _in_groups(target, what, common)
        elif what.left:
            note = f"{', '.join(what.left)} in it stay in float"
        elif what.state == "rounds output":
            note = "only its output is rounded; it runs in float"
        elif what.state == "stores":
            note = "only its weights are kept as integers; it runs in float"
        state = "" if what.state == "float" else what.state
        found.append(Line(layer.name, asked, got, what.names, state, note))
    return tuple(found)


def _in_groups(target: Capability, what: Meaning, common: str) -> str:
    """What is lost of weights by groups."""
    lost = []
    if what.left:
        lost.append(f"{', '.join(what.left)} in it stay in float")
    if what.groups:
        lost.append(f"{target.title} makes groups of its own, {', '.join(what.groups)}")
    if target.floats == "one" and common != registry.REFERENCE:
        lost.append(f"its products run in {common}, the one float format of the file")
    return "; ".join(lost)


def cannot(
    target: Capability, found: tuple[Line, ...], graph: Graph | None, quantizer: str
) -> tuple[str, ...]:
    """What the file does not express of the map, whose weights by groups were measured on the grid of
    `quantizer`, then what the target never can, in sentences.
    """
    if target.overlay:
        return target.cannot
    by_note: dict[str, list[str]] = {}
    for line in found:
        if line.note and line.note != IDLE:
            by_note.setdefault(line.note, []).append(line.layer)
    said = [
        f"{words.count(len(names), 'layer')}: {note} ({named(names)})."
        for note, names in by_note.items()
    ]
    other = () if holds(target, quantizer) else (grid(target, found, quantizer),)
    return (*said, *_fused(found, graph), *filter(None, other), *target.cannot)


def _fused(found: tuple[Line, ...], graph: Graph | None) -> tuple[str, ...]:
    """Layers that a runtime executes in one kernel although the map gives them two precisions."""
    if graph is None:
        return ()
    got = {line.layer: line.got for line in found}
    split = []
    for group in graph.fused:
        owners = dict.fromkeys(graph.owner_of[node.name] for node in group)
        precisions = {got.get(layer) for layer in owners if layer} - {None}
        if len(precisions) > 1:
            split.append(" + ".join(layer for layer in owners if layer))
    if not split:
        return ()
    count = words.count(len(split), "kernel")
    return (
        f"{count} of fused layers in two precisions, taken apart or run in one: {named(split)}.",
    )
