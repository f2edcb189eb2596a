"""Whether a target can run what a map asks for, and the nearest map that it can."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.decide.assess.gains import Gain, gains
from core.decide.assess.loss import read_first
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import BY_OVERRIDE, PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import words
from core.export.targets.capability import Capability
from core.export.targets.modules import modules_of, why_none
from core.export.targets.packed import matrices
from core.layers import ROOT, Layer
from core.numerics import precision as registry
from core.numerics.precision import Precision
from core.onnx_graph.node_table import TYPES_OF, Graph, carriers

HELD_NOWHERE = "none of its products reads a weight that the graph holds as it stands"
NODE_TYPES = {
    "layer_norm": "LayerNormalization", "group_norm": "GroupNormalization", "relu": "Relu",
    "gelu": "Gelu", "elu": "Elu", "softmax": "Softmax", "add": "Add", "mul": "Mul",
    "sigmoid": "Sigmoid", "tanh": "Tanh", "max_pool1d": "MaxPool", "max_pool2d": "MaxPool",
    "avg_pool1d": "AveragePool", "avg_pool2d": "AveragePool", "pad": "Pad", "lstm": "LSTM",
    "adaptive_avg_pool1d": "GlobalAveragePool", "adaptive_avg_pool2d": "GlobalAveragePool",
    "batch_norm": "BatchNormalization", "leaky_relu": "LeakyRelu", "hardtanh": "Clip", "relu6": "Clip", "gru": "GRU", "silu": "Mul",
}  # fmt: skip
"""Kinds of operation without weights -> the node that carries them in ONNX, where there is one."""


TABLES = ("Embedding", "EmbeddingBag", "Gather")
"""Classes and types of nodes that look rows up."""
STATES = ("computes", "stores", "rounds output", "folded")
"""What an integer precision can mean for a layer at a target, the most first."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a precision means for a layer at a target: its state as in `core.layers`, "folded"
    for what other nodes take in, "float" for a float format, "" where it has none. `names` are
    what carries it, `left` what of the layer stays in float, `why` why there is nothing, `groups`
    says what is kept in other groups than were asked for.
    """

    state: str
    names: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    why: str = ""
    groups: tuple[str, ...] = ()


def meaning(
    target: Capability, layer: Layer, precision: str, graph: Graph | None = None
) -> Meaning:
    """What `precision` means for `layer` at `target`; by the nodes of `graph` where it is given."""
    if precision not in target.precisions:
        known = ", ".join(target.precisions)
        return Meaning("", why=f"{target.title} knows {known} and no {precision}")
    asked = registry.get(precision)
    if asked.is_cast:
        nodes = () if graph is None else graph.of.get(layer.name, ())
        if target.speaks == "nodes":
            return Meaning("float", tuple(node.name for node in nodes))
        # A module's format is that of all below it, whether or not its parts have names.
        return Meaning("float", () if layer.name == ROOT else (layer.name,))
    if asked.is_weights_only:
        return _packed(target, layer, precision, graph)
    if asked.is_dynamic and not layer.takes_dynamic:
        return Meaning("", why=f"{precision} is of matrices and tables: it has none")
    states = _states(target, layer, asked, graph)
    if not states:
        return Meaning("", why=why_none(layer) if target.speaks == "modules" else HELD_NOWHERE)
    best = next((s for s in STATES if any(s == state for *_, state in states)), "")
    if not best:
        what = ", ".join(dict.fromkeys(kind for _, kind, _ in states))
        return Meaning("", why=f"{target.title} has no {precision} for {what}")
    left = tuple(dict.fromkeys(kind for _, kind, state in states if not state))
    if target.speaks == "modules" and not asked.is_dynamic:
        left += tuple(_functions(layer))
    names = () if best == "folded" else tuple(n for n, _, state in states if state and n)
    return Meaning(best, names, left)


def _states(
    target: Capability, layer: Layer, asked: Precision, graph: Graph | None
) -> list[tuple[str, str, str]]:
    """Names and classes (or types of nodes) of what `asked`, which rounds both operands of products, is
    about in `layer`, with what it means for them. What sets its ranges in any case, and a table, are in
    integers with ranges set while they run what they are in integers.
    """
    kinds = _kinds(target, layer, graph)
    if asked.is_scaled:
        scales = target.scales if layer.takes_scales else ()
        folds = dict.fromkeys(target.folds, "folded")
        means = {**folds, **dict.fromkeys(scales, "computes")}
        return [(name, kind, means.get(kind, "")) for name, kind in kinds]
    if asked.is_calibrated or layer.dynamic:
        return [(name, kind, target.means(kind)) for name, kind in kinds]
    products = matrices(target, layer, graph) if layer.packs_products else ()
    found = [(m.name, m.kind, "computes" if m.kind in target.dynamic else "") for m in products]
    return found + [(name, kind, target.means(kind)) for name, kind in kinds if kind in TABLES]


def _packed(target: Capability, layer: Layer, precision: str, graph: Graph | None) -> Meaning:
    """What a precision of weights alone means: some of the layer's matrices are kept by groups."""
    if not layer.in_groups:
        return Meaning("", why=f"{precision} is of matrices that plain products read: it has none")
    found, kept = matrices(target, layer, graph), registry.get(precision).weights
    if not found:
        return Meaning("", why=why_none(layer) if target.speaks == "modules" else HELD_NOWHERE)
    whys = [matrix.refused(target, kept) for matrix in found]
    if all(whys):
        what = "; ".join(dict.fromkeys(whys))
        return Meaning("", why=f"{target.title} has no {precision} for {what}")
    taken = [matrix for matrix, why in zip(found, whys, strict=True) if not why]
    left = [f"{m.name or m.kind} ({why})" for m, why in zip(found, whys, strict=True) if why]
    others = [other for matrix in taken if (other := matrix.regrouped(target, kept))]
    names = tuple(matrix.name for matrix in taken if matrix.name)
    return Meaning("computes", names, tuple(left), groups=tuple(others))


