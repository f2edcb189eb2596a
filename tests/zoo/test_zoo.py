"""Every awkward kind of model is analyzed as it is, and what is awkward shows in the figures."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from core.analysis.analysis import Analysis
from core.analysis.analyze import analyze
from core.cli.main import main
from core.decide.assess.outcome import outcome, uniform_map
from core.decide.study import Study
from core.engines.torch.simulate.simulator import Simulator
from core.errors import ModelError
from core.evidence.evidence import Evidence
from core.evidence.measure import model_notes
from core.evidence.measure.measure import make_simulator
from core.evidence.options import MeasureOptions
from core.layers import ROOT
from core.numerics.precision import FP16, INT8
from core.source.contract import ModelSource, model_source
from core.source.inventory import take_inventory
from tests.processors import own_notes
from tests.zoo import awkward, by_hand, models
from tests.zoo.sources import source_of

DEVICE = "server-cpu-vnni"


def _spec(model: nn.Module, x: Any, **changes: Any) -> ModelSource:
    """A source without labels but with evaluation data of its own."""
    torch.manual_seed(0)
    calibration = changes.pop("calibration", x)
    base = {"model": model, "calibration": calibration, "evaluation": (x, None), "holdout": None}
    return model_source({"task": "classification", **base, **changes})


def _draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _ids(high: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def _seeded(kind: type[nn.Module], *args: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind(*args).eval()


def _simulator(source: ModelSource) -> Simulator:
    return make_simulator(source, take_inventory(source), MeasureOptions())


def _measured(source: ModelSource, probes: int = 3) -> tuple[Analysis, Evidence]:
    analysis = analyze(source, MeasureOptions(probes=probes, precisions=(FP16, INT8)))
    assert analysis.evidence is not None
    return analysis, analysis.evidence


def _plain(model: nn.Module, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
    """What the model gives when nobody watches, in batches of 100."""
    with torch.no_grad():
        result: Tensor = model(*args, **kwargs)
    return result.numpy()


def test_a_shared_module_is_one_layer() -> None:
    """A module with two names is one layer: its weights count once and are rounded in both calls."""
    model = _seeded(awkward.Shared)
    assert isinstance(model, awkward.Shared)
    source = _spec(model, _draw(40, 5))
    layers = take_inventory(source)

    simulated = _simulator(source).run({"first": FP16}, source.selection.inputs)

    assert layers.names == ("first", "head")
    assert layers.params.tolist() == [30, 18]
    assert layers.macs.tolist() == [2 * 25, 15]
    w, b = by_hand.half(model.first.weight), by_hand.half(model.first.bias)
    x = by_hand.half(source.selection.inputs)
    h = by_hand.half(F.linear(x, w, b))
    h = by_hand.half(F.linear(by_hand.half(torch.tanh(h)), w, b))
    expected = F.linear(h, model.head.weight, model.head.bias).detach().numpy()
    np.testing.assert_allclose(simulated, expected, atol=1e-6)


def test_tied_weights_are_rounded_as_each_reader_stores_them() -> None:
    """A tied table counts once, has one grid where it is looked up and one per row where it
    multiplies, whichever ran first.
    """
    model = _seeded(awkward.TiedEmbedding)
    assert isinstance(model, awkward.TiedEmbedding)
    ids = _ids(30, 40, 6)
    source = _spec(model, ids, task="sequence")
    simulator = _simulator(source)
    table = model.table.weight

    head = simulator.run({"head": INT8}, ids)
    looked_up = simulator.run({"table": INT8}, ids)

    assert take_inventory(source).params.tolist() == [240, 72, 0]
    with torch.no_grad():
        h = torch.tanh(model.mix(F.embedding(ids, table)))
        rounded = by_hand.affine(h.numpy(), h.numpy())
        expected = F.linear(rounded, by_hand.symmetric(table)).flatten(1)
        grid = by_hand.affine(table.numpy(), table.numpy())
        of_table = F.linear(torch.tanh(model.mix(F.embedding(ids, grid))), table).flatten(1)
    np.testing.assert_allclose(head, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(looked_up, of_table.numpy(), atol=1e-5)
    assert np.abs(looked_up - head).max() > 1e-3


def test_a_module_called_in_a_loop_has_a_range_for_each_call() -> None:
    """Three calls of one layer are calibrated apart, since their inputs have other ranges."""
    source = _spec(_seeded(models.LoopedModule), _draw(40, 5))
    simulator = _simulator(source)

    lows = [simulator.ranges["step", call, 0].low for call in range(3)]

    assert lows[0] < 0  # the model's input
    assert lows[1:] == [1.0, 1.0]  # relu(...) + 1
    assert len(take_inventory(source)) == 2


def test_frozen_buffers_are_weights() -> None:
    """A buffer that multiplies is stored and rounded like a weight, is no parameter, and a counter
    that forward raises is put back.
    """
    model = _seeded(awkward.FrozenBuffers)
    assert isinstance(model, awkward.FrozenBuffers)
    source = _spec(model, _draw(40, 5))
    analysis, evidence = _measured(source)
    frozen = next(x for x in analysis.layers if any(t.name == "weight" for t in x.tensors))

    assert frozen.params == 0
    assert {t.name: t.kind for t in frozen.tensors}["weight"] == "weight"
    assert not model.calls.any()
    at = analysis.layers.index[frozen.name]
    with torch.no_grad():
        x = source.selection.inputs
        h = by_hand.half(F.linear(by_hand.half(x), by_hand.half(model.weight)))
        expected = by_hand.half(by_hand.half(model.head(torch.relu(h))))
    found = evidence.baseline + evidence.perturbations[0, at]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-3)
    assert np.abs(evidence.perturbations[0, at]).max() > 0


@pytest.mark.parametrize("precision", [FP16, INT8], ids=lambda p: p.name)
def test_changes_in_place_change_nothing_else(precision: Any) -> None:
    """A model that works in place gives what its twin without in-place gives, in every precision,
    and the data are as they were.
    """
    twins = [_seeded(kind) for kind in (awkward.InPlace, awkward.OutOfPlace)]
    x = _draw(40, 6)
    before = x.clone()
    sources = [_spec(model, x) for model in twins]
    first, second = (_simulator(source) for source in sources)
    names = ("first", "second", "head")

    np.testing.assert_array_equal(first.run({}, x), second.run({}, x))
    for chosen in (*((name,) for name in names), names):
        assignment = dict.fromkeys(chosen, precision)
        np.testing.assert_array_equal(first.run(assignment, x), second.run(assignment, x))
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_a_model_in_training_mode_is_put_into_evaluation() -> None:
    """Dropout that was left on is switched off, so that two runs agree and nothing is noted."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    source = _spec(model, _draw(40, 5))
    analysis, evidence = _measured(source)

    assert not model.training
    np.testing.assert_allclose(evidence.baseline, _plain(model, source.selection.inputs), rtol=1e-6)
    assert own_notes(analysis) == ()


