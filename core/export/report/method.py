"""Chapters on what was asked and how it was answered: goals, method, measurement, limits."""

from __future__ import annotations

from core.decide.assess.outcome import OPTIMISTIC
from core.decide.policy.allowed import allowed_in_words
from core.decide.policy.budget import bounds_in_words
from core.decide.policy.scoring import HIGH, LEVELS, LOW, MEDIUM
from core.evidence import scorers
from core.evidence.diagnose.agreement import agreements
from core.evidence.scorers import priors
from core.export.map import words
from core.export.report.blocks import Bullets, Column, Facts, Section, Table, Text
from core.export.report.facts import outputs
from core.export.report.material import Material
from core.layers import ROLES
from core.numerics import quantizers
from core.numerics.calibrate.calibrators import CALIBRATORS
from core.numerics.scheme import SCHEMES
from core.quantity import UNKNOWN

PROJECTION = (
    "No map was run as a whole on a device: accuracy is projected from layers measured one at a "
    "time. It is exact for uniform maps as simulated, and approximate between them."
)
RUN = (
    "This map was run as a whole; the decision on record has what was measured, and where. "
    "Projected figures beside it come from layers measured one at a time."
)
SELECTION = (
    "The selection split also chose the map, so its figures are slightly optimistic. Judge the "
    "map on data that it has not seen."
)
PRODUCTION = (
    "Production data that differs from the calibration split has other ranges and another loss."
)
LATENCY = (
    "Latency is estimated from published figures of a device. Nothing was timed on it; the range "
    "covers the assumptions, not your driver. Ratios are safer than milliseconds."
)
SCHEME = "INT8 is simulated by the scheme {}. Another runtime may round other tensors."
SIZE = "Size counts tensors as they are stored. A model file adds the overhead of its format."
RULES = "Scores and levels of rules of thumb know the type of a layer and nothing of this model."


def goals(given: Material) -> Section:
    """What the assessment is for, one line each."""
    metric = given.study.analysis.metric
    judged = "accuracy" if metric is None else metric.name
    loss = (
        "accuracy loss in points of accuracy"
        if metric is None
        else f"loss in {metric.name} in percent of the FP32 model's"
    )
    return Section("goals", "Evaluation goals", (
        Bullets((
            "Find the layers that are sensitive to quantization and keep them in high precision.",
            "Find the layers that can safely go to fewer bits.",
            "Give every layer a precision: a mixed-precision strategy.",
            f"Predict what that does to size, latency and {judged} before anything is deployed.",
        )),
        Text(
            "Measures: sensitivity level (HIGH, MEDIUM, LOW), quantizable or not, recommended "
            f"precision, and the {loss} with a 90 % range."
        ),
    ))  # fmt: skip


def method(given: Material) -> tuple[Section, ...]:
    """Weights, thresholds and the tiers actually used."""
    policy = given.policy
    rows = []
    for name, share in policy.normalised_weights().items():
        scorer = scorers.get(name)
        rows.append((scorer.title, f"{share:.3f}", scorer.kind, scorer.description, scorer.source))
    weights = Table(
        (Column("scorer"), Column("weight", "number"), Column("kind"), Column("what it says", "prose"),
         Column("source", "prose")),
        tuple(rows),
    )  # fmt: skip
    targets = {HIGH: policy.high, MEDIUM: policy.medium, LOW: policy.low}
    bounds = {
        HIGH: f"score ≥ {policy.high_threshold:g}",
        MEDIUM: f"score ≥ {policy.medium_threshold:g}",
        LOW: "below",
    }
    thresholds = Table(
        (Column("level"), Column("when"), Column("quantizable"), Column("goes to", "precision")),
        tuple((LEVELS[level], bounds[level], "no" if level == HIGH else "yes", target)
              for level, target in targets.items()),
    )  # fmt: skip
    scale = Text(
        "Weights are divided by their sum. Scores lie in 0 to 1; higher is more sensitive."
    )
    return (
        Section("method", "Evaluation method"),
        Section("weights", "Weights of the score", (weights, scale), 2),
        Section("thresholds", "Thresholds and strategy", (thresholds, Text(_strategy(given))), 2),
        Section("tiers", "Rules by layer type", (_tiers(given),), 2),
        *_agreement(given),
    )


def _strategy(given: Material) -> str:
    policy = given.policy
    said = {
        "thresholds": "Strategy: thresholds. The level of a layer decides.",
        "top-k": f"Strategy: top-k. The {policy.top_k} least sensitive layers go to {policy.low}, "
        f"the others to {policy.high}; levels are shown, they do not decide.",
        "uniform": f"Strategy: uniform. Every layer goes to {policy.uniform}; levels are shown, "
        "they do not decide.",
        "manual": f"Strategy: manual. Every layer stays in {policy.high} unless a pin or an "
        "override says otherwise; levels are shown, they do not decide.",
        "budget": f"Strategy: budget. The map with the least {policy.minimise} that was found with "
        f"{bounds_in_words(policy.budgets)}; levels are shown, they do not decide.",
    }[policy.strategy]
    if policy.allowed:
        said += f" Of the precisions {allowed_in_words(policy.allowed)} alone may be chosen."
    return f"{said} An override of a layer beats a pin, which beats the strategy."


