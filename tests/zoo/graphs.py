"""Small ONNX graphs that are awkward in one way each, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Arrays = Mapping[str, NDArray[Any]]


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Seeded normal numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> NodeProto:
    """A node whose inputs and outputs are words of a text; "-" is an input left out."""
    given = ["" if word == "-" else word for word in inputs.split()]
    return helper.make_node(op, given, outputs.split(), name, **attributes)


def graph(
    nodes: Sequence[NodeProto], weights: Arrays, inputs: Mapping[str, Sequence[Any] | None],
    outputs: Sequence[str] = ("y",), *, opset: int = 17, types: Mapping[str, int] | None = None,
) -> ModelProto:  # fmt: skip
    """A model of `nodes`; inputs are float32 unless `types` says otherwise, outputs have no shape."""
    kinds = types or {}
    made = helper.make_graph(
        list(nodes), "awkward",
        [helper.make_tensor_value_info(n, kinds.get(n, FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
        [onnx.numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _norm(channels: int, seed: int) -> dict[str, NDArray[np.float32]]:
    return {
        f"s{seed}": 1 + draw(channels, seed=seed, scale=0.2), f"o{seed}": draw(channels, seed=seed + 1),
        f"m{seed}": draw(channels, seed=seed + 2), f"v{seed}": 0.5 + np.abs(draw(channels, seed=seed + 3)),
    }  # fmt: skip


def opset_11() -> tuple[ModelProto, Arrays]:
    """Opset 11, weights that are Constant nodes, batch norms apart, a bias behind a Reshape."""
    held = {"w": draw(4, 3, 3, 3, scale=0.3), "w2": draw(6, 4, 1, 1), "b2": draw(6), "f": draw(6, 5),
            "g": draw(5), **_norm(4, 10)}  # fmt: skip
    constants = [
        helper.make_node("Constant", [], [n], value=onnx.numpy_helper.from_array(w, n))
        for n, w in {**held, "shape": np.array([1, -1, 1, 1], np.int64), "three": np.float32(3),
                     "zero": np.float32(0), "six": np.float32(6)}.items()
    ]  # fmt: skip
    nodes = [
        *constants,
        node("Conv", "x w", "c", "Conv@0", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c s10 o10 m10 v10", "n", "BatchNormalization@0"),
        node("Add", "n three", "a", "Add@0"), node("Clip", "a zero six", "k", "Clip@0"),
        node("Mul", "n k", "h", "Mul@0"), node("Div", "h six", "hs", "Div@0"),
        node("Conv", "hs w2", "d", "Conv@1"), node("Reshape", "b2 shape", "b2r", "Reshape@0"),
        node("Add", "d b2r", "e", "Add@1"), node("Relu", "e", "r", "Relu@0"),
        node("GlobalAveragePool", "r", "p", "Pool@0"), node("Flatten", "p", "q", "Flatten@0"),
        node("MatMul", "q f", "l", "MatMul@0"), node("Add", "l g", "z", "Add@2"),
        node("Softmax", "z", "y", "Softmax@0", axis=1),
    ]  # fmt: skip
    return graph(nodes, {}, {"x": [-1, 3, 8, 8]}, opset=11), {"x": draw(40, 3, 8, 8)}


def odd_names() -> tuple[ModelProto, Arrays]:
    """Names with slashes, dots, every quote, and none at all."""
    held = {"a/w.0": draw(8, 6), "b'\"`": draw(6), "w2": draw(6, 6), "w3": draw(6, 4)}
    nodes = [
        node("MatMul", "x a/w.0", "/enc/m.0", "/enc.0/fc/MatMul"),
        node("Add", "/enc/m.0 b'\"`", "/enc/m.1", "/enc.0/fc/Add"),
        node("Relu", "/enc/m.1", "r"),
        node("Gemm", "r w2", "g", 'it\'s "odd" `${x}`'),
        node("Tanh", "g", "t", "a.b/c"),
        node("MatMul", "t w3", "y"),
    ]
    return graph(nodes, held, {"x": ["batch", 8]}), {"x": draw(40, 8)}


def several_inputs() -> tuple[ModelProto, Arrays]:
    """Two inputs, one of integers, two outputs, and no shape of the second input."""
    held = {"table": draw(20, 6), "w": draw(6, 5), "b": draw(5), "v": draw(3, 5)}
    nodes = [
        node("Gather", "table ids", "e", "lookup"), node("ReduceMean", "e", "p", "mean", axes=[1], keepdims=0),
        node("Gemm", "p w b", "h", "hidden"), node("Gemm", "x v", "u", "beside"),
        node("Shape", "h", "size", "size"), node("Expand", "u size", "u2", "expand"),
        node("Add", "h u2", "aux", "sum"), node("Sigmoid", "aux", "y", "gate"),
    ]  # fmt: skip
    model = graph(nodes, held, {"ids": ["n", "t"], "x": None}, ("aux", "y"), types={"ids": INT64})
    ids = np.random.default_rng(3).integers(0, 20, (40, 7))
    return model, {"x": draw(40, 3), "ids": ids}


def bodies() -> tuple[ModelProto, Arrays]:
    """A branch on what a sample holds, and a loop, each with a graph of its own."""

    def branch(scale: float) -> onnx.GraphProto:
        one = onnx.numpy_helper.from_array(np.float32(scale), f"by{scale}")
        out = helper.make_tensor_value_info("o", FLOAT, None)
        return helper.make_graph([node("Mul", f"h by{scale}", "o")], "branch", [], [out], [one])

    step = helper.make_graph(
        [node("Identity", "keep_in", "keep"), node("MatMul", "s_in w2", "s_out")], "body",
        [helper.make_tensor_value_info("i", INT64, []),
         helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s_in", FLOAT, None)],
        [helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s_out", FLOAT, None)],
    )  # fmt: skip
    nodes = [
        node("MatMul", "x w", "h", "in"), node("ReduceSum", "h", "total", "total", keepdims=0),
        node("Greater", "total zero", "positive", "positive"),
        helper.make_node("If", ["positive"], ["b"], "choose", then_branch=branch(0.5),
                         else_branch=branch(0.25)),
        helper.make_node("Loop", ["twice", "yes", "b"], ["l"], "repeat", body=step),
        node("MatMul", "l w3", "y", "out"),
    ]  # fmt: skip
    held = {"w": draw(8, 6), "w2": draw(6, 6, scale=0.4), "w3": draw(6, 4), "zero": np.float32(0),
            "twice": np.array(2), "yes": np.array(True)}  # fmt: skip
    return graph(nodes, held, {"x": ["n", 8]}), {"x": draw(40, 8)}


def shared_weights() -> tuple[ModelProto, Arrays]:
    """One weight read by two products, and the table of a look-up that is a product's weight too."""
    held = {"w": draw(6, 6, scale=0.5), "table": draw(10, 6), "perm": np.array([0])}
    nodes = [
        node("Gather", "table ids", "e", "lookup"), node("MatMul", "e w", "a", "first"),
        node("Relu", "a", "r", "act"), node("MatMul", "r w", "b", "second"),
        node("Transpose", "table", "tied", "turn", perm=[1, 0]), node("MatMul", "b tied", "y", "head"),
    ]  # fmt: skip
    ids = np.random.default_rng(3).integers(0, 10, (40, 4))
    return graph(nodes, held, {"ids": ["n", 4]}, types={"ids": INT64}), {"ids": ids}


