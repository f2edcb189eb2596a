"""The sample as the rest of the project sees it: model, data, units and roles."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sample_models.arrays import DATA_NAME
from sample_models.informer.checkpoint import WEIGHTS_NAME, load_checkpoint
from sample_models.informer.dataset import (
    SPLIT_WINDOWS,
    SPLITS,
    Segment,
    draw_segment,
    load_segments,
)
from sample_models.informer.features import FEATURES
from sample_models.informer.model import units
from sample_models.informer.ohlcv_csv import CSV_SHARES, check_enough, read_ohlcv_csv
from sample_models.informer.windows import (
    CLASS_NAMES,
    SEQ_LEN,
    split_rows,
)

CSV_SEED = 0


def load(csv: Path | None = None, *, root: Path | None = None) -> dict[str, Any]:
    """Load the trained Informer with its data.

    Args:
        csv: A person's own OHLCV file; by default the shipped synthetic series is used.
        root: Folder with `weights.safetensors` and `data.npz`; by default the one of this file.

    Returns:
        name, title, description: for people.
        model: the classifier in evaluation mode, [N, 64, 12] float32 -> logits [N, 3].
        calibration: inputs [256, 64, 12].
        evaluation, holdout: (inputs tuple, int64 targets), 1,500 windows each; `evaluation` is
            the selection split.
        task, class_names, input_names, units, roles: what the core needs to know of the model.
        weights_path, data_path, data_description: where it came from.

        With `csv` the three splits hold as many windows as the file allows.

    Raises:
        ModelError: The weights are missing, damaged or of another model.
        DataError: The shipped data or the CSV cannot be used.
    """
    folder = root or Path(__file__).parent
    checkpoint = load_checkpoint(folder / WEIGHTS_NAME)
    if csv is None:
        data_path = folder / DATA_NAME
        segments = load_segments(data_path)
        origin = "Synthetic 15-minute OHLCV bars from a regime-switching generator"
        about = (
            "It was trained on synthetic data, and so are the data it is shipped with: nothing "
            "here is about a real market."
        )
    else:
        data_path = csv
        segments = segments_from_bars(read_ohlcv_csv(csv), csv.name)
        origin = f"OHLCV bars from {csv.name}"
        about = f"It was trained on synthetic data and is measured here on {csv.name}."
    inputs = {name: torch.from_numpy(s.inputs(checkpoint.scaler)) for name, s in segments.items()}
    sizes = ", ".join(f"{name} {len(segments[name].ends):,}" for name in SPLITS)
    return {
        "name": "informer",
        "title": "Informer price-direction classifier",
        "description": (
            "An Informer encoder (Zhou et al. 2021) that reads 64 bars of 12 indicators and says "
            f"whether the price will fall, stay or rise over the next 12 bars. {about}"
        ),
        "model": checkpoint.model,
        "calibration": inputs["calibration"],
        "evaluation": _labelled(inputs["selection"], segments["selection"]),
        "holdout": _labelled(inputs["holdout"], segments["holdout"]),
        "task": "classification",
        "class_names": CLASS_NAMES,
        "units": units(checkpoint.model.config),
        "roles": roles(checkpoint.model.config.blocks),
        "input_names": ("windows",),
        "weights_path": folder / WEIGHTS_NAME,
        "data_path": data_path,
        "data_description": (
            f"{origin}; windows of {SEQ_LEN} bars x {len(FEATURES)} features: {sizes}."
        ),
    }


def roles(blocks: int) -> dict[str, str]:
    """Roles that neither the type of a module nor, with certainty, its path shows."""
    named = {
        "embedding": "embedding",
        "positional_encoding": "positional_encoding",
        "head": "output_projection",
    }
    for index in range(blocks):
        named[f"blocks.{index}.attention"] = "attention"
        named[f"blocks.{index}.feed_forward"] = "feed_forward"
    return named


def segments_from_bars(bars: pd.DataFrame, name: str) -> dict[str, Segment]:
    """Split a person's bars in time order, 20 / 40 / 40 with gaps, and draw the windows."""
    check_enough(len(bars), name)
    parts = split_rows(len(bars), CSV_SHARES)
    return {
        split: draw_segment(bars.iloc[part], count, CSV_SEED + number)
        for number, (split, part, count) in enumerate(
            zip(SPLITS, parts, SPLIT_WINDOWS, strict=True)
        )
    }


def _labelled(inputs: Tensor, segment: Segment) -> tuple[tuple[Tensor, ...], Tensor]:
    """Inputs and targets as the core takes them."""
    return (inputs,), torch.from_numpy(np.array(segment.labels))
