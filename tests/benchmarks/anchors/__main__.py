"""Quantscape's maps beside those of public tools, by one neutral judge, on the residual network.

    python -m venv anchors && anchors/bin/pip install -r requirements.txt \
        -r tests/benchmarks/anchors/requirements.txt
    PYTHONPATH=. anchors/bin/python -m tests.benchmarks.anchors

Everybody gets the 128 calibration images of `digits_resnet`, without labels, and names the products
that it would put into INT8, at equal share: half and three quarters of the 16. The judge is ONNX
Runtime's own static quantizer with these nodes, the same calibration images, and the 450 images of
the holdout split that nobody has seen. `seconds` is what a tool took for its ranking on one
thread, export excepted; `projected KL` is Quantscape's projection of each map from the calibration images; the
last rows are the mean and the best of random maps.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from core.analysis.analyze import analyze
from core.decide import answer
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.evidence.options import MeasureOptions
from core.numerics import precision as registry
from core.runtime.torch_export import export
from core.source import samples
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.benchmarks.anchors.tools import INPUT, TOOLS, Scores, Task, kl_of, quantized

SAMPLE = "digits_resnet"
SHARES = (0.5, 0.75)
RANDOM_MAPS, SEED = 20, 7
OWN = {"kl": "Quantscape, divergence", "gradient_error": "Quantscape, gradient × error"}


def _alone(source: ModelSource) -> ModelSource:
    """The sample with its calibration images alone."""
    return model_source(
        {"name": "anchors", "model": source.model, "calibration": source.calibration.inputs,
         "task": "classification", "class_names": source.class_names}
    )  # fmt: skip


class Judge:
    """Measured KL and accuracy of maps on the holdout split."""

    def __init__(self, task: Task, source: ModelSource) -> None:
        assert source.holdout is not None
        self._task, self._x = task, source.holdout.inputs.numpy()
        self._y = source.holdout.targets.numpy()
        self._reference = self._run(task.graph.SerializeToString())

    def _run(self, model: str | bytes) -> NDArray[np.float32]:
        session = ort.InferenceSession(
            model, providers=["CPUExecutionProvider"],
            disabled_optimizers=["WeightBiasQuantization"],  # it would quantize float products too
        )  # fmt: skip
        outputs: NDArray[np.float32] = session.run(None, {INPUT: self._x})[0]
        return outputs

    def measure(self, layers: list[str]) -> tuple[float, float]:
        """KL in nats and accuracy in percent with the products of `layers` in INT8."""
        nodes = [node for node, layer in self._task.layer_of.items() if layer in layers]
        relus = {
            node.name for node in self._task.graph.graph.node if node.op_type == "Relu"
            for given in node.input for made in self._task.graph.graph.node
            if made.name in nodes and given in made.output
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            found = self._run(str(quantized(self._task, nodes + sorted(relus), Path(folder))))
        return kl_of(self._reference, found), 100 * float((found.argmax(1) == self._y).mean())


def main() -> int:
    """Print the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # seconds are compared, and two cores shared by all would not be
    source = samples.load(samples.PREFIX + SAMPLE)
    graph = export(source, take_inventory(source))
    products = {n.name: graph.layer_of[n.name] or "" for n in graph.model.graph.node
                if n.op_type in {"Conv", "Gemm"}}  # fmt: skip
    task = Task(source.model, graph.model, source.calibration.inputs.numpy(), products)
    judge = Judge(task, source)
    rankings: dict[str, tuple[float, Scores | str]] = {}
    start = time.perf_counter()
    study = Study(analyze(_alone(source), MeasureOptions(precisions=(registry.get("INT8"),))))
    own = time.perf_counter() - start
    for scorer, title in OWN.items():
        scores = study.scores[scorer]
        rankings[title] = (own, {n: float(scores[study.layers.index[n]]) for n in task.layers})
    for title, tool in TOOLS.items():
        start = time.perf_counter()
        found: Scores | str
        try:
            found = tool(task)
            missing = [layer for layer in task.layers if layer not in found]
            if missing:
                found = f"gives no figure for {len(missing)} of {len(task.layers)} layers"
        except Exception as error:  # noqa: BLE001 (a tool that fails is a row, not the end)
            found = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
        rankings[title] = (time.perf_counter() - start, found)
    for share in SHARES:
        _table(share, task, judge, study, rankings)
    return 0


def _table(share: float, task: Task, judge: Judge, study: Study,
           rankings: dict[str, tuple[float, Scores | str]]) -> None:  # fmt: skip
    count = round(share * len(task.layers))
    print(f"\n{count} of {len(task.layers)} products in INT8 ({100 * share:.0f} %)")
    print(f"{'tool':<38}{'seconds':>9}{'projected KL':>14}{'measured KL':>13}{'accuracy':>10}")
    for title, (seconds, found) in rankings.items():
        if isinstance(found, str):
            print(f"{title:<38}{seconds:>9.1f}  {found}")
            continue
        chosen = sorted(task.layers, key=lambda n: found[n])[:count]
        _row(title, f"{seconds:.1f}", chosen, judge, study)
    start = time.perf_counter()
    best = searched(study, task.layers, count)
    seconds = rankings[OWN["kl"]][0] + time.perf_counter() - start
    _row("Quantscape, search on the projection", f"{seconds:.1f}", best, judge, study)
    rng = np.random.default_rng(SEED)
    drawn = [[str(n) for n in rng.permutation(task.layers)[:count]] for _ in range(RANDOM_MAPS)]
    kls = [judge.measure(chosen)[0] for chosen in drawn]
    print(f"{f'random maps, mean of {RANDOM_MAPS}':<38}{'':>9}{'':>14}{np.mean(kls):>13.2e}")
    print(f"{f'random maps, best of {RANDOM_MAPS}':<38}{'':>9}{'':>14}{min(kls):>13.2e}")


def _projected(study: Study, chosen: list[str]) -> float:
    overrides = tuple((name, "INT8") for name in chosen)
    policy = Policy(strategy="manual", high="FP32", low="INT8", medium="INT8", uniform="INT8",
                    overrides=overrides)  # fmt: skip
    projected = study.project(answer.decide(study, policy).codes)
    return float("nan") if projected is None or projected.kl.value is None else projected.kl.value


def searched(study: Study, layers: list[str], count: int) -> list[str]:
    """`count` layers of the least projected KL, by exchanging one for another while it helps."""
    scores = study.scores["kl"]
    order = sorted(layers, key=lambda n: scores[study.layers.index[n]])
    chosen, best = order[:count], _projected(study, order[:count])
    while True:
        trials = [
            [n for n in chosen if n != out] + [new]
            for out in chosen for new in layers if new not in chosen
        ]  # fmt: skip
        values = [_projected(study, trial) for trial in trials]
        if min(values) >= best:
            return chosen
        best = min(values)
        chosen = trials[int(np.argmin(values))]


def _row(title: str, seconds: str, chosen: list[str], judge: Judge, study: Study) -> None:
    kl = _projected(study, chosen)
    measured, accuracy = judge.measure(chosen)
    print(f"{title:<38}{seconds:>9}{kl:>14.2e}{measured:>13.2e}{accuracy:>9.1f}%")


if __name__ == "__main__":
    raise SystemExit(main())
