"""The sample as the rest of the project sees it: model, data, units and roles."""

from pathlib import Path
from typing import Any

from sample_models.digits.classifier import load_sample
from sample_models.digits_vit.model import DigitsVit, units


def load(*, root: Path | None = None) -> dict[str, Any]:
    """Load the trained vision transformer with its data.

    Args:
        root: Folder with `weights.safetensors` and `data.npz`; by default the shipped files.

    Returns:
        name, title, description: for people.
        units: feed-forward blocks. roles: the convolution that embeds patches; types tell the others.
        The rest: see `sample_models.digits.classifier.load_sample`.

    Raises:
        ModelError: The weights are missing, damaged or of another model.
        DataError: The data are missing or damaged.
    """
    model, common = load_sample(DigitsVit, Path(__file__).parent, root)
    return {
        "name": "digits_vit",
        "title": "Vision transformer for handwritten digits",
        "description": (
            "A small vision transformer (Dosovitskiy et al. 2021) that reads 8x8 images of "
            "handwritten digits as 16 patches and a class token. It was trained on real images."
        ),
        "units": units(model.config),
        "roles": {"patch_embedding": "embedding"},
        **common,
    }
