"""The names that a map is given in: nodes kept with an analysis, and lists of module paths."""

from __future__ import annotations

from pathlib import Path

from core.files import is_there
from core.onnx_graph.node_table import TABLES, NodeTable, from_json

NODES_FILE = "onnx_nodes.json"


def kept_nodes(folder: Path) -> NodeTable | None:
    """The node table kept with the analysis in `folder`; None where there is none."""
    path = folder / NODES_FILE
    return from_json(TABLES.read(path), str(path)) if is_there(path) else None


def read_module_names(text: str) -> tuple[str, ...]:
    """Module paths, one a line: what `dict(model.named_modules())` iterates over."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
