"""ModelOpt's searches over INT8 and float, for `tests.benchmarks.first_look`: run in its environment.

    python -m tests.benchmarks.first_look_modelopt SAMPLE SAMPLES OUT.json

Calibrates on the calibration split and scores on the selection samples, all of them, on one thread.
Writes per method the processor seconds, and the score of every module in INT8 (higher = worse).
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.source.batches import take
from tests.benchmarks.pace import source_of

BATCH = 100
METHODS = ("gradient", "kl_div")
PARTS = r"\.(weight_quantizer|input_quantizer|output_quantizer|quant_recipe)$"


Batch = tuple[Tensor, Any]


def _batches(given: Any, samples: int) -> list[Any]:
    return [take(given, i, i + BATCH) for i in range(0, samples, BATCH)]


class Loader:
    """What is gone through first, to calibrate, and what is gone through after that, to score."""

    def __init__(self, first: Sequence[Batch], then: Sequence[Batch]) -> None:
        self.left = [first, then]

    def __iter__(self) -> Iterator[Batch]:
        given = self.left[0]
        self.left = self.left[1:] or self.left
        return iter(given)


def searched(name: str, most: int, method: str) -> tuple[float, dict[str, float]]:
    """Processor seconds of a search, and the scores."""
    import modelopt.torch.quantization as mtq

    source = source_of(name, most)
    calibration, selection = source.calibration.inputs, source.selection
    pairs = (selection.inputs, selection.targets)
    calibrating = [(x, None) for x in _batches(calibration, len(source.calibration))]
    scoring = _batches(pairs, len(selection))

    def step(model: nn.Module, batch: Batch) -> Any:
        return model(batch[0])

    def loss(output: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(output, batch[1])

    start = time.process_time()
    _, state = mtq.auto_quantize(
        source.model, constraints={"effective_bits": 12.0},
        data_loader=Loader(calibrating, scoring),
        quantization_formats=[mtq.INT8_DEFAULT_CFG], forward_step=step,
        loss_func=loss if method == "gradient" else None,
        num_calib_steps=len(calibrating), num_score_steps=len(scoring), method=method,
    )  # fmt: skip
    seconds = time.process_time() - start
    found: dict[str, float] = {}
    for recipe, stats in state["candidate_stats"].items():
        by_format = dict(zip(map(str, stats["formats"]), stats["scores"], strict=True))
        (score,) = (v for k, v in by_format.items() if "INT8" in k)
        for module in stats.get("module_names", [re.sub(PARTS, "", recipe)]):
            found[module] = float(score)
    return seconds, found


def main() -> None:
    """Write the scores of both methods."""
    warnings.filterwarnings("ignore")
    name, most, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    out.write_text(json.dumps({m: searched(name, most, m) for m in METHODS}))


if __name__ == "__main__":
    main()
