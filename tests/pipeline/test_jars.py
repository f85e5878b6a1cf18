"""The jar cache: filled once from the committed list, used offline, filled again if damaged; a fake replaces Maven."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline import jars, maven
from pipeline.errors import JarsError
from pipeline.jar_lock import LockedJar, LockedSet, read_lock, write_lock

CONTENTS = {"org.example:a:1": b"first", "org.example:b:2": b"second"}
LOCKED = LockedSet(
    coordinates="org.example:thing:1",
    jars=tuple(LockedJar(coordinates=c, sha256=hashlib.sha256(data).hexdigest()) for c, data in CONTENTS.items()),
)


@pytest.fixture
def jar_set(tmp_path: Path) -> jars.JarSet:
    """A set of two small jars, whose list is a file beside the cache."""
    lock = tmp_path / "lock" / "jars.json"
    lock.parent.mkdir()
    write_lock(lock, {"thing": LOCKED})
    return jars.JarSet("thing", LOCKED.coordinates, lock)


def no_network(locked: Sequence[LockedJar], folder: Path) -> None:
    """Fail as without a network."""
    raise ConnectionError("there is no network")


def two_jars(locked: Sequence[LockedJar], folder: Path) -> None:
    """Download the set's two small files."""
    for jar in locked:
        (folder / jar.filename).write_bytes(CONTENTS[jar.coordinates])


class Repository:
    """A Maven repository in memory; what it holds is written to `folder`, and `fetched` counts."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder, self.contents = folder, contents
        self.fetched: list[str] = []

    def jar(self, coordinates: str) -> Path:
        """Return the file, as `maven.MavenRepository` does."""
        self.fetched.append(coordinates)
        path = self.folder / coordinates.replace(":", "-")
        path.write_bytes(self.contents[coordinates])
        return path


def test_second_call_answers_from_the_cache(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """Without a network, in the same order."""
    first = jars.cached_jars(jar_set, tmp_path / "cache", two_jars)
    assert [jar.name for jar in first] == ["a-1.jar", "b-2.jar"]
    assert all(jar.is_absolute() for jar in first)
    assert jars.cached_jars(jar_set, tmp_path / "cache", no_network) == first


@pytest.mark.parametrize("content", [None, b"fir", b"fIrst"])
def test_damaged_cache_is_filled_again(
    jar_set: jars.JarSet, tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A jar is missing, too short, or of the same size with other bytes; it is named."""
    damaged = jars.cached_jars(jar_set, tmp_path, two_jars)[0]
    damaged.unlink() if content is None else damaged.write_bytes(content)
    assert [jar.read_bytes() for jar in jars.cached_jars(jar_set, tmp_path, two_jars)] == [b"first", b"second"]
    assert re.search(r"missing in .* or not those of the list: a-1\.jar$", caplog.text, re.MULTILINE)


