"""What a person allows of the precisions is all that is chosen from."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analysis import store
from core.cli.commands import policy_from
from core.cli.main import main, parser
from core.decide import answer
from core.decide.advise.advice import considerations, recommendations
from core.decide.advise.explain import explain
from core.decide.assess.compare import Cost
from core.decide.assess.frontier import frontier
from core.decide.assess.outcome import outcome
from core.decide.assess.strategies import named_strategies
from core.decide.assess.verified import faster_without_half
from core.decide.policy.allowed import format_allowed, parse_allowed
from core.decide.policy.budget import Axis, parse_budgets
from core.decide.policy.decision import BY_KERNEL, BY_LACK
from core.decide.policy.policy import DOCUMENT_WEIGHTS, Policy, redirected
from core.decide.solve.certificate import certify
from core.decide.solve.solver import Solver
from core.decide.stability.budget_stability import budget_stability
from core.decide.stability.resampling import _decided
from core.decide.study import Study
from core.errors import InfeasibleError, MapError, PolicyError
from core.export.map import session_file
from core.export.map.reproduce import plan_command
from core.export.report.markdown import to_markdown
from core.export.targets import registry
from core.export.targets.legality import legality
from tests.core.allowing import PRECISIONS, four_precisions, partly_known
from tests.core.synthetic import synthetic_analysis

FLOAT, BESIDE = 3, 10
"""A layer that integers mean nothing for, and one with a kernel that shares its group."""
STUDY = Study(four_precisions(14, float_only=FLOAT, groups=((FLOAT, BESIDE),)))
WITHOUT_KERNEL = {STUDY.layers.names[FLOAT]}

sets = st.lists(st.sampled_from(PRECISIONS), min_size=1, max_size=4, unique=True)
names = st.sampled_from(PRECISIONS)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy of a strategy by rules, without pins and overrides, under any set."""
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    return Policy(
        strategy=draw(st.sampled_from(["thresholds", "top-k", "uniform", "manual"])),
        high_threshold=high, medium_threshold=low, high=draw(names), medium=draw(names),
        low=draw(names), uniform=draw(names), top_k=draw(st.integers(0, 14)),
        groups=tuple(draw(st.lists(st.sampled_from(["block.1*", "*norm", "*"]), max_size=2))),
        allowed=tuple(draw(sets)),
    )  # fmt: skip


def beyond(policy: Policy, assigned: tuple[str | None, ...]) -> set[str]:
    """Names of layers in a precision that `policy` does not allow."""
    return {
        name
        for name, got in zip(STUDY.layers.names, assigned, strict=True)
        if got is not None and got not in policy.allowed
    }


@settings(max_examples=300, deadline=None)
@given(policies())
def test_no_strategy_leaves_the_set(policy: Policy) -> None:
    """Whatever thresholds, top-k, one precision or manual ask for, a layer is in an allowed precision;
    where only integers are allowed, the layer without a kernel for them stays in FP32 and is named.
    """
    chosen = answer.decide(STUDY, policy)

    outside = beyond(policy, chosen.assigned)
    floats = set(policy.allowed) & {"FP32", "FP16", "BF16"}
    assert outside == (set() if floats else WITHOUT_KERNEL)
    if outside:
        assert chosen.assigned[FLOAT] == "FP32"
        said = [s for s in outcome(STUDY, chosen).warnings if "serves it" in s]
        why = "since nothing of the allowed INT8 serves it"
        assert said == [f"1 layer stays in FP32, {why}: {STUDY.layers.names[FLOAT]}."]


@settings(max_examples=100, deadline=None)
@given(policies(), st.integers(0, 1000))
def test_resamples_obey_the_set_as_the_decision_does(policy: Policy, seed: int) -> None:
    """Every draw of the scores gives what deciding with these scores gives."""
    scores = np.random.default_rng(seed).random((3, len(STUDY.layers))).round(6)
    rows = _decided(STUDY.layers, scores, policy, STUDY.precisions)

    for row, drawn in zip(rows, scores, strict=True):
        policy = replace(policy, weights=(("theory", 1.0),))
        found = answer.decision.decide(STUDY.layers, {"theory": drawn}, policy, STUDY.precisions)
        assert row.tolist() == found.codes.tolist()


