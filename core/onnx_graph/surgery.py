"""Chosen nodes of an ONNX graph in INT8 and FP16, by ONNX Runtime's own tools, and in INT8-dynamic.

ONNX Runtime's quantizer works by tensor: every reader of a quantized tensor gets the rounded
copy, chosen or not. Here the operand of a chosen node is first given a name of its own, so that
only the nodes that are to read integers do; outputs, which all their readers see rounded, are
quantized in place. Its converter to FP16 blocks nodes by name; between two blocked nodes it leaves
a pair of casts that rounds a tensor that nobody asked to round, and a constant that both sides
read it rounds for both; both are put right here.

Exported scripts hold this text as it stands: it needs onnx, onnxruntime and numpy alone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quant_utils import add_infer_metadata
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CLIPS = ("Relu", "Clip")
ROUNDERS = ("QuantizeLinear", "DequantizeLinear")
MARK, HALF = "__quantscape", "__half"
"""What is added to the names of copies."""

LIMIT = 127
"""The largest integer of a symmetric weight."""

Span = tuple[float, float]
"""Least and largest value of a tensor."""


@dataclass(frozen=True)
class Grids:
    """How integers are done. Activations are affine and unsigned, or `symmetric` and signed;
    weights symmetric, `per_channel` or per tensor; biases in int32, or in float. The output of
    products of the types `rounded` is rounded too.
    """

    symmetric: bool
    per_channel: bool
    integer_bias: bool
    rounded: Collection[str]


class Marks:
    """What is to be quantized in a copy of a float32 `model`, gathered node by node.

    `nodes` are names of nodes, `rounded` tensors that all their readers see rounded, `operands`
    (node, input, range) that the node alone reads rounded.
    """

    def __init__(self, model: onnx.ModelProto, grids: Grids) -> None:
        self.model = copied(model)
        self.grids = grids
        self.node = {node.name: node for node in self.model.graph.node}
        self.constants = {constant.name for constant in self.model.graph.initializer}
        self.readers = readers(self.model)
        self.outputs = {value.name for value in self.model.graph.output}
        self.nodes: list[str] = []
        self.rounded: dict[str, Span] = {}
        self.operands: list[tuple[NodeProto, int, Span]] = []

    def slots(self, node: NodeProto) -> list[int]:
        """Which inputs of a product are activations."""
        return [i for i, given in enumerate(node.input[:2]) if given not in self.constants]

    def clip_behind(self, node: NodeProto) -> NodeProto | None:
        """The activation that becomes the end of a product's kernel, because it only clips and
        alone reads it: what lies beyond the grid is clipped anyway.
        """
        behind = self.readers.get(node.output[0], [])
        if node.op_type not in self.grids.rounded or node.output[0] in self.outputs:
            return None
        return behind[0] if len(behind) == 1 and behind[0].op_type in CLIPS else None

    def product(self, node: NodeProto, spans: Sequence[Span], output: Span | None) -> None:
        """A product on integers, with the ranges of its activations and of what it gives: that of
        the activation at the end of its kernel, if there is one; None leaves it in float.
        """
        self.nodes.append(node.name)
        self.operands += [
            (node, slot, span) for slot, span in zip(self.slots(node), spans, strict=True)
        ]
        if node.op_type not in self.grids.rounded or output is None:
            return
        self.round(node.output[0], output)
        clip = self.clip_behind(node)
        if clip is not None:
            self.nodes.append(clip.name)
            self.round(clip.output[0], output)

    def round(self, tensor: str, span: Span) -> None:
        """A tensor that all its readers see rounded."""
        self.rounded.setdefault(tensor, span)


def readers(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor -> the nodes that read it, loops and branches whose bodies do too."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for given in (*node.input, *read_inside(node)):
            found.setdefault(given, []).append(node)
    return found


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def replace_nodes(model: onnx.ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Give `model` these nodes and no others."""
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def quantized(marks: Marks) -> onnx.ModelProto:
    """The model with Q and DQ around what is marked. Uses up `marks`."""
    model, grids, rounded = marks.model, marks.grids, marks.rounded
    if not marks.nodes and not rounded:
        return model
    floats = [op for op in PRODUCTS if op not in grids.rounded]
    nodes = marks.nodes + [
        node.name for node in model.graph.node
        if node.op_type == "MaxPool" and node.input[0] in rounded
        and rounded[node.input[0]] == rounded.get(node.output[0])
    ]  # fmt: skip
    # The largest of rounded values is the rounded largest: on one grid the kernel takes integers.
    part_activations([marks.node[n] for n in nodes if marks.node[n].op_type in floats], marks)
    spans = {**rounded, **own_operands(marks)}
    own_constants(model, nodes, MARK)
    known = {value.name for value in (*model.graph.value_info, *model.graph.input)} | marks.outputs
    floating = {*spans, *(marks.node[name].output[0] for name in nodes)}
    model.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)
        for tensor in sorted(floating - known)
    )
    add_infer_metadata(model)  # the quantizer would look for types itself
    quantizer = QDQQuantizer(
        model, grids.per_channel, False, QuantType.QInt8,
        QuantType.QInt8 if grids.symmetric else QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax,
                    {t: (np.float32(low), np.float32(high)) for t, (low, high) in spans.items()}),
        nodes or [""], [], sorted({marks.node[name].op_type for name in nodes}),
        {
            "OpTypesToExcludeOutputQuantization": floats,
            "ActivationSymmetric": grids.symmetric,
            "QuantizeBias": grids.integer_bias,
        },
    )  # fmt: skip
    for tensor in rounded:
        reader = marks.readers.get(tensor, [])
        if not (reader and reader[0].name in nodes and reader[0].op_type in CLIPS):
            quantizer.quantize_activation_tensor(tensor)
    made: onnx.ModelProto = quantizer.quantize_model()
    drop_aliases(made)
    if grids.integer_bias:
        round_added_biases(made, nodes)
    part_readers(made, [n for n in made.graph.node if n.name in nodes and n.op_type in floats])
    ONNXModel(made).topological_sort()
    return made


