"""How a measurement is made, beside what is measured: rounded how, where, with how much memory.

Few people need these, so they lie behind an expander; each is a flag of `analyze`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import streamlit as st

from core.errors import PolicyError
from core.evidence.measure.memory_size import parse_bytes
from core.evidence.options import FIRST_LOOK, Until
from core.numerics import quantizers, scheme
from core.numerics.calibrate import calibrators
from dashboard.session.measure_form import SCHEME

MEMORY, PROCESSES, DEVICE = "measure_memory", "measure_jobs", "measure_device"
CALIBRATOR, PERCENT = "measure_calibrator", "measure_percent"
QUANTIZER = "measure_quantizer"
UNTIL = "measure_until"
HOW_FAR: Mapping[Until, str] = {
    "exact": "all samples",
    "ranked": "until layers are ranked",
    "first look": f"a first look ({FIRST_LOOK} samples)",
}
DEVICES = ("cpu", "cuda")
MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True)
class Options:
    """What was chosen. `memory_bytes` is 0 for half of what is free; `scheme`,
    `calibrator` and `quantizer` are what the command takes; `problem` says what cannot be used, and
    what to do.
    """

    scheme: str = scheme.names()[0]
    calibrator: str = calibrators.names()[0]
    quantizer: str = quantizers.names()[0]
    until: Until = "exact"
    device: str = "cpu"
    memory_bytes: int = 0
    processes: int = 1
    problem: PolicyError | None = None


def chosen() -> Options:
    """What the controls hold."""
    rounding = str(st.session_state.get(SCHEME) or scheme.names()[0])
    calibrator = str(st.session_state.get(CALIBRATOR) or calibrators.names()[0])
    quantizer = str(st.session_state.get(QUANTIZER) or quantizers.names()[0])
    percent = st.session_state.get(PERCENT)
    if calibrators.CALIBRATORS[calibrator].percent is not None and percent is not None:
        calibrator = calibrators.get(f"{calibrator}:{percent:g}").text
    until: Until = st.session_state.get(UNTIL) or "exact"
    device = str(st.session_state.get(DEVICE) or DEVICES[0])
    processes = int(st.session_state.get(PROCESSES) or 1)
    text = str(st.session_state.get(MEMORY) or "").strip()
    problem, memory = None, 0
    if text:
        try:
            memory = parse_bytes(text)
        except PolicyError as error:
            problem = PolicyError(f"Memory limit: {error.cause}", error.next_step)
    if device != DEVICES[0] and processes > 1:
        problem = PolicyError(
            "A CUDA device is one process's alone.", "Choose 1 process, or the CPU."
        )
    return Options(rounding, calibrator, quantizer, until, device, memory, processes, problem)


def draw() -> None:
    """The controls, behind an expander."""
    with st.expander("How it is measured", icon=":material/settings:"):
        _rounding()
        grid = st.grid(4, min_column_width=160, gap="small")
        grid.selectbox(
            "How far",
            list(HOW_FAR),
            format_func=lambda one: HOW_FAR[one],
            key=UNTIL,
            persist_state="session",
            help="A first look is there soon after the start in any case, and grows while you use it. "
            "A ranking is settled when other samples would hardly choose other layers. What is measured "
            "is found again when you measure further.",
        )
        grid.text_input(
            "Memory limit",
            key=MEMORY,
            placeholder="half of what is free",
            persist_state="session",
            help="Such as 2 GB or 800 MB: the most that the measurement takes, all processes "
            "together, with Python, the model and its data. Less memory means smaller batches.",
        )
        grid.number_input(
            "Processes",
            1,
            min(os.cpu_count() or 1, MOST_PROCESSES),
            1,
            key=PROCESSES,
            persist_state="session",
            help="They share the work, each with its part of the cores. More than one pays for "
            "measurements of minutes; each takes some 200 MB beside the model.",
        )
        grid.selectbox(
            "Device",
            DEVICES,
            key=DEVICE,
            persist_state="session",
            help="Where the model runs. cuda needs an NVIDIA card and a CUDA build of PyTorch; a "
            "machine without says so at once.",
        )


def _rounding() -> None:
    """Which runtime's integers are simulated, where ranges end, and where groups of weights lie."""
    grid = st.grid(3, min_column_width=160, gap="small")
    grid.selectbox(
        "Scheme",
        scheme.names(),
        key=SCHEME,
        persist_state="session",
        help="Whose integers are simulated:  \n"
        + "  \n".join(f"**{s.name}**: {s.description}" for s in scheme.SCHEMES.values()),
    )
    chosen = grid.selectbox(
        "Calibrator",
        calibrators.names(),
        key=CALIBRATOR,
        persist_state="session",
        help="How the range of an activation is chosen from the calibration split:  \n"
        + "  \n".join(f"**{c.name}**: {c.title}." for c in calibrators.CALIBRATORS.values()),
    )
    grid.selectbox(
        "Quantizer",
        quantizers.names(),
        key=QUANTIZER,
        persist_state="session",
        help="Whose grid weights by groups lie on (INT8-W, INT4, INT2; nothing else has one):  \n"
        + "  \n".join(f"**{q.name}**: {q.title}." for q in quantizers.QUANTIZERS.values()),
    )
    usual = calibrators.CALIBRATORS[chosen or calibrators.names()[0]].percent
    if usual is not None:
        grid.number_input(
            "Values kept (%)",
            calibrators.MOST_CUT + 0.01,
            100.0,
            usual,
            0.01,
            format="%.2f",
            key=PERCENT,
            persist_state="session",
            help="The rest lies beyond the range and is clipped.",
        )
