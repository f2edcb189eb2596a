"""Small models of every task, analyzed: what pages have to be right for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.evidence.options import MeasureOptions
from core.source.contract import model_source

HOSTILE = "*e*<b>:r[$x]"
"""The name of a metric, full of what Markdown and HTML would act on."""

ESCAPED = r"\*e\*\<b\>\:r\[\$x\]"
FIRST = {
    "values": "Loss in RMSE",
    "grouped": "Loss in RMSE",
    "custom": f"Loss in {ESCAPED}",
    "unlabelled": "KL divergence",
    "values_unlabelled": "Relative MSE",
}
"""Title of what stands for the loss, by shape; all others lose accuracy."""


def _net(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(),
                         nn.Linear(24, outputs))  # fmt: skip


def _spec(outputs: int = 2, **changes: Any) -> dict[str, Any]:
    model, generator = _net(outputs), torch.Generator().manual_seed(1)
    x = torch.randn(240, 4, generator=generator)
    y = model(x).detach()
    y = y + 0.05 * torch.randn(y.shape, generator=generator)
    base = {"model": model, "calibration": torch.randn(60, 4, generator=generator)}
    return {**base, "evaluation": (x, y), "task": "regression", **changes}


def closeness(outputs: Tensor, targets: Tensor) -> float:
    """A metric of one's own: higher is better."""
    return float(1 / (outputs - targets).abs().mean())


def _analyzed(name: str, **spec: Any) -> Analysis:
    return analyze(model_source({**spec, "name": name}), MeasureOptions(probes=3))


def _sequence() -> Analysis:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
    ids = torch.randint(9, (240, 5), generator=torch.Generator().manual_seed(1))
    return _analyzed("sequence", model=model, calibration=ids[:60], task="sequence",
                     evaluation=(ids[60:], model(ids[60:]).argmax(2)))  # fmt: skip


def _without_labels(**spec: Any) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "evaluation"}


def analyses() -> dict[str, Analysis]:
    """An analysis of each task and of what goes with it, by shape."""
    own = {"task": "custom", "metric": closeness, "metric_name": HOSTILE, "higher_is_better": True}
    classes = _without_labels(**_spec(3, task="classification"))
    return {
        "values": _analyzed("values", **_spec()),
        "custom": _analyzed("custom", **_spec(**own)),
        "sequence": _sequence(),
        "unlabelled": _analyzed("unlabelled", **classes),
        "values_unlabelled": _analyzed("values_unlabelled", **_without_labels(**_spec())),
        "grouped": _analyzed("grouped", **_spec(groups=[["0", "4"]])),
    }