def part_activations(products: Sequence[NodeProto], marks: Marks) -> None:
    """ONNX Runtime takes no Gemm for its integer kernel whose float result goes straight into
    a Relu; max(x, 0) is the same and does not disturb it.
    """
    zero = f"zero{MARK}"
    parted = [
        reader
        for node in products
        for reader in marks.readers.get(node.output[0], [])
        if reader.op_type == "Relu" and reader.output[0] not in marks.rounded
    ]
    for reader in parted:
        reader.op_type = "Max"
        reader.input.append(zero)
    if parted:
        constant = onnx.numpy_helper.from_array(np.zeros((), np.float32), zero)
        marks.model.graph.initializer.append(constant)


def part_readers(model: onnx.ModelProto, products: Sequence[NodeProto]) -> None:
    """ONNX Runtime takes no product for its integer kernel whose float result is rounded for one
    reader and not for another; the Max of one value is that value and does not disturb it.
    """
    read_by = readers(model)
    outputs = {value.name for value in model.graph.output}
    for node in products:
        tensor = node.output[0]
        behind = read_by.get(tensor, [])
        # A clip in front of QuantizeLinear goes before integers are looked for.
        is_rounded = any(reader.op_type in ("QuantizeLinear", *CLIPS) for reader in behind)
        if is_rounded and (len(behind) > 1 or tensor in outputs):
            node.output[0] = f"{tensor}{MARK}_float"
            copy = onnx.helper.make_node("Max", [node.output[0]], [tensor], node.output[0])
            copy.metadata_props.extend(node.metadata_props)
            model.graph.node.append(copy)


