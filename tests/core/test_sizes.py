"""Amounts of memory as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cli.main import main
from core.errors import PolicyError
from core.evidence.measure.memory_size import MOST_BYTES, UNITS, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("2 GB", 2_000_000_000), ("2gb", 2_000_000_000), (" 1.5GiB ", 1_610_612_736),
     ("800 MB", 800_000_000), ("27000000", 27_000_000), ("1 kib", 1024), ("12 b", 12)],
)  # fmt: skip
def test_amounts_are_read(text: str, size: int) -> None:
    """Units in any case, with or without a space; a plain number is bytes."""
    assert parse_bytes(text) == size


@given(st.integers(1, MOST_BYTES // 2**40), st.sampled_from(sorted(UNITS)))
def test_every_whole_amount_reads_back(number: int, unit: str) -> None:
    """Number times unit, whatever they are."""
    assert parse_bytes(f"{number} {unit.upper()}") == number * UNITS[unit]


@given(st.text(max_size=20))
def test_no_text_breaks_it(text: str) -> None:
    """Anything is an amount within bounds, or refused."""
    found = None
    with suppress(PolicyError):
        found = parse_bytes(text)
    assert found is None or 0 < found <= MOST_BYTES


@pytest.mark.parametrize("text", ["much", "-1", "0", "1e9", "2 gigs", "1.5.2 GB", "9999999999 TB"])
def test_the_command_line_refuses_what_is_none(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--memory` names what was given and what to write."""
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", "sample:digits_vit", "--dry-run", f"--memory={text}"])

    assert stopped.value.code == 2
    assert "--memory" in capsys.readouterr().err