def test_dropout_that_is_always_on_hides_no_effect() -> None:
    """Functional dropout that ignores evaluation mode drops the same values in every run; the
    analysis says that the model draws random numbers.
    """
    source = _spec(_seeded(awkward.DropoutAlwaysOn), _draw(150, 5))
    analysis, evidence = _measured(source)

    assert analysis.notes[0] == model_notes.RANDOM
    assert "full passes: it draws random numbers" in analysis.notes[1]
    noise = np.abs(_plain(source.model, source.selection.inputs) - evidence.baseline).max()
    assert np.abs(evidence.perturbations[0]).max() < 0.01 * noise


def test_random_numbers_cancel_in_every_comparison() -> None:
    """Noise added to the outputs leaves the same perturbations as the model without it, and the
    random state of the process goes on as if nothing had been drawn.
    """
    body = _seeded(models.NeverCalled)
    x = _draw(150, 5)
    quiet, noisy = _spec(body, x), _spec(awkward.NoisyOutput(body), x)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    _, without = _measured(quiet)
    _, with_noise = _measured(noisy)

    assert np.abs(with_noise.baseline - without.baseline).max() > 0.5
    np.testing.assert_allclose(with_noise.perturbations, without.perturbations, atol=2e-6)
    np.testing.assert_allclose(with_noise.probes, without.probes, atol=2e-6)
    _spec(body, x)
    torch.manual_seed(7)
    _measured(noisy)
    torch.testing.assert_close(torch.rand(3), expected)


