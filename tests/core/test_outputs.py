"""What models return: structures of many kinds, and lists that no batch fits into."""

from __future__ import annotations

import textwrap
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.analysis.analyze import analyze, dry_run
from core.cli.main import main
from core.engines.torch.replay.replayer import Replayer
from core.errors import ModelError
from core.evidence.measure.cache_key import content_key
from core.evidence.measure.measure import make_simulator
from core.evidence.measure.outputs import read
from core.evidence.options import MeasureOptions
from core.numerics.precision import FP16, INT8
from core.runtime.torch_export import export
from core.source.batches import take
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory

OPTIONS = MeasureOptions(probes=2, precisions=(FP16, INT8))


class ModelOutput(OrderedDict[str, Any]):
    """Keys that are attributes too, as in Hugging Face's models."""

    def __getattr__(self, name: str) -> Any:
        """The value of a key."""
        if name in self:
            return self[name]
        raise AttributeError(name)


@dataclass
class Answer:
    """A dataclass with another inside."""

    steps: Tensor
    inner: Any


class Returning(nn.Module):
    """Two layers; `form` makes what is returned of the logits and the hidden values, also inside."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        """[N, 6] -> `form` of logits [N, 3] and hidden values [N, 8]."""
        h = torch.relu(self.body(x))
        return self.form(self.head(h), h)


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any]] = {
    "tensor": (lambda y, h: y, None),
    "tuple": (lambda y, h: (h, y), 1),
    "list": (lambda y, h: [h, y], -1),
    "dict": (lambda y, h: {"hidden": h, "logits": y}, "logits"),
    "dict in tuple": (lambda y, h: (None, {"ids": h.argmax(1), "logits": y}), 1),
    "model output": (lambda y, h: ModelOutput(loss=None, logits=y, hidden=(h,)), "logits"),
    "dataclass": (lambda y, h: Answer(h.argmax(1), y), "inner"),
    "nested": (lambda y, h: Answer(h.argmax(1), (ModelOutput(logits=y),)), "inner"),
    "function": (lambda y, h: Answer(h, [y, h]), lambda r: r.inner[0]),
    "hidden state first": (lambda y, h: (y, h.unsqueeze(0)), 0),
}


def _source(model: nn.Module, output: Any, **changes: Any) -> ModelSource:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    base = {"model": model, "calibration": x, "evaluation": (x, None), "holdout": None}
    return model_source({"task": "classification", "output": output, **base, **changes})


@pytest.mark.parametrize("form", FORMS)
def test_outputs_come_in_many_forms(form: str) -> None:
    """Whatever holds the logits, runs give the bits of the model that returns them alone, by replay
    as by full passes.
    """
    returned, output = FORMS[form]
    source, plain = (
        _source(Returning(returned), output),
        _source(Returning(FORMS["tensor"][0]), None),
    )
    layers = take_inventory(source)
    pairs = [(name, p) for name in layers.names for p in (FP16, INT8)]
    inputs = source.selection.inputs
    simulator, expected = (make_simulator(s, layers, OPTIONS) for s in (source, plain))
    replayer = Replayer(simulator, take(inputs, 0, 2), pairs)

    assert layers == take_inventory(plain)
    for pair, found in zip(pairs, list(replayer.run(inputs, pairs))[1:], strict=True):
        assert found.tobytes() == expected.run(dict([pair]), inputs).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["model output", "nested", "function"])
def test_the_graph_that_is_built_gives_the_output(form: str) -> None:
    """One output of the logits' shape, computed by both layers."""
    source = _source(Returning(FORMS[form][0]), FORMS[form][1])
    graph = export(source, take_inventory(source)).model.graph

    assert [n.op_type for n in graph.node if n.op_type == "Gemm"] == ["Gemm", "Gemm"]
    assert [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim][1:] == [3]


