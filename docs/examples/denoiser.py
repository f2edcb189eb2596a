"""An image-to-image model on real images: take the noise off handwritten digits.

    python -m core analyze docs/examples/denoiser.py:load --out runs/denoiser
    python -m core analyze docs/examples/denoiser.py:by_psnr --out runs/denoiser-psnr

The images are the 8x8 digits that the bundled samples share (UCI optical recognition of
handwritten digits). Training takes a few seconds and starts from a seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DATA = Path(__file__).parents[2] / "sample_models" / "digits" / "data.npz"
NOISE = 0.4
STEPS = 400


class Denoiser(nn.Module):
    """Down, through two convolutions, up again, and the input added back."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
        )  # fmt: skip
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.last = nn.Conv2d(width + 1, 1, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> the same."""
        x = F.silu(self.norm(self.down(noisy)))
        x = self.up(x + self.body(x))
        return noisy + self.last(torch.cat([x, noisy], dim=1))


def pairs(part: str, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy and clean images [N, 1, 8, 8] of one part of the data, in [-1, 1]."""
    with np.load(DATA, allow_pickle=False) as arrays:
        pixels = arrays[f"{part}_images"]
    clean = torch.from_numpy(pixels.astype(np.float32) / 8 - 1).unsqueeze(1)
    generator = torch.Generator().manual_seed(seed)
    return clean + NOISE * torch.randn(clean.shape, generator=generator), clean


def trained() -> Denoiser:
    """A denoiser trained on the part that is not used below."""
    torch.manual_seed(0)
    model = Denoiser()
    _, clean = pairs("holdout", 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        batch = clean[torch.randint(len(clean), (64,))]
        loss = F.mse_loss(model(batch + NOISE * torch.randn_like(batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def load() -> dict[str, Any]:
    """Judged by root mean square error; a third of the evaluation images is held back."""
    return {
        "name": "denoiser",
        "title": "Denoiser of handwritten digits",
        "model": trained(),
        "calibration": pairs("calibration", 2)[0],
        "evaluation": pairs("selection", 3),
        "task": "regression",
        "data_description": f"Real 8x8 digits with Gaussian noise of deviation {NOISE}.",
    }


def psnr(outputs: Tensor, targets: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]; higher is better."""
    return float(10 * torch.log10(4 / F.mse_loss(outputs, targets)))


def by_psnr() -> dict[str, Any]:
    """The same model judged by a metric of one's own."""
    own = {"metric": psnr, "metric_name": "PSNR", "higher_is_better": True}
    return {**load(), "task": "custom", **own}
