"""Where a model is run: the CPU, or a CUDA device that is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from core.analysis import store
from core.analysis.analyze import analyze
from core.cli.main import main
from core.engines.torch.simulate.dynamic import round_dynamic
from core.engines.torch.simulate.folding import folded
from core.errors import PolicyError
from core.evidence.diagnose.curvature import combination
from core.evidence.measure.cache_key import content_key
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.numerics.precision import INT8
from core.numerics.rounding import round_bias, round_weight, scales_of
from core.source.batches import answers, copied, device_of
from core.source.contract import Split, model_source
from core.source.device import DEVICES, device_name, placed
from core.source.inventory import take_inventory
from tests.zoo import fusing
from tests.zoo.sources import source_of, tiny_source


def test_the_cpu_is_where_a_model_is_and_stays() -> None:
    """On the CPU nothing is moved, the analysis says so and notes nothing."""
    torch.manual_seed(0)
    source = source_of(fusing.trained(fusing.ConvNormRelu()), (2, 6, 6))
    weight = source.model.get_parameter("conv.weight")

    same = placed(source, "cpu")
    analysis = analyze(same, MeasureOptions(precisions=(INT8,), probes=0))

    assert same.model.get_parameter("conv.weight") is weight
    assert (analysis.device, device_name(same.model)) == ("cpu", "cpu")
    assert not any("cuda" in note for note in analysis.notes)


@pytest.mark.parametrize("version", [None, "13.0"])
def test_a_cuda_device_that_is_not_there_is_refused(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal says why, and what to do next; nothing was moved."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)

    with pytest.raises(PolicyError) as refused:
        placed(tiny_source(), "cuda")

    why = "is built without CUDA" if version is None else "sees no CUDA device"
    assert f"PyTorch {torch.__version__} {why}." in str(refused.value)
    assert "Leave out --device" in str(refused.value)


def test_the_command_line_refuses_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line; no folder is left."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "none"

    code = main(["analyze", "sample:digits_resnet", "--out", str(folder), "--device", "cuda"])

    assert code == 2
    assert "--device cuda" in capsys.readouterr().err
    assert not folder.exists()


def test_processes_do_not_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--jobs` with a CUDA device is refused, and so is a device that nobody knows."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    with pytest.raises(PolicyError, match="one process"):
        placed(tiny_source(), "cuda", jobs=2)
    with pytest.raises(PolicyError, match="no device"):
        placed(tiny_source(), "tpu")
    assert DEVICES == ("cpu", "cuda")


class _Moved(nn.Module):
    """Notes where it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.sent: list[str] = []

    def to(self, *args: object, **kwargs: object) -> _Moved:
        """Take note, and stay."""
        self.sent.append(str(args[0]))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 5] -> [N, 3]."""
        return self.head(x)


@pytest.fixture
def _settings() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@pytest.mark.usefixtures("_settings")
def test_a_device_that_is_there_gets_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is sent there, and products are computed in full float32 by fixed kernels."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    source = source_of(_Moved(), (5,))
    torch.backends.cudnn.allow_tf32 = True

    placed(source, "cuda")

    assert source.model.sent[-1] == "cuda"  # type: ignore[union-attr, index]
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic


def test_batches_follow_the_model_and_outputs_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model elsewhere (on the meta device, which knows shapes alone and refuses operands of
    two devices) a batch is copied there, and what it returns is fetched.
    """
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval().to("meta")
    x = torch.randn(6, 5)
    fetched = []

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        fetched.append(tensor.device.type)
        return torch.zeros(tensor.shape)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)

    assert device_of(model).type == "meta"
    assert copied({"x": x}, model)["x"].device.type == "meta"
    assert answers(model, x).shape == (6, 3)
    assert fetched == ["meta"]
    assert device_of(nn.Identity()).type == "cpu"


def test_rounding_stays_where_its_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No function of the simulation puts a tensor of the CPU beside one of another device."""

    def fake_quantize(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor,
                      *rest: int) -> torch.Tensor:  # fmt: skip
        assert x.device == scale.device == zero.device
        return x

    monkeypatch.setattr(torch, "fake_quantize_per_channel_affine", fake_quantize)
    weight, x = torch.randn(4, 3, device="meta"), torch.randn(2, 6, 3, device="meta")
    norm = nn.BatchNorm1d(4, device="meta").eval()
    found = (
        round_weight(weight, INT8),
        round_weight(weight, INT8, 1),
        round_bias(torch.randn(4, device="meta"), 0.1, scales_of(weight, INT8.weights)),
        round_dynamic(x, 8),
        *folded(weight, None, norm, 0),
        combination(torch.randn(5, 6, device="meta"), 3, torch.Generator()),
    )

    assert {tensor.device.type for tensor in found} == {"meta"}


def test_the_device_is_part_of_the_key_and_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work of one device is not taken for that of another; a folder keeps the device, and one
    without it was measured on the CPU. Figures of another device come with a note.
    """
    torch.manual_seed(0)
    source = source_of(fusing.trained(fusing.ConvNorm()), (2, 6, 6))
    layers = take_inventory(source)
    simulator = make_simulator(source, layers, MeasureOptions())
    here = content_key(source, layers, simulator, "reference", everything=False)
    for module in ("evidence.measure.cache_key", "analysis.analyze"):
        monkeypatch.setattr(f"core.{module}.device_name", lambda model: "cuda (Card)")
    there = content_key(source, layers, simulator, "reference", everything=False)
    analysis = analyze(source, MeasureOptions(precisions=(INT8,), probes=0))

    store.save(analysis, tmp_path / "one")
    path = tmp_path / "one" / store.FILE
    assert here != there
    assert store.load(tmp_path / "one").device == "cuda (Card)"
    assert any("cuda (Card)" in note for note in analysis.notes)
    content = json.loads(path.read_text())
    del content["device"]
    path.write_text(json.dumps(content))
    assert store.load(tmp_path / "one").device == "cpu"


def test_inputs_of_any_shape_follow() -> None:
    """Trees of inputs are copied tensor by tensor, and a change in place leaves the source's."""
    source = model_source(
        {"model": nn.Linear(3, 2), "calibration": torch.ones(4, 3), "task": "classification"}
    )
    split = Split(source.calibration.inputs)
    given = copied({"a": (split.inputs, None, 2)}, replace(source).model)
    given["a"][0].mul_(0)

    assert given["a"][1:] == (None, 2)
    assert float(split.inputs.sum()) == 12
