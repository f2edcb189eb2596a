"""Where what was found by running a model is kept: in its analysis folder, but for bundled samples.

A sample's folder belongs to the program and may be read-only or under version control; its
records lie under the user's data directory, beside the jobs.
"""

from __future__ import annotations

import os
from pathlib import Path

from core.source.samples import ROOT

VARIABLE = "QUANTSCAPE_JOBS"
"""As in `core.job_folder`: records of samples lie beside the jobs."""


def home_of(folder: Path) -> Path:
    """The folder that holds `verifications/` and `profiles/` of the analysis in `folder`."""
    try:
        inside = folder.resolve().relative_to(ROOT)
    except ValueError:
        return folder
    given = os.environ.get(VARIABLE)
    data = os.environ.get("XDG_DATA_HOME")
    base = Path(data) if data else Path.home() / ".local" / "share"
    home = Path(given).parent if given else base / "quantscape"
    return home / "records" / inside.parts[0]
