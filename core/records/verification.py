"""What was measured of a map by running it, kept in the analysis folder that it belongs to.

One JSON file per verification in `DIR/verifications/`, written whole or not at all; none is ever
overwritten. Reading takes those of the same model, scheme and quantizer, leaves out what is damaged, and names
it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.evidence.evidence import Identity
from core.files import Count
from core.numerics import quantizers
from core.quantity import Quantity
from core.records import record_files

SCHEMA_VERSION = 1
FOLDER = "verifications"
MAX_FILES = 10_000


class Machine(msgspec.Struct, frozen=True):
    """Where it ran. `runtime` names ONNX Runtime and its version; with `exact_sums` it was told to
    keep sums of 8-bit products from saturating, which the processor would do and which takes time.
    """

    processor: str
    instructions: tuple[str, ...]
    cores: Count
    threads: Count
    system: str
    runtime: str
    exact_sums: bool = False


class LayerRun(msgspec.Struct, frozen=True):
    """What one layer asked for and got: precision names, None where it does nothing.

    `how` says by what means it runs, `why` why not as asked ("" where it does).
    """

    name: str
    asked: str | None
    got: str | None
    how: str
    why: str = ""
    kernels: tuple[str, ...] = ()


class Timing(msgspec.Struct, frozen=True):
    """Medians of interleaved rounds, in ms per sample; `ratio` is map ÷ FP32, below 1 = faster.

    `batch` samples were run at a time. `noise_pct` is the half-width of the middle 90 % of the
    FP32 rounds in percent of their median: how quiet the machine was.
    """

    map_ms: Quantity
    reference_ms: Quantity
    ratio: Quantity
    batch: Count
    rounds: Count
    noise_pct: float


class AsDeployed(msgspec.Struct, frozen=True):
    """The same file in a session without the option that keeps sums exact, on the same samples.

    `figures` have the names of a verification's; `agreement_db` compares the outputs with the
    simulation, None where there is no difference.
    """

    figures: dict[str, Quantity]
    agreement_db: float | None


class Verification(msgspec.Struct, frozen=True):
    """A map that was built and run.

    `figures` are measured on `samples` samples of `split`, by the names that totals have, and
    `same_samples` on the selection split, which projections are of.
    `agreement_db` compares the outputs with the simulation of what ran, `error_db` with FP32;
    dB of the output's signal, None where there is no difference. `peak_bytes` is the largest
    resident memory of a process that loads and runs the map, less what it held before.
    `as_deployed` is None where it was not asked for, or sums are exact without an option.
    `quantizer` is the one whose grid weights by groups were packed on.
    """

    schema_version: Count
    tool_version: str
    created: str
    label: str
    identity: Identity
    scheme: str
    machine: Machine
    layers: tuple[LayerRun, ...]
    figures: dict[str, Quantity]
    same_samples: dict[str, Quantity]
    split: str
    samples: Count
    agreement_db: float | None
    error_db: float | None
    simulated_error_db: float | None
    disagreements: Count | None
    timing: Timing
    file_bytes: Count
    tensor_bytes: Count
    reference_file_bytes: Count
    predicted_file_bytes: Count
    peak_bytes: Count | None
    reference_peak_bytes: Count | None
    left_out: tuple[str, ...]
    overflow: tuple[str, ...]
    seconds: float
    as_deployed: AsDeployed | None = None
    quantizer: str = quantizers.DEFAULT.name

    @property
    def precisions(self) -> tuple[str | None, ...]:
        """The map: what each layer asked for, in the order of the layers."""
        return tuple(layer.asked for layer in self.layers)

    @property
    def ran(self) -> tuple[str | None, ...]:
        """What each layer ran in."""
        return tuple(layer.got for layer in self.layers)

    @property
    def is_as_asked(self) -> bool:
        """Whether every layer ran in the precision that it was given."""
        return all(layer.asked == layer.got for layer in self.layers)

    @property
    def otherwise(self) -> tuple[LayerRun, ...]:
        """The layers that ran in another precision than the one asked for."""
        return tuple(layer for layer in self.layers if layer.asked != layer.got)


def save(folder: Path, verification: Verification) -> Path:
    """Write `verification` under the analysis folder `folder`; returns the file.

    Raises `AnalysisError` where it cannot be written.
    """
    return record_files.write(folder / FOLDER, verification, verb="verify")


def load(
    folder: Path, identity: Identity, scheme: str, quantizer: str = quantizers.DEFAULT.name
) -> tuple[tuple[Verification, ...], tuple[str, ...]]:
    """The verifications of this model under this scheme and quantizer, the oldest first, and a
    sentence for each file that cannot be read.
    """
    found, left_out = record_files.read(
        folder / FOLDER, Verification, identity, scheme, schema=SCHEMA_VERSION, most=MAX_FILES
    )
    return tuple(one for one in found if one.quantizer == quantizer), left_out
