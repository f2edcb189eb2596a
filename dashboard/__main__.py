"""`python -m dashboard [DIR ...]`: open the dashboard on bundled samples and on DIRs."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from core import store
from core.errors import QuantscapeError
from dashboard import FOLDERS_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
BAD_INPUT = 2
MAX_PORT = 65_535
FIRST_USED = ("dashboard.verdict", "dashboard.sidebar", "dashboard.score_chart",
              "dashboard.curve_chart", "dashboard.layer_table")  # fmt: skip
"""Imported before serving, so that the first page does not wait for pandas and Altair."""


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port: use 1 to {MAX_PORT}")
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboard",
        description="Open the dashboard on the bundled samples and on your own analyses.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="analysis folders")
    parser.add_argument(
        "--port", type=_port, default=8501, help="port to listen on (default: 8501)"
    )
    parser.add_argument(
        "--address",
        default="localhost",
        help="address to listen on (default: localhost, reachable from this machine alone)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Check the folders, then serve until interrupted. Returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        for folder in given.folders:
            store.load(folder)
    except QuantscapeError as error:
        line = str(error).replace("\n", " ")
        sys.stderr.write(f"error: {line}\n")
        return BAD_INPUT
    folders = [str(folder.resolve()) for folder in given.folders]
    os.environ[FOLDERS_VARIABLE] = os.pathsep.join(folders)
    os.chdir(ROOT)  # Streamlit reads .streamlit/config.toml of the working directory
    from streamlit.web import cli

    for module in FIRST_USED:
        import_module(module)
    sys.argv = [
        "streamlit",
        "run",
        str(ROOT / "dashboard" / "app.py"),
        f"--server.port={given.port}",
        f"--server.address={given.address}",
        "--server.fileWatcherType=none",
    ]
    cli.main(prog_name="streamlit")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
