"""What an analysis was made of and what its reference model reaches, in words for people."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.evidence.reduction import in_words, part_of
from core.export.map.words import better
from core.quantity import UNKNOWN, written


def judged(analysis: Analysis) -> tuple[tuple[str, str], tuple[str, str]]:
    """What the reference model reaches on the holdout split, and what a model would that has
    learnt nothing: titles with measured values.
    """
    metric = analysis.metric
    if metric is None:
        best, naive = (
            UNKNOWN if share is None else f"{written(100 * share, '%')} measured"
            for share in (analysis.holdout_accuracy, analysis.majority_accuracy)
        )
        return (
            ("Accuracy in FP32, holdout split", best),
            ("Always giving the most frequent class", naive),
        )
    best, naive = (
        UNKNOWN if one is None else f"{written(one, '')} measured"
        for one in (metric.holdout, metric.naive)
    )
    return (
        (f"{metric.name} in FP32, holdout split ({better(metric)})", best),
        ("Always giving the mean target", naive),
    )


def task(analysis: Analysis) -> str:
    """What the model is asked to do, with the classes it chooses from."""
    classes = ", ".join(analysis.class_names)
    return f"{analysis.task}: {classes}" if classes else analysis.task


def outputs(analysis: Analysis) -> str:
    """What is kept of the outputs of a sample, "" where all of them are."""
    evidence = analysis.evidence
    if evidence is None or not evidence.outputs.total:
        return ""
    return in_words(evidence.outputs, evidence.baseline.shape[1], part_of(evidence))


def splits(analysis: Analysis) -> str:
    """How many samples each split has, and whether they overlap."""
    sizes = analysis.splits
    if analysis.optimistic:
        return f"{sizes.calibration:,} samples exact, for calibration and selection alike"
    return (
        f"calibration {sizes.calibration:,}, selection {sizes.selection:,}, holdout "
        f"{sizes.holdout:,} samples exact, never overlapping"
    )