def test_views_need_not_be_contiguous() -> None:
    """Transposed inputs and sliced, expanded views inside give what contiguous copies give."""
    model = _seeded(awkward.Views)
    x = _draw(9, 6, 40).permute(2, 0, 1)
    assert not x.is_contiguous()
    source, copied = _spec(model, x), _spec(model, x.contiguous())

    _, evidence = _measured(source)
    _, expected = _measured(copied)

    np.testing.assert_array_equal(evidence.perturbations, expected.perturbations)
    assert source.data_fingerprint() == copied.data_fingerprint()


def test_a_branch_on_the_batch_leaves_its_other_side_in_float() -> None:
    """A layer that calibration, in its batches, does not reach is named and stays as trained; the
    analysis says that the size of the batch decides.
    """
    model = _seeded(awkward.BranchOnBatch)
    source = _spec(model, _draw(80, 5))
    analysis, evidence = _measured(source)

    assert analysis.layers.names == ("small",)
    assert analysis.layers.uncalled == ("large",)
    assert not evidence.perturbations.any()  # batches of 80 go through `large`
    unreached, on_batch, full = own_notes(analysis)
    assert unreached.startswith("No calibration sample reached large:")
    assert on_batch == model_notes.BATCH
    assert full.startswith("2 runs took another way through the model")


def test_an_operation_that_calibration_never_reached_is_named() -> None:
    """Rounding needs a range; where none was seen the layer is named and the remedy given."""
    model = _seeded(awkward.MoreStepsForMore)
    source = _spec(model, _draw(80, 5), calibration=_draw(20, 5, seed=2))

    with pytest.raises(ModelError, match="no calibration sample reached") as caught:
        analyze(source, MeasureOptions(probes=1))

    assert "branches" in caught.value.next_step


@pytest.mark.parametrize(
    ("output", "expected"),
    [(None, "head"), ("logits", "head"), (2, None), ("extra", "other"), ("ghost", None)],
)
def test_outputs_come_in_structures(output: Any, expected: str | None) -> None:
    """The first floating tensor of a dataclass is the output, or the one that is named."""
    model = _seeded(awkward.Structured)
    x = _draw(40, 5)
    source = _spec(model, x, output=output)
    if expected is None:
        with pytest.raises(ModelError, match="returned no output"):
            analyze(source, MeasureOptions(probes=1))
        return

    _, evidence = _measured(source)

    np.testing.assert_allclose(
        evidence.baseline, _plain(model.get_submodule(expected), x), rtol=1e-5
    )


def test_a_dict_of_outputs_is_read_by_key() -> None:
    """A dict's first floating tensor serves, and so does its key."""
    model = _seeded(models.DictOutput)
    x = _draw(40, 5)

    for output in (None, "logits"):
        _, evidence = _measured(_spec(model, x, output=output))
        np.testing.assert_allclose(
            evidence.baseline, model(x)["logits"].detach().numpy(), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("model", "features", "count"), [(models.NoLayers, 3, 0), (models.DictOutput, 5, 1)]
)
def test_models_of_no_layer_and_one_layer(
    model: type[nn.Module], features: int, count: int, tmp_path: Path
) -> None:
    """They are analyzed, written, read back and decided like any other."""
    from core.analysis import store

    analysis, _ = _measured(_spec(_seeded(model), _draw(40, features)))
    store.save(analysis, tmp_path / "a")
    study = Study(store.load(tmp_path / "a"))
    found = outcome(study, uniform_map(study, "INT8", DEVICE))

    assert len(study.layers) == count
    assert found.totals["size_bytes"].value == found.layer_bytes.sum() + found.glue_bytes
    assert (found.totals["kl"].value or 0.0) > 0 or count == 0


def test_a_layer_that_is_never_called_costs_no_bytes() -> None:
    """It is no decision and no effect, and no file holds what no operation reads."""
    analysis, _ = _measured(_spec(_seeded(models.NeverCalled), _draw(40, 5)))
    study = Study(analysis)
    found = outcome(study, uniform_map(study, "INT8", DEVICE))

    assert analysis.layers.uncalled == ("unused",)
    assert found.glue_bytes == 0


