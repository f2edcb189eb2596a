"""The folder of a job: where it lies, what it is called, and the command that fills it."""

from __future__ import annotations

import fcntl
import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from core.analysis import store
from core.errors import JobError
from core.files import FileKind, is_there
from core.onnx_graph.node_table import SUFFIX
from core.records.user_folders import jobs_folder
from core.source import onnx_file, python_file
from core.source.samples import PREFIX

ROOT = Path(__file__).resolve().parents[2]
RECORD, PROGRESS, LOG, ANALYSIS = "job.json", "progress.json", "log.txt", "analysis"
MODEL = "model"
FILES = FileKind(JobError, 1_000_000, "Restore the file, or delete its folder.")
Read = TypeVar("Read", bound=msgspec.Struct)


class Upload(msgspec.Struct, frozen=True):
    """A person's ONNX file, the splits whose arrays came with it, and what `analyze` is told of
    them; "" and () leave a word out. The files lie in the job's folder.
    """

    model: str
    splits: tuple[str, ...]
    task: str
    output: str = ""
    units: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def files(self, folder: Path) -> dict[str, Path]:
        """Where each file lies in `folder`: "model", and the splits by name."""
        arrays = {split: folder / f"{split}.npz" for split in self.splits}
        return {MODEL: folder / file_name(self.model, SUFFIX), **arrays}

    def words(self, folder: Path) -> list[str]:
        """What `analyze` is called with."""
        found = self.files(folder)
        words = [str(found.pop(MODEL)), *(f"--{split}={path}" for split, path in found.items())]
        words += [f"--task={self.task}", *([f"--output={self.output}"] if self.output else [])]
        words += [f"--unit={pattern}" for pattern in self.units]
        return words + [f"--role={rule}" for rule in self.roles]


class Request(msgspec.Struct, frozen=True):
    """What to analyze. `csv` is a file's name, `csv_digest` its SHA-256; `cwd` the folder that
    relative paths of a Python file start from. `memory_bytes` is 0 for the usual bound,
    `scheme`, `calibrator`, `quantizer` and `until` are empty for the usual ones. With an `upload` it is what `source`
    only names. With `verify`, the folder of an analysis, nothing is analyzed: the `maps`, files in
    the job's folder, are built and run.
    """

    source: str
    precisions: tuple[str, ...] = ()
    expand_units: bool = False
    dry_run: bool = False
    csv: str = ""
    csv_digest: str = ""
    cwd: str = ""
    device: str = "cpu"
    memory_bytes: int = 0
    processes: int = 1
    scheme: str = ""
    calibrator: str = ""
    quantizer: str = ""
    until: str = ""
    upload: Upload | None = None
    verify: str = ""
    maps: tuple[str, ...] = ()


def analyses() -> tuple[Path, ...]:
    """Analyses that jobs have left, by the name of the job."""
    return tuple(path.parent for path in sorted(jobs_folder().glob(f"*/{ANALYSIS}/{store.FILE}")))


def names() -> tuple[str, ...]:
    """Names of all jobs, whatever their state."""
    return tuple(sorted(path.parent.name for path in jobs_folder().glob(f"*/{RECORD}")))


def digest(content: bytes) -> str:
    """The fingerprint by which a request knows its CSV."""
    return hashlib.sha256(content).hexdigest()


def command(request: Request, folder: Path) -> list[str]:
    """The words that run `request`; `-P` keeps a folder `core` of the person's from being run."""
    if request.verify:
        return _verifying(request, folder)
    given = [request.source] if request.upload is None else request.upload.words(folder)
    words = [sys.executable, "-P", "-m", "core", "analyze", *given]
    words += ["--progress", str(folder / PROGRESS)]
    words += ["--dry-run"] if request.dry_run else ["--out", str(folder / ANALYSIS)]
    words += ["--precisions", ",".join(request.precisions)] if request.precisions else []
    words += ["--expand-units"] if request.expand_units else []
    words += ["--scheme", request.scheme] if request.scheme else []
    words += ["--calibrator", request.calibrator] if request.calibrator else []
    words += ["--quantizer", request.quantizer] if request.quantizer else []
    words += ["--until", request.until.replace(" ", "-")] if request.until else []
    words += ["--device", request.device] if request.device != "cpu" else []
    words += ["--memory", str(request.memory_bytes)] if request.memory_bytes else []
    words += ["--jobs", str(request.processes)] if request.processes > 1 else []
    words += ["--csv", str(folder / file_name(request.csv))] if request.csv else []
    return words


def _verifying(request: Request, folder: Path) -> list[str]:
    """What was verified before is left out, so that the same words take a stopped job up again."""
    words = [sys.executable, "-P", "-m", "core", "verify", request.verify]
    words += [str(folder / file_name(name, ".json")) for name in request.maps]
    words += ["--source", request.source, "--skip-verified", "--progress", str(folder / PROGRESS)]
    return words


def new_folder(source: str) -> Path:
    """A folder that nothing is in, for its owner alone: the source's name with the next number."""
    plain = source.removeprefix(PREFIX)
    if onnx_file.is_reference(source):
        plain = Path(onnx_file.words(source)[0]).stem
    if python_file.is_reference(source):
        file, _, function = source.rpartition(":")
        plain = f"{Path(file).stem}.{function}"
    stem = re.sub(r"[^\w.-]+", "_", plain)[:60].strip("._") or "model"
    taken = [int(p.name.rpartition("-")[2]) for p in jobs_folder().glob(f"{stem}-run-*")
             if p.name.rpartition("-")[2].isdecimal()]  # fmt: skip
    folder = jobs_folder() / f"{stem}-run-{max(taken, default=0) + 1}"
    folder.mkdir(mode=0o700)
    return folder


def file_name(given: str, suffix: str = ".csv") -> str:
    """A person's file name without what could lead out of the folder, or over another file."""
    stem = re.sub(r"[^\w.-]+", "_", Path(given.replace("\\", "/")).name.removesuffix(suffix))
    return f"{stem[:80].strip('._') or 'data'}{suffix}"


def decode(path: Path, kind: type[Read]) -> Read | None:
    """The content of a small JSON file; None where there is none. Raises `JobError` where it cannot
    be read.
    """
    return FILES.load(path, kind) if is_there(path) else None


@contextmanager
def locked(*, shared: bool = False) -> Iterator[None]:
    """One starts while others wait: two starts of a source cannot both find it free."""
    jobs_folder().mkdir(parents=True, exist_ok=True)
    with (jobs_folder() / ".lock").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
