"""The layers of a model, found by running it: once on one sample, and where that leaves modules
out, on batches that reach them.

Module hooks say which module is running and a torch-function mode sees every operation, so
that parameters, multiply-accumulates, shapes and the data flow between layers are counted from
what was executed and not from what was declared.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import nn

from core.errors import ModelError
from core.layers import ROOT, Edge, Fused, Layer, LayerTable, State, TensorSpec
from core.numerics import kernel_table
from core.numerics.states import PACKS, with_groups
from core.source.batches import (
    SEED,
    call,
    count,
    failed,
    fixed_random_state,
    fused_attention_off,
    read_output,
    state_kept,
    take,
)
from core.source.contract import ModelSource
from core.source.fusion import contracted, folded_norms
from core.source.held import held_tensors
from core.source.observer import HEAVY, JOIN, Observer
from core.source.ownership import owners
from core.source.reach import batches_that_reach
from core.source.roles import DROPOUTS, RECURRENTS, check_roles, role_of


def _runs(module: nn.Module, role: str, operations: Mapping[str, int], *, owns_any: bool) -> str:
    """What `module` runs, as a row of the table of kernels; `owns_any`: it stores tensors."""
    runs = kernel_table.runs_of(role, operations)
    if isinstance(module, DROPOUTS):
        runs = "dropout"
    elif kernel_table.MOVES.issuperset(operations) and not owns_any:
        runs = "moves"
    elif _has_operator(module):
        runs = "lstm" if isinstance(module, nn.LSTM) else "recurrent"
    elif isinstance(module, RECURRENTS):
        runs = "unrolled"
    return runs


def _has_operator(module: nn.Module) -> bool:
    """Whether it is recurrent and one operator of ONNX, which has no LSTM with a projection."""
    return isinstance(module, nn.GRU) or (isinstance(module, nn.LSTM) and not module.proj_size)


def _activation_scales(
    state: State, role: str, operations: Mapping[str, int], *, outputs: bool
) -> int:
    """Activations that are rounded, of products the results too with `outputs`."""
    if state == "rounds output" or role == "pooling":
        return int(outputs)
    if state in ("stores", "float"):
        return 0
    per_call = {"linear": 1, "conv": 1 + outputs, "matmul": 2}
    # Counted as products too.
    in_float = {"einsum_weight": 1, "conv_transpose": 1 + outputs, "einsum": 2}
    for name, activations in in_float.items():
        if kernel_table.operation_state(kernel_table.DEFAULT, name) != "computes":
            per_call[name] = -activations
    return sum(per_call.get(kind, 0) * count for kind, count in operations.items())


def take_inventory(
    source: ModelSource, *, expand_units: bool = False, functions: Collection[str] = ()
) -> LayerTable:
    """Run `source.model` on one calibration sample and return its layers in execution order.

    Where that sample leaves modules out, batches of the calibration split that reach them are
    run, and what is counted is a mean over those. With `expand_units` the declared units are
    taken apart. A container that runs one of `functions` on activations is a layer
    (`Scheme.functions` are those that a scheme rounds). Does not change the model. Raises
    `ModelError` if the forward pass fails.
    """
    check_roles(source.roles)
    inputs = source.calibration.inputs
    first = found = _observed(source, slice(0, 1), expand_units, functions)
    missing = first.unreached()
    some: set[str] = set()
    for part, _ in batches_that_reach(source.model, inputs, missing) if missing else ():
        other = _observed(source, part, expand_units, functions)
        if found is first and first.seen.keys() <= other.seen.keys():
            some |= other.seen.keys() - first.seen.keys()
            found = other
        else:
            some.update(found.add(other))
    if found.outside and count(inputs) > 1:
        # What an operation hands over unseen, as torch.vmap does, differs from sample to sample.
        other = _observed(source, slice(1, 2), expand_units, functions)
        found.outside = {
            key: tensor
            for key, tensor in found.outside.items()
            if any(torch.equal(tensor, one) for one in other.outside.values())
        }
    return _table(source, found, some)


def _observed(
    source: ModelSource, part: slice, expand_units: bool, functions: Collection[str]
) -> Observer:
    """A pass of the calibration samples of `part`, counted for one of them."""
    model = source.model
    observer = Observer(model, owners(model, source.units, expand_units), functions)
    given = observer.feed(take(source.calibration.inputs, part.start, part.stop))
    with fixed_random_state(SEED), fused_attention_off(), state_kept(model):
        try:
            with torch.inference_mode(False), torch.no_grad(), observer.stack.installed(), observer:
                returned = call(model, given)
                observer.links.returned(returned)
                with suppress(ModelError):  # said in full where outputs are read
                    observer.links.returned(read_output(returned, source.output))
        except Exception as error:
            one = part.stop == part.start + 1
            how = "one calibration sample" if one else "calibration samples"
            raise failed(
                error, f"on {how}", f"calibration[{part.start or ''}:{part.stop}]"
            ) from error
    observer.fused = observer.links.fused(observer.owner)
    observer.share_among(count(given))
    return observer


def _table(source: ModelSource, observer: Observer, some: Collection[str]) -> LayerTable:
    model, owner = source.model, observer.owner
    owned: dict[str, list[TensorSpec]] = {}
    params: dict[str, int] = {}
    parts: dict[str, list[str]] = {}
    glue_tensors: list[TensorSpec] = []
    unread: list[TensorSpec] = []
    first_name: dict[int, str] = {}
    fused = observer.fused
    folded = folded_norms(fused)
    held = held_tensors(model)
    named = held | {
        f"(constant {k})": tensor
        for k, tensor in enumerate(observer.outside.values())
        if not any(tensor is one for one in held.values())
    }
    for full_name, tensor in named.items():
        first_name.setdefault(id(tensor), full_name)  # a tied weight is met under each name
    for full_name, tensor in named.items():
        is_parameter = isinstance(tensor, nn.Parameter)
        is_read = id(tensor) in observer.read or id(tensor) in observer.outside
        if first_name[id(tensor)] != full_name or not (is_read or is_parameter):
            continue
        path = full_name.rpartition(".")[0]
        if path in folded:  # its values are in the weight and bias of another layer
            own = tensor.numel() if is_parameter else 0
            params[path] = params.get(path, 0) + own
            parts[path] = [path]
            continue
        kind, channels, operation, axis = observer.kinds.get(id(tensor), ("float", 1, -1, 0))
        weight = first_name.get(observer.weight_of.get(id(tensor), 0), "")
        name = owner.get(path)
        if name is None or name not in observer.seen:
            name = observer.reader.get(id(tensor))
        if tensor.is_complex():
            kind, channels, operation, axis = "complex", 1, -1, 0
        if kind == "bias" and name and _has_operator(model.get_submodule(name)):
            kind, weight = "float", ""
        width = 0 if tensor.dtype == torch.float32 else 8 * tensor.element_size()
        grids = observer.grids.get(id(tensor), 0) if kind == "bias" else 0
        spec = TensorSpec(
            full_name, tuple(tensor.shape), kind, channels, operation, weight, axis, width, grids
        )
        if is_read and name is not None:
            owned.setdefault(name, []).append(spec)
        elif is_read:
            glue_tensors.append(spec)
        else:
            unread.append(spec)
        if name is None:
            continue
        if is_parameter:
            params[name] = params.get(name, 0) + tensor.numel()
        if path not in parts.setdefault(name, []):
            parts[name].append(path)
    for layer, one in ((x, f) for x, of in fused.items() for f in of if f.batch_norm):
        _add_bias(owned[layer], one, model, held)
    in_float = {first_name[k] for k in observer.multiplied_in_float if k in first_name}
    apart = in_float | {first_name[k] for k in observer.read_otherwise & observer.tables.keys()}
    tables = {
        spec.name
        for specs in owned.values()
        for spec in with_groups(specs, "embedding", apart)
        if spec.kind == "table" and spec.group_axis >= 0
    }
    in_groups = observer.in_groups.union(
        *(names for key, names in observer.tables.items() if first_name.get(key) in tables)
    )
    layers: list[Layer] = []
    for name, seen in sorted(observer.seen.items(), key=lambda item: item[1].order):
        module = model.get_submodule(name)
        if not seen.operations and not params.get(name) and not isinstance(module, DROPOUTS):
            continue  # nn.Identity and empty containers decide nothing
        is_glue = name in observer.containers and not set(HEAVY) & set(seen.operations)
        role = source.roles.get(name) or (
            "glue"
            if is_glue
            else role_of(
                name,
                module,
                is_unit=next(module.children(), None) is not None,
                is_last_product=name == observer.last_product,
            )
        )
        runs = _runs(module, role, seen.operations, owns_any=name in owned)
        if kernel_table.is_complex(owned.get(name, ()), seen.operations):
            runs = "complex"
        what = runs, type(module).__name__
        dynamic = kernel_table.is_dynamic(kernel_table.DEFAULT, *what)
        state = "nothing" if name in folded else kernel_table.state(kernel_table.DEFAULT, *what)
        layers.append(
            Layer(
                name=name or ROOT,
                role=role,
                kind=type(module).__name__,
                state=state,
                params=params.get(name, 0),
                macs=seen.macs,
                input_shape=seen.input_shape,
                output_shape=seen.output_shape,
                parts=tuple(parts.get(name, ())),
                operations=tuple(sorted(seen.operations.items())),
                tensors=with_groups(
                    [_unless_added_in_float(x, state, in_float) for x in owned.get(name, ())],
                    runs,
                    apart,
                ),
                activation_scales=0
                if dynamic
                else _activation_scales(state, role, seen.operations, outputs=True),
                product_scales=0
                if dynamic
                else _activation_scales(state, role, seen.operations, outputs=False),
                dynamic=dynamic,
                quantizes_output=role == "pooling"
                or state == "rounds output"
                or (
                    state == "computes"
                    and "conv" in seen.operations
                    and "linear" not in seen.operations
                ),
                input_elements=seen.input_elements,
                output_elements=seen.output_elements,
                folded_into=folded.get(name, "") or (ROOT if name in folded else ""),
                fused=fused.get(name, ()),
                in_groups=name in in_groups and runs in PACKS,
            )
        )
    index = {"" if layer.name == ROOT else layer.name: i for i, layer in enumerate(layers)}
    nodes = index | {JOIN % k: len(layers) + k for k in range(observer.joins)}
    edges = tuple(
        Edge(nodes[a], nodes[b], n)
        for (a, b), n in sorted(contracted(observer.flows, folded).items())
        if a in nodes and b in nodes
    )
    leaves = (n for n, m in model.named_modules() if next(m.children(), None) is None)
    uncalled = tuple(n or ROOT for n in leaves if (owner.get(n) or n) not in observer.seen)
    glue = tuple(sorted(observer.glue - observer.containers))
    return LayerTable(
        tuple(layers), edges, glue, tuple(glue_tensors), uncalled, observer.joins,
        groups_of(source, {layer.name: i for i, layer in enumerate(layers)}),
        tuple(name or ROOT for name in index if name in some), tuple(unread), holds_all=True,
    )  # fmt: skip


def _unless_added_in_float(
    spec: TensorSpec, state: State, in_float: Collection[str]
) -> TensorSpec:  # fmt: skip
    """A bias is added in float where the product is one of floats: of a layer that stores alone, or
    of one of the weights `in_float`.
    """
    is_float = state == "stores" or spec.weight in in_float
    return replace(spec, kind="float", grids=0) if spec.kind == "bias" and is_float else spec


def _add_bias(
    tensors: list[TensorSpec], fused: Fused, model: nn.Module, names: Collection[str]
) -> None:
    """Add the bias that a folded batch norm gives a product without one. Mutates `tensors`.

    `names` are those of the model's own tensors.
    """
    if any(spec.kind == "bias" and spec.weight == fused.weight for spec in tensors):
        return
    place = next(i for i, spec in enumerate(tensors) if spec.name == fused.weight)
    name = f"{fused.weight.rpartition('.')[0]}.bias".lstrip(".")
    if name in names:
        name = f"{fused.weight}_bias"
    shape = tuple(model.get_submodule(fused.batch_norm).get_buffer("running_mean").shape)
    operation = tensors[place].operation
    bias = TensorSpec(
        name, shape, "bias", operation=operation, weight=fused.weight, grids=math.prod(shape)
    )
    tensors.insert(place + 1, bias)


def groups_of(source: ModelSource, index: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """Positions of the layers that each of the source's groups names."""
    taken: set[str] = set()
    for name in (name for group in source.groups for name in group):
        if name not in index:
            raise ModelError(
                f"The source's 'groups' names {name!r}, which is no layer of the model.",
                f"Layers are: {', '.join(list(index)[:8])} ...",
            )
        if name in taken:
            raise ModelError(
                f"The source's 'groups' names {name!r} twice.",
                "A layer is in one group at most; join groups that share a layer.",
            )
        taken.add(name)
    return tuple(tuple(sorted(index[name] for name in group)) for group in source.groups)
