"""Figures in words: units, ranges and kinds. Every file for people takes its numbers from here."""

from __future__ import annotations

from core.analysis.analysis import Analysis
from core.decide.assess.gains import Gain
from core.estimate.projection import RELATIVE
from core.quantity import Quantity
from core.task import Metric

MEGA = 1e6
UNKNOWN = "n/a"
PLAIN = ("ms", "%", "pts", "x", "MB")
"""Units of figures that two decimals suit."""

FIGURES = {
    "size_bytes": "tensor bytes",
    "size_reduction_pct": "smaller than FP32",
    "latency_ms": "latency per sample",
    "speedup": "speed-up over FP32",
    "accuracy": "accuracy, selection split",
    "accuracy_drop_pts": "accuracy loss",
    "kl": "KL divergence",
    "flips_pct": "changed predictions",
}
"""Title of each total of a classifier, in the order in which they are read."""

OF_COSTS = ("size_bytes", "size_reduction_pct", "latency_ms", "speedup")


def titles_of(metric: Metric | None) -> dict[str, str]:
    """Title of each total of a model judged by `metric` (None: by accuracy), in reading order."""
    if metric is None:
        return dict(FIGURES)
    return {key: FIGURES[key] for key in OF_COSTS} | {
        "metric": f"{metric.name}, selection split",
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


def number(value: float, unit: str) -> str:
    """A value with its unit; bytes as MB = 10^6 bytes."""
    digits = _digits(value, unit)
    if unit == "layers":
        return digits
    if unit == "bytes":
        return f"{digits} MB"
    return f"{digits}{unit}" if unit == "x" else f"{digits} {unit}".rstrip()


def _digits(value: float, unit: str) -> str:
    if unit == "bytes":
        text = f"{value / MEGA:.3f}"
    elif unit == "layers":
        text = f"{value:.0f}"
    elif unit in {"nats", RELATIVE}:
        text = f"{value:.2e}"
    elif unit not in PLAIN:  # a metric's own, of any size
        text = f"{value:.4g}"
    else:
        text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text


def amount(given: Quantity) -> str:
    """A figure with its range, as "1.76 ms (1.26 to 2.88)"; "n/a" where it is unknown."""
    if given.value is None:
        return UNKNOWN
    text = number(given.value, given.unit)
    if given.low is not None and given.high is not None:
        text += f" ({_digits(given.low, given.unit)} to {_digits(given.high, given.unit)})"
    return text


def quantity(given: Quantity | str) -> str:
    """`amount` with the kind of the figure; words are passed on."""
    if isinstance(given, str):
        return given
    return UNKNOWN if given.value is None else f"{amount(given)} {given.kind}"


def gain(given: Gain, unit: str) -> str:
    """A change with its sign, as "-2.100 MB (-40.00 %)"; shares change in points."""
    if given.change is None:
        return UNKNOWN
    text = _signed(given.change, "pts" if unit == "%" else unit)
    # A percentage of points, percent or nats would be read as one more figure of that kind.
    if given.change_pct is None or unit not in {"bytes", "ms"}:
        return text
    return f"{text} ({_signed(given.change_pct, '%')})"


def _signed(value: float, unit: str) -> str:
    text = number(value, unit)
    zero = float(_digits(value, unit)) == 0
    return text if zero or value < 0 else f"+{text}"


def percent(value: float | None) -> str:
    """A share in percent with one decimal; "n/a" for None."""
    return UNKNOWN if value is None else f"{value:.1f} %"


def count(value: int, noun: str) -> str:
    """As "1 layer" or "1,024 layers"."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def role(name: str) -> str:
    """A role as words: feed forward."""
    return name.replace("_", " ")
