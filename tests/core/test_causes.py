"""The main cause of a layer's error and the measured gain of remedies."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.analysis import store
from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide.study import Study
from core.engines.torch.simulate.input_channels import equalise, input_channels
from core.evidence.diagnose.causes import Diagnosis, diagnose
from core.evidence.evidence import Evidence
from core.evidence.layer_alone import VARIANTS
from core.evidence.options import MeasureOptions
from core.source import samples
from core.source.contract import model_source
from core.source.operations import OPERATIONS
from tests.core.synthetic import synthetic_evidence, synthetic_layers

EVIDENCE = synthetic_evidence(synthetic_layers(3), 20)
DB = {"integer": 30.0, "weights": 50.0, "activations": 30.0, "percentile": 34.0,
      "equalised": 33.0, "half": 70.0}  # fmt: skip


def diagnosed(db: dict[str, float], *, allowed: bool = True, **statistics: float) -> Diagnosis:
    """The diagnosis of a made-up layer."""
    assert EVIDENCE.local is not None
    known = {
        "weight_kurtosis": 3.0, "activation_outliers": 1.2, "activation_imbalance": 2.0,
        "clipping": 0.0, "output_peak": 5.0, "output_underflow": 0.0,
    } | statistics  # fmt: skip
    local = replace(
        EVIDENCE.local,
        sqnr_db=np.tile(np.array([db[name] for name in VARIANTS])[:, None], 3),
        **{name: np.full(3, value) for name, value in known.items()},
    )
    evidence = replace(EVIDENCE, local=local, allowed=np.full((2, 3), allowed))
    found = diagnose(evidence, 1)
    assert found is not None
    return found


PLAIN = DB | {"percentile": 31.0, "equalised": 31.0}


@pytest.mark.parametrize(
    ("db", "statistics", "cause"),
    [
        ({}, {}, "activation rounding"),
        ({"percentile": 34.0}, {}, "activation outliers"),
        ({"equalised": 33.5}, {"clipping": 0.8}, "channel imbalance"),
        ({"equalised": 40.0, "percentile": 34.0}, {}, "channel imbalance"),
        ({"equalised": 34.0, "percentile": 40.0}, {"activation_imbalance": 1e7}, "activation outliers"),
        # A remedy that gains too little denies its cause, whatever its statistic.
        ({}, {"activation_outliers": 4.0, "activation_imbalance": 1e7}, "activation rounding"),
        ({}, {"clipping": 0.8, "clipping_gain_db": 0.1}, "activation rounding"),
        ({}, {"clipping": 0.8, "clipping_gain_db": 9.0}, "clipping"),
        ({"equalised": 50.0}, {"clipping": 0.8, "clipping_gain_db": 9.0}, "channel imbalance"),
        # Without a measured remedy the statistic tells.
        ({}, {"clipping": 0.8}, "clipping"),
        ({"equalised": np.nan}, {"activation_imbalance": 1e7, "clipping": 0.8}, "channel imbalance"),
        ({"percentile": np.nan}, {"activation_outliers": 4.0}, "activation outliers"),
        ({}, {"activation_outliers": np.nan, "activation_imbalance": np.nan}, "activation rounding"),
    ],
)  # fmt: skip
def test_causes_of_activations(
    db: dict[str, float], statistics: dict[str, float], cause: str
) -> None:
    """The cause is the one whose remedy gains most, if that halves the error; where no remedy was
    measured, statistics name it.
    """
    found = diagnosed(PLAIN | db, **statistics)

    assert found.cause == cause
    assert "99% of the squared error comes from its activations" in found.sentence


@pytest.mark.parametrize(
    ("db", "kurtosis", "cause"),
    [
        ({}, 3.0, "weight rounding"),
        ({}, 20.0, "weight outliers"),
        ({"equalised": 50.0}, 20.0, "channel imbalance"),
    ],
)
def test_causes_of_weights(db: dict[str, float], kurtosis: float, cause: str) -> None:
    """Where weights cause most of the error, outliers among them are named, unless equalising
    the channels that they stand in mends it.
    """
    found = diagnosed(PLAIN | {"weights": 30.0, "activations": 50.0} | db, weight_kurtosis=kurtosis)

    assert found.cause == cause
    assert found.weight_share == pytest.approx(1 / 1.01)


def test_what_cannot_be_told_apart_is_not_blamed() -> None:
    """A layer whose weights and activations were not rounded apart is said to round."""
    found = diagnosed(PLAIN | {"weights": np.nan, "activations": np.nan})

    assert (found.cause, found.weight_share) == ("rounding", None)


def test_remedies_are_gains() -> None:
    """Gains are differences in dB, the largest first; what gains most is advised first, and after
    it what gains most in integers.
    """
    found = diagnosed(DB)

    gains = {r.name: r.gain_db for r in found.remedies}
    assert gains == pytest.approx(
        {"half": 40, "weights": 20, "percentile": 4, "equalised": 3, "activations": 0}
    )
    assert [r.gain_db for r in found.remedies] == sorted(gains.values(), reverse=True)
    first, whole = found.advice.split("; in integers: ")
    assert first == "First to try: keep it in FP16 (+40.0 dB, measured)"
    assert whole == "ranges that hold 99.9 % of the values, in place of all (+4.0 dB, measured)."
    most = diagnosed(DB | {"equalised": 80.0})
    assert (
        most.advice
        == "First to try: equalise its input channels (SmoothQuant) (+50.0 dB, measured)."
    )
    worse = diagnosed(DB | {"percentile": 20.0, "equalised": np.nan})
    assert worse.advice == "First to try: keep it in FP16 (+40.0 dB, measured)."
    assert "equalised" not in {r.name for r in worse.remedies}
    nothing = diagnosed(dict.fromkeys(DB, 30.0))
    assert nothing.advice == "Nothing that was measured helps by 1 dB or more."


def test_half_precision_says_what_it_breaks() -> None:
    """Overflow and underflow are said, from the values or from outputs that were not finite."""
    assert diagnosed(DB).half == ""
    assert "outputs reach 1e+05" in diagnosed(DB, output_peak=1e5).half
    assert "not finite" in diagnosed(DB, allowed=False).half
    assert "underflows: 40%" in diagnosed(DB, output_underflow=0.4).half


def test_ends_of_the_scale() -> None:
    """A harmless layer has no cause and no advice, one that is not finite overflows."""
    quiet = diagnosed(DB | {"integer": 75.0})
    assert (quiet.cause, quiet.advice) == ("none", "")
    broken = diagnosed(DB | {"integer": -np.inf})
    assert broken.cause == "overflow"
    assert "no error is left" in diagnosed(DB | {"percentile": np.inf}).advice


def test_unknown_stays_unknown() -> None:
    """Without local statistics, or for a layer that does nothing, there is no diagnosis."""
    assert diagnose(replace(EVIDENCE, local=None), 0) is None
    assert EVIDENCE.local is not None
    assert EVIDENCE.local.sqnr_db is not None
    db = EVIDENCE.local.sqnr_db.copy()
    db[0, 1] = np.nan
    local = replace(EVIDENCE.local, sqnr_db=db)
    assert diagnose(replace(EVIDENCE, local=local), 1) is None


class Outliers(nn.Module):
    """A product whose inputs have one channel 100 times as wide, one that has one 10^7 times as wide
    (and hardly looks at it), and one with an outlying weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(16, 16)
        self.even = nn.Linear(16, 16)
        self.heavy = nn.Linear(16, 4)
        self.vast = nn.Conv1d(16, 4, 1)
        with torch.no_grad():
            self.vast.weight[:, 0] /= 1e7
            self.wide.weight[:, 0] /= 100
            self.heavy.weight[:, 3] = 40.0

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, 16) to (N, 4)."""
        scale = torch.ones(16)
        scale[0] = 100.0
        vast = self.vast((x * scale**3.5).unsqueeze(-1)).squeeze(-1)
        return self.heavy(torch.tanh(self.even(self.wide(x * scale)))) + vast


def bounded(count: int) -> Tensor:
    """Inputs that no split holds wider than another."""
    return torch.rand(count, 16) * 2 - 1


@functools.cache
def analysed() -> tuple[Analysis, Evidence]:
    """The analysis of `Outliers`, whose evaluation data are a tenth wider than calibration's."""
    torch.manual_seed(0)
    source = model_source(
        {
            "model": Outliers().eval(), "calibration": bounded(256), "task": "regression",
            "evaluation": (1.1 * bounded(96), torch.zeros(96, 4)), "name": "outliers",
        }
    )  # fmt: skip
    analysis = analyze(source, MeasureOptions(probes=2))
    assert analysis.evidence is not None
    return analysis, analysis.evidence