def _kinds(target: Capability, layer: Layer, graph: Graph | None) -> list[tuple[str, str]]:
    """Names and classes (or types of nodes) of what a precision of `layer` is about."""
    if target.speaks == "modules":
        return [(m.path, m.kind) for m in modules_of(layer)]
    if graph is not None and (nodes := graph.of.get(layer.name, ())):
        return [(n.name, n.op_type) for n in carriers(layer, nodes)]
    operations = [kind for kind, _ in layer.operations]
    products = [TYPES_OF[kind][0] for kind in operations if kind in TYPES_OF]
    if not products and layer.kind in {"LSTM", "GRU", "RNN"}:
        products = [layer.kind]
    return [("", t) for t in products or [NODE_TYPES.get(k, k) for k in operations]]


def _functions(layer: Layer) -> list[str]:
    """Products of a unit that no module runs."""
    return ["products of activations"] if dict(layer.operations).get("matmul") else []


@dataclass(frozen=True, slots=True)
class Illegal:
    """A layer that asks for what the target does not have, why, and the nearest precision that
    it has.
    """

    layer: str
    asked: str
    why: str
    nearest: str


@dataclass(frozen=True, eq=False, slots=True)
class Legality:
    """Illegal choices of a map, the nearest legal map, and what going there changes in each
    total (`gains` of the legal map less the given one). `said` is that in a sentence.
    """

    illegal: tuple[Illegal, ...]
    legal: PrecisionMap
    changes: dict[str, Gain]
    said: str


def legality(
    study: Study, chosen: PrecisionMap, target: Capability, graph: Graph | None = None
) -> Legality:
    """Look at every layer of `chosen`.

    The nearest legal map gives an illegal layer the narrowest precision of the target that is no
    narrower than what was asked for, and moves its whole group with it.
    """
    codes, illegal = chosen.codes.copy(), []
    for i, layer in enumerate(study.layers):
        asked = chosen.assigned[i]
        if asked is None or target.overlay:
            continue
        found = meaning(target, layer, asked, graph)
        if found.state:
            continue
        near = _nearest(study, target, chosen.policy, layer, asked, graph)
        illegal.append(Illegal(layer.name, asked, found.why, near))
        codes[i] = study.precisions.index(near)
    _keep_together(study, chosen, codes)
    origin = np.where(codes == chosen.codes, chosen.origin, BY_OVERRIDE).astype(chosen.origin.dtype)
    legal = replace(chosen, codes=codes, origin=origin)
    if not illegal:
        return Legality((), chosen, {}, f"{target.title} can run every choice of this map.")
    before, after = outcome(study, chosen), outcome(study, legal)
    changes = gains(before, after)
    loss = read_first(after.totals)[0]
    said = ", ".join(
        f"{title} {words.gain(changes[name], after.totals[name].unit)} {after.totals[name].kind}"
        for name, title in (
            ("size_bytes", "size"),
            ("latency_ms", "latency"),
            (loss, words.figures(study.analysis).get(loss, loss)),
        )
    )
    return Legality(tuple(illegal), legal, changes, f"The nearest legal map changes {said}.")


def _nearest(
    study: Study, target: Capability, policy: Policy, layer: Layer, asked: str, graph: Graph | None
) -> str:
    """The narrowest that the tool takes and that is as wide, of equally wide ones that with the same
    weights; of what `policy` allows, where it can be.
    """
    least, kept = registry.width(asked), registry.get(asked).weights
    wider = sorted(
        (p for p in study.precisions if registry.width(p) >= least and p != asked),
        key=lambda p: (
            not policy.allows(p),
            registry.width(p),
            registry.get(p).weights != kept,
        ),
    )
    for precision in wider:
        if meaning(target, layer, precision, graph).state:
            return precision
    return registry.REFERENCE


def _keep_together(study: Study, chosen: PrecisionMap, codes: np.ndarray) -> None:
    """Groups that were whole stay whole, in the widest of their precisions. Mutates `codes`."""
    for group in study.layers.groups:
        members = [i for i in group if codes[i] >= 0]
        if len({int(chosen.codes[i]) for i in members}) == 1:
            codes[members] = max(
                (codes[i] for i in members), key=lambda c: registry.width(study.precisions[c])
            )
