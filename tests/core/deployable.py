"""A small model of every kind of layer that exporters tell apart, with its ONNX nodes, by hand."""

from __future__ import annotations

from dataclasses import replace

from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.layers import Edge, Layer, LayerTable, TensorSpec
from core.onnx_graph.node_table import Graph, Node, NodeTable, lay_over
from tests.core.synthetic import synthetic_analysis, synthetic_evidence

Operations = tuple[tuple[str, int], ...]


def _layer(
    name: str, role: str, kind: str, state: str, *, operations: Operations = (),
    tensors: tuple[TensorSpec, ...] = (), parts: tuple[str, ...] | None = None,
) -> Layer:  # fmt: skip
    owners = dict.fromkeys(t.name.rpartition(".")[0] for t in tensors)
    return Layer(
        name=name, role=role, kind=kind, state=state,  # type: ignore[arg-type]
        params=sum(t.size for t in tensors), macs=1000 * len(tensors), input_shape=(8,),
        output_shape=(8,), parts=tuple(owners) if parts is None else parts,
        operations=operations, tensors=tensors, activation_scales=1, input_elements=8,
        output_elements=8,
    )  # fmt: skip


def _weight(path: str, *shape: int, kind: str = "weight", operation: int = 0) -> TensorSpec:
    return TensorSpec(path, shape, kind, shape[0] if kind == "weight" else 1, operation)  # type: ignore[arg-type]


def layers() -> LayerTable:
    """Eleven layers in a chain."""
    found = (
        _layer("stem.conv", "convolution", "Conv2d", "computes", operations=(("conv", 1),),
               tensors=(_weight("stem.conv.weight", 8, 1, 3, 3),)),
        _layer("stem.norm", "batch_norm", "BatchNorm2d", "rounds output",
               operations=(("batch_norm", 1),),
               tensors=(_weight("stem.norm.weight", 8, kind="float", operation=-1),)),
        _layer("stem.activation", "activation", "ReLU", "rounds output",
               operations=(("relu", 1),)),
        _layer("table", "embedding", "Embedding", "stores", operations=(("embedding", 1),),
               tensors=(_weight("table.weight", 100, 8, kind="table"),)),
        _layer("attention", "attention", "MultiheadAttention", "computes",
               operations=(("linear", 2), ("matmul", 2), ("softmax", 1)),
               tensors=(_weight("attention.in_proj_weight", 24, 8),
                        _weight("attention.out_proj.weight", 8, 8, operation=3))),
        _layer("norm", "layer_norm", "LayerNorm", "rounds output", operations=(("layer_norm", 1),),
               tensors=(_weight("norm.weight", 8, kind="float", operation=-1),)),
        _layer("mixer", "feed_forward", "Mixer", "computes",
               operations=(("linear", 2), ("matmul", 1)),
               tensors=(_weight("mixer.linear1.weight", 16, 8),
                        _weight("mixer.linear2.weight", 8, 16, operation=1))),
        _layer("mixer.activation", "activation", "GELU", "rounds output",
               operations=(("gelu", 1),)),
        _layer("dropout", "dropout", "Dropout", "nothing"),
        _layer("memory", "recurrent", "LSTM", "stores", operations=(("lstm", 1),),
               tensors=(_weight("memory.weight_ih_l0", 32, 8),)),
        _layer("head", "output_projection", "Linear", "computes", operations=(("linear", 1),),
               tensors=(_weight("head.weight", 10, 8),)),
    )  # fmt: skip
    edges = tuple(Edge(i, i + 1, 8) for i in range(len(found) - 1))
    return LayerTable(found, edges, glue=("",))


