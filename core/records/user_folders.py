"""Where the program keeps what belongs to a user and to no analysis folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "QUANTSCAPE_JOBS"
"""Environment variable that names the folder of all jobs."""


def jobs_folder() -> Path:
    """The folder of all jobs, with the user's data unless `VARIABLE` names one; it need not exist
    yet.
    """
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_data_path("quantscape") / "jobs"


def records_folder() -> Path:
    """The records of bundled samples, whose own folders may be read-only: beside the jobs."""
    return jobs_folder().parent / "records"
