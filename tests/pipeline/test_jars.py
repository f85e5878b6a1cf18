"""The jar cache: resolved once, used offline, repaired when damaged; a fake stands for Maven Central."""

from __future__ import annotations

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline import jars
from pipeline.errors import JarsError

SET = jars.JarSet("thing-1", "org.example:thing:1")


def no_resolver(jar_set: jars.JarSet, folder: Path) -> None:
    """Stand for a machine without a network."""
    raise ConnectionError("the network is away")


def two_jars(jar_set: jars.JarSet, folder: Path) -> None:
    """Resolve the set into two small files."""
    (folder / "a-1.jar").write_bytes(b"first")
    (folder / "b-2.jar").write_bytes(b"second")


def test_resolved_once_and_offline_afterwards(tmp_path: Path) -> None:
    """The second call answers from the cache, in order, without the resolver."""
    first = jars.cached_jars(SET, tmp_path, two_jars)
    assert [jar.name for jar in first] == ["a-1.jar", "b-2.jar"]
    assert all(jar.is_absolute() for jar in first)
    assert jars.cached_jars(SET, tmp_path, no_resolver) == first


@pytest.mark.parametrize(
    ("name", "content"),
    [("a-1.jar", None), ("a-1.jar", b"fir"), ("manifest.json", None), ("manifest.json", b'{"jars": [{"na')],
)
def test_a_damaged_cache_is_resolved_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A missing or shortened jar, or a missing or broken manifest, leads to a whole set again."""
    damaged = jars.cached_jars(SET, tmp_path, two_jars)[0].with_name(name)
    damaged.unlink() if content is None else damaged.write_bytes(content)
    assert [jar.read_bytes() for jar in jars.cached_jars(SET, tmp_path, two_jars)] == [b"first", b"second"]


def test_another_pin_has_a_place_of_its_own(tmp_path: Path) -> None:
    """Changing a coordinate, or what is provided, never reuses the jars of the old pin."""
    others = [
        jars.JarSet("thing-1", "org.example:thing:2"),
        jars.JarSet("thing-1", SET.coordinates, frozenset({"a-1.jar"})),
    ]
    assert len({jar_set.folder for jar_set in [SET, *others]}) == 3


def test_a_failure_names_coordinate_cache_and_remedy(tmp_path: Path) -> None:
    """Without a network the error says what was wanted, where it would go, the remedy; no half set stays."""
    with pytest.raises(JarsError) as caught:
        jars.cached_jars(SET, tmp_path, no_resolver)
    for part in (
        "org.example:thing:1",
        str(tmp_path),
        "the network is away",
        "make jars",
        "EMOSTREAM_CACHE_DIR",
    ):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the cache's folder should be is reported with the setting that moves the cache."""
    occupied = tmp_path / "cache"
    occupied.write_text("not a folder")
    with pytest.raises(JarsError, match="EMOSTREAM_CACHE_DIR") as caught:
        jars.cached_jars(SET, occupied, two_jars)
    assert str(occupied) in str(caught.value)


def test_only_one_resolves_at_a_time(tmp_path: Path) -> None:
    """Of two that find the cache empty one resolves, and the other waits and uses the result."""
    entered, second, release = threading.Event(), threading.Event(), threading.Event()

    def slow(jar_set: jars.JarSet, folder: Path) -> None:
        (second if entered.is_set() else entered).set()
        release.wait(10)
        two_jars(jar_set, folder)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(jars.cached_jars, SET, tmp_path, slow) for _ in range(2)]
        assert entered.wait(10)
        both_resolve = second.wait(0.5)
        release.set()
        results = [future.result(10) for future in running]
    assert not both_resolve
    assert results[0] == results[1]
    assert not second.is_set()


@pytest.mark.parametrize(
    ("artifact", "provided"),
    [
        ("lz4-java", True),
        ("spark-tags_2.13", True),
        ("kafka-clients", False),
        ("spark-sql-kafka-0-10_2.13", False),
        ("spark", False),
        ("lz4", False),
    ],
)
def test_what_pyspark_ships_is_left_out(artifact: str, provided: bool) -> None:
    """An artifact counts as provided in any version, but not because its name begins another's."""
    shipped = ["lz4-java-1.11.0.jar", "spark-tags_2.13-4.2.0.jar", "spark-sql_2.13-4.2.0.jar"]
    assert jars.is_provided(artifact, shipped) is provided


@pytest.mark.parametrize(
    ("env", "platform", "expected"),
    [
        ({"EMOSTREAM_CACHE_DIR": "/big/disk"}, "linux", Path("/big/disk")),
        ({"XDG_CACHE_HOME": "/xdg"}, "linux", Path("/xdg/emostream")),
        ({"XDG_CACHE_HOME": "relative"}, "linux", Path.home() / ".cache/emostream"),
        ({}, "linux", Path.home() / ".cache/emostream"),
        ({}, "darwin", Path.home() / "Library/Caches/emostream"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(env: dict[str, str], platform: str, expected: Path) -> None:
    """The variable comes first, then XDG's, which has to be absolute, then the platform's own place."""
    assert jars.default_cache_dir(env, platform) == expected


def test_a_damaged_local_repository_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jar cut short in the shared local repository makes it resolve again in an empty one of its own."""
    used: list[Path | None] = []

    def copy(jar_set: jars.JarSet, folder: Path, repository: Path | None) -> None:
        used.append(repository)
        two_jars(jar_set, folder)
        if repository is None:
            (folder / "c-3.jar").write_bytes(b"cut sho")
            raise zipfile.BadZipFile("c-3.jar is damaged")

    monkeypatch.setattr(jars, "_copy_with_jgo", copy)
    found = jars.cached_jars(SET, tmp_path)
    assert [jar.name for jar in found] == ["a-1.jar", "b-2.jar"]
    assert used[0] is None
    assert used[1] is not None


def test_the_real_resolver_fails_clearly_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every connection refused and an empty local repository, the real resolver ends in that error."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JarsError, match=r"org\.apache\.kafka:kafka_2\.13:4\.2\.2"):
        jars.cached_jars(jars.kafka_jar_set(), tmp_path / "cache")


@pytest.mark.integration
def test_the_pinned_jars_are_what_runs() -> None:
    """The broker's class path holds the pinned Kafka, and Spark gets its connector and no jar twice."""
    kafka = {jar.name for jar in jars.kafka_classpath()}
    assert {f"kafka_2.13-{jars.KAFKA_VERSION}.jar", f"kafka-server-{jars.KAFKA_VERSION}.jar"} <= kafka
    assert any(name.startswith("slf4j-simple-") for name in kafka)
    connector = {jar.name for jar in jars.spark_connector_jars()}
    assert f"spark-sql-kafka-0-10_2.13-{version('pyspark')}.jar" in connector
    assert any(name.startswith("kafka-clients-") for name in connector)
    assert not connector & jars.spark_jar_set().provided
    assert len(connector) == 4
