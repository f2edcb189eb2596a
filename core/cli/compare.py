"""`compare`: maps side by side, from files and built-in names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.cli import tables
from core.cli.output import console, note, print_json
from core.cli.studies import study_of
from core.decide import answer
from core.decide.assess.compare import SAME_MAP, Comparison, Strategy, compare, strategy
from core.decide.assess.difference import in_words
from core.decide.assess.strategies import DOCUMENT, named_strategies
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.names import unique_names
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.errors import PolicyError
from core.export.map import precision_map

FEWEST, MOST = 2, 8


def built_in(study: Study) -> dict[str, Policy]:
    """Name on the command line -> policy: document, all-int8, top-k-25 and so on."""
    named = named_strategies(study, study.default_policy).items()
    return {
        "document" if title == DOCUMENT else title.lower().replace(" ", "-").rstrip("%"): given
        for title, given in named
    }


def run(options: argparse.Namespace) -> None:
    """Compare maps with one of them."""
    if not FEWEST <= len(options.maps) <= MOST:
        raise PolicyError(
            f"{len(options.maps)} map{'' if len(options.maps) == 1 else 's'} given.",
            f"Compare {FEWEST} to {MOST} maps.",
        )
    study = study_of(options.folder)
    given = [_map(text, study) for text in options.maps]
    names = unique_names([Path(text).stem or text for text in options.maps])
    place = _reference(options.reference, options.maps, names)
    hardware = options.hardware or given[place].policy.hardware
    for text, m in zip(options.maps, given, strict=True):
        # A built-in strategy has no device of its own to be taken from.
        if m.policy.hardware != hardware and text not in built_in(study):
            note(f"{text} was made for {m.policy.hardware} and is priced on {hardware}")
    strategies = [strategy(study, name, m, hardware) for name, m in zip(names, given, strict=True)]
    found = compare(strategies, names[place])
    if options.json:
        print_json(_content(study, options.maps, strategies, found))
    else:
        _print(study, strategies, found)


def _map(text: str, study: Study) -> PrecisionMap:
    named = built_in(study)
    if text in named:
        return answer.decide(study, named[text])
    path = Path(text)
    if not path.exists() and path.suffix != ".json":
        raise PolicyError(
            f"{text!r} is neither a map file nor a built-in name.",
            f"Built-in names: {', '.join(named)}.",
        )
    return precision_map.read(path, study)


def _reference(wanted: str | None, maps: Sequence[str], names: Sequence[str]) -> int:
    """Position of the reference: as the argument was given, by name, or by number from 1."""
    if wanted is None:
        return 0
    for known in (maps, names):
        if wanted in known:
            return list(known).index(wanted)
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(maps):
        return int(wanted) - 1
    raise PolicyError(
        f"The reference {wanted!r} is not among the maps.",
        f"Give a number from 1 to {len(maps)} or one of {', '.join(names)}.",
    )


def _content(
    study: Study, maps: Sequence[str], strategies: Sequence[Strategy], found: Comparison
) -> dict[str, Any]:
    columns = {column.name: column for column in found.columns}
    return {
        "model": study.analysis.identity,
        "hardware": found.hardware,
        "reference": found.reference,
        "headline": found.headline,
        "same_map": not found.layers,
        "equal": found.equal,
        "fronts": found.fronts,
        "strategies": [
            {
                "name": s.name,
                "source": text,
                "policy": s.map.policy,
                "confidence": s.outcome.confidence,
                "totals": s.outcome.totals,
                "against_reference": {
                    name: {"change": gain.change, "change_pct": gain.change_pct}
                    for name, gain in columns[s.name].gains.items()
                },
                "layers_changed": len(columns[s.name].changes),
                "differing_layers": {
                    "precisions": columns[s.name].precisions,
                    "size_bytes": columns[s.name].size_bytes,
                    "latency_ms": columns[s.name].latency_ms,
                },
                "beaten_by": found.beaten(s.name),
                "warnings": s.outcome.warnings,
            }
            for s, text in zip(strategies, maps, strict=True)
        ],
        "layers": [
            {
                "name": row.layer,
                "role": row.role,
                "precisions": dict(zip(columns, row.precisions, strict=True)),
                "size_bytes": dict(zip(columns, row.size_bytes, strict=True)),
                "latency_ms": dict(zip(columns, row.latency_ms, strict=True)),
            }
            for row in found.layers
        ],
    }


def _print(study: Study, strategies: Sequence[Strategy], found: Comparison) -> None:
    out = console()
    out.print(tables.strategies_table(study, strategies, found))
    for group in found.equal:
        out.print(f"{' and '.join(group)} are the same map.")
    for s in strategies:
        for cost, winners in found.beaten(s.name).items():
            if winners:
                out.print(f"{s.name} is beaten in loss and {cost} by {', '.join(winners)}.")
    if not found.layers:
        out.print(SAME_MAP)
        return
    for column in found.columns:
        if column.name != found.reference:
            said = in_words(column.changes)
            out.print(f"{column.name} against {found.reference}: {said}.")
    out.print(tables.differing_table(found))
    out.print(found.headline)
