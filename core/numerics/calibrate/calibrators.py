"""Where the range of an activation ends: calibrators, by name.

*min-max* takes what was seen. The others leave out what is rare: values beyond the range are
clipped, so that the rest is rounded more finely.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import PolicyError

PERCENT = 99.99
MOST_CUT = 50.0


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How ranges are chosen. `percent` is the share of the values kept, for *percentile* alone."""

    name: str
    title: str
    source: str
    percent: float | None = None

    @property
    def text(self) -> str:
        """What `get` takes, and an analysis stores."""
        usual = CALIBRATORS[self.name].percent
        return self.name if self.percent == usual else f"{self.name}:{self.percent:g}"


MIN_MAX = Calibrator(
    "min-max",
    "the least and largest value seen",
    "Jacob et al. 2018, arXiv:1712.05877",
)

CALIBRATORS = {
    calibrator.name: calibrator
    for calibrator in (
        MIN_MAX,
        Calibrator(
            "percentile",
            "without the rarest values at the ends",
            "Wu et al. 2020, arXiv:2004.09602",
            PERCENT,
        ),
        Calibrator(
            "entropy",
            "the least divergence between the values and their quantized histogram",
            "Migacz 2017, GTC s7310; onnxruntime.quantization.calibrate",
        ),
        Calibrator(
            "mse",
            "the least squared error of rounding and clipping together",
            "Sung, Shin and Hwang 2015, arXiv:1511.06488",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Every calibrator by name, the default first."""
    return tuple(CALIBRATORS)


def get(text: str) -> Calibrator:
    """The calibrator that `text` names: `min-max`, or `percentile:99.9` with its parameter.

    Raises `PolicyError` for an unknown name or a percentile that is none.
    """
    name, _, parameter = text.partition(":")
    if name not in CALIBRATORS:
        known = ", ".join(names())
        raise PolicyError(f"There is no calibrator {name!r}.", f"Known: {known}, percentile:99.9.")
    found = CALIBRATORS[name]
    if not parameter and ":" not in text:
        return found
    try:
        percent = float(parameter)
    except ValueError:
        percent = 0.0
    if found.percent is None or not MOST_CUT < percent <= 100.0:
        raise PolicyError(
            f"{text!r} is no calibrator.",
            "Only percentile takes a parameter, above 50 and up to 100: percentile:99.9.",
        )
    return Calibrator(found.name, found.title, found.source, percent)
