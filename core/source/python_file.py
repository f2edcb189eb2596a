"""Sources from a person's own Python file: `path/to/file.py:function`.

The file is run with all rights of the person who names it, so this is for the command line,
never for anything that was uploaded or opened.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from core.errors import ModelError, QuantscapeError
from core.source.blame import MODULE, blamed

if TYPE_CHECKING:
    from core.source.contract import ModelSource


def is_reference(text: str) -> bool:
    """Whether `text` names a function in a Python file."""
    return text.rpartition(":")[0].endswith(".py")


def load(reference: str) -> ModelSource:
    """Run the function that `reference` names and check what it returns (imports torch).

    Raises `ModelError` or `DataError` naming file, function and key.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"There is no file {path}.", "Name it as path/to/file.py:function.")
    with _importable(path.parent):
        function = _function(_module(path), path, name)
        spec = _called(function, path, name)
    if not isinstance(spec, Mapping):
        raise ModelError(
            f"{reference} returned {type(spec).__name__}, no dict.",
            "Return a dict with the keys model, calibration and task.",
        )
    from core.source.contract import model_source

    defaults = {"name": f"{path.stem}.{name}", "reference": reference}
    try:
        return model_source({**defaults, **spec})
    except QuantscapeError as error:
        raise type(error)(f"{reference}: {error.cause}", error.next_step) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules beside the file can be imported, as when Python runs it."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _module(path: Path) -> ModuleType:
    name = MODULE + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is no Python file.", "Name it as path/to/file.py:function.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickled functions look themselves up here
    with _forgotten_if_broken(name), blamed(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _forgotten_if_broken(name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        del sys.modules[name]
        raise


def _function(module: ModuleType, path: Path, name: str) -> Any:
    function = getattr(module, name, None)
    if not callable(function):
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not key.startswith("_")
        ]
        raise ModelError(
            f"{path} has no function {name!r}.",
            f"Its functions: {', '.join(own) or 'none'}.",
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise ModelError(
            f"{path}:{name} cannot be called without arguments: {error}.",
            "Give every parameter a default.",
        ) from error
    except ValueError:  # a callable without a signature may still take none
        pass
    return function


def _called(function: Any, path: Path, name: str) -> Any:
    with blamed(f"{path}:{name} failed"):
        return function()
