"""Rankings of layers on `text_orientation` against brute force.

    pip install --no-deps -r requirements-text-orientation.txt
    make .venv-interop/aimet/.installed
    python -m tests.benchmarks.ranks [--samples 1000] [--only aimet]

Everybody gets the same file (batch norms folded, opset raised), the same 256 calibration lines and,
where it judges by running, the same selection lines, in a process of its own, with the threads that
ONNX Runtime gives it; AIMET in the environment of its interop tests. Brute force is ONNX Runtime's own static quantizer with one
product at a time in INT8, and the divergence of what that file gives. The columns: Spearman's rank
correlation with brute force over the products that a tool gives a figure for, how many of the five
worst are among its five worst, and CPU seconds of its process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from scipy.stats import spearmanr

from core.analysis import store
from core.decide.study import Study
from core.source import samples
from core.source.onnx_model import OnnxModel
from tests.benchmarks.ranks.shared import CALIBRATION, EVALUATION, MODEL, Scores, products
from tests.conftest import REPOSITORY

SAMPLE, WORST = "text_orientation", 5
AIMET = REPOSITORY / ".venv-interop" / "aimet" / "bin" / "python"
HOLDOUT = "holdout.npz"
OTHERS = {
    "brute_force": sys.executable,
    "qdq_loss_debug": sys.executable,
    "aimet": str(AIMET),
}


def _write(folder: Path, count: int) -> list[str]:
    """The file and the lines, as everybody is given them; the products."""
    source = samples.load(SAMPLE)
    assert isinstance(source.model, OnnxModel)
    assert source.holdout is not None
    onnx.save(source.model.graph, folder / MODEL)
    (name,) = source.model.input_names
    parts = {CALIBRATION: source.calibration, EVALUATION: source.selection, HOLDOUT: source.holdout}
    for file, split in parts.items():
        given = split.inputs[name] if isinstance(split.inputs, dict) else split.inputs
        x = given[: len(given) if file == CALIBRATION else count].numpy()
        arrays = {name: np.ascontiguousarray(x)}
        if file != CALIBRATION:
            arrays["targets"] = split.targets[:count].numpy()  # type: ignore[union-attr]
        np.savez(folder / file, **arrays)
    return products(source.model.graph)


def _process(words: list[str]) -> tuple[str, float]:
    """What a process says, and its CPU seconds. Raises where it fails."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True,
                           check=False)  # fmt: skip
    if found.returncode:
        raise RuntimeError(found.stderr.strip().splitlines()[-1])
    return found.stdout, spent() - before


def _own(folder: Path) -> tuple[dict[str, Scores], float]:
    """Quantscape's rankings by measured and by expected change."""
    words = [sys.executable, "-m", "core", "analyze", str(folder / MODEL), "--task=classification",
             f"--calibration={folder / CALIBRATION}", f"--evaluation={folder / EVALUATION}",
             f"--holdout={folder / HOLDOUT}", "--precisions=INT8", "--no-cache",
             f"--out={folder / 'analysis'}"]  # fmt: skip
    _, seconds = _process(words)
    study = Study(store.load(folder / "analysis"))
    names = study.layers.names
    kl = study.scores["kl"]
    return {"Quantscape, divergence": dict(zip(names, map(float, kl), strict=True))}, seconds


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="selection lines")
    parser.add_argument("--only", choices=OTHERS, action="append", help="beside brute force")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        wanted = _write(folder, options.samples)
        own, seconds = _own(folder)
        rows = [(title, scores, seconds) for title, scores in own.items()]
        chosen = ["brute_force", *(options.only or list(OTHERS)[1:])]
        for name in dict.fromkeys(chosen):
            words = [OTHERS[name], "-m", f"tests.benchmarks.ranks.{name}", made]
            try:
                said, seconds = _process(words)
            except (OSError, RuntimeError) as error:
                print(f"{name}: n/a ({error})")
                continue
            found: dict[str, Scores] = json.loads(said.splitlines()[-1])
            rows += [(title, scores, seconds) for title, scores in found.items()]
    true = next(scores for title, scores, _ in rows if title == "brute force")
    print(f"{len(wanted)} products, {options.samples} selection lines")
    print(f"{'ranking':<34}{'products':>9}{'Spearman':>10}{f'of {WORST} worst':>13}{'CPU s':>8}")
    for title, scores, seconds in rows:
        both = [name for name in wanted if name in scores and name in true]
        rank = spearmanr([true[n] for n in both], [scores[n] for n in both]).statistic
        worst = [set(sorted(both, key=lambda n: -given[n])[:WORST]) for given in (true, scores)]
        print(
            f"{title:<34}{len(both):>9}{rank:>10.2f}{len(worst[0] & worst[1]):>13}{seconds:>8.0f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