def test_an_unmeasured_layer_waits_in_the_widest_allowed_one() -> None:
    """Where BF16 is known and INT8 is not, a layer goes to the allowed BF16, not to FP32; where nothing
    allowed is known it stays in FP32 and is named.
    """
    first, second = 0, 1
    study = Study(
        partly_known(four_precisions(14), ("INT8", first), *((p, second) for p in PRECISIONS[1:]))
    )
    manual = Policy(strategy="manual", high="INT8", allowed=("BF16", "INT8"))
    chosen = answer.decide(study, manual)

    assert chosen.assigned[:3] == ("BF16", "FP32", "INT8")
    assert chosen.origin[[first, second]].tolist() == [BY_LACK, BY_LACK]
    assert any(
        f"serves it: {study.layers.names[second]}." in s for s in outcome(study, chosen).warnings
    )
    everything = answer.decide(study, replace(manual, allowed=()))
    assert everything.assigned[:3] == ("FP32", "FP32", "INT8")


def test_a_layer_without_a_kernel_waits_in_an_allowed_float() -> None:
    """Under FP16 and INT8 the layer that integers mean nothing for is in FP16, and says why."""
    chosen = answer.decide(STUDY, Policy(strategy="uniform", allowed=("FP16", "INT8")))

    assert chosen.assigned[FLOAT] == "FP16"
    assert chosen.assigned[BESIDE] == "INT8"
    assert chosen.origin[FLOAT] == BY_KERNEL
    assert chosen.reason(FLOAT).startswith("Stays in FP16: no kernel")


def test_a_layer_that_overflows_in_all_that_is_allowed_stays_in_fp32() -> None:
    """A budget never chooses outputs that are not finite: the layer stays in FP32, its reason and a warning
    say so.
    """
    analysis = four_precisions(7)
    assert analysis.evidence is not None
    finite = analysis.evidence.allowed.copy()
    finite[PRECISIONS.index("FP16") - 1, 1] = False
    study = Study(replace(analysis, evidence=replace(analysis.evidence, allowed=finite)))
    policy = Policy(strategy="budget", budgets=parse_budgets("size=0.9"), allowed=("FP16",))
    chosen = answer.decide(study, policy)

    assert chosen.outside == (1,)
    assert chosen.assigned[1] == "FP32"
    assert chosen.reason(1) == "Stays in FP32: nothing of what is allowed (FP16) serves it."
    assert any(f"serves it: {study.layers.names[1]}." in s for s in outcome(study, chosen).warnings)


def test_levels_go_to_the_next_wider_allowed_precision() -> None:
    """A level that points to what is not allowed goes to the next wider allowed one, or to the widest
    there is, and a sentence says so.
    """
    before = Policy(weights=DOCUMENT_WEIGHTS)

    def goes(*allowed: str) -> tuple[str, str, str, str]:
        found = replace(before, allowed=allowed)
        return found.high, found.medium, found.low, found.uniform

    assert goes("FP32", "BF16") == ("BF16", "BF16", "BF16", "BF16")
    assert goes("FP32", "INT8") == ("FP32", "INT8", "INT8", "INT8")
    assert goes("INT8") == ("INT8", "INT8", "INT8", "INT8")
    assert goes() == ("FP16", "INT8", "INT8", "INT8")
    fields = {"high": "FP16", "medium": "INT8", "low": "INT8", "uniform": "INT8"}
    assert redirected(fields, replace(before, allowed=("INT8",))) == [
        "HIGH layers go to INT8, since FP16 is not allowed."
    ]


def test_a_rule_of_a_persons_own_beats_the_set_and_is_named() -> None:
    """A pin and an override may name what is not allowed; the layers are named beside the map."""
    names_ = STUDY.layers.names
    policy = Policy(
        pins=((names_[0], "FP32"),), overrides=((names_[1], "BF16"),), allowed=("FP16", "INT8")
    )
    chosen = answer.decide(STUDY, policy)

    assert chosen.assigned[:2] == ("FP32", "BF16")
    assert chosen.outside == (0, 1)
    assert (
        f"A pin or an override beats the allowed FP16 and INT8: {names_[0]} FP32, {names_[1]} BF16."
        in outcome(STUDY, chosen).warnings
    )


SEVEN = Study(four_precisions(7, seed=5, float_only=2, groups=((2, 5),)))
BUDGETS = ("size=0.6", "latency=0.9", "size=0.5, latency=1.1", "loss=0.0005nats")


def _every_map(study: Study, allowed: tuple[str, ...]) -> np.ndarray:
    """All maps (M, L) over `allowed` in which the group of layers 2 and 5 is together but for the layer
    that integers mean nothing for, without the search's own code.
    """
    held = study.precisions
    floats = [held.index(p) for p in held if p in allowed and p != "INT8"] or [0]
    free = [i for i in np.flatnonzero(study.layers.computes) if i != 2]
    codes = [held.index(p) for p in held if p in allowed]
    rows = []
    for picked in itertools.product(codes, repeat=len(free)):
        row = np.full(len(study.layers), -1, np.int8)
        row[free] = picked
        # the widest allowed float, where its group is in integers
        row[2] = floats[0] if held[row[5]] == "INT8" else row[5]
        rows.append(row)
    return np.stack(rows)