def norm_left() -> tuple[ModelProto, Arrays]:
    """A batch norm that no convolution can take in, an unshared one, and a residual sum."""
    held = {"w": draw(4, 4, 3, 3, scale=0.3), "b": draw(4), "w2": draw(4, 4, 1, 1),
            **_norm(4, 10), **_norm(4, 20)}  # fmt: skip
    nodes = [
        node("BatchNormalization", "x s10 o10 m10 v10", "n", "first_norm"),
        node("Conv", "n w b", "c", "conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c s20 o20 m20 v20", "d", "second_norm"),
        node("Add", "d n", "s", "residual"), node("Relu", "s", "r", "act"),
        node("Conv", "r w2", "y", "last"),
    ]  # fmt: skip
    return graph(nodes, held, {"x": ["n", 4, 6, 6]}), {"x": draw(40, 4, 6, 6)}


def fixed_batch() -> tuple[ModelProto, Arrays]:
    """A graph that takes one sample at a time, and writes that down in a Reshape."""
    held = {"w": draw(4, 2, 3, 3, scale=0.4), "flat": np.array([1, 64]), "f": draw(64, 3)}
    nodes = [
        node("Conv", "x w", "c", "conv"), node("Relu", "c", "r", "act"),
        node("Reshape", "r flat", "q", "flatten"), node("Gemm", "q f", "y", "head"),
    ]  # fmt: skip
    return graph(nodes, held, {"x": [1, 2, 6, 6]}), {"x": draw(21, 2, 6, 6)}


