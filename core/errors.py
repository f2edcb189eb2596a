"""One error root with a cause and a next step.

Low-level code says what is wrong and where; the command line and the dashboard's boundary
print both sentences, so that no one has to read a traceback to go on.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

MAX_NAMED = 5
NEAREST = 3


class QuantscapeError(Exception):
    """Something expected went wrong: bad input, a file of another kind, an impossible request.

    `cause` names what was wrong and where, `next_step` what to do about it. Both are sentences
    for people. Everything that is not a `QuantscapeError` is a defect of this program.
    """

    def __init__(self, cause: str, next_step: str = "") -> None:
        self.cause = cause
        self.next_step = next_step
        super().__init__(f"{cause} {next_step}".strip())

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exceptions travel between processes; the default would pass the joined message only.
        return type(self), (self.cause, self.next_step)


class ModelError(QuantscapeError):
    """A model or its weights cannot be used: missing, truncated, not finite, wrong shapes."""


class DataError(QuantscapeError):
    """Calibration or evaluation data cannot be used: columns, gaps, text, too few rows."""


class AnalysisError(QuantscapeError):
    """An analysis folder cannot be read: missing, empty, of a newer schema, damaged."""


class PolicyError(QuantscapeError):
    """A request cannot be met: unknown scorer, threshold out of range, unknown precision."""


class InfeasibleError(PolicyError):
    """No map was found that keeps every budget.

    `axis` is a budget (size, latency or loss) that leaves a map once it is `nearest`, in `unit`, as
    it was asked in; empty where no single one does.
    """

    def __init__(
        self, cause: str, next_step: str, axis: str = "", nearest: float = 0.0, unit: str = ""
    ) -> None:
        super().__init__(cause, next_step)
        self.axis, self.nearest, self.unit = axis, nearest, unit

    def __reduce__(self) -> tuple[type, tuple[str, str, str, float, str]]:  # type: ignore[override]
        return type(self), (self.cause, self.next_step, self.axis, self.nearest, self.unit)


class StoppedError(QuantscapeError):
    """Work was given up half-way because its caller asked for that; nothing of it is kept."""


class MapError(QuantscapeError):
    """A precision map cannot be used: other model, unknown or missing layers, bad schema."""


class ProfileError(QuantscapeError):
    """A hardware profile is unknown or malformed."""


class JobError(QuantscapeError):
    """An analysis cannot run beside this process: busy source, folder that cannot be written."""


def told(error: BaseException) -> str:
    """The kind of any exception and the first line of what it says, without a final stop."""
    try:
        lines = str(error).strip().splitlines()
    except Exception as worse:  # noqa: BLE001 (a person's own class may fail at that)
        lines = [str(worse)]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": .")


def printable(text: str) -> str:
    """`text` on one line without control characters, which a terminal would act on."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """The names among `known` that look most like `name`, the likeliest first."""
    return tuple(difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.5))


def listed(names: Sequence[str]) -> str:
    """The first of `names`, and how many there are beside them."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(printable(name) for name in names[:MAX_NAMED]) + more


def check_names(wanted: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise `MapError` naming what of `wanted` is not among `known`, each with the nearest."""
    there = set(known)
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    said = []
    for name in missing[:MAX_NAMED]:
        near = ", ".join(printable(n) for n in nearest(name, known))
        said.append(f"{printable(name)} (nearest: {near or 'nothing like it'})")
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    raise MapError(
        f"{where} has no {', no '.join(said)}{more}.",
        "Give the names of the model that the map was made for.",
    )
