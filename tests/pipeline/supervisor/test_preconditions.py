"""What must be true before anything of a chain starts."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.errors import KafkaUnreachableError, SettingError
from pipeline.settings import Settings, build
from pipeline.supervisor import preconditions
from pipeline.supervisor.preconditions import check, check_folder, check_ports

ROOT = os.getuid() == 0


@pytest.mark.parametrize(
    ("values", "error_text"),
    [
        ({"ingest_port": 8080}, "ingest_port .* is 8080 and registry_port is 8080: give each a port of its own"),
        ({"metrics_port": 8000}, "ingest_port .* is 8000 and metrics_port for spark is 8000"),
        ({"metrics_port": 7997}, "ingest_port .* is 8000 and metrics_port for cluster-publisher-2 is 8000"),
        (
            {"subscriber_port": 8080, "clusters": 1, "subscribers": 1},
            "registry_port .* is 8080 and subscriber_port is 8080",
        ),
        (
            {"subscriber_url": "https://a.example", "clusters": 1, "subscribers": 1},
            "subscriber_port .* is 0 and subscriber_url is set: give the port to which subscriber_url leads",
        ),
        ({"subscriber_port": 8101}, "subscriber_port .* is 8101: leave it out: this chain has several subscribers"),
        ({"subscriber_url": "https://a.example"}, "subscriber_url .* is 'https://a.example': leave it out"),
    ],
)
def test_ports_that_collide_are_named(values: dict[str, object], error_text: str) -> None:
    """Two settings with one port, and a subscriber's port or URL for several subscribers."""
    with pytest.raises(SettingError, match=error_text):
        check_ports(build(values))


@pytest.mark.parametrize(
    "values",
    [
        {"ingest_port": 0, "registry_port": 0, "metrics_port": 0},
        {"metrics_port": 9500},
        {"clusters": 1, "subscribers": 1, "subscriber_port": 8101, "subscriber_url": "https://a.example"},
    ],
)
def test_ports_that_differ_are_allowed(values: dict[str, object]) -> None:
    """0 is a free port each time, and a single subscriber may have its own."""
    check_ports(build(values))


@pytest.mark.parametrize("name", ["new/folder", "with space", "ü 😂", "a,b#c%20d:e?f*[g]{h}'i\"j$k\\l"])
def test_usable_folder_is_created(tmp_path: Path, name: str) -> None:
    """With its parents, whatever characters its name has, and without a file in it."""
    check_folder("run_dir", str(tmp_path / name))
    assert list((tmp_path / name).iterdir()) == []


def test_link_to_a_folder_is_usable(tmp_path: Path) -> None:
    """The run directory may be on another disk."""
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    check_folder("run_dir", str(tmp_path / "link"))
    assert (tmp_path / "disk").is_dir()


@pytest.mark.parametrize("kind", ["file", "below a file", "loop", "long name", "long path", "not a disk"])
def test_unusable_folder_is_named(tmp_path: Path, kind: str) -> None:
    """The error has the setting, the folder and a remedy."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    folder = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "run",
        "loop": tmp_path / "loop",
        "long name": tmp_path / ("x" * 300),
        "long path": tmp_path.joinpath(*["x" * 200] * 19),
        "not a disk": Path("/proc/emostream"),
    }[kind]
    with pytest.raises(SettingError, match=r"setting run_dir .*: give a directory "):
        check_folder("run_dir", str(folder))


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    """The system's reason is in the error."""
    tmp_path.chmod(0o500)
    with pytest.raises(SettingError, match=r"run_dir .*Permission denied"):
        check_folder("run_dir", str(tmp_path / "run"))


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka and Spark would die one after the other."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(preconditions.shutil, "disk_usage", lambda _: usage(3 << 20))
    with pytest.raises(SettingError, match=r"run_dir .* and its disk has 3 MB left: free some"):
        check_folder("run_dir", str(tmp_path))


def test_more_memory_than_the_machine_has_is_named(tmp_path: Path) -> None:
    """Java would not start, or be killed later."""
    with pytest.raises(SettingError, match=r"spark_memory .* is '9999g': give less than this machine's memory, \d+m"):
        check(build({"run_dir": str(tmp_path), "spark_memory": "9999g"}))


def test_checkpoint_on_a_file_system_with_a_scheme_makes_no_folder(tmp_path: Path) -> None:
    """A local one is made like the run directory."""
    settings = Settings(run_dir=str(tmp_path / "run"), checkpoint_dir=str(tmp_path / "checkpoint"))
    check(settings)
    check(settings.replace(checkpoint_dir="hdfs://namenode:9000/emostream"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "run"]


@pytest.mark.parametrize("setting", ["bootstrap_servers", "feed_bootstrap_servers"])
def test_kafka_that_is_not_there_is_named(tmp_path: Path, setting: str) -> None:
    """A closed port after kafka_wait_s, a name that does not exist at once."""
    settings = build({"run_dir": str(tmp_path), "kafka_wait_s": 0.1, setting: "127.0.0.1:1"})
    with pytest.raises(KafkaUnreachableError, match=f"no Kafka answers at {setting}='127.0.0.1:1'"):
        check(settings)
    settings = settings.replace(kafka_wait_s=3600, **{setting: "no-such-host.invalid:9092"})
    with pytest.raises(SettingError, match=rf"{setting} .* is 'no-such-host\.invalid:9092' \(.*(not known|resol)"):
        check(settings)
