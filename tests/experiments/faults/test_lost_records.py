"""Where a segment of Kafka's log is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.faults.lost_records import _Cut


@pytest.mark.parametrize(("offset", "first", "left"), [(19, 17, 154), (17, 17, 154), (16, 10, 12), (3, 10, 12)])
def test_the_batch_with_an_offset_is_cut(tmp_path: Path, offset: int, first: int, left: int) -> None:
    """Batches of 142, 60 and 60 bytes begin at 10, 17 and 20; of the one that is cut its head is left."""
    file = tmp_path / "00000000000000000010.log"
    sizes = {10: 142, 17: 60, 20: 60}
    file.write_bytes(
        b"".join(
            at.to_bytes(8, "big") + (size - 12).to_bytes(4, "big") + bytes(size - 12) for at, size in sizes.items()
        )
    )
    cut = _Cut.at(file, offset)
    assert cut.first == first
    cut.carry_out()
    assert file.stat().st_size == left
