"""Netron's viewer looks for what our attachment holds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.interop import sample

pytestmark = pytest.mark.filterwarnings("ignore")


def test_netron_reads_these_keys() -> None:
    """The keys of our attachment are those that Netron's viewer looks for."""
    sample.needs("netron", "netron")
    found = find_spec("netron")
    assert found is not None
    assert found.origin is not None
    text = (Path(found.origin).parent / "view.js").read_text("utf-8")
    reader = text.split("metadata.Attachment = class")[1].split(
        "metadata.Attachment.Container = class"
    )
    entries = reader[1].split("model(value)")[0]

    assert "'netron:attachment'" in reader[0]
    assert "Container('metadata')" in reader[0]
    assert "Container('metrics')" in reader[0]
    for key in ("item.kind", "'target' in item", "item.name", "item.value"):
        assert key in entries
