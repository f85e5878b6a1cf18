"""The jar cache: filled once, used offline, filled again when damaged; a fake replaces Maven Central."""

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
    """Fail as without a network."""
    raise ConnectionError("there is no network")


def two_jars(jar_set: jars.JarSet, folder: Path) -> None:
    """Resolve the set into two small files."""
    (folder / "a-1.jar").write_bytes(b"first")
    (folder / "b-2.jar").write_bytes(b"second")


def test_second_call_answers_from_the_cache(tmp_path: Path) -> None:
    """Without the resolver, in the same order."""
    first = jars.cached_jars(SET, tmp_path, two_jars)
    assert [jar.name for jar in first] == ["a-1.jar", "b-2.jar"]
    assert all(jar.is_absolute() for jar in first)
    assert jars.cached_jars(SET, tmp_path, no_resolver) == first


@pytest.mark.parametrize(
    ("name", "content"),
    [("a-1.jar", None), ("a-1.jar", b"fir"), ("manifest.json", None), ("manifest.json", b'{"jars": [{"na')],
)
def test_damaged_cache_is_filled_again(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A jar is missing or too short, or the manifest is missing or broken."""
    damaged = jars.cached_jars(SET, tmp_path, two_jars)[0].with_name(name)
    damaged.unlink() if content is None else damaged.write_bytes(content)
    assert [jar.read_bytes() for jar in jars.cached_jars(SET, tmp_path, two_jars)] == [b"first", b"second"]


def test_changed_pin_uses_another_folder(tmp_path: Path) -> None:
    """After a change of a coordinate or of the provided jars, the old jars are not used."""
    others = [
        jars.JarSet("thing-1", "org.example:thing:2"),
        jars.JarSet("thing-1", SET.coordinates, frozenset({"a-1.jar"})),
    ]
    assert len({jar_set.folder for jar_set in [SET, *others]}) == 3


def test_failure_names_coordinate_cache_and_remedy(tmp_path: Path) -> None:
    """No incomplete set stays in the cache."""
    with pytest.raises(JarsError) as caught:
        jars.cached_jars(SET, tmp_path, no_resolver)
    for part in (
        "org.example:thing:1",
        str(tmp_path),
        "there is no network",
        "make jars",
        "EMOSTREAM_CACHE_DIR",
    ):
        assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_unusable_cache_folder_is_named_with_setting(tmp_path: Path) -> None:
    """A file has the name of the cache's folder."""
    occupied = tmp_path / "cache"
    occupied.write_text("not a folder")
    with pytest.raises(JarsError, match="EMOSTREAM_CACHE_DIR") as caught:
        jars.cached_jars(SET, occupied, two_jars)
    assert str(occupied) in str(caught.value)


def test_cache_that_cannot_be_a_class_path_is_named(tmp_path: Path) -> None:
    """Java would look for two folders, and find neither."""
    with pytest.raises(JarsError, match=r"jar cache .*/a:b has a ':' in its path.*set EMOSTREAM_CACHE_DIR"):
        jars.cached_jars(SET, tmp_path / "a:b", two_jars)


def test_only_one_process_resolves_at_a_time(tmp_path: Path) -> None:
    """Of two callers with an empty cache, one resolves and the other waits for its result."""
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
def test_jars_of_pyspark_count_as_provided(artifact: str, provided: bool) -> None:
    """In any version, but not if the name is only a prefix of another artifact's."""
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
def test_default_cache_dir_by_variable_and_platform(env: dict[str, str], platform: str, expected: Path) -> None:
    """EMOSTREAM_CACHE_DIR comes first, then XDG_CACHE_HOME if it is absolute, then the platform's folder."""
    assert jars.default_cache_dir(env, platform) == expected


@pytest.mark.parametrize("env", [{}, {"EMOSTREAM_CACHE_DIR": "~/jars"}])
def test_user_without_a_home_is_told_the_setting(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, a user may have neither HOME nor an entry in the list of users."""

    def nobody(_: int) -> object:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(JarsError, match=r"this user has no home directory: set EMOSTREAM_CACHE_DIR"):
        jars.default_cache_dir(env, "linux")


def test_damaged_local_repository_is_replaced_by_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated jar in the shared local repository causes a second attempt without it."""
    used: list[Path | None] = []

    def copy(jar_set: jars.JarSet, folder: Path, repository: Path | None) -> None:
        used.append(repository)
        two_jars(jar_set, folder)
        if repository is None:
            (folder / "c-3.jar").write_bytes(b"cut sho")
            raise zipfile.BadZipFile("c-3.jar is damaged")

    monkeypatch.setattr(jars, "_copy_with_jgo", copy)
    cached = jars.cached_jars(SET, tmp_path)
    assert [jar.name for jar in cached] == ["a-1.jar", "b-2.jar"]
    assert used[0] is None
    assert used[1] is not None


def test_real_resolver_without_network_raises_jars_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused and the local repository is empty."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JarsError, match=r"org\.apache\.kafka:kafka_2\.13:4\.2\.2"):
        jars.cached_jars(jars.kafka_jar_set(), tmp_path / "cache")


@pytest.mark.integration
def test_class_paths_have_the_pinned_versions() -> None:
    """The broker gets the pinned Kafka; Spark gets its connector, and no jar twice."""
    kafka = {jar.name for jar in jars.kafka_classpath()}
    assert {f"kafka_2.13-{jars.KAFKA_VERSION}.jar", f"kafka-server-{jars.KAFKA_VERSION}.jar"} <= kafka
    assert any(name.startswith("slf4j-simple-") for name in kafka)
    connector = {jar.name for jar in jars.spark_connector_jars()}
    assert f"spark-sql-kafka-0-10_2.13-{version('pyspark')}.jar" in connector
    assert any(name.startswith("kafka-clients-") for name in connector)
    assert not connector & jars.spark_jar_set().provided
    assert len(connector) == 4
