"""The engine of PyTorch modules: the simulator, which replays what a recording allows."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from core.engines.engine import Assignment, Pair
from core.engines.torch.replay.replayer import Replayer
from core.engines.torch.simulate.simulator import Simulator
from core.numerics.precision import Precision
from core.source.batches import Inputs
from core.source.contract import tensor_bytes


class TorchEngine(Simulator):
    """A `Simulator` as an engine (`core.engines.engine.Engine`)."""

    def replay(self, pilot: Inputs, check: Sequence[Pair] = ()) -> Replayer:
        """A replayer, each pair in `check` held against a full pass bit by bit."""
        return Replayer(self, pilot, check)

    def one_by_one(self, assignment: Assignment, inputs: Inputs) -> bool:
        """Never: samples of a batch are rounded apart."""
        return False

    def stored_bytes(self) -> tuple[int, int, int]:
        """Bytes of the parameters, of the buffers, and of the largest tensor."""
        held = self.model.parameters, self.model.buffers
        sizes = [[t.numel() * t.element_size() for t in of()] for of in held]
        return sum(sizes[0]), sum(sizes[1]), max((*sizes[0], *sizes[1]), default=0)

    def identity(self) -> Mapping[str, Any]:
        """PyTorch, its kernels, and the model's own code and buffers, also those never saved."""
        buffers = [
            (name, tuple(buffer.shape), hashlib.sha256(tensor_bytes(buffer)).hexdigest())
            for name, buffer in sorted(self.model.named_buffers())
        ]
        return {
            "torch": torch.__version__,
            "kernels": (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()),
            "owners": sorted((path, name or "") for path, name in self.owner.items()),
            "code": _code(self.model),
            "buffers": buffers,
        }

    def notes(self, precisions: Sequence[Precision]) -> tuple[str, ...]:
        """None: what is simulated is told with the scheme."""
        return ()


def _code(model: nn.Module) -> str:
    """The source of every class of module that is not PyTorch's own, where it can be read."""
    found: dict[str, str] = {}
    for module in model.modules():
        for kind in type(module).__mro__:
            name = f"{kind.__module__}.{kind.__qualname__}"
            if name in found or kind.__module__.split(".")[0] in ("torch", "builtins"):
                continue
            try:
                found[name] = inspect.getsource(kind)
            except (OSError, TypeError):  # written at a prompt: the reference outputs stand for it
                found[name] = ""
    return json.dumps(sorted(found.items()))