def own_operands(marks: Marks) -> dict[str, Span]:
    """Give the operands of chosen nodes names of their own, shared where grids are equal: the
    range of each.
    """
    aliases: dict[tuple[str, Span], str] = {}
    for node, slot, span in marks.operands:
        tensor = node.input[slot]
        if marks.rounded.get(tensor) == span:
            continue  # it is rounded on that grid for all its readers
        if (tensor, span) not in aliases:
            alias = aliases[tensor, span] = f"{tensor}{MARK}_{len(aliases)}"
            copy = onnx.helper.make_node("Identity", [tensor], [alias], f"{alias}_copy")
            marks.model.graph.node.append(copy)
        node.input[slot] = aliases[tensor, span]
    return {alias: span for (_, span), alias in aliases.items()}


def own_constants(model: onnx.ModelProto, chosen: Collection[str], mark: str) -> None:
    """The nodes `chosen` get copies of the float constants that others read too."""
    read_by = readers(model)
    for constant in list(model.graph.initializer):
        reading = read_by.get(constant.name, [])
        if (
            constant.data_type != TensorProto.FLOAT
            or len({node.name in chosen for node in reading}) < 2
        ):
            continue
        copy = model.graph.initializer.add()
        copy.CopyFrom(constant)
        copy.name = f"{constant.name}{mark}"
        for node in reading:
            if node.name in chosen:
                rename_inputs(node, {constant.name: copy.name})


def rename_inputs(node: NodeProto, names: dict[str, str]) -> None:
    """Let `node` read other tensors: old name -> new name."""
    for slot, given in enumerate(node.input):
        node.input[slot] = names.get(given, given)


def drop_aliases(model: onnx.ModelProto) -> None:
    """The quantizer reads from the tensors themselves again."""
    source = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and MARK in node.output[0]
    }
    kept = [n for n in model.graph.node if not n.output or n.output[0] not in source]
    for node in kept:
        rename_inputs(node, source)
    replace_nodes(model, kept)


