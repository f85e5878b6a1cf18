"""What a twin may be told: bounds, and what is refused by name."""

from __future__ import annotations

import pytest

from experiments.twin.settings import Twin, build, read, to_yaml
from pipeline.errors import SettingError


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lose": 1.2}, r"lose of the twin is 1\.2: .*<= 1\.0"),
        ({"lose": 0.7, "refuse": 0.6}, r"refuse 0\.6, lose 0\.7: together more than everything"),
        ({"lose_deliveries": 0.6, "move_deliveries": 0.5}, "lose_deliveries 0.6, move_deliveries 0.5: together more"),
        ({"lose": -0.1}, r"lose of the twin is -0\.1"),
        ({"network_ms": [5, 1]}, r"network_ms is \[5\.0, 1\.0\]: give the least before the most"),
        ({"accept_ms": 3}, "accept_ms of the twin is 3: expected `array`"),
        ({"late_windows_ms": {4: -1}}, "late_windows_ms.* of the twin is {4: -1}"),
        ({"flush_lead_ms": 900}, "flush_lead_ms is 900: give at most flush_ms, 500"),
        ({"losses": 0.1}, "losses"),
    ],
)
def test_impossible_twin_is_refused_by_name(values, named):
    """Shares of more than everything, delays that end before they begin, and names that do not exist."""
    with pytest.raises(SettingError, match=named):
        build(values)


def test_twin_is_read_back_from_its_file(tmp_path):
    """Only what differs from a clean twin is written, and it makes the same twin."""
    path = tmp_path / "twin.yaml"
    twin = build({"lose": 0.5, "duplicate": 0.5, "network_ms": [1, 4], "phantoms": {3: 300}, "unemitted": [2, 5]})
    path.write_text(to_yaml(twin), encoding="utf-8")
    assert read(path) == twin
    assert "seed" not in path.read_text()
    path.write_text(to_yaml(Twin()), encoding="utf-8")
    assert read(path) == Twin()


@pytest.mark.parametrize("text", ["lose: [", "- lose", ""])
def test_file_that_is_not_a_twin_is_named(tmp_path, text):
    """Neither a list nor broken YAML is taken for a clean twin."""
    path = tmp_path / "twin.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=r"twin\.yaml"):
        read(path)
