"""Budgets on the command line: `plan --budget`, `frontier` and `explain`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from core.cli.output import console, print_json
from core.cli.output import table as new_table
from core.cli.studies import study_of
from core.decide import answer
from core.decide.advise.explain import explain, why_sensitive
from core.decide.assess.compare import COSTS
from core.decide.assess.frontier import UNITS, Frontier, frontier
from core.decide.policy.allowed import parse_allowed
from core.decide.policy.budget import (
    AXES,
    BY_IN_WORDS,
    BYS,
    Axis,
    checked,
    format_budget,
    parse_budgets,
)
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy, parse_groups, parse_rules
from core.decide.solve.certificate import certify
from core.decide.solve.solver import Solver
from core.decide.stability.budget_stability import budget_stability
from core.decide.study import Study
from core.errors import PolicyError
from core.export.map import precision_map
from core.export.map.words import amount
from core.quantity import digits

EXAMPLES = "size=0.5 (of FP32), size=4.8MB, latency=0.8, latency=0.8ms, loss=0.5"


def add_budget_options(sub: argparse.ArgumentParser) -> None:
    """Options of `plan` that ask for the best map under budgets."""
    sub.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="AXIS=AMOUNT",
        help=f"the most that a map may take, several at once: {EXAMPLES}; a loss is in points of "
        "accuracy or in the unit of an error",
    )
    sub.add_argument(
        "--loss-by",
        choices=BYS,
        default=BYS[0],
        help="what of a projected loss keeps its budget: the upper end of its 90 %% range, or the "
        "point; default: upper",
    )
    sub.add_argument(
        "--minimise",
        choices=AXES,
        help="what to make least within the budgets; default: loss, or size if loss is budgeted",
    )
    sub.add_argument(
        "--labels",
        action="store_true",
        help="minimise the loss against labels in place of the change of the outputs",
    )
    sub.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="PATTERN",
        help="layers that match a wildcard share one precision",
    )
    sub.add_argument(
        "--certify",
        type=float,
        metavar="SECONDS",
        help="prove how far the map may be from the best, for at most so long",
    )
    sub.add_argument(
        "--stability",
        action="store_true",
        help="solve for resampled data and say how often each layer keeps its precision",
    )


def add_commands(add: Any, json_option: Any) -> None:
    """The commands `frontier` and `explain`; `add` makes a parser of a name and a sentence."""
    sub = add("frontier", "list the maps with the least loss for every size or latency")
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("--axis", choices=COSTS, default="size", help="default: size")
    for option, text in (
        ("--pin", "keep layers that match a wildcard; the last match wins"),
        ("--override", "set one layer; beats every pin"),
    ):
        sub.add_argument(option, action="append", default=[], metavar="PATTERN=P", help=text)
    add_allow(sub)
    sub.add_argument("--group", action="append", default=[], metavar="PATTERN",
                     help="layers that match a wildcard share one precision")  # fmt: skip
    sub.add_argument("--hardware", metavar="NAME", help="latency profile")
    json_option(sub)
    sub.set_defaults(run=run_frontier)
    sub = add(
        "explain",
        "say why a layer has its precision, what would flip it, why it errs and what would help",
    )
    sub.add_argument("folder", type=Path, metavar="DIR", help="analysis folder")
    sub.add_argument("map", type=Path, metavar="MAP", help="precision map")
    sub.add_argument("layer", metavar="LAYER", help="name of the layer; `show` lists them")
    json_option(sub)
    sub.set_defaults(run=run_explain)


def add_allow(sub: argparse.ArgumentParser) -> None:
    """The option that says which precisions may be chosen."""
    sub.add_argument(
        "--allow",
        default="",
        metavar="NAME,...",
        help="precisions that may be chosen, such as FP16,INT8; default: all that the analysis holds. "
        "A pin or an override may name another",
    )


def budget_changes(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a policy that the budget options of `plan` set."""
    changes: dict[str, Any] = {"groups": tuple(g for t in options.group for g in parse_groups(t))}
    budgets = checked(b for text in options.budget for b in parse_budgets(text, options.loss_by))
    if not budgets:
        if options.minimise is not None or options.certify is not None:
            raise PolicyError("No budget is given.", "Write for instance --budget size=0.5.")
        return changes
    changes |= {"strategy": "budget", "budgets": budgets, "minimise": options.minimise}
    if options.minimise is None:
        by_loss = any(b.axis == "loss" for b in budgets)
        free: list[Axis] = [a for a in AXES if a not in {b.axis for b in budgets}]
        changes["minimise"] = free[0] if by_loss and free else "loss"
    if options.labels:
        changes["target"] = "labels"
    return changes