NODES = (
    # name, type, module, inputs, outputs
    ("conv", "Conv", "stem.conv", ("x", "stem.conv.weight"), ("c",)),
    ("relu", "Relu", "stem.activation", ("c",), ("r",)),
    ("pick", "Gather", "table", ("table.weight", "ids"), ("e",)),
    ("join", "Add", "", ("r", "e"), ("j",)),
    ("qkv", "MatMul", "attention", ("j", "w_qkv"), ("q",)),
    ("qkv_bias", "Add", "attention", ("q", "attention.in_proj_bias"), ("qb",)),
    ("heads", "Reshape", "attention", ("qb", "shape"), ("h",)),
    ("scores", "MatMul", "attention", ("h", "h"), ("s",)),
    ("softmax", "Softmax", "attention", ("s",), ("p",)),
    ("mix", "MatMul", "attention", ("p", "h"), ("m",)),
    ("out", "Gemm", "attention", ("m", "attention.out_proj.weight"), ("o",)),
    ("residual", "Add", "", ("o", "j"), ("a",)),
    ("layer_norm", "LayerNormalization", "norm", ("a", "norm.weight"), ("n",)),
    ("first", "Gemm", "mixer.linear1", ("n", "mixer.linear1.weight"), ("f",)),
    ("gelu", "Gelu", "mixer.activation", ("f",), ("g",)),
    ("across", "MatMul", "mixer", ("g", "g"), ("ac",)),
    ("second", "Gemm", "mixer.linear2", ("ac", "mixer.linear2.weight"), ("l",)),
    ("lstm", "LSTM", "memory", ("l", "memory.weight"), ("lo",)),
    ("classify", "Gemm", "head", ("lo", "head.weight"), ("y",)),
)


def node_table() -> NodeTable:
    """The nodes as an exporter would leave them."""
    return NodeTable(1, "by hand, opset 20", tuple(Node(*row) for row in NODES))


def graph(table: LayerTable | None = None) -> Graph:
    """The nodes laid over the layers."""
    return lay_over(node_table(), table or layers())


def study(*, scheme: str = "ort-cpu") -> Study:
    """A study of the model with made-up evidence."""
    table = layers()
    evidence = synthetic_evidence(table, samples=50)
    analysis = replace(
        synthetic_analysis(1, samples=50), layers=table, scheme=scheme,
        evidence=replace(evidence, scheme=scheme), source="sample:none",
    )  # fmt: skip
    return Study(analysis)


WIDE = {
    "attention.in_proj_weight": (96, 32), "attention.out_proj.weight": (32, 32),
    "mixer.linear1.weight": (48, 32), "mixer.linear2.weight": (32, 48), "head.weight": (10, 128),
}  # fmt: skip


def in_groups() -> Study:
    """The model with wider matrices, before anything was measured: formats of weights alone mean
    something for its attention (32 inputs), its mixer (32 and 48) and its head (128).
    """
    found = []
    for layer in layers():
        wide = {t.name: WIDE[t.name] for t in layer.tensors if t.name in WIDE}
        tensors = tuple(
            replace(t, shape=wide[t.name], channels=wide[t.name][0], group_axis=1)
            for t in layer.tensors if t.name in wide
        )  # fmt: skip
        found.append(replace(layer, tensors=tensors or layer.tensors, in_groups=bool(wide)))
    table = replace(layers(), layers=tuple(found))
    analysis = replace(synthetic_analysis(1, measured=False), layers=table, source="sample:none")
    return Study(analysis)


MIXED = (
    ("stem.conv", "INT8"), ("stem.norm", "INT8"), ("stem.activation", "INT8"),
    ("table", "FP16"), ("attention", "FP16"), ("norm", "FP32"), ("mixer", "INT8"),
    ("mixer.activation", "FP16"), ("memory", "FP32"), ("head", "INT8"),
)  # fmt: skip
"""Three precisions over the model."""


def chosen(given: Study, *overrides: tuple[str, str]) -> PrecisionMap:
    """The mixed map, with other precisions for some layers."""
    wanted = {**dict(MIXED), **dict(overrides)}
    return answer.decide(
        given, Policy(strategy="manual", high="FP32", overrides=tuple(wanted.items()))
    )
