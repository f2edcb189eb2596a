"""Parts that generated files share: the comment at the top, constants, the body from a template."""

from __future__ import annotations

import pprint
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import core
from core.decide.policy.decision import PrecisionMap
from core.decide.study import Study
from core.errors import printable
from core.export.map.checklist import short
from core.export.targets.capability import Capability
from core.export.targets.contract import ExportRequest, Line
from core.export.targets.legality import Legality
from core.export.targets.packed import grid, holds

WIDTH = 100
MARKS = r"^# (CONSTANTS|CHECK|SURGERY)$"
CHECK = "core.export.targets.check_names"
"""The function with which scripts check names, `check_names.py.tmpl`."""


def head(
    study: Study,
    chosen: PrecisionMap,
    target: Capability,
    lines: tuple[Line, ...],
    limits: tuple[str, ...],
    mismatch: str | None,
    found: Legality,
) -> tuple[str, ...]:
    """What a reader of the file has to know, one sentence each."""
    identity = study.analysis.identity
    counts = ", ".join(
        f"{chosen.count(name)} {name}" for name in study.precisions if chosen.count(name)
    )
    said = [
        f"Written for {target.package} {target.version} by Quantscape {core.__version__}.",
        f"Model {identity.name}, weights {short(identity.weights_sha256)} (SHA-256).",
        f"Layers in the map: {counts or 'none'}.",
    ]
    if found.illegal:
        said.append(
            f"Nearest legal map: {len(found.illegal)} choices that {target.title} cannot run were "
            f"changed. {found.said}"
        )
    if mismatch is not None:
        said.append(mismatch)
    measured_by = study.analysis.quantizer
    if holds(target, measured_by) and (same := grid(target, lines, measured_by)):
        said.append(same)
    said += [f"Cannot be expressed: {sentence}" for sentence in limits]
    return tuple(printable(sentence) for sentence in said)


def comment(sentences: tuple[str, ...], mark: str = "#") -> str:
    """Sentences as comment lines; names in them hold no line end that could leave a comment."""
    return "\n".join(f"{mark} {printable(sentence)}" for sentence in sentences)


def literal(value: Any) -> str:
    """A Python literal of plain data, the same for the same data."""
    return pprint.pformat(value, width=WIDTH, sort_dicts=False)


def template(body: str) -> str:
    """The template `body`, which is named as a module beside it would be."""
    package, _, stem = body.rpartition(".")
    return (files(package) / f"{stem}.py.tmpl").read_text("utf-8")


def python(request: ExportRequest, body: str, constants: Mapping[str, Any], **parts: str) -> str:
    """A Python script: comment, constants, the check of names, the body of template `body`, with
    `parts` where it names them.

    An exporter with a template of its own gives its `__name__`.
    """
    said = "\n".join(f"{name} = {literal(value)}" for name, value in constants.items())
    texts = {"CHECK": template(CHECK), "CONSTANTS": said, **parts}
    # In one pass: what is filled in holds names, and a name may look like a mark.
    filled = re.sub(MARKS, lambda mark: texts[mark[1]].rstrip(), template(body), flags=re.MULTILINE)
    return f"{comment(request.head)}\n\n{filled}"