def test_broken_weights_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN or infinity in a checkpoint stops the command before anything is measured."""
    path = tmp_path / "broken.py"
    path.write_text(
        "import torch\n"
        "def nan():\n    return spec(float('nan'))\n"
        "def inf():\n    return spec(float('inf'))\n"
        "def spec(value):\n"
        "    model = torch.nn.Linear(4, 3)\n"
        "    torch.nn.init.constant_(model.bias, value)\n"
        "    return {'model': model, 'calibration': torch.zeros(3, 4), 'task': 'classification'}\n"
    )
    for name in ("nan", "inf"):
        assert main(["analyze", f"{path}:{name}", "--out", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert f"{path}:{name}: Weight 'bias' holds NaN or infinity." in err
    assert not (tmp_path / "out").exists()


def test_outputs_that_are_not_finite_in_fp32_are_refused() -> None:
    """A model that answers NaN has no reference to compare with; the sample is named."""

    class Log(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(super().forward(x))

    x = torch.full((30, 2), 0.5)
    x[7] = -9
    model = Log(2, 3)
    nn.init.constant_(model.weight, 1.0)
    nn.init.zeros_(model.bias)

    with pytest.raises(ModelError, match="first on selection sample 7"):
        analyze(_spec(model, x), MeasureOptions(probes=1))


def test_half_precision_overflow_forbids_the_pair() -> None:
    """Activations beyond 65,504 are infinite in FP16: the pair is forbidden, a map with it has no
    projection and is advised against; INT8 is measured as usual.
    """
    source = source_of(models.Overflowing(), (5,))
    largest = source.model.get_submodule("large")(source.selection.inputs).detach().abs().max()
    analysis, evidence = _measured(source)
    study = Study(analysis)
    at = analysis.layers.index["large"]

    assert float(largest) > 65_504
    assert evidence.allowed[:, at].tolist() == [False, True]
    in_half = outcome(study, uniform_map(study, "FP16", DEVICE))
    assert in_half.forbidden == ("large", "small")  # one gives the value, the other takes it
    assert in_half.totals["kl"].value is None
    assert outcome(study, uniform_map(study, "INT8", DEVICE)).totals["kl"].value is not None


def test_an_all_zero_channel_is_harmless() -> None:
    """A pruned channel stays zero and the others keep their own scales."""
    conv = nn.Conv1d(2, 3, 3, bias=False)
    with torch.no_grad():
        conv.weight[1] = 0
    source = _spec(nn.Sequential(conv, nn.Flatten(), nn.Linear(18, 3)), _draw(40, 2, 8))
    _, evidence = _measured(source)
    inner = nn.Sequential(conv, nn.Flatten())
    rounded = _simulator(_spec(inner, _draw(40, 2, 8), task="regression"))

    outputs = rounded.run({"0": INT8}, _draw(40, 2, 8)).reshape(40, 3, 6)

    assert np.isfinite(evidence.perturbations).all()
    assert not outputs[:, 1].any()
    assert (np.abs(outputs[:, [0, 2]]) > 0).mean() > 0.9


def test_constant_inputs_have_figures() -> None:
    """Samples that are all alike have no spread, but ranges, scores and figures stay finite."""
    x = torch.full((40, 2, 8), 0.5)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten())
    targets = torch.zeros(40, 18)
    source = _spec(model, x, task="regression", evaluation=(x, targets))
    analysis, evidence = _measured(source)
    study = Study(analysis)
    totals = outcome(study, uniform_map(study, "INT8", DEVICE)).totals

    assert evidence.spread == pytest.approx(np.square(evidence.baseline.astype(np.float64)).sum())
    assert 0 < (totals["relative_mse"].value or 0) < 0.01
    assert np.isfinite(study.scores["output_error"]).all()
    zero = _spec(model, torch.zeros(40, 2, 8), task="regression")
    assert np.isfinite(_measured(zero)[1].perturbations).all()


@pytest.mark.parametrize("model", [models.NeverCalled, awkward.Squeezing])
def test_one_sample_is_enough_to_run(model: type[nn.Module]) -> None:
    """A batch of one is measured, also where the model squeezes its axis away; nothing is held
    back and the figures say how little is known.
    """
    x, y = _draw(1, 5), torch.tensor([1])
    spec = {"model": _seeded(model), "calibration": x, "evaluation": (x, y)}
    source = model_source({**spec, "task": "classification"})
    analysis, evidence = _measured(source)
    study = Study(analysis)
    found = outcome(study, uniform_map(study, "INT8", DEVICE))

    assert source.holdout is None
    assert evidence.baseline.shape == (1, 3)
    assert any("Only 1 selection samples" in warning for warning in found.warnings)
    drop = found.totals["accuracy_drop_pts"]
    assert drop.value is not None
    assert (drop.high or 0) - (drop.low or 0) > 50


def test_outputs_that_depend_on_the_batch_are_noted() -> None:
    """Every run meets the same batches, so a perturbation is that of the same batch by hand; the
    analysis says that other batch sizes may differ.
    """
    model = _seeded(awkward.BatchCentred)
    x = _draw(150, 5)
    analysis, evidence = _measured(_spec(model, x))
    expected = np.concatenate([_plain(model, x[:100]), _plain(model, x[100:])])

    assert own_notes(analysis) == (model_notes.BATCH,)
    np.testing.assert_allclose(evidence.baseline, expected, atol=1e-6)
    assert np.abs(evidence.perturbations[0]).max() < 0.01


def test_state_between_calls_is_noted() -> None:
    """A model that answers otherwise each time is measured, and the analysis says so."""
    analysis, _ = _measured(_spec(_seeded(awkward.Counting), _draw(20, 5)), probes=1)

    assert analysis.notes[0] == model_notes.KEEPS_STATE
    assert "full passes: attribute 'calls' changes" in analysis.notes[1]


def test_the_fused_encoder_is_taken_apart() -> None:
    """`nn.TransformerEncoder` is measured module by module under a padding mask, agrees with its
    fused fast path, and leaves the path switched on.
    """
    model = _seeded(awkward.MaskedEncoder)
    padding = torch.arange(7).expand(60, 7) >= _ids(6, 60, 1) + 1
    inputs = {"x": _draw(60, 7, 8), "padding": padding}
    source = _spec(model, inputs)
    analysis, evidence = _measured(source)

    assert {f"encoder.layers.{i}.self_attn" for i in range(2)} <= set(analysis.layers.names)
    assert torch.backends.mha.get_fastpath_enabled()
    np.testing.assert_allclose(evidence.baseline, _plain(model, **inputs), atol=1e-5)
    for name in analysis.layers.names:
        at = analysis.layers.index[name]
        moved = np.abs(evidence.perturbations[1, at]).max() > 0
        assert moved == bool(analysis.layers.computes[at]), name
    other = replace(source.selection, inputs={**inputs, "padding": torch.zeros_like(padding)})
    unmasked = _measured(replace(source, selection=other))[1]
    assert np.abs(unmasked.baseline - evidence.baseline).max() > 0.01


def test_a_network_of_embeddings_shrinks_by_its_tables() -> None:
    """Tables are stored in 8 bits on one grid each, which is nearly all of the saving."""
    model = _seeded(awkward.Recommender)
    assert isinstance(model, awkward.Recommender)
    inputs = (_ids(2_000, 90), _ids(1_000, 90), _ids(50, 90, 4))
    ratings = _draw(90)
    source = _spec(model, inputs, task="regression", evaluation=(inputs, ratings))
    analysis, evidence = _measured(source)
    states = {layer.name: layer.state for layer in analysis.layers}
    study = Study(analysis)
    found = outcome(study, uniform_map(study, "INT8", DEVICE))

    assert [states[name] for name in ("users", "items", "bag")] == ["stores"] * 3
    assert (found.totals["size_reduction_pct"].value or 0) > 74
    with torch.no_grad():
        grids = [by_hand.affine(t.weight.numpy(), t.weight.numpy())
                 for t in (model.users, model.items, model.bag)]  # fmt: skip
        bag = F.embedding(inputs[2], grids[2]).mean(dim=1)
        mixed = F.embedding(inputs[0], grids[0]) * (F.embedding(inputs[1], grids[1]) + bag)
        expected = model.head(mixed)
    names = dict.fromkeys(("users", "items", "bag"), INT8)
    simulated = _simulator(source).run(names, inputs)
    np.testing.assert_allclose(simulated, expected.numpy(), atol=1e-5)
    assert analysis.metric is not None
    assert evidence.targets is not None


def test_an_lstm_without_any_linear_layer() -> None:
    """An LSTM is one layer whose INT8 form multiplies 8-bit weights per gate row with inputs and
    states that each sample quantizes over its own range, written out step by step.
    """
    model = _seeded(awkward.LstmOnly)
    assert isinstance(model, awkward.LstmOnly)
    x = _draw(70, 9, 4)
    source = _spec(model, x, task="regression")
    analysis, evidence = _measured(source)
    (layer,) = analysis.layers

    assert (layer.role, layer.state, layer.activation_scales) == ("recurrent", "computes", 0)
    assert layer.dynamic
    assert layer.macs == 9 * sum(p.numel() for p in model.parameters() if p.ndim == 2)
    weights = [spec for spec in layer.tensors if spec.kind == "weight"]
    assert all(spec.channels == 24 for spec in weights)
    expected = [sum(by_hand.dynamic_lstm(model.lstm, sample)[1]).numpy() for sample in x]
    found = evidence.baseline + evidence.perturbations[1, 0]
    # A state on a rounding boundary may fall to the next step, and its sample with it.
    off = np.abs(found - np.stack(expected))
    assert np.median(off) < 1e-6
    assert (off > 1e-5).any(axis=1).mean() < 0.1
    assert off.max() < 0.02
    assert np.abs(evidence.perturbations[1]).max() > 1e-3
    assert 0 < np.abs(evidence.perturbations[0]).max() < 0.01


def test_a_gru_keeps_weights_in_8_bits() -> None:
    """It has no integer kernel: it runs in float with weights rounded per gate row."""
    torch.manual_seed(0)
    model = awkward.LastOutput(nn.GRU(4, 6, batch_first=True))
    x = _draw(40, 5, 4)
    layer = _measured(_spec(model, x, task="regression"))[0].layers.layers[0]
    rounded = copy.deepcopy(model)
    rounded.load_state_dict(
        {k: by_hand.symmetric(v) if v.ndim == 2 else v for k, v in model.state_dict().items()}
    )

    found = _simulator(_spec(model, x, task="regression")).run({"recurrent": INT8}, x)

    assert (layer.state, layer.dynamic) == ("stores", False)
    np.testing.assert_allclose(found, _plain(rounded, x), atol=1e-5)
    assert np.abs(found - _plain(model, x)).max() > 1e-4


def test_an_encoder_decoder_with_four_inputs() -> None:
    """Ids, a boolean and an additive mask go through a translation model; a sequence of classes is
    judged step by step, without the steps whose target is below 0.
    """
    model = _seeded(awkward.EncoderDecoder)
    n, steps = 60, 4
    mask = nn.Transformer.generate_square_subsequent_mask(steps).expand(n, -1, -1).clone()
    inputs = {
        "src": _ids(20, n, 6), "tgt": _ids(12, n, steps),
        "src_padding": torch.arange(6).expand(n, 6) >= 4 + _ids(3, n, 1), "tgt_mask": mask,
    }  # fmt: skip
    logits = _plain(model, **inputs)
    targets = torch.from_numpy(logits.argmax(-1))
    targets[::4] = (targets[::4] + 1) % 12
    targets[:, -1] = -100
    source = _spec(model, inputs, task="sequence", evaluation=(inputs, targets))
    analysis, evidence = _measured(source)
    study = Study(analysis)
    codes = uniform_map(study, "INT8", DEVICE)
    totals = outcome(study, codes).totals

    assert evidence.outputs.positions == steps
    np.testing.assert_allclose(evidence.baseline, logits.reshape(n, -1), atol=1e-5)
    reference = outcome(study, uniform_map(study, "FP32", DEVICE)).totals
    assert reference["accuracy"].value == pytest.approx(75.0)
    after = (evidence.baseline + evidence.whole[1]).reshape(n, steps, 12)[:, :3]
    right = (after.argmax(-1) == targets[:, :3].numpy()).mean()
    assert totals["accuracy"].value == pytest.approx(100 * right)
    log_p, log_q = (
        torch.log_softmax(torch.from_numpy(v).double(), -1)
        for v in (evidence.baseline.reshape(n, steps, 12)[:, :3], after)
    )
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    assert totals["kl"].value == pytest.approx(float(kl), rel=1e-5)


def test_image_to_image_keeps_a_sample_of_its_outputs() -> None:
    """Large outputs are drawn with a fixed seed, targets along with them, and the analysis says
    how many; a transposed convolution and a group norm are layers.
    """
    from core.evidence.measure.outputs import MAX_OUTPUTS

    model = _seeded(awkward.ImageToImage)
    clean = _draw(12, 1, 72, 72)
    noisy = clean + 0.1 * _draw(12, 1, 72, 72, seed=2)
    source = _spec(model, noisy, task="regression", evaluation=(noisy, clean))
    analysis, evidence = _measured(source)

    assert dict(zip(analysis.layers.names, analysis.layers.roles, strict=True)) == {
        "down": "convolution",
        "norm": "layer_norm",
        "up": "convolution",
    }
    assert evidence.baseline.shape == (12, MAX_OUTPUTS)
    assert evidence.outputs.total == 72 * 72
    assert any("5,184" in note and "4,096" in note for note in analysis.notes)
    outputs = _plain(model, noisy).reshape(12, -1)
    at = [int(np.flatnonzero(outputs[0] == v)[0]) for v in evidence.baseline[0, :50]]
    np.testing.assert_array_equal(evidence.targets[:, :50], clean.reshape(12, -1).numpy()[:, at])  # type: ignore[index]


def test_a_forecaster_is_judged_by_its_error() -> None:
    """RMSE, its loss in percent and the relative squared change of a uniform map are what its
    simulated outputs give.
    """
    model = _seeded(awkward.Forecaster)
    window = _draw(300, 8, 2)
    future = torch.from_numpy(_plain(model, window)) + 0.3 * _draw(300, 4, seed=3)
    given = {"model": model, "calibration": window[:40], "evaluation": (window, future)}
    analysis, evidence = _measured(model_source({**given, "task": "regression"}))
    study = Study(analysis)
    totals = outcome(study, uniform_map(study, "INT8", DEVICE)).totals

    assert (analysis.splits.selection, analysis.splits.holdout) == (200, 100)
    assert evidence.targets is not None
    after = evidence.baseline.astype(np.float64) + evidence.whole[1]
    before, now = (
        float(np.sqrt(np.mean((values - evidence.targets) ** 2)))
        for values in (evidence.baseline.astype(np.float64), after)
    )
    assert totals["metric"].value == pytest.approx(now, rel=1e-6)
    assert totals["metric_loss_pct"].value == pytest.approx(100 * (now - before) / before, abs=1e-5)
    moved = np.square(evidence.whole[1].astype(np.float64)).sum()
    variance = np.square(evidence.baseline - evidence.baseline.mean(axis=0)).sum()
    assert totals["relative_mse"].value == pytest.approx(moved / variance, rel=1e-5)
    assert totals["accuracy"].value is None
    assert totals["kl"].value is None
    assert analysis.metric is not None
    assert analysis.metric.holdout == pytest.approx(0.3, rel=0.2)
    assert (analysis.metric.naive or 0) > 0


def test_three_dimensional_and_transposed_convolutions() -> None:
    """Both are layers with a scale per output channel, and INT8 reaches them."""
    source = _spec(_seeded(awkward.Video), _draw(30, 1, 5, 5, 5))
    analysis, evidence = _measured(source)
    channels = {x.name: x.tensors[0].channels for x in analysis.layers}

    assert channels == {"conv": 4, "up": 2, "head": 3}
    assert (np.abs(evidence.perturbations).max(axis=(2, 3)) > 0).all()


def test_attention_in_einsum_is_quantized() -> None:
    """Einsum is a product: its stored operands are weights, its activations are rounded, and a
    container that calls it is a layer.
    """
    model = _seeded(awkward.EinsumAttention)
    source = _spec(model, _draw(40, 5, 8))
    analysis, evidence = _measured(source)
    own = analysis.layers.layers[analysis.layers.index[ROOT]]

    assert dict(own.operations)["linear"] == 4
    assert dict(own.operations)["matmul"] == 2
    assert own.macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert {t.name: t.kind for t in own.tensors} == {"qkv": "weight", "out": "weight"}
    assert dict(zip(analysis.layers.names, analysis.layers.roles, strict=True))["norm"] == (
        "layer_norm"
    )
    at = analysis.layers.index[ROOT]
    assert np.abs(evidence.perturbations[1, at]).max() > 1e-3
