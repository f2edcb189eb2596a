"""Whose fault an error is: a person's code, which a source runs, or this program.

Whatever a person's code raises, an end of the program too, is a `ModelError` that names file and
line. What is left is a defect of this program.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from core.errors import ModelError, QuantscapeError, told

MODULE = "quantscape_source_"
"""Prefix of the name under which a person's file is imported; it shadows no module."""

OURS = ("core", "dashboard", "sample_models")
NEXT_STEP = "Mend the file; it has to run on its own."


@contextmanager
def blamed(what: str = "") -> Iterator[None]:
    """Raise `ModelError` in place of what a person's code raises inside; Ctrl+C stays what it is.

    `what` says what fails if anything does, where nothing but a person's code is run. Without it
    an error is theirs if a line of theirs led to it.
    """
    try:
        yield
    except QuantscapeError:
        raise
    except BaseException as error:
        place = place_of(error)
        ended = isinstance(error, SystemExit)  # nothing of ours ends the program
        own = what or place or ended or type(error).__module__.startswith(MODULE)
        if not own or _is_interrupt(error):
            raise
        raise _theirs(error, what or "The source's code failed", place) from error


def _theirs(error: BaseException, what: str, place: tuple[Path, int] | None) -> ModelError:
    line = place[1] if place else getattr(error, "lineno", None)
    at = f" at line {line}" if line else ""
    if place and place[0].name not in what:
        at += f" of {place[0]}"
    if isinstance(error, SystemExit):
        return ModelError(
            f"{what}{at}: SystemExit: it ended the program (code {error.code}).",
            "Let the code raise what is wrong, or return.",
        )
    return ModelError(f"{what}{at}: {told(error)}.", NEXT_STEP)


def place_of(error: BaseException) -> tuple[Path, int] | None:
    """File and line of a person's code that raised `error` or led to it; None where none did."""
    places = [
        (Path(frame.f_code.co_filename), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_theirs(frame)
    ]
    return places[-1] if places else None


def _is_interrupt(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl+C: a `KeyboardInterrupt` that no person's code raised."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not (frames and _is_theirs(frames[-1]))


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of Ctrl+C whose own frame tells it from a `KeyboardInterrupt` of a person's."""
    raise KeyboardInterrupt


@contextmanager
def no_sudden_end() -> Iterator[None]:
    """`os._exit` raises `SystemExit` in this process, so that code which calls it can be named."""
    end, here = os._exit, os.getpid()

    def told(status: int) -> NoReturn:
        if os.getpid() != here:
            end(status)  # the way in which a forked child ends
        raise SystemExit(status)

    os._exit = told
    try:
        yield
    finally:
        os._exit = end


def _is_theirs(frame: FrameType) -> bool:
    """Whether `frame` runs a person's file, or a module that lies beside or below one."""
    name = str(frame.f_globals.get("__name__", ""))
    if name.startswith(MODULE):
        return True
    file = Path(frame.f_code.co_filename)
    if (
        name.partition(".")[0] in OURS
        or "site-packages" in file.parts
        or file.is_relative_to(sysconfig.get_path("stdlib"))
    ):
        return False
    return any(file.is_relative_to(home) for home in _homes())


def _homes() -> set[Path]:
    """Folders of the files that persons have named."""
    return {
        Path(file).resolve().parent
        for name, module in list(sys.modules.items())
        if name.startswith(MODULE) and (file := getattr(module, "__file__", None))
    }