def test_measured_remedies_mend_what_was_broken() -> None:
    """Equalisation mends a wide channel by many dB, a convolution's too, and hardly moves an even
    layer; clipping of a channel that hardly counts is no cause; a weight that outlies is found.
    """
    analysis, evidence = analysed()
    index = analysis.layers.index
    wide, even, heavy = (diagnose(evidence, index[n]) for n in ("wide", "even", "heavy"))
    assert wide is not None
    assert even is not None
    assert heavy is not None

    vast = diagnose(evidence, index["vast"])
    assert vast is not None
    assert wide.cause == vast.cause == "channel imbalance"
    assert evidence.local is not None
    assert evidence.local.clipping is not None
    assert evidence.local.clipping[index["vast"]] > 0.5
    assert {r.name: r.gain_db for r in vast.remedies}["equalised"] > 20
    assert {r.name: r.gain_db for r in vast.remedies}["unclipped"] < 1
    gains = {r.name: r.gain_db for r in wide.remedies}
    assert gains["equalised"] > 10
    assert gains["half"] > 20
    assert abs({r.name: r.gain_db for r in even.remedies}["equalised"]) < 6
    assert evidence.local.weight_kurtosis is not None
    assert evidence.local.weight_kurtosis[index["heavy"]] > 6
    assert heavy.weight_share is not None


