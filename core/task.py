"""What a model is asked to do, and how its answers are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Task = Literal["classification", "regression", "sequence", "custom"]
TASKS: tuple[Task, ...] = get_args(Task)
"""classification: logits of one answer per sample.  regression: values, judged by their root
mean square error.  sequence: an answer per step, logits along the last axis or values.  custom:
values, judged by a person's own function.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric of a model that is not judged by accuracy.

    `holdout` is its value for the reference model on
    the holdout split and `naive` that of always giving the mean target; None where unknown.
    """

    name: str
    higher_is_better: bool
    holdout: float | None = None
    naive: float | None = None


RMSE = Metric("RMSE", higher_is_better=False)
"""Root mean square error, in the unit of the targets."""
