"""Figures in words: units, ranges and kinds. Every file for people takes its numbers from here."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.decide.assess.gains import Gain
from core.quantity import UNKNOWN, Quantity, digits, written, written_change
from core.task import Metric

FIGURES = {
    "size_bytes": "tensor bytes",
    "size_reduction_pct": "smaller than FP32",
    "latency_ms": "latency per sample",
    "speedup": "speed-up over FP32",
    "accuracy": "accuracy",
    "accuracy_drop_pts": "accuracy loss",
    "kl": "KL divergence",
    "flips_pct": "changed predictions",
}
"""Title of each total of a classifier, in the order in which they are read."""

LEVELS = ("accuracy", "metric")
OF_COSTS = ("size_bytes", "size_reduction_pct", "latency_ms", "speedup")


def titles_of(metric: Metric | None) -> dict[str, str]:
    """Title of each total of a model judged by `metric` (None: by accuracy), in reading order."""
    if metric is None:
        return dict(FIGURES)
    return {key: FIGURES[key] for key in OF_COSTS} | {
        "metric": metric.name,
        "metric_loss_pct": f"loss in {metric.name}",
        "relative_mse": "relative MSE of the outputs",
    }


def figures(analysis: Analysis) -> dict[str, str]:
    """Title of each total that says something of `analysis`, in the order in which they are read.

    Figures of the outputs carry the `remark`.
    """
    titles, mark = titles_of(analysis.metric), remark(analysis)
    if mark:
        titles = {
            key: title if key in OF_COSTS else f"{title} ({mark})" for key, title in titles.items()
        }
    return titles


def remark(analysis: Analysis) -> str:
    """What every figure of the outputs has to say: *optimistic* where the samples also set the
    ranges, *partial* where not all is measured yet; empty for neither.
    """
    said = (("optimistic", analysis.optimistic), ("partial", analysis.partial is not None))
    return ", ".join(word for word, holds in said if holds)


def better(metric: Metric) -> str:
    """Which way `metric` points, in words."""
    return f"{'higher' if metric.higher_is_better else 'lower'} is better"


def amount(given: Quantity) -> str:
    """A figure with its range, as "1.76 ms (1.26 to 2.88)"; "n/a" where it is unknown."""
    if given.value is None:
        return UNKNOWN
    text = written(given.value, given.unit)
    if given.low is not None and given.high is not None:
        text += f" ({digits(given.low, given.unit)} to {digits(given.high, given.unit)})"
    return text


def quantity(given: Quantity | str) -> str:
    """`amount` with the kind of the figure; words are passed on."""
    if isinstance(given, str):
        return given
    return UNKNOWN if given.value is None else f"{amount(given)} {given.kind}"


def total(analysis: Analysis, key: str, given: Quantity) -> str:
    """`quantity` of the total `key` of a map, and its split where it could be mistaken: a map that
    was run is measured on another split than the one it was projected on, and a level (accuracy,
    a metric) says nothing without one.
    """
    text = quantity(given)
    if given.value is None or key in OF_COSTS:
        return text
    if given.kind == "measured":
        return f"{text} on the {analysis.judging_split} split"
    return f"{text} on the selection split" if key in LEVELS else text


def gain(given: Gain, unit: str) -> str:
    """A change with its sign, as "-2.100 MB (-40 %)"; shares change in points."""
    if given.before is None or given.after is None:
        return UNKNOWN
    said = written_change(given.before, given.after, unit)
    return said or written(0.0, "pts" if unit == "%" else unit)


def percent(value: float | None) -> str:
    """A share in percent with one decimal; "n/a" for None."""
    return UNKNOWN if value is None else f"{value:.1f} %"


def count(value: int, noun: str) -> str:
    """As "1 layer" or "1,024 layers"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def role(name: str) -> str:
    """A role as words: feed forward."""
    return name.replace("_", " ")