class Detector(nn.Module):
    """As many boxes a sample as score above a half, in a list of dicts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.boxes, self.score = nn.Linear(6, 8), nn.Linear(8, 20), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """[N, 6] -> N times boxes [k, 4], scores [k] and labels [k]."""
        h = torch.relu(self.body(x))
        found = []
        for boxes, scores in zip(
            self.boxes(h).view(-1, 5, 4), self.score(h).sigmoid(), strict=True
        ):
            kept = scores > 0.5
            found.append({
                "boxes": boxes[kept], "scores": scores[kept], "labels": kept.nonzero()[:, 0],
            })  # fmt: skip
        return found


def padded(found: list[dict[str, Tensor]]) -> Tensor:
    """[N, 5, 5]: boxes and their scores, the rest zeros."""
    rows = [torch.cat([f["boxes"], f["scores"][:, None]], 1) for f in found]
    return torch.stack([nn.functional.pad(r, (0, 0, 0, 5 - len(r))) for r in rows])


def mean_count(outputs: Tensor, targets: Any) -> float:
    """Boxes a sample."""
    return float((outputs[..., 4] > 0).sum(1).double().mean())


CUSTOM = {"task": "custom", "metric": mean_count, "higher_is_better": True}


@pytest.mark.parametrize(
    "form",
    [lambda r: r, lambda r: [torch.cat([f["boxes"], f["scores"][:, None]], 1) for f in r]],
    ids=["dicts", "tensors"],
)
def test_a_result_for_each_sample_names_the_way_out(form: Callable[[Any], Any]) -> None:
    """A list of results of different lengths is refused before anything is measured."""

    class Wrapped(Detector):
        def forward(self, x: Tensor) -> Any:
            return form(super().forward(x))

    source = _source(Wrapped(), None)

    with pytest.raises(ModelError, match="a list of 40 results, one for each sample") as caught:
        dry_run(source, OPTIONS)
    assert "'output' a function" in caught.value.next_step
    assert "'metric'" in caught.value.next_step


def test_a_detector_is_analyzed_with_a_function_and_a_metric() -> None:
    """With the way out it works: the metric is the person's, and layers are felt in it."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    source = _source(Detector(), padded, evaluation=(x, torch.zeros(40)), **CUSTOM)
    analysis = analyze(source, OPTIONS)
    with torch.no_grad():
        expected = mean_count(padded(source.model(source.selection.inputs)), None)

    assert analysis.metric is not None
    assert analysis.evidence is not None
    assert analysis.evidence.metrics is not None
    assert analysis.evidence.metrics.baseline[0] == pytest.approx(expected)
    assert np.abs(analysis.evidence.perturbations).max(axis=(2, 3)).all()


@pytest.mark.slow
def test_workers_take_the_function_along() -> None:
    """Processes that share the work give the bits of one."""
    one, two = (
        analyze(_source(Detector(), padded, **CUSTOM), MeasureOptions(probes=2, jobs=jobs))
        for jobs in (1, 2)
    )
    assert one.evidence is not None
    assert two.evidence is not None
    assert one.evidence.perturbations.tobytes() == two.evidence.perturbations.tobytes()


def test_another_function_is_another_measurement() -> None:
    """Finished work is found again by the function's text."""

    def key(output: Any) -> str:
        source = _source(Detector(), output, **CUSTOM)
        layers = take_inventory(source)
        simulator = make_simulator(source, layers, OPTIONS)
        return content_key(source, layers, simulator, "reference", everything=True)

    assert key(padded) == key(padded)
    assert key(padded) != key(lambda found: 2 * padded(found))


def test_a_function_that_fails_is_named() -> None:
    """What the person's function raised is in the line."""
    with pytest.raises(ModelError, match=r"'output' failed .*: KeyError: 'mask'"):
        read(_source(Detector(), lambda found: found[0]["mask"], **CUSTOM))


def test_the_command_line_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code 2 and the way out, for a detector in a person's file."""
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent("""
        import torch
        from torch import nn

        class Detector(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(6, 5)

            def forward(self, x):
                return [{"scores": s[s > 0]} for s in self.body(x)]

        def load():
            x = torch.randn(40, 6)
            return dict(model=Detector(), calibration=x, evaluation=(x, None),
                        task="custom", metric=lambda o, t: 1.0, higher_is_better=True)
    """), "utf-8")  # fmt: skip

    assert main(["analyze", f"{file}:load", "--out", str(tmp_path / "a")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "one for each sample" in line
    assert "Give as 'output' a function" in line
