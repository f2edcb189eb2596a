"""The sample as the rest of the project sees it: model, data, units and roles."""

from pathlib import Path
from typing import Any

from sample_models.digits.classifier import load_sample
from sample_models.digits_resnet.model import DigitsResnet


def load(*, root: Path | None = None) -> dict[str, Any]:
    """Load the trained residual network with its data.

    Args:
        root: Folder with `weights.safetensors` and `data.npz`; by default the shipped files.

    Returns:
        name, title, description: for people.
        units, roles: empty, because every layer is a leaf whose type tells its role.
        The rest: see `sample_models.digits.classifier.load_sample`.

    Raises:
        ModelError: The weights are missing, damaged or of another model.
        DataError: The data are missing or damaged.
    """
    _, common = load_sample(DigitsResnet, Path(__file__).parent, root)
    return {
        "name": "digits_resnet",
        "title": "Residual network for handwritten digits",
        "description": (
            "A small residual network (He et al. 2016) with batch norm that reads 8x8 images of "
            "handwritten digits. It was trained on real images."
        ),
        "units": [],
        "roles": {},
        **common,
    }
