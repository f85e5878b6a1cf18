"""What the crowd calls a fault: a window that is missing, or received again."""

from __future__ import annotations

import pytest

from experiments.faults.crowd import gaps


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [
        ([], []),
        (["e:1"], []),
        (["e:1", "e:2", "f:0", "f:1"], []),
        (["e:1", "e:3"], ["e:3 came after e:1"]),
        (["e:1", "e:1", "e:2"], ["e:1 came after e:1"]),
        (["e:2", "e:1", "e:2"], ["e:1 came after e:2"]),
    ],
)
def test_each_window_follows_the_last_one(ids: list[str], wrong: list[str]) -> None:
    """Within an epoch; a new epoch begins anywhere."""
    assert gaps(ids) == wrong
