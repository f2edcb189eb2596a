"""A model's inputs as trees of tensors whose first axis counts samples, and the one way to run
a model on such a batch.

A tensor is the only argument, a tuple holds the positional and a dict the named arguments;
inside, trees may nest. None, numbers, booleans and strings are constants, the same for every
sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ModelError, QuantscapeError, told
from core.source.blame import place_of
from core.source.trees import first_tensor, map_tensors, named_tensors, tensors

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]
Output = str | int | Callable[[Any], Tensor] | None
"""Which part of what a model returns is its output: a key, an attribute or a position, or what a
function makes of it; None is the first floating tensor."""

SEED = 0
FIND_OUTPUT = (
    "Return logits or values as a tensor, or name the one to take with 'output' (a key, an "
    "attribute or a position, or a function of what the model returns)."
)
PER_SAMPLE = (
    "Give as 'output' a function that makes one tensor [N, ...] of them, padded to a fixed number "
    "of rows, and a 'metric' of the task 'custom' that reads it."
)


def failed(error: Exception, when: str, by_hand: str) -> QuantscapeError:
    """The error of a forward pass that raised `error`; one that explains itself is passed on."""
    if isinstance(error, QuantscapeError):
        return error
    place = place_of(error)
    at = f" (line {place[1]} of {place[0]})" if place else ""
    return ModelError(
        f"The model failed {when}{at}: {told(error)}.",
        f"Run the model by hand on {by_hand} and mend what it reports.",
    )


def sizes_differ() -> ModelError:
    """The error where batches have outputs that cannot stand in one array."""
    return ModelError(
        "The model returned outputs of different sizes for different batches.",
        "Pad the inputs to one shape, so that every sample has the same outputs, or give as "
        "'output' a function that pads what the model returns.",
    )


def count(inputs: Inputs) -> int:
    """Number of samples: the length of the first axis."""
    found = first_tensor(inputs)
    return 0 if found is None else int(found.shape[0])


def take(inputs: Any, start: int, stop: int) -> Any:
    """Samples `start` to `stop`, as views."""
    return map_tensors(inputs, lambda tensor: tensor[start:stop])


def pick(inputs: Any, index: NDArray[np.int64]) -> Any:
    """The samples at `index`, as copies."""
    rows = torch.from_numpy(index)
    return map_tensors(inputs, lambda tensor: tensor[rows])


def joined(batches: Sequence[Any]) -> Any:
    """Batches of one structure as one batch, along the first axis.

    Raises `ValueError` naming the place where they differ.
    """
    parts = [dict(named_tensors(batch)) for batch in batches]
    for i, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            raise ValueError(f"batch {i} is built otherwise than batch 0")
        for path, tensor in part.items():
            like = parts[0][path]
            if tensor.shape[1:] != like.shape[1:] or tensor.dtype != like.dtype:
                raise ValueError(
                    f"batch {i}{path} is {tensor.dtype}{list(tensor.shape)}, batch 0{path} is "
                    f"{like.dtype}{list(like.shape)}"
                )
    paths = iter(parts[0])

    def join(_: Tensor) -> Tensor:
        path = next(paths)
        return torch.cat([part[path] for part in parts])

    return map_tensors(batches[0], join)


def device_of(model: nn.Module) -> torch.device:
    """The device that holds the first tensor of `model`; the CPU where it has none."""
    held: Tensor | None = next(model.parameters(), None)
    held = next(model.buffers(), None) if held is None else held
    return torch.device("cpu") if held is None else held.device


def copied(inputs: Any, model: nn.Module) -> Any:
    """A copy of `inputs` where `model` is."""
    device = device_of(model)
    return map_tensors(inputs, lambda tensor: tensor.to(device, copy=True))


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What `model` returns for `inputs`, as it is."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(inputs)


def read_output(returned: Any, output: Output = None) -> Tensor:
    """The output tensor in what a model returned; raises `ModelError` where there is none."""
    if callable(output):
        try:
            returned = output(returned)
        except QuantscapeError:
            raise
        except Exception as error:
            raise ModelError(
                f"The source's 'output' failed on what the model returned: "
                f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
                + ".",
                "Call it by hand on what the model returns.",
            ) from error
    elif output is not None:
        try:
            returned = returned[output]
        except (KeyError, IndexError, TypeError):
            returned = getattr(returned, str(output), None)
        if returned is None:
            raise ModelError(f"The model returned no output {output!r}.", FIND_OUTPUT)
    found = next((t for t in tensors(returned) if t.is_floating_point()), None)
    if found is None:
        what = "no tensor" if first_tensor(returned) is None else "no floating tensor"
        raise ModelError(f"The model returned {what}.", FIND_OUTPUT)
    return found


def _is_per_sample(returned: Any, samples: int) -> bool:
    """Whether a model returned a list with a result for each sample, and no batch of them."""
    if not isinstance(returned, list) or len(returned) != samples:
        return False
    held = [dict(named_tensors(one)) for one in returned]
    if any(not one or one.keys() != held[0].keys() for one in held):
        return False
    odd = [t.ndim == 0 or t.shape[0] != samples for one in held for t in one.values()]
    # A list of tensors may be several outputs, among them one that has another first axis.
    return all(odd) if isinstance(returned[0], Tensor) else any(odd)


def answers(model: nn.Module, inputs: Inputs, output: Output = None, *, seed: int = SEED) -> Tensor:
    """Run `model` on one batch and return its output in its own shape, [N, ...] float32, on the
    CPU wherever the model is.

    Does not change `inputs`: a model that works in place gets a copy. Every call with the same
    `seed` meets the same random state (PyTorch, NumPy, Python), which is given back afterwards,
    and PyTorch's fused attention fast path is off, since no hook sees inside it. Raises
    `ModelError` where the first axis of the output does not count the samples of `inputs`.
    """
    n = count(inputs)
    given = copied(inputs, model)
    with torch.no_grad(), fixed_random_state(seed), fused_attention_off():
        returned = call(model, given)
        if not callable(output) and _is_per_sample(returned, n):
            raise ModelError(
                f"The model returned a list of {n} results, one for each sample, of different "
                "sizes: detections, for instance.",
                PER_SAMPLE,
            )
        found = read_output(returned, output)
    if n == 1 and (found.ndim == 0 or found.shape[0] != 1):
        found = found.unsqueeze(0)  # a model that squeezes a batch of one
    if found.ndim == 0 or found.shape[0] != n:
        raise ModelError(
            f"The model returned {list(found.shape)} for a batch of {n} samples.",
            "The first axis of inputs and outputs has to count samples; 'output' may name another "
            "part, or be a function that makes such a tensor.",
        )
    found = found.detach().float()
    return found if found.device.type == "cpu" else found.cpu()


def run_batch(
    model: nn.Module, inputs: Inputs, output: Output = None, *, seed: int = SEED
) -> Tensor:
    """Outputs [N, K] float32 of `model` for a batch of N samples, all else as `answers`."""
    found = answers(model, inputs, output, seed=seed)
    return found.reshape(len(found), -1)


@contextmanager
def fixed_random_state(seed: int) -> Iterator[None]:
    """Random numbers start from `seed` inside, and go on outside as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the model may use it)
    has_cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = [torch.cuda.current_device()] if has_cuda else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def fused_attention_off() -> Iterator[None]:
    """`nn.TransformerEncoder` calls its modules one by one instead of one fused kernel."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def state_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that a forward pass changes (counters, caches) are as before afterwards."""
    held = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()  # noqa: SLF001 (replaced ones must come back)
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in held:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer  # noqa: SLF001
