"""What an exporter is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.export.targets.capability import Capability
from core.numerics import precision as registry
from core.numerics.precision import TensorFormat
from core.onnx_graph.node_table import Graph


@dataclass(frozen=True, slots=True)
class Line:
    """What becomes of one layer.

    `asked` is its precision in the map (None: it does nothing), `got` what the file asks the
    tool for (None: nothing). `names` are the tool's names that say so, `state` what INT8 means
    there ("" for floats). `note` says what is lost of what was asked; "" where nothing is.
    """

    layer: str
    asked: str | None
    got: str | None
    names: tuple[str, ...] = ()
    state: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class ExportRequest:
    """All that an exporter writes from. `common` is the one float format of a target that has
    one; `head` are the sentences that every file begins with.
    """

    study: Study
    chosen: PrecisionMap
    target: Capability
    lines: tuple[Line, ...]
    common: str
    head: tuple[str, ...]
    graph: Graph | None = None

    def names(self, *precisions: str) -> list[str]:
        """The tool's names of what goes to one of `precisions`, in the model's order."""
        return [name for line in self.lines if line.got in precisions for name in line.names]

    @property
    def integers(self) -> list[str]:
        """The tool's names of what goes to an integer precision."""
        return self.names(*self.target.integers)

    @property
    def scaled(self) -> list[str]:
        """The tool's names of what multiplies floats in few bits over scales."""
        return self.names(*(p for p in self.target.precisions if registry.get(p).is_scaled))

    @property
    def dynamic(self) -> dict[str, list[str]]:
        """The tool's names of what multiplies integers on ranges set while it runs, by layer."""
        return {
            line.layer: list(line.names)
            for line in self.lines
            if line.got is not None and registry.get(line.got).is_dynamic and line.names
        }

    @property
    def grouped(self) -> dict[str, TensorFormat]:
        """The tool's names of what keeps its weights by groups, with how."""
        return {
            name: registry.get(line.got).weights
            for line in self.lines
            if line.got in self.target.grouped
            for name in line.names
        }


Render = Callable[[ExportRequest], str]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file for a tool. Every layer has its line, expressed or with a note that says what is
    not; `cannot` says in sentences what the target cannot express of this map, `mismatch` whether
    the map's evidence was measured under another scheme (None: it was not).
    """

    target: str
    content: bytes
    lines: tuple[Line, ...]
    cannot: tuple[str, ...]
    mismatch: str | None = field(default=None)
