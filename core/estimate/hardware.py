"""Hardware profiles: what a device can do at best, with the source of every number."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated

import msgspec

from core.errors import ProfileError

DEFAULT = "server-cpu-vnni"
THIS_MACHINE = "this-machine"
"""Name of the device whose prices `python -m core profile` measures, by analysis."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Efficiency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of the peak that real kernels reach: a plausible low, a typical and a high value."""

    low: Share
    typical: Share
    high: Share


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device. `peak_gmac_per_s` lists the precisions it has kernels for, in 10^9
    multiply-accumulates per second; a float format that is missing runs as FP32 between casts,
    an integer format narrower than 8 bits, or whose ranges are set while it runs, at the speed of
    INT8.
    """

    title: str
    device: str
    description: str
    source: str
    bandwidth_gb_per_s: Positive
    overhead_us: Positive
    boundary_us: Positive
    efficiency: Efficiency
    peak_gmac_per_s: dict[str, Positive]
    name: str = ""

    def has_kernels_for(self, precision: str) -> bool:
        """Whether `precision` has kernels of its own here."""
        return precision in self.peak_gmac_per_s


def parse(text: str, name: str) -> Hardware:
    """A profile from TOML; raises `ProfileError` naming the field."""
    try:
        profile = msgspec.toml.decode(text, type=Hardware)
    except msgspec.DecodeError as error:  # ValidationError is one of them
        raise ProfileError(
            f"Hardware profile {name!r} is malformed: {error}",
            "Compare it with core/estimate/profiles/server-cpu-vnni.toml.",
        ) from error
    if "FP32" not in profile.peak_gmac_per_s:
        raise ProfileError(
            f"Hardware profile {name!r} states no FP32 peak.",
            "Every device needs one: other precisions fall back to it.",
        )
    return msgspec.structs.replace(profile, name=name)


@cache
def profiles() -> MappingProxyType[str, Hardware]:
    """The shipped profiles by name, the default first."""
    folder = files("core.estimate").joinpath("profiles")
    found = {
        entry.name.removesuffix(".toml"): parse(
            entry.read_text("utf-8"), entry.name.removesuffix(".toml")
        )
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT)))


_HERE = Hardware(
    title="This machine (measured)",
    device="cpu",
    description="ONNX Runtime on the machine at hand, one thread; layers were timed one by one.",
    source="python -m core profile DIR",
    bandwidth_gb_per_s=1.0,
    overhead_us=1.0,
    boundary_us=1.0,
    efficiency=Efficiency(1.0, 1.0, 1.0),
    peak_gmac_per_s={"FP32": 1.0, "INT8": 1.0},
    name=THIS_MACHINE,
)
"""Peaks and bandwidth stand for nothing: measured prices take their place. ONNX Runtime's CPU
provider has kernels for FP32 and INT8 alone."""


def names() -> tuple[str, ...]:
    """Every device by name, the default first and this machine last."""
    return (*profiles(), THIS_MACHINE)


def get(name: str) -> Hardware:
    """The profile called `name`; raises `ProfileError` with the known names otherwise."""
    if name == THIS_MACHINE:
        return _HERE
    try:
        return profiles()[name]
    except KeyError:
        known = ", ".join(names())
        raise ProfileError(f"Unknown hardware {name!r}.", f"Use one of: {known}.") from None
