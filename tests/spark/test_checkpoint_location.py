"""Where Spark's checkpoint is."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark.job import checkpoint_location


@pytest.mark.parametrize(
    ("checkpoint_dir", "run_dir", "location"),
    [
        ("", "/data/run", "file:///data/run/checkpoint"),
        ("", "/data/a b,ü%20#", "file:///data/a b,ü%20#/checkpoint"),
        ("/data/own", "/data/run", "file:///data/own"),
        ("/data/a:b", "/data/run", "file:///data/a:b"),
        ("hdfs://namenode:9000/emostream", "/data/run", "hdfs://namenode:9000/emostream"),
        ("webhdfs://namenode:9870/emostream", "/data/run", "webhdfs://namenode:9870/emostream"),
        ("file:/data/own", "/data/run", "file:/data/own"),
    ],
)
def test_checkpoint_is_on_the_local_disk_unless_it_has_a_scheme(
    checkpoint_dir: str, run_dir: str, location: str
) -> None:
    """Without a scheme, Hadoop would use the file system that its configuration names."""
    assert checkpoint_location(checkpoint_dir, run_dir) == location


def test_relative_folder_is_below_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hadoop would take it as relative to a directory of its own."""
    monkeypatch.chdir(tmp_path)
    assert checkpoint_location("own", "run") == f"file://{tmp_path}/own"
    assert checkpoint_location("", "run") == f"file://{tmp_path}/run/checkpoint"