def solved_content(
    study: Study, chosen: PrecisionMap, options: argparse.Namespace
) -> dict[str, Any]:
    """What `plan` adds of a solved budget; empty for another strategy."""
    policy = chosen.policy
    if policy.strategy != "budget":
        return {}
    solution = study.derived(Solver).solve(policy)
    content: dict[str, Any] = {
        "budgets": [
            {
                "budget": format_budget(b),
                "limit": solution.limits[b.axis],
                "used": solution.used[b.axis],
                "by": b.by if b.axis == "loss" else None,
                "loss": solution.loss if b.axis == "loss" else None,
                "binding": b.axis in solution.binding,
            }
            for b in policy.budgets
        ],
        "minimised": policy.minimise,
        "steps": solution.found.steps,
        "certificate": None,
        "stability": None,
    }
    if options.certify is not None:
        content["certificate"] = certify(study, policy, options.certify)
    if options.stability:
        found = budget_stability(study, policy)
        content["stability"] = {
            "draws": found.draws,
            "loss": found.loss,
            "agreement": dict(zip(study.layers.names, found.of(chosen), strict=True)),
        }
    return {"solution": content}


def print_solution(content: dict[str, Any]) -> None:
    """The same for people."""
    if not content:
        return
    out, found = console(), content["solution"]
    for row in found["budgets"]:
        tight = ": this one binds" if row["binding"] else ""
        held = f" ({BY_IN_WORDS[row['by']]})" if row["by"] else ""
        out.print(
            f"Budget {row['budget']}: {row['used']:.6g} of {row['limit']:.6g} used{held}{tight}."
        )
    if found["certificate"] is not None:
        out.print(found["certificate"].in_words())
    if found["stability"] is not None:
        shares = [s for s in found["stability"]["agreement"].values() if s is not None]
        sure = sum(share >= 0.9 for share in shares)
        out.print(
            f"Over {found['stability']['draws']} resamples {sure} of {len(shares)} layers keep "
            f"their precision in at least 90 %; projected loss of this map "
            f"{amount(found['stability']['loss'])}."
        )


def _rules(options: argparse.Namespace, usual: Policy) -> Policy:
    return replace(
        usual,
        pins=tuple(rule for text in options.pin for rule in parse_rules(text)),
        overrides=tuple(rule for text in options.override for rule in parse_rules(text)),
        groups=tuple(g for text in options.group for g in parse_groups(text)),
        hardware=options.hardware or usual.hardware,
        allowed=parse_allowed(options.allow),
    )


def run_frontier(options: argparse.Namespace) -> None:
    """List the points of a frontier."""
    study = study_of(options.folder)
    found = frontier(study, _rules(options, study.default_policy), options.axis)
    if options.json:
        print_json({"axis": found.axis, "points": _points(study, found)})
    else:
        console().print(_frontier_table(study, found))


def _points(study: Study, found: Frontier) -> list[dict[str, Any]]:
    return [
        {
            "budget": format_budget(point.policy.budgets[0]),
            "size_bytes": point.size_bytes,
            "latency_ms": point.latency_ms,
            "objective": point.loss,
            "totals": point.totals,
            "precisions": {
                name: int((point.codes == code).sum()) for code, name in enumerate(study.precisions)
            },
            "layers": answer.decide(study, point.policy).by_layer,
        }
        for point in found.points
    ]


def _frontier_table(study: Study, found: Frontier) -> Table:
    unit = UNITS[found.axis]
    figures = found.points[0].totals if found.points else {}
    costs = ("size_bytes", "latency_ms")
    known = [n for n, figure in figures.items() if figure.value is not None and n not in costs]
    columns = ("MB", "ms", *known, *study.precisions, "--budget")
    table = new_table(
        f"Least loss by {found.axis} ({unit}), as projected, without ranges", columns, columns
    )
    for point in found.points:
        table.add_row(
            digits(point.size_bytes, "bytes"),
            digits(point.latency_ms, "ms"),
            *(amount(point.totals[name]) for name in known),
            *(str(int((point.codes == code).sum())) for code in range(len(study.precisions))),
            format_budget(point.policy.budgets[0]),
        )
    return table


def run_explain(options: argparse.Namespace) -> None:
    """Explain one layer of a map."""
    study = study_of(options.folder)
    chosen = precision_map.read(options.map, study)
    found = explain(study, chosen, options.layer)
    causes = why_sensitive(study, study.layers.index[options.layer], chosen.policy)
    if options.json:
        print_json({"words": found.in_words(), "explanation": found, "causes": causes})
        return
    for sentence in (found.in_words(), *causes):
        console().print(sentence)
