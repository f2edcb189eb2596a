"""The pages, each a row: what it is called, where it lies, and what the frame does for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal["nothing", "model", "layers"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `app_pages/NAME/page.py`, which runs when it is on screen.

    Where what it `needs` is not there the frame says so in its place: "model" is an analysis that
    opens, "layers" one with something to quantize. A page that `shows_jobs` tells in full what
    runs; on the others the frame says it in one line. `help` is read under the pointer.
    """

    name: str
    title: str
    icon: str
    help: str
    needs: Needs
    shows_jobs: bool = False

    @property
    def script(self) -> str:
        """The file of the page, from the folder of the entry point."""
        return f"app_pages/{self.name}/page.py"

    @property
    def is_first(self) -> bool:
        """Whether it opens when no page is named."""
        return next(iter(PAGES)) == self.name

    @property
    def address(self) -> str:
        """Its path in the browser."""
        return "/" if self.is_first else f"/{self.name}"


PAGES = {
    page.name: page
    for page in (
        Page("overview", "Overview", ":material/landscape:", "Is INT8 a good idea here?", "layers"),
        Page("measure", "Measure", ":material/science:", "Measure a model, beside everything else",
             "nothing", shows_jobs=True),
        Page("tune", "Tune", ":material/tune:", "Move it and see what flips", "layers"),
        Page("compare", "Compare", ":material/compare:", "Which strategy should I ship?", "layers"),
        Page("verify", "Verify", ":material/verified:", "Does it hold on a real runtime?", "model",
             shows_jobs=True),
        Page("export", "Export", ":material/download:", "Give me the file", "model"),
        Page("method", "Method", ":material/functions:", "What these numbers mean", "nothing"),
    )
}  # fmt: skip
"""By name, in the order of the navigation."""
