"""How a measurement is made, beside what is measured: where, with how much memory, how many at once.

Few people need these, so they lie behind an expander; each is a flag of `analyze`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import streamlit as st

from core.errors import PolicyError
from core.sizes import parse_bytes

MEMORY, PROCESSES, DEVICE = "measure_memory", "measure_jobs", "measure_device"
DEVICES = ("cpu", "cuda")
MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True)
class Options:
    """What was chosen. `memory_bytes` is 0 for half of what is free; `problem` says what cannot
    be used, and what to do.
    """

    device: str = "cpu"
    memory_bytes: int = 0
    processes: int = 1
    problem: PolicyError | None = None


def chosen() -> Options:
    """What the controls hold."""
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
    return Options(device, memory, processes, problem)


def draw() -> None:
    """The controls, behind an expander."""
    with st.expander("How it is measured", icon=":material/settings:"):
        grid = st.grid(3, min_column_width=160, gap="small")
        grid.text_input(
            "Memory limit",
            key=MEMORY,
            placeholder="half of what is free",
            persist_state="session",
            help="Such as 2 GB or 800 MB: the most that the measurement takes, all processes "
            "together. Less memory means smaller batches.",
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