def recurrent() -> tuple[ModelProto, Arrays]:
    """An LSTM over steps that lie along the first axis inside, and a norm that is made of parts."""
    held = {"w": draw(1, 24, 5, scale=0.4), "r": draw(1, 24, 6, scale=0.4), "b": draw(1, 48, scale=0.2),
            "two": np.float32(2), "eps": np.float32(1e-5), "g": 1 + draw(6, scale=0.1), "h": draw(6),
            "f": draw(6, 3), "at": np.array(-1)}  # fmt: skip
    nodes = [
        node("Transpose", "x", "t", "turn", perm=[1, 0, 2]),
        node("LSTM", "t w r b", "- hn", "lstm", hidden_size=6),
        node("Squeeze", "hn", "s", "squeeze"),
        node("ReduceMean", "s", "mean", "norm/mean", axes=[-1]), node("Sub", "s mean", "d", "norm/sub"),
        node("Pow", "d two", "sq", "norm/pow"), node("ReduceMean", "sq", "var", "norm/var", axes=[-1]),
        node("Add", "var eps", "ve", "norm/eps"), node("Sqrt", "ve", "sd", "norm/sqrt"),
        node("Div", "d sd", "q", "norm/div"), node("Mul", "q g", "qg", "norm/mul"),
        node("Add", "qg h", "z", "norm/add"), node("MatMul", "z f", "y", "head"),
    ]  # fmt: skip
    nodes[1].output[0] = ""
    return graph(nodes, held, {"x": ["n", 7, 5]}), {"x": draw(40, 7, 5)}


