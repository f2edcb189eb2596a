"""`python -m dashboard [DIR ...] [FILE.py:FUNCTION ...]`: open the dashboard.

Analyses in DIRs are opened beside the bundled samples. A function in a Python file can be measured
from the page Measure: it is trusted because it was named here, and runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from core.analysis import store
from core.errors import ModelError, QuantscapeError, printable
from core.source import python_file
from dashboard import FOLDERS_VARIABLE, SOURCES_VARIABLE
from dashboard.guard import Guard, host_name

ROOT = Path(__file__).resolve().parents[1]
BAD_INPUT = 2
MAX_PORT = 65_535
FIRST_USED = ("dashboard.frame.verdict", "dashboard.frame.sidebar", "dashboard.charts.scores",
              "dashboard.charts.curve", "dashboard.app_pages.tune.layer_table")  # fmt: skip
"""Imported before serving, so that the first page does not wait for pandas and Altair."""


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port: use 1 to {MAX_PORT}")
    return port


def _name(text: str) -> str:
    """A host's name as browsers send it."""
    try:
        name = host_name(text if ":" not in text else f"[{text.strip('[]')}]")
        name = name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not re.fullmatch(r"[a-z0-9._:-]+", name):
        raise argparse.ArgumentTypeError(
            f"{text} is no host: give a name or address alone, such as box.example.org"
        )
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dashboard",
        description="Open the dashboard on the bundled samples and on your own analyses.",
    )
    parser.add_argument(
        "named",
        nargs="*",
        metavar="DIR|FILE.py:FUNCTION",
        help="analysis folders, and functions that return a model to measure; these run with your "
        "rights",
    )
    parser.add_argument(
        "--port", type=_port, default=8501, help="port to listen on (default: 8501)"
    )
    parser.add_argument(
        "--address",
        default="localhost",
        help="address to listen on (default: localhost, reachable from this machine alone)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        type=_name,
        default=[],
        metavar="NAME",
        help="answer under this name too, as behind a proxy; may be repeated (default: localhost, "
        "the address listened on, and every numeric address where that is 0.0.0.0 or ::)",
    )
    return parser


def _absolute(reference: str) -> str:
    """The reference as it is known from every folder. The file is not run here."""
    file, _, function = reference.rpartition(":")
    if not Path(file).is_file():
        raise ModelError(f"There is no file {file}.", "Name it as path/to/file.py:function.")
    return f"{Path(file).resolve()}:{function}"


def main(arguments: list[str] | None = None) -> int:
    """Check what was named, then serve until interrupted. Returns the exit code."""
    given = _parser().parse_args(arguments)
    sources = [text for text in given.named
               if python_file.is_reference(text) and not Path(text).is_dir()]  # fmt: skip
    paths = [Path(text) for text in given.named if text not in sources]
    try:
        for folder in paths:
            store.load(folder)
        named = [_absolute(source) for source in sources]
    except QuantscapeError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n")
        return BAD_INPUT
    folders = [str(folder.resolve()) for folder in paths]
    os.environ[FOLDERS_VARIABLE] = os.pathsep.join(folders)
    os.environ[SOURCES_VARIABLE] = json.dumps({"sources": named, "cwd": str(Path.cwd())})
    os.chdir(ROOT)  # Streamlit reads .streamlit/config.toml of the working directory
    import streamlit as st
    from starlette.middleware import Middleware

    for module in FIRST_USED:
        import_module(module)
    served = {*given.allow_host, host_name(given.address) or given.address}
    app = st.App(ROOT / "dashboard" / "app.py", middleware=[Middleware(Guard, served=served)])
    with suppress(KeyboardInterrupt):  # Ctrl+C is how a server ends
        app.run(
            config={
                "server.port": given.port,
                "server.address": given.address,
                "server.fileWatcherType": "none",
            }
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