@pytest.mark.parametrize("allowed", [
    ("FP16", "INT8"), ("BF16", "INT8"), ("INT8",), ("FP16", "BF16"), ("FP32", "INT8"), ("FP16", "BF16", "INT8"),
], ids="-".join)  # fmt: skip
def test_budgets_give_the_best_of_all_allowed_maps(allowed: tuple[str, ...]) -> None:
    """Of every budget the map that was found is allowed, and no allowed map is better; where none keeps
    the budget, that is said.
    """
    study, solver = SEVEN, Solver(SEVEN, 0.0)
    codes = _every_map(study, allowed)
    projector = study.projector
    assert projector is not None
    loss = np.array([projector.figures(projector.change(row)).divergence for row in codes])
    size = np.array([study.stored_bytes(row) for row in codes], float)
    ms = study.latency(Policy().hardware).times_ms(codes)
    figures = {"size": size, "latency": ms, "loss": loss}
    for text in BUDGETS:
        minimise: Axis = "size" if text.startswith("loss") else "loss"
        policy = Policy(
            strategy="budget", budgets=parse_budgets(text, "point"), minimise=minimise,
            allowed=allowed,
        )  # fmt: skip
        kept = np.ones(len(codes), np.bool_)
        for budget in policy.budgets:
            kept &= figures[budget.axis] <= solver.limit(budget, policy.hardware) * (1 + 1e-9)
        if not kept.any():
            with pytest.raises(InfeasibleError):
                solver.solve(policy)
            continue
        found = solver.decide(policy)
        at = np.flatnonzero((codes == found.codes).all(axis=1))
        assert len(at) == 1, (text, found.assigned)
        assert kept[at[0]], text
        goal = figures[minimise]
        assert goal[at[0]] <= goal[kept].min() * (1 + 1e-6) + 1e-12, text


def test_a_budget_that_the_set_keeps_away_says_so() -> None:
    """Where the set alone is in the way, the refusal says what there is with all precisions."""
    policy = Policy(strategy="budget", budgets=parse_budgets("size=0.3"), allowed=("FP32", "FP16"))

    with pytest.raises(InfeasibleError, match="With more than FP32 and FP16 allowed it is 2"):
        answer.decide(STUDY, policy)
    answer.decide(STUDY, replace(policy, allowed=()))


@settings(max_examples=25, deadline=None)
@given(sets, st.sampled_from(["size=0.55", "latency=0.95", "loss=0.01nats"]), st.booleans())
def test_no_budget_leaves_the_set(given_: list[str], text: str, together: bool) -> None:
    """Solved maps, and those of resampled data, hold nothing but what is allowed, but for the layer
    that nothing allowed serves.
    """
    policy = Policy(
        strategy="budget", budgets=parse_budgets(text), minimise="loss", allowed=tuple(given_),
        groups=("block.1*",) if together else (),
    )  # fmt: skip
    try:
        chosen = answer.decide(STUDY, policy)
    except InfeasibleError:
        return

    floats = set(policy.allowed) - {"INT8"}
    assert beyond(policy, chosen.assigned) == (set() if floats else WITHOUT_KERNEL)


def test_resampled_budgets_obey_the_set() -> None:
    """No draw of the samples gives a layer what is not allowed."""
    policy = Policy(strategy="budget", budgets=parse_budgets("size=0.6"), allowed=("BF16", "INT8"))
    found = budget_stability(SEVEN, policy, draws=4)

    assert found.solved
    for code, name in enumerate(SEVEN.precisions):
        assert name in policy.allowed or not found.frequency[code].any()


@pytest.mark.parametrize("axis", ["size", "latency"])
def test_a_frontier_obeys_the_set(axis: Cost) -> None:
    """Every point of a frontier is a map of what is allowed, and its policy says so and gives it again;
    the frontier of the smaller set is nowhere better.
    """
    allowed = ("BF16", "INT8")
    found = frontier(SEVEN, Policy(allowed=allowed), axis, points=6)
    best = frontier(SEVEN, Policy(), axis, points=6)

    assert found.points
    for point in found.points:
        assert {SEVEN.precisions[c] for c in point.codes if c >= 0} <= set(allowed)
        assert point.policy.allowed == allowed
        assert answer.decide(SEVEN, point.policy).codes.tolist() == point.codes.tolist()
    assert min(p.loss for p in best.points) == pytest.approx(0.0, abs=1e-12)
    assert min(p.loss for p in found.points) > 1e-9


