"""What maps of the model on screen lose, in its own words: which figures, in which order.

Core says which totals a model is judged by; the pages take titles and order from here, so that
none of them asks what task it has. A metric's name is other people's text: titles are raw, and
whoever shows one escapes it for where it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.analysis.analysis import Analysis
from core.decide.assess.loss import LossFigures, loss_figures, read_first
from core.export.map.words import better, remark, titles_of
from core.quantity import Quantity
from core.task import Metric
from dashboard.display.text import short, with_range

MAX_NAME, BRIEF_NAME = 12, 8
"""Characters of a metric's name where room is short; a brief one leaves room for its direction."""
TITLES = {
    "accuracy_drop_pts": "Accuracy loss",
    "kl": "KL divergence",
    "flips_pct": "Flips",
    "relative_mse": "Relative MSE",
}
UNITS = {
    "accuracy_drop_pts": "points",
    "kl": "nats",
    "flips_pct": "% of answers",
    "metric_loss_pct": "%",
    "relative_mse": "of variance",
}
POWERS = ("kl", "relative_mse")
"""Figures that spread over powers of ten."""
MOST_LOSSES = 2
NO_LABELS = "no labels, so no loss is known"


@dataclass(frozen=True, slots=True)
class LossLabels:
    """`order` are the totals in reading order, known ones first; `titles` are for sentences.

    `metric` judges values, None for classes. `labelled` is False where something was measured,
    but nothing tells a loss. `optimistic` marks figures from the samples that set the ranges;
    `remark` is what all figures of the outputs say beside their kind, such as "partial".
    `judging_split` is the one that maps are measured on; projections are of the selection split.
    """

    figures: LossFigures
    order: tuple[str, ...]
    titles: dict[str, str]
    metric: Metric | None
    labelled: bool
    optimistic: bool
    remark: str
    judging_split: str

    @property
    def first(self) -> str:
        """The total that stands for what a map loses."""
        return self.order[0]

    @property
    def foremost(self) -> tuple[str, ...]:
        """The totals that stand beside the costs where room is short."""
        return self.order[:MOST_LOSSES]

    @property
    def charted(self) -> tuple[str, ...]:
        """The totals worth a chart: without labels there is no loss to draw."""
        return tuple(n for n in self.order if self.labelled or n != self.figures.loss)

    @property
    def judged_by(self) -> str:
        """What the model is judged by."""
        return "accuracy" if self.metric is None else self.metric.name

    def judged_in_brief(self, value: str) -> str:
        """As "RMSE 0.2226 (lower is better)"; a long name leaves no room for the direction."""
        brief = len(self.judged_by) <= BRIEF_NAME
        return f"{short(self.judged_by, MAX_NAME)} {value}{self.direction if brief else ''}"

    @property
    def direction(self) -> str:
        """As " (lower is better)"; empty for accuracy, where everybody knows."""
        return "" if self.metric is None else f" ({better(self.metric)})"

    def title(self, name: str) -> str:
        """The title of a total that begins a line or stands in a table."""
        return TITLES.get(name) or f"Loss in {short(self.judged_by, MAX_NAME)}"

    def chooser(self, name: str) -> str:
        """The title of a total where losses are chosen from."""
        if name != self.figures.loss:
            return self.title(name)
        return "Accuracy" if self.metric is None else short(self.metric.name, MAX_NAME)

    def card(self, name: str) -> str:
        """The title of a total whose figure is written without its unit."""
        return "KL (nats)" if name == "kl" else self.title(name)

    def mark(self, name: str) -> str:
        """The title above an axis among others."""
        return "KL" if name == "kl" else self.title(name)

    def axis(self, name: str) -> str:
        """The title of an axis, with the unit."""
        text = self.title(name)
        small = text if text[:2].isupper() else text[0].lower() + text[1:]
        if not self.remark:
            return f"Projected {small} ({UNITS[name]})"
        # With both, the longest title is longer than its axis; a relative figure says its unit.
        unit = "" if name == "relative_mse" else f" ({UNITS[name]})"
        return f"Projected {small}{unit}, {self.remark}"

    def kind(self, name: str, kind: str) -> str:
        """The kind of a total with the remark on figures of the outputs, and with the split of
        one that was measured; costs have neither.
        """
        if name not in (*self.order, self.figures.judged):
            return kind
        split = self.split(kind) if kind == "measured" else ""
        return ", ".join(filter(None, (kind, split, self.remark)))

    def split(self, kind: str) -> str:
        """What a figure of the outputs is of, as "holdout split": projections are of selection."""
        return f"{self.judging_split if kind == 'measured' else 'selection'} split"

    def figure(self, name: str, quantity: Quantity) -> str:
        """A figure with its range, and what tells it from those projected beside it."""
        said = with_range(quantity)
        return f"{said} {self.kind(name, 'measured')}" if quantity.kind == "measured" else said


def loss_labels(analysis: Analysis, reference: Mapping[str, Quantity]) -> LossLabels:
    """The labels for maps of `analysis`, whose map in the reference precision has these totals."""
    figures, order = loss_figures(reference), read_first(reference)
    return LossLabels(
        figures=figures,
        order=order,
        titles=titles_of(analysis.metric),
        metric=analysis.metric,
        labelled=order[0] == figures.loss,
        optimistic=analysis.optimistic,
        remark=remark(analysis),
        judging_split=analysis.judging_split,
    )


def axis_format(name: str) -> str:
    """How numbers on an axis of the total `name` are written."""
    return "~e" if name in POWERS else "~g"
