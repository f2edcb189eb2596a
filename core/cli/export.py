"""`export`, `targets` and `nodes`: maps as files for people and for other tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.cli.output import console, note, print_json, write
from core.cli.studies import study_of
from core.cli.tables import targets_table
from core.decide.assess.outcome import outcome
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import MapError, PolicyError
from core.export.map import precision_map
from core.export.map.checklist import checks
from core.export.map.csv_table import to_csv
from core.export.report import html, markdown
from core.export.targets import registry
from core.export.targets.names import NODES_FILE, kept_nodes, read_module_names
from core.files import FileKind
from core.onnx_graph import node_table as graphs
from core.onnx_graph import read_nodes
from core.onnx_graph.node_table import Graph, NodeTable
from core.source import sources

NAMES = FileKind(
    MapError, 64 * 10**6, "Give module paths, one a line.", is_none="is no list of names"
)
FORMATS: Mapping[str, Callable[[Study, PrecisionMap], bytes]] = {
    "json": precision_map.to_json,
    "csv": to_csv,
    "markdown": markdown.to_markdown,
    "html": html.to_html,
}


def add_export(sub: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("map", type=Path, metavar="MAP", help="precision map")
    sub.add_argument(
        "--format",
        choices=(*FORMATS, *registry.TARGETS),
        required=True,
        metavar="NAME",
        help=f"what to write: {', '.join((*FORMATS, *registry.TARGETS))}; `targets` explains them",
    )
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    sub.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="the exported model whose node names are used; default: the nodes kept in DIR",
    )
    sub.add_argument(
        "--names",
        type=Path,
        metavar="FILE",
        help="module paths of the model at hand, one a line, against which names are checked",
    )
    sub.add_argument(
        "--nearest",
        action="store_true",
        help="write the nearest map that the tool can run in place of refusing",
    )


def add_nodes(sub: argparse.ArgumentParser) -> None:
    """Options of `nodes`."""
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    given = sub.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--onnx", type=Path, metavar="FILE", help="the exported model, as it is deployed"
    )
    given.add_argument(
        "--source",
        metavar="SOURCE",
        help="export it now: sample:NAME, or path/to/file.py:function, run with your rights",
    )


def export(options: argparse.Namespace) -> None:
    """Check a map and write it in a format."""
    study = study_of(options.folder)
    chosen = precision_map.read(options.map, study)
    for check in checks(study, chosen, outcome(study, chosen)):
        if check.status != "passed":
            what = f"{check.title} failed" if check.status == "failed" else check.title
            note(f"{what}: {check.detail}")
    said: dict[str, Any] = {"file": str(options.out), "format": options.format}
    if options.format in FORMATS:
        _unused(options)
        write(options.out, FORMATS[options.format](study, chosen))
    else:
        said |= _to_tool(options, study, chosen)
    if options.json:
        print_json(said)
    else:
        console().print(f"Wrote {options.out} ({options.format}).")


def _unused(options: argparse.Namespace) -> None:
    for name in ("onnx", "names", "nearest"):
        if getattr(options, name):
            raise PolicyError(
                f"--format {options.format} takes no --{name}.", "It is for the formats of tools."
            )


def _to_tool(options: argparse.Namespace, study: Study, chosen: PrecisionMap) -> dict[str, Any]:
    given = None if options.names is None else read_module_names(NAMES.text(options.names))
    made = registry.export(
        study,
        chosen,
        options.format,
        graph=nodes_of(options.folder, options.onnx, study),
        modules=given,
        nearest=options.nearest,
    )
    write(options.out, made.content)
    if made.mismatch is not None:
        note(made.mismatch)
    for sentence in made.cannot:
        note(f"cannot be expressed: {sentence}")
    changed = [
        (line.layer, asked, line.asked)
        for line, asked in zip(made.lines, chosen.assigned, strict=True)
        if line.asked != asked
    ]
    for layer, asked, got in changed:
        note(f"nearest legal: {layer} {asked} -> {got}")
    return {
        "cannot": made.cannot,
        "scheme_mismatch": made.mismatch,
        "changed": [{"layer": n, "asked": a, "now": b} for n, a, b in changed],
        "layers": made.lines,
    }


def nodes_of(folder: Path, onnx: Path | None, study: Study) -> Graph | None:
    """The graph whose names are used: of an ONNX file, or kept with the analysis."""
    table: NodeTable | None
    if onnx is not None:
        table = read_nodes.read(onnx, study.layers)
        return graphs.lay_over(table, study.layers, str(onnx))
    table = kept_nodes(folder)
    return None if table is None else graphs.lay_over(table, study.layers, str(folder))


def targets(options: argparse.Namespace) -> None:
    """List every export target with what it can do and how that is proved."""
    found = [registry.get(name) for name in registry.TARGETS]
    if options.json:
        print_json(found)
        return
    console().print(targets_table(found))


def nodes(options: argparse.Namespace) -> None:
    """Keep the node names of an exported model with its analysis."""
    study = study_of(options.folder)
    if options.onnx is not None:
        table = read_nodes.read(options.onnx, study.layers)
    else:
        table = _exported(options, study)
    graph = graphs.lay_over(table, study.layers, str(options.onnx or options.source))
    path = options.folder / NODES_FILE
    write(path, graphs.to_json(table))
    if options.json:
        print_json({"file": str(path), "nodes": len(table.nodes), "layers": len(graph.of)})
    else:
        console().print(
            f"Wrote {path}: {len(table.nodes)} nodes, {len(graph.of)} layers have some."
        )


def _exported(options: argparse.Namespace, study: Study) -> NodeTable:
    # torch takes seconds to import, and only this command runs a model
    from core.runtime.torch_export import export_as_deployed

    source = sources.load(options.source)
    if source.fingerprint() != study.analysis.identity.weights_sha256:
        raise MapError(
            f"{options.source} has other weights than the analysis in {options.folder}.",
            "Name the source that was analyzed.",
        )
    return read_nodes.table(export_as_deployed(source, study.layers), study.layers)