def test_downloaded_jar_that_differs_is_refused(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """By name, with the list and the remedy; nothing of the set gets into the cache."""

    def changed(locked: Sequence[LockedJar], folder: Path) -> None:
        two_jars(locked, folder)
        (folder / "b-2.jar").write_bytes(b"sec0nd")

    with pytest.raises(
        JarsError, match=r"^jars b-2\.jar were downloaded and are not those that .*jars\.json lists"
    ) as caught:
        jars.cached_jars(jar_set, tmp_path / "cache", changed)
    assert "run `make jars` again" in str(caught.value)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_changed_list_uses_another_folder(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """After a change of one jar of the list, the old jars are not used."""
    old = jars.cached_jars(jar_set, tmp_path, two_jars)
    write_lock(jar_set.lock, {"thing": LockedSet(coordinates=LOCKED.coordinates, jars=LOCKED.jars[:1])})
    (new,) = jars.cached_jars(jar_set, tmp_path, two_jars)
    assert new.parent != old[0].parent


@pytest.mark.parametrize(
    ("name", "coordinates", "listed"),
    [("thing", "org.example:thing:2", "org.example:thing:1"), ("other", "org.example:thing:1", "nothing")],
)
def test_set_that_is_not_in_the_list_is_refused(
    jar_set: jars.JarSet, tmp_path: Path, name: str, coordinates: str, listed: str
) -> None:
    """A version was changed and the list was not written again, or another pyspark is installed."""
    with pytest.raises(JarsError, match=rf"jars {name} are {coordinates}, and .* lists {listed}: run `make env`"):
        jars.cached_jars(jars.JarSet(name, coordinates, jar_set.lock), tmp_path, two_jars)


@pytest.mark.parametrize("text", [None, "{", '{"thing": {"coordinates": 1}}'])
def test_unreadable_list_is_named(tmp_path: Path, text: str | None) -> None:
    """It is missing, cut short, or something else."""
    lock = tmp_path / "jars.json"
    if text is not None:
        lock.write_text(text)
    with pytest.raises(JarsError, match=r"list of jars .*/jars\.json cannot be read"):
        read_lock(lock)


def test_failure_names_coordinate_cache_and_remedy(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """No incomplete set stays in the cache."""
    cache = tmp_path / "cache"
    with pytest.raises(JarsError) as caught:
        jars.cached_jars(jar_set, cache, no_network)
    for part in ("org.example:thing:1", str(cache), "there is no network", "make jars", "EMOSTREAM_CACHE_DIR"):
        assert part in str(caught.value)
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_unusable_cache_folder_is_named_with_setting(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """A file has the name of the cache's folder."""
    occupied = tmp_path / "cache"
    occupied.write_text("not a folder")
    with pytest.raises(JarsError, match="EMOSTREAM_CACHE_DIR") as caught:
        jars.cached_jars(jar_set, occupied, two_jars)
    assert str(occupied) in str(caught.value)


def test_cache_that_cannot_be_a_class_path_is_named(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """Java would look for two folders, and find neither."""
    with pytest.raises(JarsError, match=r"jar cache .*/a:b has a ':' in its path.*set EMOSTREAM_CACHE_DIR"):
        jars.cached_jars(jar_set, tmp_path / "a:b", two_jars)


def test_only_one_process_downloads_at_a_time(jar_set: jars.JarSet, tmp_path: Path) -> None:
    """Of two callers with an empty cache, one downloads and the other waits for its result."""
    entered, second, release = threading.Event(), threading.Event(), threading.Event()

    def slow(locked: Sequence[LockedJar], folder: Path) -> None:
        (second if entered.is_set() else entered).set()
        release.wait(10)
        two_jars(locked, folder)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(jars.cached_jars, jar_set, tmp_path, slow) for _ in range(2)]
        assert entered.wait(10)
        both_download = second.wait(0.5)
        release.set()
        results = [future.result(10) for future in running]
    assert not both_download
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
    assert maven.is_provided(artifact, shipped) is provided


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


@pytest.mark.parametrize("damaged", [b"cut sho", b"f1rst"])
def test_damaged_local_repository_is_replaced_by_an_empty_one(
    jar_set: jars.JarSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    """A jar of the shared local repository that is truncated or another is downloaded without it; the rest is used."""
    made: list[Repository] = []

    def repository(folder: Path | None = None) -> Repository:
        contents = CONTENTS if folder else {**CONTENTS, "org.example:a:1": damaged}
        own = folder or tmp_path / "m2"
        own.mkdir(exist_ok=True)
        made.append(Repository(own, contents))
        return made[-1]

    monkeypatch.setattr(jars, "MavenRepository", repository)
    cached = jars.cached_jars(jar_set, tmp_path / "cache")
    assert [jar.read_bytes() for jar in cached] == [b"first", b"second"]
    local, fresh = made
    assert (local.fetched, fresh.fetched) == (list(CONTENTS), ["org.example:a:1"])


def test_lock_lists_what_maven_resolves(jar_set: jars.JarSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that is written is the one that is read: each jar with its hash and its licences."""

    class Central(Repository):
        def resolve(self, coordinates: str, provided: frozenset[str]) -> list[str]:
            assert (coordinates, provided) == (jar_set.coordinates, frozenset({"x-1.jar"}))
            return list(CONTENTS)

        def licences(self, coordinates: str) -> tuple[str, ...]:
            return ("MIT",)

    monkeypatch.setattr(jars, "MavenRepository", lambda folder: Central(folder, CONTENTS))
    written = tmp_path / "written.json"
    jars.lock_jars([jars.JarSet("thing", jar_set.coordinates, written, frozenset({"x-1.jar"}))], written)
    (locked,) = read_lock(written).values()
    assert [(jar.coordinates, jar.sha256) for jar in locked.jars] == [(j.coordinates, j.sha256) for j in LOCKED.jars]
    assert {jar.licences for jar in locked.jars} == {("MIT",)}


def test_real_repository_without_network_raises_jars_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused and the local repository is empty."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JarsError, match=r"org\.apache\.kafka:kafka_2\.13:4\.2\.2"):
        jars.cached_jars(jars.kafka_jar_set(), tmp_path / "cache")


def test_committed_list_is_for_the_pinned_versions() -> None:
    """Each set's list has its coordinates, and every jar a hash of the right form and a licence."""
    for jar_set in (jars.kafka_jar_set(), jars.spark_jar_set()):
        locked = jar_set.locked()
        assert set(jar_set.coordinates.split("+")) <= {jar.coordinates for jar in locked.jars}
        for jar in locked.jars:
            assert re.fullmatch(r"[0-9a-f]{64}", jar.sha256), jar
            assert jar.licences, jar


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