def _tiers(given: Material) -> Table:
    table = priors.table()
    scaled = priors.scores("importance")
    present = [role for role in ROLES if role in given.study.layers.roles]
    return Table(
        (Column("layer type"), Column("theory (prior)"), Column("importance (prior)", "number"),
         Column("importance, scaled (prior)", "number"), Column("empirical rule (prior)"),
         Column("why, by theory", "prose"), Column("why, by importance", "prose")),
        tuple(
            (
                words.role(role),
                _tier(table, "theory", role),
                f"{table['importance'][role]['weight']:.2f}",
                f"{scaled[role]:.3f}",
                _tier(table, "empirical", role),
                str(table["theory"][role]["reason"]),
                str(table["importance"][role]["reason"]),
            )
            for role in present
        ),
    )  # fmt: skip


def _tier(table: dict[str, dict[str, dict[str, str]]], kind: str, role: str) -> str:
    return f"{table[kind][role]['tier']} ({priors.scores(kind)[role]:g})"


def _agreement(given: Material) -> tuple[Section, ...]:
    """How well each score ranks this model's layers, judged by measurement."""
    study = given.study
    found = agreements(study.scores, study.layers.computes)
    if not found:
        return ()
    rows = []
    for one in found:
        layer = study.layers.names[one.worst[0].layer] if one.worst else "none"
        rank = UNKNOWN if one.spearman is None else f"{one.spearman:.2f}"
        rows.append((scorers.get(one.scorer).title, rank, layer))
    table = Table(
        (Column("scorer"), Column("rank agreement (measured)", "number"),
         Column("layer it misplaces most", "name")),
        tuple(rows),
    )  # fmt: skip
    return (
        Section("agreement", "Rules against measurement", (
            Text(
                "Spearman's rank correlation of each score with the measured output error over the "
                "layers that compute: 1 is the same order, 0 is chance. Where it is low, the rules "
                "of thumb do not fit this model."
            ),
            table,
        ), 2),
    )  # fmt: skip


def measurement(given: Material) -> Section:
    """Calibration data and the layer-by-layer test behind the figures."""
    analysis = given.study.analysis
    splits = analysis.splits
    scheme = analysis.scheme_facts or SCHEMES.get(analysis.scheme)
    known = [c for c in CALIBRATORS.values() if c.name == analysis.calibrator.partition(":")[0]]
    facts = [
        ("Calibration split", f"{words.count(splits.calibration, 'sample')} exact: sets the ranges of activations"),
        ("Selection split", f"{words.count(splits.selection, 'sample')} exact: every layer is measured here"),
        ("Holdout split", f"{words.count(splits.holdout, 'sample')} exact: kept for judging, never used to choose"),
        ("Scheme", analysis.scheme if scheme is None else f"{scheme.name}: {scheme.description}"),
        ("Ranges of activations", ": ".join((analysis.calibrator, *(c.title for c in known)))),
    ]  # fmt: skip
    if analysis.by_groups:
        title = quantizers.get(analysis.by_groups).title
        facts.append(("Weights by groups", f"{analysis.by_groups}: {title}"))
    if analysis.evidence is None:
        how = (
            "Nothing was measured: scores are rules of thumb and no accuracy is projected. Run "
            "`analyze` to measure each layer."
        )
    else:
        probes = len(analysis.evidence.probe_codes)
        seconds = UNKNOWN if analysis.seconds is None else f"{analysis.seconds:,.1f} s measured"
        facts.append(("Time of the analysis", seconds))
        if kept := outputs(analysis):
            facts.append(("Outputs of a sample", kept))
        how = (
            "Every computing layer was run alone in every precision over the whole selection split "
            "and the change of the outputs kept, sample by sample; then the uniform maps and "
            f"{words.count(probes, 'random map')}, which say how far projections err."
        )
    if analysis.partial is not None:
        facts.append(("Measured so far", analysis.partial.in_words()))
        how = (
            "The measurement was not over when this analysis was written. Layers that it had not "
            "reached stay as trained, and nothing is said of them."
        )
    return Section("measurement", "Tools and data", (Facts(tuple(facts)), Text(how)))


def limits(given: Material) -> Section:
    """What these numbers do not say."""
    analysis = given.study.analysis
    said = [LATENCY, SCHEME.format(analysis.how_rounded), SIZE, RULES]
    if analysis.evidence is not None:
        first = PROJECTION if given.verified is None else RUN
        said[:0] = [first, OPTIMISTIC if analysis.optimistic else SELECTION, PRODUCTION]
    said += analysis.notes
    return Section("limits", "What these numbers do not say", (Bullets(tuple(said)),))
