"""A map for another tool: what it may do there, its file, and the names it is checked against."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import MapError
from core.export import bundle
from core.export.map.precision_map import MAX_BYTES
from core.export.targets import registry
from core.export.targets.contract import Exported
from core.export.targets.legality import Legality, legality
from core.export.targets.names import NODES_FILE, kept_nodes, read_module_names
from core.layers import LayerTable
from core.onnx_graph import node_table as graphs
from core.onnx_graph import read_nodes
from core.onnx_graph.node_table import Graph, lay_over
from dashboard.session import studies
from dashboard.session.studies import POLICIES, Opened

MAX_MB = MAX_BYTES // 10**6
TYPES = ("onnx", "json", "txt")


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """Names that files are checked against. `key` stands for them in caches, `origin` says where
    they are from. `graph` are ONNX nodes, `modules` module paths; None: not known.
    """

    key: str
    origin: str
    graph: Graph | None = None
    modules: tuple[str, ...] | None = None


def kept(opened: Opened) -> Known:
    """The names kept with the analysis. Raises `MapError` where they do not fit it."""
    folder = studies.entries()[opened.name].folder
    path = folder / NODES_FILE
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _kept(opened.key, str(folder), stamp, opened.study)


@st.cache_resource(max_entries=8, show_spinner=False)
def _kept(key: str, folder: str, stamp: int, _study: Study) -> Known:
    table = kept_nodes(Path(folder)) if stamp else None
    if table is None:
        return Known("none", "")
    graph = lay_over(table, _study.layers, "The node table kept with the analysis")
    return Known(f"kept@{stamp}", f"kept with the analysis, {table.origin}", graph)


def read(name: str, raw: bytes, opened: Opened) -> Known:
    """Names from an uploaded file: an ONNX model, a node table, or module paths one a line.

    Raises `MapError` naming what does not fit. Nothing in the file is run.
    """
    return _read(opened.key, name, hashlib.sha256(raw).hexdigest(), raw, opened.study)


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(key: str, name: str, digest: str, _raw: bytes, _study: Study) -> Known:
    if len(_raw) > MAX_BYTES:
        raise MapError(f"{name} is larger than {MAX_MB} MB.", "Use the command line: --onnx FILE.")
    if name.lower().endswith(".txt"):
        try:
            return Known(digest, name, modules=read_module_names(_raw.decode()))
        except UnicodeDecodeError as error:
            raise MapError(f"{name} is no text.", "Give module paths, one a line.") from error
    table = _table(name, _raw, _study.layers)
    return Known(digest, f"{name}, {table.origin}", lay_over(table, _study.layers, name))


def _table(name: str, raw: bytes, layers: LayerTable) -> graphs.NodeTable:
    if name.lower().endswith(".onnx"):
        return read_nodes.from_bytes(raw, layers, name)
    return graphs.from_json(raw, name)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs=POLICIES)
def _looked(
    key: str, policy: Policy, target: str, names: str, _study: Study, _graph: Graph | None
) -> Legality:
    return legality(_study, answer.decide(_study, policy), registry.get(target), _graph)


def looked(opened: Opened, policy: Policy, target: str, known: Known) -> Legality:
    """Which choices of `policy`'s map the target cannot run, and the nearest map that it can."""
    return _looked(opened.key, policy, target, known.key, opened.study, known.graph)


@st.cache_resource(max_entries=32, show_spinner=False, hash_funcs=POLICIES)
def _made(
    key: str, policy: Policy, target: str, names: str, nearest: bool, _study: Study, _known: Known
) -> Exported:
    return registry.export(
        _study,
        answer.decide(_study, policy),
        target,
        graph=_known.graph,
        modules=_known.modules,
        nearest=nearest,
    )


def made(opened: Opened, policy: Policy, target: str, known: Known, *, nearest: bool) -> Exported:
    """The target's file. Raises `MapError` for wrong names and for illegal choices."""
    return _made(opened.key, policy, target, known.key, nearest, opened.study, known)


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs=POLICIES)
def _bundled(key: str, policy: Policy, names: str, _study: Study, _graph: Graph | None) -> bytes:
    return bundle.to_zip(_study, answer.decide(_study, policy), _graph)


def bundled(opened: Opened, policy: Policy, known: Known) -> bytes:
    """The .zip of everything."""
    return _bundled(opened.key, policy, known.key, opened.study, known.graph)
