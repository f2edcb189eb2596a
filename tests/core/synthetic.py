"""Synthetic analyses: any number of layers with made-up but consistent evidence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.analysis.analysis import Analysis
from core.evidence.evidence import Evidence, Identity, SplitSizes
from core.evidence.layer_alone import LocalStatistics
from core.layers import ROLES, Edge, Layer, LayerTable, State, TensorSpec

STATES: dict[str, State] = {"dropout": "nothing", "layer_norm": "rounds output",
                            "activation": "rounds output", "embedding": "stores"}  # fmt: skip


def synthetic_layers(count: int, seed: int = 0) -> LayerTable:
    """A chain of `count` layers with every role in turn."""
    rng = np.random.default_rng(seed)
    layers = []
    for i in range(count):
        role = ROLES[i % len(ROLES)]
        width = int(rng.integers(16, 256))
        state = STATES.get(role, "computes")
        weights = state == "computes" and role != "pooling"
        tensors = (
            (
                TensorSpec(f"block.{i}.weight", (width, width), "weight", width, 0),
                TensorSpec(f"block.{i}.bias", (width,), "bias", 1, 0),
            )
            if weights
            else ()
        )
        layers.append(
            Layer(
                name=f"block.{i}.{role}",
                role=role,
                kind="Synthetic",
                state=state,
                params=sum(t.size for t in tensors),
                macs=width * width * 16 if weights else 0,
                input_shape=(16, width),
                output_shape=(16, width),
                tensors=tensors,
                activation_scales=0 if state == "nothing" else 1,
                quantizes_output=state == "rounds output",
                input_elements=16 * width,
                output_elements=16 * width,
            )
        )
    edges = tuple(Edge(i, i + 1, layers[i].output_elements) for i in range(count - 1))
    return LayerTable(tuple(layers), edges)


def synthetic_evidence(
    layers: LayerTable, samples: int = 1000, outputs: int = 10, probes: int = 4, seed: int = 0
) -> Evidence:
    """Perturbations whose size grows with the layer index; whole maps are their exact sums."""
    rng = np.random.default_rng(seed)
    count = len(layers)
    baseline = rng.normal(size=(samples, outputs)).astype(np.float32) * 3
    scale = (
        np.linspace(0.001, 0.02, count)[None, :, None, None] if count else np.zeros((1, 0, 1, 1))
    )
    perturbations = rng.normal(size=(2, count, samples, outputs)).astype(np.float32)
    perturbations *= scale.astype(np.float32)
    perturbations[0] *= 0.01
    perturbations[:, ~layers.computes] = 0
    codes = rng.integers(-1, 2, size=(probes, count)).astype(np.int8)
    codes[:, ~layers.computes] = -1
    sums = np.stack(
        [
            sum(
                (perturbations[c, i] for i, c in enumerate(row) if c >= 0),
                start=np.zeros((samples, outputs), np.float32),
            )
            for row in codes
        ]
    )
    return Evidence(
        precisions=("FP16", "INT8"), scheme="ort-cpu", baseline=baseline,
        targets=baseline.argmax(1).astype(np.int64), perturbations=perturbations,
        whole=perturbations.sum(axis=1), probe_codes=codes, probes=sums.astype(np.float32),
        weight_sqnr_db=np.full((2, count), 40.0), allowed=np.ones((2, count), np.bool_),
        local=synthetic_local(perturbations),
    )  # fmt: skip


def synthetic_local(perturbations: NDArray[np.float32]) -> LocalStatistics:
    """Local statistics that say of every layer what its perturbations say."""
    energy = np.square(perturbations, dtype=np.float64).mean(axis=(2, 3))
    return LocalStatistics(
        weight_kurtosis=np.linspace(1.5, 9.0, perturbations.shape[1]),
        gradient_error=energy / 2,
        trace_error=energy / 4,
        sqnr_db=np.array([20, 50, 20.1, 30, 40, 60])[:, None] + np.zeros(perturbations.shape[1]),
        activation_outliers=np.full(perturbations.shape[1], 4.0),
        activation_imbalance=np.full(perturbations.shape[1], 20.0),
        clipping=np.zeros(perturbations.shape[1]),
        output_peak=np.full(perturbations.shape[1], 10.0),
        output_underflow=np.zeros(perturbations.shape[1]),
    )


def synthetic_analysis(count: int, *, measured: bool = True, samples: int = 200) -> Analysis:
    """An analysis of `count` synthetic layers."""
    layers = synthetic_layers(count)
    return Analysis(
        identity=Identity("synthetic", "0" * 64, "1" * 64), title=f"Synthetic, {count} layers",
        description="Made up.", task="classification", class_names=(), layers=layers,
        scheme="ort-cpu", splits=SplitSizes(10, samples, 0),
        evidence=synthetic_evidence(layers, samples) if measured else None,
        data_description="", source="", expanded_units=False, holdout_accuracy=None,
        majority_accuracy=None, seconds=None, notes=(), ranges=(),
        tool_version="test", created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