def _convolution(
    given: str, made: str, weights: dict[str, NDArray[Any]], inside: int, outside: int, kernel: int = 3,
    **attributes: Any,
) -> list[NodeProto]:  # fmt: skip
    """A convolution that keeps the size, with a ReLU behind it."""
    weight = f"{made}_w"
    scale = (2 / (inside * kernel**2)) ** 0.5
    weights[weight] = draw(outside, inside, kernel, kernel, seed=len(weights), scale=scale)
    pads = [kernel // 2] * 4
    return [node("Conv", f"{given} {weight}", f"{made}_c", made, pads=pads, **attributes),
            node("Relu", f"{made}_c", made, f"{made}_relu")]  # fmt: skip


def residual(blocks: int = 6, width: int = 12, size: int = 16) -> tuple[ModelProto, Arrays]:
    """A residual network of `blocks` blocks at one size."""
    held: dict[str, NDArray[Any]] = {"f": draw(width, 4)}
    nodes = _convolution("x", "stem", held, 3, width)
    last = "stem"
    for i in range(blocks):
        nodes += _convolution(last, f"b{i}", held, width, width)
        held[f"b{i}_v"] = draw(width, width, 3, 3, seed=50 + i, scale=0.05)
        nodes += [node("Conv", f"b{i} b{i}_v", f"b{i}_d", f"b{i}_second", pads=[1] * 4),
                  node("Add", f"{last} b{i}_d", f"b{i}_s", f"b{i}_add")]  # fmt: skip
        last = f"b{i}_s"
    nodes += [node("GlobalAveragePool", last, "p", "pool"), node("Flatten", "p", "q", "flatten"),
              node("Gemm", "q f", "y", "head")]  # fmt: skip
    return graph(nodes, held, {"x": ["n", 3, size, size]}), {"x": draw(40, 3, size, size)}


def u_net(depth: int = 3, width: int = 8, size: int = 32) -> tuple[ModelProto, Arrays]:
    """A U-Net: every level of the way down is read again on the way up."""
    held: dict[str, NDArray[Any]] = {"twice": np.array([1, 1, 2, 2], np.float32)}
    nodes, last = _convolution("x", "in", held, 1, width), "in"
    wide = [width * 2**i for i in range(depth + 1)]
    for i in range(depth):
        nodes += [
            node("MaxPool", f"{last}", f"down{i}", f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
        ]
        nodes += _convolution(f"down{i}", f"enc{i}", held, wide[i], wide[i + 1])
        last = f"enc{i}"
    for i in reversed(range(depth)):
        beside = f"enc{i - 1}" if i else "in"
        nodes += [node("Resize", f"{last} - twice", f"up{i}", f"resize{i}", mode="nearest"),
                  node("Concat", f"up{i} {beside}", f"cat{i}", f"concat{i}", axis=1)]  # fmt: skip
        nodes += _convolution(f"cat{i}", f"dec{i}", held, wide[i + 1] + wide[i], wide[i])
        last = f"dec{i}"
    held["o"] = draw(1, width, 1, 1)
    nodes.append(node("Conv", f"{last} o", "y", "out"))
    return graph(nodes, held, {"x": ["n", 1, size, size]}), {"x": draw(40, 1, size, size)}


def unlike_products() -> tuple[ModelProto, Arrays]:
    """Products whose weights alone are integers: a transposed convolution, an einsum of a weight, a
    GRU and an RNN; and one whose weight comes with the sample.
    """
    held = {"t": draw(3, 4, 2, 2, scale=0.4), "tb": draw(4), "e": draw(4, 6, scale=0.4),
            "gw": draw(1, 15, 6, scale=0.4), "gr": draw(1, 15, 5, scale=0.4),
            "rw": draw(1, 4, 5, scale=0.4), "rr": draw(1, 4, 4, scale=0.4),
            "rows": np.array([0, -1, 4]), "first": np.array([0])}  # fmt: skip
    nodes = [
        node("ConvTranspose", "x t tb", "u", "up", strides=[2, 2]),
        node("Reshape", "u rows", "s", "rows"),
        node("Einsum", "s e", "m", "mix", equation="ntc,cd->ntd"),
        node("Transpose", "m", "mt", "turn", perm=[1, 0, 2]),
        node("GRU", "mt gw gr", "gy", "gru", hidden_size=5),
        node("Squeeze", "gy one", "gs", "squeeze"),
        node("RNN", "gs rw rr", "ry rh", "rnn", hidden_size=4),
        node("Squeeze", "rh first", "q", "last"), node("Unsqueeze", "q one", "row", "unsqueeze"),
        node("MatMul", "row w", "z", "own"), node("Squeeze", "z one", "y", "out"),
    ]  # fmt: skip
    held["one"] = np.array([1])
    model = graph(nodes, held, {"x": ["n", 3, 3, 3], "w": ["n", 4, 2]})
    return model, {"x": draw(40, 3, 3, 3), "w": draw(40, 4, 2, seed=9)}


def tables(columns: bool = False) -> tuple[ModelProto, Arrays]:
    """Rows of two tables: one whose rows take whole bytes in any format, and one of odd width; of a
    third `columns` are looked up too.
    """
    held = {
        "own": draw(8, 40),
        "odd": draw(8, 6),
        "narrow": draw(46, 8, scale=0.2),
        "w": draw(8, 3),
    }
    nodes = [
        node("Gather", "own ids", "a", "own"), node("Gather", "odd ids", "b", "odd"),
        node("Concat", "a b", "d", "concat", axis=-1), node("MatMul", "d narrow", "e", "narrow"),
        node("Tanh", "e", "g", "tanh"),
        node("ReduceMean", "g", "h", "mean", axes=[1], keepdims=0), node("MatMul", "h w", "y", "head"),
    ]  # fmt: skip
    if columns:
        held |= {"both": draw(8, 8)}
        nodes[4:5] = [
            node("Gather", "both ids", "c", "rows"), node("Gather", "both ids", "t", "columns", axis=1),
            node("Transpose", "t", "u", "turn", perm=[1, 2, 0]), node("Add", "c u", "v", "sum"),
            node("Add", "e v", "x", "beside"), node("Tanh", "x", "g", "tanh"),
        ]  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 8, (40, 5))
    return graph(nodes, held, {"ids": ["n", 5]}, types={"ids": INT64}), {"ids": ids}


GRAPHS: Mapping[str, Callable[[], tuple[ModelProto, Arrays]]] = {
    make.__name__: make
    for make in (opset_11, odd_names, several_inputs, bodies, shared_weights, norm_left, fixed_batch,
                 recurrent, residual, u_net, unlike_products, tables)
}  # fmt: skip
