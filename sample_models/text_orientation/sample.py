"""The sample as the rest of the project sees it: the packaged model's file, and lines of text."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sample_models.text_orientation.images import CLASS_NAMES, SHIPPED, Photographs, load_splits
from sample_models.text_orientation.model import MODEL


def load(*, root: Path | None = None) -> dict[str, Any]:
    """Find the classifier's file and read the lines that it is measured on.

    Args:
        root: Folder with `data.npz`; by default the shipped file.

    Returns:
        name, title, description: for people.
        model: where the file lies in its package.
        calibration: tensor [256, 3, 48, 192]; evaluation, holdout: such a tensor and classes.
        task, class_names: how answers are judged.

    Raises:
        ModelError: The package `rapidocr` is not installed, or its file is another one.
        DataError: The data are missing or damaged.
    """
    model = MODEL.find()
    splits = load_splits(SHIPPED if root is None else root / SHIPPED.name)
    inputs = {split: _three_channels(photographs) for split, photographs in splits.items()}
    labels = {split: torch.from_numpy(p.labels.copy()) for split, p in splits.items()}
    return {
        "name": "text_orientation",
        "title": "Direction of lines of text (PaddleOCR)",
        "description": (
            "PaddleOCR's text direction classifier, an ONNX file as it is deployed: a MobileNetV3 "
            "that says whether a line of text is upright or turned. The lines are drawn, in faint "
            "ink."
        ),
        "model": str(model),
        "calibration": inputs["calibration"],
        "evaluation": (inputs["selection"], labels["selection"]),
        "holdout": (inputs["holdout"], labels["holdout"]),
        "task": "classification",
        "class_names": list(CLASS_NAMES),
    }


def _three_channels(photographs: Photographs) -> Tensor:
    """[N, 3, 48, 192]; the channels are one, so that they take the memory of one."""
    grey = np.array(photographs.inputs()[:, :1])
    return torch.from_numpy(grey).expand(-1, 3, -1, -1)
