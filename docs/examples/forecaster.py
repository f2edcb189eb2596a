"""A forecaster on a real series: carbon dioxide in the air over Mauna Loa, eight weeks ahead.

    pip install -r requirements-examples.txt
    python -m core analyze docs/examples/forecaster.py:load --out runs/forecaster

The weekly series of 1958 to 2001 ships with statsmodels (`statsmodels.datasets.co2`, public
domain). Training takes a few seconds and starts from a seed.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAST, AHEAD, PATCH = 104, 8, 8
STEPS = 600


class Forecaster(nn.Module):
    """Patches of eight weeks through two attention blocks; what is forecast is the change."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH, width)
        self.place = nn.Parameter(0.02 * torch.randn(PAST // PATCH, width))
        self.blocks = nn.Sequential(*(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        ))  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width * PAST // PATCH, AHEAD)

    def forward(self, past: Tensor) -> Tensor:
        """[N, PAST] -> [N, AHEAD], both in ppm less the last week seen."""
        x = self.embed(past.unflatten(1, (-1, PATCH))) + self.place
        return self.head(self.norm(self.blocks(x)).flatten(1))


def windows() -> tuple[Tensor, Tensor]:
    """Weeks seen [M, PAST] and weeks to come [M, AHEAD] less the last one seen, in time order."""
    from statsmodels.datasets import co2

    weeks = co2.load_pandas().data["co2"].interpolate().to_numpy(np.float32)
    rows = torch.from_numpy(weeks.copy()).unfold(0, PAST + AHEAD, 1)
    past, future = rows.split([PAST, AHEAD], dim=1)
    now = past[:, -1:]
    return past - now, future - now


def load() -> dict[str, Any]:
    """Trained on the first 60 % of the weeks. Measured, then held back, on what follows; weeks
    between the parts are left out, so that no two parts share one.
    """
    torch.manual_seed(0)
    past, future = windows()
    gap, cut = PAST + AHEAD, int(0.6 * len(past))
    middle = cut + gap + (len(past) - cut - 2 * gap) // 2
    train, chosen, held = slice(0, cut), slice(cut + gap, middle), slice(middle + gap, None)
    model = Forecaster()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(STEPS):
        picked = torch.randint(cut, (64,))
        loss = F.mse_loss(model(past[train][picked]), future[train][picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {
        "name": "forecaster",
        "title": "Carbon dioxide, eight weeks ahead",
        "model": model,
        "calibration": past[train][:: cut // 256],
        "evaluation": (past[chosen], future[chosen]),
        "holdout": (past[held], future[held]),
        "task": "regression",
        "data_description": "Weekly CO2 over Mauna Loa, 1958 to 2001, in ppm; gaps interpolated.",
    }