def round_added_biases(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Round the bias that follows a MatMul as every other bias is: to multiples of s_x * s_w.
    ONNX Runtime adds it in float, so that one which several products read stays as it is.
    """
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    made = {tensor: node for node in model.graph.node for tensor in node.output}
    read_by = readers(model)
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.name not in chosen:
            continue
        behind = read_by.get(node.output[0], [])
        sources = [made[given] for given in node.input if given in made]
        if len(behind) != 1 or behind[0].op_type != "Add" or len(sources) != 2:
            continue
        slot = 1 if behind[0].input[0] == node.output[0] else 0
        name = behind[0].input[slot]
        scales = [
            constants[source.input[1]]
            for source in sources
            if source.op_type == "DequantizeLinear" and source.input[1] in constants
        ]
        if sources[1].input[0] not in constants or name not in constants or len(scales) != 2:
            continue
        bias = constants[name]
        step = scales[0].astype(np.float64) * scales[1].astype(np.float64)
        if bias.ndim != 1 or step.size not in {1, bias.size} or len(read_by[name]) > 1:
            continue
        rounded = (np.round(bias.astype(np.float64) / step) * step).astype(np.float32)
        fresh = onnx.numpy_helper.from_array(rounded, f"{name}{MARK}")
        del model.graph.initializer[[c.name for c in model.graph.initializer].index(name)]
        model.graph.initializer.append(fresh)
        behind[0].input[slot] = fresh.name


def halved(model: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """A copy of `model` in which the nodes `chosen` compute in float16, with casts where formats
    meet. Q and DQ keep float32.
    """
    given = copied(model)
    kept = {*ROUNDERS, *DEFAULT_OP_BLOCK_LIST}
    blocked = [
        node.name
        for node in given.graph.node
        if node.op_type in kept
        or node.name not in chosen
        or parts_of(node)
        or "Sequence" in node.op_type
    ]
    if len(blocked) == len(given.graph.node):
        return given
    own_constants(given, {n.name for n in given.graph.node} - set(blocked), HALF)
    given = onnx.shape_inference.infer_shapes(given)
    constants = {constant.name for constant in given.graph.initializer}
    types = [
        value
        for value in given.graph.value_info
        if value.name not in constants and value.type.HasField("tensor_type")
    ]
    # Of a constant it would make a cast before every blocked reader, and it casts lists of tensors.
    del given.graph.value_info[:]
    given.graph.value_info.extend(types)
    converted: onnx.ModelProto = convert_float_to_float16(
        given, keep_io_types=True, node_block_list=blocked, disable_shape_infer=True
    )
    drop_pairs(converted)
    feed_bodies(converted, given, chosen)
    ONNXModel(converted).topological_sort()
    return converted


def parts_of(node: NodeProto) -> list[onnx.GraphProto]:
    """The bodies of a loop or branch."""
    own = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return own + [part for one in own for inner in one.node for part in parts_of(inner)]


def read_inside(node: NodeProto) -> set[str]:
    """What the bodies of a loop or branch read, from outside too."""
    return {given for part in parts_of(node) for inner in part.node for given in inner.input}


def feed_bodies(model: onnx.ModelProto, before: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Loops and branches compute in float32, which the converter does not know of what their bodies
    read from outside: that is cast back, and a constant of a node that is not `chosen` is again
    what it was `before`. Mutates `model`.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    plain = {constant.name: constant for constant in before.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {name: constant.data_type for name, constant in constants.items()}
    for loop in list(model.graph.node):
        for tensor in sorted(read_inside(loop)):
            if tensor in plain and loop.name not in chosen:
                constants[tensor].CopyFrom(plain[tensor])
            elif types.get(tensor) == TensorProto.FLOAT16:
                types[tensor] = TensorProto.FLOAT
                half = f"{tensor}{HALF}_outside"
                for node in model.graph.node:
                    rename_inputs(node, {tensor: half})
                    for slot, made in enumerate(node.output):
                        node.output[slot] = half if made == tensor else made
                if tensor in constants:
                    constants[tensor].name = half
                cast = onnx.helper.make_node("Cast", [half], [tensor], half, to=TensorProto.FLOAT)
                cast.metadata_props.extend(loop.metadata_props)
                model.graph.node.append(cast)


def casts(model: onnx.ModelProto, to: int) -> dict[str, NodeProto]:
    """Casts to a type, by what they give."""
    return {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == to for a in node.attribute)
    }


def drop_pairs(model: onnx.ModelProto) -> None:
    """Undo down-and-up casts between two nodes in float32."""
    down, up = casts(model, TensorProto.FLOAT16), casts(model, TensorProto.FLOAT)
    before = {
        name: down[cast.input[0]].input[0] for name, cast in up.items() if cast.input[0] in down
    }
    outputs = {value.name for value in model.graph.output}
    renamed = {source: name for name, source in before.items() if name in outputs}
    for node in model.graph.node:
        rename_inputs(node, before)
        rename_inputs(node, renamed)
        for slot, made in enumerate(node.output):
            if made in renamed and node.op_type != "Cast":
                node.output[slot] = renamed[made]
    nodes = [n for n in model.graph.node if n.op_type != "Cast" or n.output[0] not in before]
    read = {given for node in nodes for given in (*node.input, *read_inside(node))} | outputs
    replace_nodes(model, [n for n in nodes if n.op_type != "Cast" or n.output[0] in read])


def with_ranges_set(
    model: onnx.ModelProto, layers: Mapping[str, Collection[str]]
) -> onnx.ModelProto:
    """A copy of `model` in which MatMul and Gemm called as the `layers` say, whose right operand is a
    constant matrix, quantize what they take in while they run, once in each layer.

    DynamicQuantizeLinear lays a tensor on an unsigned affine grid over its own minimum and maximum
    widened to hold 0, MatMulInteger multiplies integers, and the product of both scales makes floats
    of the sums: what `quantize_dynamic` of onnxruntime writes (quantization/operators/matmul.py), with
    weights as INT8 has them. ONNX Runtime makes one kernel of the nodes, DynamicQuantizeMatMul or
    MatMulIntegerToFloat.
    """
    made = copied(model)
    held = {constant.name: constant for constant in made.graph.initializer}
    layer_of = {name: layer for layer, names in layers.items() for name in names}
    matrices: dict[str, list[str]] = {}
    taken: dict[tuple[str, str], list[str]] = {}

    def matrix(name: str, *, is_rows: bool) -> list[str]:
        """Names of the constant `name` [inputs, outputs] as integers, and of its scales [outputs]."""
        stem = f"{name}{MARK}_dynamic" + ("_rows" if is_rows else "")
        if stem not in matrices:
            values = onnx.numpy_helper.to_array(held[name])
            integers, scales = on_grid(np.asarray(values.T if is_rows else values), (1,))
            parts = {f"{stem}_quantized": integers, f"{stem}_scale": scales.reshape(-1)}
            made.graph.initializer.extend(
                onnx.numpy_helper.from_array(np.ascontiguousarray(part), called)
                for called, part in parts.items()
            )
            matrices[stem] = list(parts)
        return matrices[stem]

    def product(node: NodeProto) -> list[NodeProto]:
        new: list[NodeProto] = []
        stem = f"{node.name}{MARK}"

        def add(
            op: str, inputs: list[str], outputs: list[str], name: str = "", **more: int
        ) -> None:
            one = onnx.helper.make_node(op, inputs, outputs, name or f"{stem}_{len(new)}")
            one.attribute.extend(onnx.helper.make_attribute(n, v) for n, v in more.items())
            one.metadata_props.extend(node.metadata_props)
            new.append(one)

        is_rows = any(a.name == "transB" and a.i for a in node.attribute)
        integers, scales = matrix(node.input[1], is_rows=is_rows)
        key = layer_of[node.name], node.input[0]
        if key not in taken:
            taken[key] = [f"{stem}_{what}" for what in ("taken", "scale", "zero_point")]
            add("DynamicQuantizeLinear", [key[1]], taken[key])
        given, scale, zero_point = taken[key]
        added = node.input[2] if len(node.input) > 2 else ""
        multiplied = f"{stem}_product" if added else node.output[0]
        add("MatMulInteger", [given, integers, zero_point], [f"{stem}_sums"], node.name)
        add("Cast", [f"{stem}_sums"], [f"{stem}_floats"], to=TensorProto.FLOAT)
        add("Mul", [scale, scales], [f"{stem}_scales"])
        add("Mul", [f"{stem}_floats", f"{stem}_scales"], [multiplied])
        if added:
            add("Add", [multiplied, added], [node.output[0]])
        return new

    parts = [product(n) if n.name in layer_of else [n] for n in made.graph.node]
    replace_nodes(made, [one for part in parts for one in part])
    drop_unread(made)
    return made


def on_grid(
    values: npt.NDArray[np.float32], axes: tuple[int, ...]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """`values` as integers, and their scales, an axis of length 1 for each that is not in `axes`."""
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    scales = np.abs(values).max(axis=others, keepdims=True).astype(np.float32) / np.float32(LIMIT)
    scales = np.where(scales > np.finfo(np.float32).tiny, scales, np.float32(1))
    inverse = np.float32(1) / scales  # as PyTorch's fake quantization multiplies
    return np.clip(np.rint(values * inverse), -LIMIT, LIMIT).astype(np.int8), scales


def read_in(graph: onnx.GraphProto) -> set[str]:
    """What `graph` gives and its nodes read, those of loops and branches included."""
    parts = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    inner = [read_in(part) for part in parts]
    own = {given for node in graph.node for given in node.input}
    return own.union({value.name for value in graph.output}, *inner)


def drop_unread(model: onnx.ModelProto) -> None:
    """Leave out constants that no node reads. Mutates `model`."""
    read = read_in(model.graph)
    kept = [constant for constant in model.graph.initializer if constant.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