def test_a_certificate_bounds_the_allowed_maps() -> None:
    """The bound of a set is no better than that of all precisions, and the map keeps it."""
    policy = Policy(strategy="budget", budgets=parse_budgets("size=0.6"), allowed=("BF16", "INT8"))
    bounded = certify(SEVEN, policy, 5)
    free = certify(SEVEN, replace(policy, allowed=()), 5)

    assert bounded.bound is not None
    assert free.bound is not None
    assert free.bound <= bounded.bound <= bounded.value * (1 + 1e-9)


@pytest.mark.parametrize("name", ["INT3", "nonsense"])
def test_what_an_analysis_does_not_hold_cannot_be_allowed(name: str) -> None:
    """The refusal names what was asked for and what the analysis holds."""
    with pytest.raises(PolicyError, match="holds no evidence") as refused:
        answer.decide(STUDY, Policy(allowed=("FP16", name)))

    assert name in refused.value.cause
    assert "It holds FP32, FP16, BF16, INT8" in refused.value.next_step


@given(sets)
def test_a_set_is_written_as_it_is_read(given_: list[str]) -> None:
    """Any order and spelling of names is one set, the widest first, and an empty text is none."""
    found = parse_allowed(" , ".join(name.lower() for name in (*given_, given_[0])))

    assert sorted(found) == sorted(given_)
    assert found == Policy(allowed=tuple(given_)).allowed
    assert parse_allowed(format_allowed(found)) == found
    assert parse_allowed(" ") == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of an analysis that holds four precisions."""
    target = tmp_path_factory.mktemp("four") / "analysis"
    store.save(four_precisions(14), target)
    return str(target)


@pytest.mark.parametrize("options", [
    (), ("--strategy", "uniform"), ("--top-k", "5"), ("--strategy", "manual"),
], ids=" ".join)  # fmt: skip
def test_plan_takes_the_set(
    options: tuple[str, ...], folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan --allow fp32,int8` writes a map of these alone, notes where FP16 goes, and its file, read
    back, keeps the set.
    """
    path = tmp_path / "map.json"

    assert main(["plan", folder, "--allow", "fp32,int8", *options, "--out", str(path)]) == 0
    noted = capsys.readouterr().err
    content = json.loads(path.read_text())
    assert {row["precision"] for row in content["layers"]} <= {"FP32", "INT8", None}
    assert content["policy"]["allowed"] == ["FP32", "INT8"]
    assert ("HIGH layers go to FP32, since FP16 is not allowed" in noted) == (
        "uniform" not in options
    )
    assert main(["show", folder, str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["policy"]["allowed"] == ["FP32", "INT8"]


def test_plan_refuses_what_contradicts_itself(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A level sent by name to what is not allowed, and a name that is not held, end with 2."""
    assert main(["plan", folder, "--allow", "FP32,INT8", "--high", "FP16"]) == 2
    assert "--high FP16 is none of the allowed FP32 and INT8" in capsys.readouterr().err
    assert main(["plan", folder, "--allow", "FP32,INT9"]) == 2
    assert "It holds FP32, FP16, BF16, INT8" in capsys.readouterr().err


def test_strategies_and_advice_obey_the_set(informer_study: Study) -> None:
    """Of the named strategies those of what is allowed are left, beside the reference to hold them
    against; advice recommends none of FP32, and names no FP16 that was left out.
    """
    policy = Policy(allowed=("INT8",))
    found = named_strategies(informer_study, policy)

    assert set(found) == {"All FP32", "All INT8", "Top-k 25%", "Top-k 50%", "Top-k 75%"}
    for title, one in found.items():
        used = set(answer.decide(informer_study, one).assigned) - {None}
        assert used == ({"FP32"} if title == "All FP32" else {"INT8"})
    uses = recommendations(informer_study, policy)
    assert len(uses) == 3
    assert {use.policy.allowed for use in uses} == {("INT8",)}
    chosen = answer.decide(informer_study, policy)
    assert "FP16" in " ".join(
        considerations(informer_study, answer.decide(informer_study, Policy()))
    )
    assert "FP16" not in " ".join(considerations(informer_study, chosen))
    assert "FP32 is the faster choice" not in " ".join(outcome(informer_study, chosen).warnings)


def test_advice_without_measurements_obeys_the_set() -> None:
    """By rule, too, nothing is recommended that is not allowed."""
    study = Study(synthetic_analysis(14, measured=False))
    uses = recommendations(study, Policy(allowed=("FP16", "INT8")))

    assert {use.use: use.strategy for use in uses} == {
        "production": "Document thresholds", "edge": "All INT8", "high precision": "All FP16",
    }  # fmt: skip


def test_where_nothing_allowed_is_good_enough_the_best_of_it_is_recommended() -> None:
    """Under a loss that no allowed map keeps, what moves the outputs least is recommended, and the reason
    says that none stays within.
    """
    analysis = four_precisions(14)
    assert analysis.evidence is not None
    loud = replace(analysis.evidence, perturbations=analysis.evidence.perturbations * 400,
                   whole=analysis.evidence.whole * 400)  # fmt: skip
    uses = recommendations(
        Study(replace(analysis, evidence=loud)), Policy(allowed=("BF16", "INT8"))
    )

    assert all("none stays within" in use.why for use in uses)
    assert all(use.policy.allowed == ("BF16", "INT8") for use in uses)


def test_faster_without_half_is_not_offered_where_fp32_is_left_out(informer_study: Study) -> None:
    """The one-click map with FP32 in place of FP16 is no offer where FP32 is not allowed."""
    policy = Policy()
    assert faster_without_half(informer_study, answer.decide(informer_study, policy)) is not None

    narrow = answer.decide(informer_study, replace(policy, allowed=("FP16", "INT8")))
    assert faster_without_half(informer_study, narrow) is None


def test_an_explanation_weighs_what_is_allowed_alone() -> None:
    """Alternatives are allowed ones, the set is said, and with one precision nothing else can flip it."""
    layer = STUDY.layers.names[0]
    budget = Policy(strategy="budget", budgets=parse_budgets("size=0.6"), allowed=("FP16", "INT8"))
    found = explain(STUDY, answer.decide(STUDY, budget), layer)
    alone = explain(STUDY, answer.decide(STUDY, replace(budget, allowed=("BF16",))), layer)

    assert {a.precision for a in found.alternatives} == {"FP16", "INT8"} - {found.precision}
    assert found.in_words().endswith("FP16 and INT8 alone may be chosen.")
    assert alone.alternatives == ()
    assert "allowing another precision could flip it" in alone.in_words()


def test_a_report_and_its_command_say_the_set() -> None:
    """The method's text names what may be chosen, and the command gives the map again."""
    chosen = answer.decide(STUDY, Policy(allowed=("BF16", "INT8"), hardware="datacenter-gpu-t4"))
    text = to_markdown(STUDY, chosen).decode()

    assert "Of the precisions BF16 and INT8 alone may be chosen" in text
    command = plan_command(chosen)
    assert command is not None
    assert "--allow=BF16,INT8" in command
    typed = parser().parse_args(shlex.split(command)[3:])
    again = answer.decide(STUDY, policy_from(typed, STUDY.default_policy))
    assert again.assigned == chosen.assigned
    assert again.policy.allowed == chosen.policy.allowed


def test_sessions_keep_the_set_and_older_ones_allow_all() -> None:
    """A session file carries the set of its policy; one written before there were sets allows all."""
    policy = Policy(allowed=("FP16", "INT8"))
    kept = session_file.Session(STUDY.analysis.identity, policy)
    raw = session_file.to_json(kept)
    older = json.loads(raw)
    del older["policy"]["allowed"]

    assert session_file.from_json(raw, STUDY).policy == policy
    assert session_file.from_json(json.dumps(older).encode(), STUDY).policy == replace(
        policy, allowed=()
    )
    older["policy"]["allowed"] = ["FP16", "FP9"]
    with pytest.raises(MapError, match=r"FP9.* cannot be allowed"):
        session_file.from_json(json.dumps(older).encode(), STUDY)


def test_the_frontier_command_takes_the_set(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`frontier --allow` lists maps of these alone."""
    assert main(["frontier", folder, "--allow", "bf16,int8", "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]

    assert points
    for point in points:
        assert set(point["layers"].values()) <= {"BF16", "INT8", None}


def test_the_nearest_map_of_a_tool_keeps_to_the_set_where_it_can() -> None:
    """Of what a tool takes, the allowed comes before a narrower one that is not."""
    chosen = answer.decide(STUDY, Policy(strategy="manual", high="BF16", allowed=("FP32", "BF16")))
    known = msgspec.structs.replace(registry.get("tensorrt"), precisions=("FP32", "FP16", "INT8"))
    found = legality(STUDY, chosen, known)

    assert found.illegal
    assert {one.nearest for one in found.illegal} == {"FP32"}
    every = legality(STUDY, replace(chosen, policy=Policy()), known)
    assert {one.nearest for one in every.illegal} == {"FP16"}
