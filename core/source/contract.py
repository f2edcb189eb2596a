"""What a source hands over: a model, its data and what is known of its layers.

A source is a function that returns a plain dict, so that a bundled sample and a person's own
file share one road and need not import this package. `model_source` checks the dict once; all
that follows relies on it. The keys are explained in docs/method.md, "Sources".
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import DataError, ModelError
from core.onnx_graph.node_table import SUFFIX
from core.source.batches import Output
from core.source.computed_weights import with_own_weights
from core.source.data import Split, held_back, read_inputs, read_split, without_targets
from core.source.kinds import is_graph
from core.source.plain import plain, without_wrappers
from core.source.trees import named_tensors
from core.task import TASKS

__all__ = ["ModelSource", "Split", "check_weights", "model_source"]

REQUIRED = ("model", "calibration", "task")
OPTIONAL = (
    "evaluation", "holdout", "metric", "metric_name", "higher_is_better", "output", "name",
    "title", "description", "data_description", "class_names", "roles", "units", "groups",
    "reference",
)  # fmt: skip
OF_SAMPLES = ("input_names", "weights_path", "data_path")
"""Keys that bundled samples add for their own use."""
TEXTS = ("name", "title", "description", "data_description", "metric_name")
OF_CUSTOM = ("metric", "metric_name", "higher_is_better")

PAIRS_TO_CALIBRATE = "Calibration was given pairs of inputs and targets: it took the inputs alone."

MetricFunction = Callable[[Any, Any], float]


@dataclass(frozen=True)
class ModelSource:
    """A checked source. `model` is in evaluation mode; splits never overlap.

    `optimistic` marks a source without evaluation data: its selection split is the calibration
    split, without labels. `output` names the part of what the model returns that is judged, or makes it.
    `metric(outputs, targets)` judges a custom task. `notes` say how the model was taken out of
    what the person brought.
    """

    name: str
    title: str
    description: str
    model: nn.Module
    calibration: Split
    selection: Split
    holdout: Split | None
    task: str
    class_names: tuple[str, ...]
    units: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    reference: str = ""
    data_description: str = ""
    output: Output = None
    metric: MetricFunction | None = None
    metric_name: str = ""
    higher_is_better: bool = True
    optimistic: bool = False
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 of the model's class, tensor names, shapes and bytes."""
        digest = hashlib.sha256()
        digest.update(type(self.model).__qualname__.encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            if not isinstance(tensor, torch.Tensor):
                continue  # a module's extra state is no weight
            digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    def data_fingerprint(self) -> str:
        """SHA-256 of the calibration and selection tensors."""
        digest = hashlib.sha256()
        for split in (self.calibration, self.selection):
            for tree in (split.inputs, split.targets):
                for path, tensor in named_tensors(tree):
                    digest.update(f"{path}{tuple(tensor.shape)}".encode())
                    digest.update(tensor_bytes(tensor))
        return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The content of a tensor in the order of its elements."""
    plain = tensor.detach().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def check_weights(model: nn.Module) -> None:
    """Raise `ModelError` naming the first stored tensor that no figure can be computed from."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, nn.UninitializedParameter) or tensor.is_meta:
            raise ModelError(
                f"Weight {name!r} has no values yet.",
                "Load the checkpoint, and run a lazy model once before it is analyzed.",
            )
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        is_parameter = isinstance(tensor, nn.Parameter)
        wanted = torch.complex64 if tensor.is_complex() else torch.float32
        if is_parameter and tensor.dtype != wanted:
            held, right = (str(t).removeprefix("torch.") for t in (tensor.dtype, wanted))
            raise ModelError(
                f"Weight {name!r} is {held}, not {right}.",
                f"{'Store it as complex64' if tensor.is_complex() else 'Call model.float()'}: every "
                "precision is measured against FP32.",
            )
        # A buffer may be a mask of minus infinity.
        bad = ~torch.isfinite(tensor) if is_parameter else tensor.isnan()
        if bool(bad.any()):
            raise ModelError(
                f"Weight {name!r} holds NaN or infinity.",
                "Load an intact checkpoint: no figure can be computed from such weights.",
            )


def model_source(spec: Mapping[str, Any]) -> ModelSource:
    """Check a source's dict and return it as a `ModelSource`.

    Puts the model in evaluation mode and on the CPU. Raises `DataError` or `ModelError` naming
    the key.
    """
    _check_keys(spec)
    given_model = spec["model"]
    if isinstance(given_model, str | Path) and str(given_model).lower().endswith(SUFFIX):
        given_model = _read_graph(Path(given_model))
    model, unwrapped = plain(given_model)
    if unwrapped:
        spec = {**spec, **_renamed(spec, without_wrappers(given_model))}
    _check_texts(model, spec)
    check_weights(model)
    model.eval().to("cpu")
    if not is_graph(model):  # whose units and roles have wildcards
        _check_paths(model, spec)
    brought, given = read_inputs(spec["calibration"], "calibration"), spec.get("evaluation")
    evaluated = None if given is None else read_split(given, "evaluation")
    inputs = taken = without_targets(brought, evaluated.inputs if evaluated else None, model)
    held = None if spec.get("holdout") is None else read_split(spec["holdout"], "holdout")
    output, stored = _output(spec.get("output")), list[str]()
    if is_graph(model):
        inputs = model.by_name(inputs)
        splits = [s and Split(model.by_name(s.inputs), s.targets) for s in (evaluated, held)]
        evaluated, held = splits
        model.learn(inputs)
        output = model.judged(output)
    else:
        model, stored = with_own_weights(model, inputs)
    calibration = Split(inputs)
    selection = evaluated or calibration
    holdout: Split | None = None
    if held is not None:
        holdout = held
    elif given is not None and "holdout" not in spec:
        selection, holdout = held_back(selection)
    name = str(spec.get("name") or "model")
    metric = spec.get("metric")
    return ModelSource(
        name=name,
        title=str(spec.get("title") or name),
        description=str(spec.get("description", "")),
        model=model,
        calibration=calibration,
        selection=selection,
        holdout=holdout,
        task=str(spec["task"]),
        class_names=tuple(str(c) for c in spec.get("class_names", ())),
        units=tuple(spec.get("units", ())),
        roles=dict(spec.get("roles", {})),
        groups=_groups(spec.get("groups", ())),
        reference=str(spec.get("reference", "")).encode("utf-8", "backslashreplace").decode(),
        data_description=str(spec.get("data_description", "")),
        output=output,
        metric=metric,
        metric_name=str(spec.get("metric_name") or getattr(metric, "__name__", "metric")),
        higher_is_better=bool(spec.get("higher_is_better", True)),
        optimistic=given is None,
        notes=(*unwrapped, *stored, *(() if taken is brought else (PAIRS_TO_CALIBRATE,))),
    )


def _read_graph(path: Path) -> nn.Module:
    from core.onnx_graph.read_model import read_model
    from core.source.onnx_model import OnnxModel

    return OnnxModel(read_model(path))


def _check_keys(spec: Mapping[str, Any]) -> None:
    missing = [key for key in REQUIRED if key not in spec]
    if missing:
        raise DataError(
            f"The source gives no {', '.join(repr(m) for m in missing)}.",
            f"Return a dict with the keys {', '.join(REQUIRED)}.",
        )
    known = (*REQUIRED, *OPTIONAL, *OF_SAMPLES)
    unknown = [str(key) for key in spec if key not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"The source gives an unknown key {unknown[0]!r}.",
            f"{hint}Optional keys: {', '.join(OPTIONAL)}.",
        )
    task = spec["task"]
    if task not in TASKS:
        raise DataError(f"Task {task!r} is not supported.", f"Use one of: {', '.join(TASKS)}.")
    if task == "custom":
        if not callable(spec.get("metric")):
            raise DataError(
                "The task 'custom' needs a 'metric'.",
                "Give a function metric(outputs, targets) that returns a number.",
            )
        if not isinstance(spec.get("higher_is_better"), bool):
            raise DataError(
                "The task 'custom' does not say which way its metric points.",
                "Give 'higher_is_better': True or False.",
            )
        return
    given = [key for key in OF_CUSTOM if key in spec]
    if given:
        raise DataError(
            f"The source gives {given[0]!r}, but the task {task!r} has its own metric.",
            "Use the task 'custom', or leave the key out.",
        )


def _check_texts(model: nn.Module, spec: Mapping[str, Any]) -> None:
    """Names have to be text that a file can hold: half of a character is none."""
    given = [(f"The source's {key!r}", str(spec[key])) for key in TEXTS if key in spec]
    given += [("The source's 'class_names'", str(name)) for name in spec.get("class_names", ())]
    given += [(f"The name {name!r} in the model", name) for name, _ in model.named_modules()]
    given += [(f"The name {name!r} in the model", name) for name, _ in model.named_parameters()]
    for what, text in given:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{what} is no text: {error.reason}.", "Give it plain text.") from error


def _check_paths(model: nn.Module, spec: Mapping[str, Any]) -> None:
    modules = {name for name, _ in model.named_modules()}
    for key in ("units", "roles"):
        unknown = [path for path in spec.get(key, ()) if path not in modules]
        if unknown:
            raise ModelError(
                f"The source's {key!r} names {unknown[0]!r}, which is no module of the model.",
                "Use module paths as model.named_modules() prints them.",
            )


def _renamed(spec: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """What of `spec` names modules, with the paths that they have without wrappers."""
    found: dict[str, Any] = {}
    if "units" in spec:
        found["units"] = [paths.get(path, path) for path in spec["units"]]
    if "roles" in spec:
        found["roles"] = {paths.get(path, path): role for path, role in spec["roles"].items()}
    if "groups" in spec:
        groups = _groups(spec["groups"])
        found["groups"] = [[paths.get(path, path) for path in group] for group in groups]
    return found


def _groups(given: Any) -> tuple[tuple[str, ...], ...]:
    shaped = isinstance(given, Iterable) and not isinstance(given, str | Mapping)
    rows = list(given) if shaped else [given]
    for row in rows:
        if isinstance(row, str) or not isinstance(row, Iterable):
            raise DataError(
                "The source's 'groups' is no list of lists of layer names.",
                "Give for instance [['encoder.0', 'encoder.1']].",
            )
    return tuple(tuple(str(name) for name in row) for row in rows)


def _output(given: Any) -> Output:
    named = isinstance(given, str | int) and not isinstance(given, bool)
    if given is None or named or callable(given):
        return given  # type: ignore[no-any-return]
    raise DataError(
        f"The source's 'output' is a {type(given).__name__}.",
        "Give a key, an attribute's name, a position, or a function of what the model returns.",
    )
