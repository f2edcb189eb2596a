"""The one error boundary: what is expected becomes a cause and a next step, the rest an id.

Nothing that was drawn before the error is lost, and the navigation stays.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import streamlit as st

from core.errors import QuantscapeError
from dashboard.display.text import plain

LOG = logging.getLogger("quantscape.dashboard")


@dataclass(frozen=True, slots=True)
class boundary:  # noqa: N801 -- used as a `with` statement's verb, like `contextlib.suppress`
    """Show errors of the block in place. `where` names the part for the log and the reader."""

    where: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        # Streamlit's own signals to stop or rerun are no `Exception`, and pass.
        if isinstance(error, QuantscapeError):
            show_expected(error)
        elif isinstance(error, Exception):
            _show_unexpected(error, self.where)
        else:
            return False
        return True


def show_expected(error: QuantscapeError) -> None:
    """Cause and next step. A cause quotes files and names, which are no Markdown of ours."""
    st.error(f"**{plain(error.cause)}**\n\n{error.next_step}", icon=":material/error:")


def _show_unexpected(error: Exception, where: str) -> None:
    identifier = uuid.uuid4().hex[:8]
    LOG.error("error %s in %s", identifier, where, exc_info=error)
    st.error(
        f"**Something went wrong in {where}.** This is a defect of Quantscape, not of your model. "
        f"The log has the details under error id `{identifier}`. The other pages and your policy "
        "still work.",
        icon=":material/bug_report:",
    )
    with st.expander("Copy details"):
        st.code(f"Quantscape error {identifier} in {where}: {type(error).__name__}", language=None)