@pytest.mark.parametrize(
    "product",
    [
        nn.Linear(6, 4), nn.Conv1d(6, 4, 3), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 4, 3), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Conv3d(6, 4, 1),
    ],
    ids=repr,
)  # fmt: skip
def test_equalisation_keeps_the_function(product: nn.Module) -> None:
    """A product gives the same with its input channels divided and its weights multiplied, and
    every channel then meets the weights that it met before, times its factor.
    """
    weight = product.weight
    assert isinstance(weight, Tensor)
    shape = (2, 6, *[4] * (weight.ndim - 2))
    torch.manual_seed(0)
    x, factors = torch.randn(shape), torch.rand(6) + 0.5
    seen = []

    class Scaled(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            operation = OPERATIONS.get(func)
            if operation is not None:
                given, named = list(args), dict(kwargs or {})
                for _ in range(2):
                    seen.append(input_channels(func, operation, given[0], given[1]).largest)
                    equalise(factors, operation, given, named)
                    assert not torch.equal(given[1], weight)
                equalise(1 / factors, operation, given, named)
                return func(*given, **named)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Scaled():
        found = product(x)
    with torch.no_grad():
        assert torch.allclose(found, product(x), atol=1e-5)
    before, after = seen
    assert before is not None
    assert after is not None
    assert torch.allclose(after, before * factors)


def test_parts_add_up_to_the_whole() -> None:
    """Errors of weights and of activations alone add up to about that of both."""
    analysis, evidence = analysed()
    assert evidence.local is not None
    assert evidence.local.sqnr_db is not None
    noise = 10 ** (-evidence.local.sqnr_db / 10)

    for name in ("wide", "even", "heavy"):
        at = analysis.layers.index[name]
        assert noise[1, at] + noise[2, at] == pytest.approx(noise[0, at], rel=0.3)


@pytest.mark.slow
def test_causes_and_remedies_are_said_in_commands_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explain` names a layer's cause and every measured remedy with its gain, as the page does,
    and `report` lists them by layer.
    """
    folder = str(samples.get("digits_resnet").analysis)
    study = Study(store.load(Path(folder)))
    assert study.analysis.evidence is not None
    found = {x.name: diagnose(study.analysis.evidence, i) for i, x in enumerate(study.layers)}
    known = {
        name: d for name, d in found.items() if d is not None and d.remedies and d.cause != "none"
    }
    name, expected = min(known.items(), key=lambda pair: pair[1].sqnr_db)
    map_ = str(tmp_path / "map.json")
    assert main(["plan", folder, "--out", map_]) == 0
    capsys.readouterr()

    assert main(["explain", folder, map_, name]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert main(["explain", folder, map_, name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["causes"]
    assert main(["report", folder, map_]) == 0
    report = capsys.readouterr().out

    assert f"Main cause in {study.score_precision}: {expected.cause}." in said
    for remedy in expected.remedies:
        gain = "no error left" if math.isinf(remedy.gain_db) else f"{remedy.gain_db:+.1f} dB"
        assert f"{remedy.title}: {gain}" in said
        assert f"{remedy.title}: {gain}" in told[1]
    (row,) = (
        x for x in report.split("Why layers err")[1].splitlines() if x.startswith(f"| `{name}` |")
    )
    assert expected.cause in row
    assert "dB" in row
