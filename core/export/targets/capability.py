"""What each target can do, as data with sources: a table `TOOL/STEM.toml`."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from typing import Literal

import msgspec

from core.errors import ProfileError
from core.numerics import precision as registry
from core.numerics import quantizers

Speaks = Literal["modules", "nodes"]
Floats = Literal["per layer", "one"]


class Capability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a target's file can say and what the target then does.

    Lists are in the order of `order`. `version` is the release that the file was written for.
    `speaks` says how it names a part of the model: *modules* by PyTorch module path, *nodes* by
    ONNX node. `floats`: *per layer* where every layer can have a float format of its own, *one*
    where a model has a single one beside INT8. `precisions` are those it knows. `computes`,
    `stores` and `rounds` list classes of modules or types of nodes that integers mean something
    for (states of docs/method.md, "States"; "*" is any), `folds` those that run inside the kernel
    before them, in its precision; everything else has no INT8 there. `packs` lists those whose
    weights it keeps by groups, `scales` those whose operands it casts to few bits of float over scales,
    `dynamic` those that it multiplies on ranges set while it runs. `whole_groups` tells that it refuses inputs which no group divides,
    `own_groups` that it makes groups as it likes: of the first of these sizes that divides the inputs,
    of a whole row where there are no more inputs than the first or each has 8 bits; `grid` says in
    words where it puts such weights, "" where it is on the grid of each quantizer that `holds` lists,
    ONNX Runtime's where they were measured on another. `scheme` names
    the evidence scheme whose rounding it follows, "" where none does; `rounding` says in words what
    it rounds. `proved`: *tool* where a test feeds the file to the tool itself, *schema* where it is
    held against the documented form.
    """

    title: str
    order: int
    package: str
    version: str
    file: str
    purpose: str
    speaks: Speaks
    floats: Floats
    precisions: tuple[str, ...]
    computes: tuple[str, ...]
    scheme: str
    rounding: str
    proved: Literal["tool", "schema"]
    proof: str
    sources: tuple[str, ...]
    stores: tuple[str, ...] = ()
    rounds: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    whole_groups: bool = False
    own_groups: tuple[int, ...] = ()
    grid: str = ""
    holds: tuple[str, ...] = (quantizers.DEFAULT.name,)
    cannot: tuple[str, ...] = ()
    overlay: bool = False
    name: str = ""

    @property
    def integers(self) -> tuple[str, ...]:
        """The precisions with integers on both sides of a product that it knows."""
        return tuple(p for p in self.precisions if registry.get(p).is_calibrated)

    @property
    def grouped(self) -> tuple[str, ...]:
        """The precisions of weights alone, by groups, that it knows."""
        return tuple(p for p in self.precisions if registry.get(p).is_weights_only)

    @property
    def rounding_products(self) -> tuple[str, ...]:
        """The precisions that are no cast of a whole layer."""
        return tuple(p for p in self.precisions if not registry.get(p).is_cast)

    def means(self, kind: str) -> str:
        """What an integer precision means for a module class or node type; "" for nothing."""
        for state, kinds in (
            ("computes", self.computes),
            ("stores", self.stores),
            ("rounds output", self.rounds),
            ("folded", self.folds),
        ):
            if kind in kinds or "*" in kinds:
                return state
        return ""


def load(path: Traversable) -> Capability:
    """The table at `path`, named after its file; raises `ProfileError` where it is damaged."""
    try:
        found = msgspec.toml.decode(path.read_text("utf-8"), type=Capability)
    except (OSError, msgspec.DecodeError) as error:
        raise ProfileError(
            f"The table of an export target cannot be read, {path}: {error}",
            "Compare it with core/export/targets/onnxruntime/onnxruntime.toml.",
        ) from error
    for precision in found.precisions:
        registry.get(precision)
    name = path.name.removesuffix(".toml").replace("_", "-")
    return msgspec.structs.replace(found, name=name)
