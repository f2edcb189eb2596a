"""What `build`, `verify` and `profile` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from core.cli.output import table as new_table
from core.decide.assess.outcome import accuracy_totals
from core.decide.assess.verified import BUSY_PCT, asked_codes, ran_codes
from core.decide.study import Study
from core.export.map.words import amount
from core.quantity import UNKNOWN, Quantity, digits, written
from core.records.machine_profile import MachineProfile
from core.records.verification import Verification

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMES = {
    "accuracy": "Accuracy",
    "accuracy_drop_pts": "Accuracy loss",
    "kl": "KL divergence",
    "flips_pct": "Changed predictions",
    "metric": "Metric",
    "metric_loss_pct": "Loss of the metric",
    "relative_mse": "Relative MSE",
}


class ReportedLayer(Protocol):
    """One layer of a report."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def asked(self) -> str | None: ...  # noqa: D102
    @property
    def got(self) -> str | None: ...  # noqa: D102
    @property
    def how(self) -> str: ...  # noqa: D102
    @property
    def why(self) -> str: ...  # noqa: D102


def layers_table(rows: Sequence[ReportedLayer]) -> RenderableType:
    """Asked, got and why not, by layer."""
    table = new_table("Layers", ("layer", "asked", "got", "how", "why not as asked"))
    for row in rows:
        table.add_row(row.name, row.asked or "–", row.got or "–", row.how, row.why)
    return table


def advice(left_out: Sequence[str], config: Mapping[str, str], shared: Sequence[str]) -> str:
    """How to run the file so that layers run as the report says.

    `config` are entries of the session's configuration that keep sums exact on this processor,
    `shared` the weights with which ONNX Runtime does not take them.
    """
    said = "Any session of ONNX Runtime on this CPU runs it so."
    if left_out:
        said = (
            "Open it with onnxruntime.InferenceSession(..., "
            f"disabled_optimizers={list(left_out)}): otherwise ONNX Runtime runs some layers "
            "otherwise."
        )
    if not config:
        return said
    entries = ", ".join(f'"{key}", "{value}"' for key, value in config.items())
    exact = (
        f"This processor has no VNNI: without SessionOptions.add_session_config_entry({entries}) "
        "sums of 8-bit products saturate."
    )
    if shared:
        exact += (
            f" ONNX Runtime does not take it where layers share a weight ({', '.join(shared[:3])}): "
            "run this file on a processor with VNNI."
        )
    return f"{exact} {said}" if left_out else exact


def shown(quantity: Quantity | None) -> str:
    """A figure with its range and unit; n/a where it is unknown."""
    return UNKNOWN if quantity is None else amount(quantity)


def figures_table(found: Verification, study: Study) -> RenderableType:
    """What was measured: figures of the outputs on the split that judges, then those of the
    selection split beside the projection of what ran, which is of that split; then costs.
    """
    apart = found.split != "selection"
    columns = ("measured, selection split", "projected for what ran, selection split")
    judged = (f"measured, {found.split} split",) if apart else ()
    title = f"Measured on {found.samples:,} {found.split} samples"
    table = new_table(title, ("figure", *judged, *columns))
    projected = accuracy_totals(study, study.project(ran_codes(study, found)))

    def row(name: str, measured: str, predicted: str = "", same: str = "") -> None:
        table.add_row(name, measured, *((same,) if apart else ()), predicted)

    for name, quantity in found.figures.items():
        same = shown(found.same_samples.get(name))
        row(NAMES[name], shown(quantity), shown(projected.get(name)), same)
    timing = found.timing
    row(f"Latency per sample, batch {timing.batch}", shown(timing.map_ms))
    row("FP32, same batch", shown(timing.reference_ms))
    row("Map ÷ FP32", shown(timing.ratio))
    row("File", f"{found.file_bytes:,} bytes", f"{found.predicted_file_bytes:,} bytes")
    planned = study.stored_bytes(asked_codes(study, found))
    row("Tensors in it", f"{found.tensor_bytes:,} bytes", f"{planned:,} bytes")
    row("FP32 file", f"{found.reference_file_bytes:,} bytes")
    row("Peak memory", written(found.peak_bytes, "bytes"))
    for name, value in (
        ("Agreement with the simulation", found.agreement_db), ("Error", found.error_db),
        ("Error as simulated", found.simulated_error_db),
    ):  # fmt: skip
        row(name, "no difference" if value is None else f"{value:.1f} dB")
    return table


def profile_table(found: MachineProfile) -> RenderableType:
    """Milliseconds of every layer in every precision."""
    title = f"ms per sample, batch {found.batch}"
    table = new_table(title, ("layer", *found.precisions, "found by"), found.precisions)
    for i, name in enumerate(found.layers):
        table.add_row(name, *(digits(row[i], "ms") for row in found.layer_ms), found.way[i])
    return table


def said_of(found: MachineProfile) -> list[str]:
    """What a profile says in words."""
    machine, price = found.machine, found.quantized
    conversion = f"{price.fixed_ms * 1e3:.2f} µs and {price.per_element_ms * 1e6:.3f} ns per value"
    exact = (
        " No VNNI: sums were kept exact (session.x64quantprecision=1), which takes time."
        if machine.exact_sums
        else ""
    )
    busy = ": the machine was busy, take the profile again" if found.noise_pct > BUSY_PCT else ""
    said = [
        f"{machine.processor}, {machine.threads} thread, {machine.runtime}.{exact}",
        f"FP32 rounds spread by ±{found.noise_pct:.1f} %{busy}.",
        f"A tensor that changes between float and integers costs {conversion}.",
        f"{written(found.rest_ms, 'ms')} belong to no layer.",
        f"Whole maps left out of the fit lay ±{100 * found.spread:.0f} % off (one deviation).",
    ]
    if found.batch > 1:
        said.append(
            f"A call of one sample is too short to time: {found.batch} samples were run at a time."
        )
    return said
