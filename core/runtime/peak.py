"""Peak memory of a model, in a process of its own: `python -m core.runtime.peak PARENT MODEL INPUTS CONFIG`.

A process that has run other models holds memory that is theirs. Prints the bytes as JSON, null
where the system does not tell them. Needs Linux; the process loads neither PyTorch nor onnx, which
would take it longer than the model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.source.lifeline import end_with

if TYPE_CHECKING:
    import onnx

    from core.onnx_graph.session import Feed

MODULE = "core.runtime.peak"
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300


def peak_bytes(model: onnx.ModelProto, given: Feed, disabled: Sequence[str] = ()) -> int | None:
    """Largest resident memory of loading and running `model` once, less what the process held
    before; None where the system does not say.
    """
    from core.onnx_graph.session import exact_sums, serialized

    with tempfile.TemporaryDirectory() as folder:
        file, arrays = Path(folder) / "model.onnx", Path(folder) / "inputs.npz"
        file.write_bytes(serialized(model))
        np.savez(arrays, allow_pickle=False, **given)
        words = [sys.executable, "-P", "-m", MODULE, str(os.getpid()), str(file), str(arrays),
                 json.dumps(exact_sums())]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603 (this file, in this interpreter)
                [*words, *disabled], capture_output=True, check=True, timeout=TIMEOUT_S,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            found = json.loads(done.stdout)
        except (subprocess.SubprocessError, OSError, ValueError):
            return None
    return int(found) if found is not None else None


def _resident(key: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def main(arguments: Sequence[str]) -> int:
    """Run the model once and print its peak."""
    import onnxruntime as ort

    from core.onnx_graph.session_options import session_options

    parent, file, arrays, config, *disabled = arguments
    end_with(int(parent))
    given = dict(np.load(arrays, allow_pickle=False))
    before = _resident("VmRSS:")
    session = ort.InferenceSession(
        file,
        session_options(1, json.loads(config)),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=disabled,
    )
    session.run(None, given)
    after = _resident("VmHWM:")
    found = None if before is None or after is None else max(after - before, 0)
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
