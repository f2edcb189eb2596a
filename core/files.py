"""Files of a person's, and what goes wrong with files: the one way to open them, and to say so.

What comes from elsewhere may be a pipe, a device, of any size, no text, or nested a million deep.
It is opened as a regular file alone, read within a bound, and decoded into a type.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, cast

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core.errors import QuantscapeError

MOST = 10**15
"""Of anything that is counted in a file; sums of as many layers as a file may have stay in int64."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Position = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]
"""A number that may stand for "none" or "from the end" below 0."""
Bits = Annotated[int, msgspec.Meta(ge=2, le=32)]
"""Of a grid."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=MOST)]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

Read = TypeVar("Read")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class _Version:
    """What a file with a version says first, read before the rest of it is."""

    schema_version: Position


@dataclass(frozen=True, slots=True)
class FileKind:
    """How JSON files of one kind are read.

    `error` is what is raised, `is_none` what is said of a file that is none of the kind, and
    `next_step` what to do about it. `version` is the one that this program reads (0: the files
    have none), `older` what to do about an older one.
    """

    error: type[QuantscapeError]
    most_bytes: int
    next_step: str
    is_none: str = "cannot be read"
    version: int = 0
    older: str = ""

    def read(self, path: Path) -> bytes:
        """The bytes of `path`; raises `error` where it is no regular file, or too large."""
        try:
            return read(path, self.most_bytes)
        except FileNotFoundError as error:
            raise self.error(
                f"{path} cannot be read: {reason(error)}.", "Check the path."
            ) from None
        except OSError as error:
            raise self.error(f"{path} cannot be read: {reason(error)}.", self.next_step) from error

    def text(self, path: Path) -> str:
        """The text of `path`; raises `error` as `read` does, and where it is not UTF-8."""
        try:
            return self.read(path).decode()
        except UnicodeDecodeError as error:
            raise self.refused(path, "it is not UTF-8") from error

    def decode(self, raw: bytes, kind: type[Read], origin: object) -> Read:
        """`raw` as a `kind`; raises `error`, naming `origin` and the field, where it is none."""
        if len(raw) > self.most_bytes:
            raise self.error(
                f"{origin} is larger than {self.most_bytes // 10**6} MB.", self.next_step
            )
        try:
            if self.version:
                found = msgspec.json.decode(raw, type=_Version).schema_version
                if found != self.version:
                    raise self.error(
                        f"{origin} has schema version {found}; this program reads {self.version}.",
                        "Update Quantscape." if found > self.version else self.older,
                    )
            return msgspec.json.decode(raw, type=kind)
        except UnicodeDecodeError as error:
            raise self.refused(origin, "it is not UTF-8") from error
        except RecursionError:
            raise self.refused(origin, "it nests too deeply") from None
        except msgspec.MsgspecError as error:
            raise self.refused(origin, str(error)) from error

    def load(self, path: Path, kind: type[Read]) -> Read:
        """The content of `path` as a `kind`; raises `error` as `read` and `decode` do."""
        return self.decode(self.read(path), kind, path)

    def refused(self, origin: object, why: str) -> QuantscapeError:
        """What to raise where a file is none of this kind."""
        return self.error(f"{origin} {self.is_none}: {why}.", self.next_step)


def is_there(path: Path) -> bool:
    """Whether something has this name, be it a file that can be read or not."""
    return os.path.lexists(path)


def opened(path: Path, *, links: bool = True) -> BinaryIO:
    """A regular file, opened for reading; `links` to one are followed. Raises `OSError` for anything
    else: a pipe would wait for its writer, and a device has no end.
    """
    _check_regular(path.stat(follow_symlinks=links), path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(seen: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def mapped(path: Path, most: int, *, links: bool = True) -> NDArray[Any]:
    """The array of a .npy file, mapped from the disk, of at most `most` bytes. Raises `OSError` for
    whatever is no whole array of numbers.
    """
    with opened(path, links=links) as file:
        try:
            shape, is_fortran, kind = _header(file)
        except Exception as error:  # it is read as Python's own words, whose errors share no base
            raise OSError(errno.EINVAL, "it is no array that NumPy wrote", str(path)) from error
        if kind.hasobject or any(not 0 <= x <= MOST for x in shape):
            what = f"it says that it holds {kind}{list(shape)}"
            raise OSError(errno.EINVAL, what, str(path))
        start, size = file.tell(), math.prod(shape) * kind.itemsize
        length = os.fstat(file.fileno()).st_size
        if length - start != size or size > most:
            what = f"it holds {length:,} bytes, which are not {kind}{list(shape)}"
            if size > most:
                what = f"it is larger than {most // 10**9} GB"
            raise OSError(errno.EINVAL, what, str(path))
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        return np.memmap(file, kind, "r", start, shape, order)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first axis runs fastest, and type, as a .npy file says."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    return readers[npy.read_magic(file)](file)


def read(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most`. Raises `OSError`."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EINVAL, f"it is larger than {most // 10**6} MB", str(path))
        return file.read(size)


def arrays(path: Path, most: int) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name, of at most `most` bytes together. Raises `OSError` for
    whatever is no such file of numbers.
    """
    return _unpacked(path, most, lambda pack, member: _array(pack.read(member)))


def shapes(path: Path, most: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that `arrays` reads, as their headers claim them; no content is
    unpacked. Raises like `arrays`.
    """

    def shape(pack: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
        with pack.open(member) as file:
            found, _, kind = _header(cast(BinaryIO, file))
        if kind.hasobject or math.prod(found) * kind.itemsize > member.file_size:
            raise ValueError
        return found

    return _unpacked(path, most, shape)


def _unpacked(
    path: Path, most: int, of: Callable[[zipfile.ZipFile, zipfile.ZipInfo], Kept]
) -> dict[str, Kept]:
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as pack:
                if sum(member.file_size for member in pack.infolist()) <= most:
                    return {
                        member.filename.removesuffix(".npy"): of(pack, member)
                        for member in pack.infolist()
                    }
        except Exception as error:  # zipfile and NumPy have no common error
            raise OSError(errno.EINVAL, "it holds no arrays that NumPy wrote", str(path)) from error
    raise OSError(errno.EINVAL, f"it is larger than {most // 10**6:,} MB", str(path))


def _array(raw: bytes) -> NDArray[Any]:
    """The array in a .npy file's bytes. Raises `ValueError` for whatever is no whole array."""
    file = io.BytesIO(raw)
    shape, is_fortran, kind = _header(file)
    start = file.tell()
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(raw) - start:
        raise ValueError
    values = np.frombuffer(raw, kind, offset=start)
    return values.reshape(shape, order="F" if is_fortran else "C").copy()


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all: beside it first, then by renaming. Leaves
    nothing where that fails. Raises `OSError`.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def reason(error: OSError) -> str:
    """What an error of the system says, in a few words."""
    return error.strerror or str(error)


def what_to_do(error: OSError, place: str = "a folder that can be written") -> str:
    """The next step after a file could not be written. `place` is where it could be, in words."""
    if error.errno in FULL:
        return "The disk is full, or your share of it: free some space there."
    if error.errno in FORBIDDEN:
        return f"This place may be read but not written: choose {place}."
    if error.errno == errno.ENOENT:
        return "Choose a folder that exists."
    return f"Choose {place}."
