"""The pinned jars of Kafka's broker and Spark's connector: downloaded once from Maven Central, then used offline.

Every jar, the transitive ones included, is in a committed list with its SHA-256 (`jars.json`); a jar that differs from
it is never used.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EmoStreamError, JarsError
from pipeline.jar_lock import LockedJar, LockedSet, damaged, read_lock, sha256_of, write_lock
from pipeline.maven import MavenRepository

KAFKA_VERSION = "4.4.0"
SCALA_VERSION = "2.13"
# The binding for the slf4j-api that Kafka 4.4 ships, which does not find a 2.x binding.
SLF4J_SIMPLE_VERSION = "1.7.36"
LOCK = Path(__file__).with_name("jars.json")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JarSet:
    """Jars that are used together.

    `coordinates` are those of Maven, joined by `+`; `lock` is the file that lists all jars that follow from them;
    `provided` are the names of jars that exist already, which the list leaves out; `command` downloads the set.
    """

    name: str
    coordinates: str
    lock: Path = LOCK
    provided: frozenset[str] = frozenset()
    command: str = "make jars"

    def locked(self) -> LockedSet:
        """Return the set's jars as the committed list has them. Raises JarsError if it has other coordinates."""
        entry = read_lock(self.lock).get(self.name)
        if entry is None or entry.coordinates != self.coordinates:
            listed = "nothing" if entry is None else entry.coordinates
            raise JarsError(
                f"jars {self.name} are {self.coordinates}, and {self.lock} lists {listed}: run `make env` to install "
                "the locked packages; after a change of a version, `make lock`"
            )
        return entry

    def folder(self, cache: Path) -> Path:
        """Return the set's folder in a cache. Raises JarsError as `locked` does."""
        return cache / f"{self.name}-{self.locked().digest}"

    def lacking(self, cache: Path) -> list[str]:
        """Return the names of the jars that the cache lacks or has otherwise. Raises JarsError as `locked` does."""
        return damaged(self.folder(cache), self.locked().jars)


# (jars, folder): puts these jars into the folder.
Fetch = Callable[[Sequence[LockedJar], Path], None]


def default_cache_dir(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the user's cache folder: EMOSTREAM_CACHE_DIR, or the platform's (`sys.platform`) usual one.

    Raises JarsError if that is in a home directory and the user has none.
    """
    given, xdg = env.get("EMOSTREAM_CACHE_DIR"), Path(env.get("XDG_CACHE_HOME", ""))
    try:
        if given:
            return Path(given).expanduser().absolute()
        if platform == "darwin":
            return Path.home() / "Library" / "Caches" / "emostream"
        return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "emostream"
    except RuntimeError as error:
        seen = repr(given) if given else "not set"
        raise JarsError(
            f"EMOSTREAM_CACHE_DIR is {seen} and this user has no home directory: set EMOSTREAM_CACHE_DIR to the "
            "folder that keeps the jars of Kafka and Spark, without ~"
        ) from error


def kafka_jar_set() -> JarSet:
    """Return the broker's jars and their logging binding."""
    kafka = f"org.apache.kafka:kafka_{SCALA_VERSION}:{KAFKA_VERSION}"
    return JarSet("kafka", f"{kafka}+org.slf4j:slf4j-simple:{SLF4J_SIMPLE_VERSION}")


def spark_jar_set() -> JarSet:
    """Return Spark's Kafka connector in the installed pyspark's version, without the jars that pyspark ships.

    Raises JarsError if pyspark is not installed.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("pyspark is not installed in this environment: run `make env`")
    version = importlib.metadata.version("pyspark")
    shipped = frozenset(jar.name for jar in (Path(spec.origin).parent / "jars").glob("*.jar"))
    return JarSet("spark-kafka", f"org.apache.spark:spark-sql-kafka-0-10_{SCALA_VERSION}:{version}", provided=shipped)


def kafka_classpath(cache_dir: Path | None = None) -> list[Path]:
    """Return the class path of Kafka's broker and tools, downloading it on first use. Raises JarsError."""
    return cached_jars(kafka_jar_set(), cache_dir)


def spark_connector_jars(cache_dir: Path | None = None) -> list[Path]:
    """Return the jars that pyspark needs (`spark.jars`) to use Kafka. Raises JarsError."""
    return cached_jars(spark_jar_set(), cache_dir)


def cached_jars(jar_set: JarSet, cache_dir: Path | None = None, fetch: Fetch | None = None) -> list[Path]:
    """Return the set's jars, sorted by name; once they are in the cache this is fast and offline.

    Each jar's SHA-256 is compared with the list's on each call. If a jar is missing or differs, the set is downloaded
    again. Only one process downloads at a time; others wait and use its result. Raises JarsError with the coordinates
    or the jar, the cache and the remedy.
    """
    cache = default_cache_dir(os.environ) if cache_dir is None else cache_dir.absolute()
    if os.pathsep in str(cache):
        raise JarsError(
            f"jar cache {cache} has a {os.pathsep!r} in its path, which separates the entries of Java's class path: "
            "set EMOSTREAM_CACHE_DIR to another folder"
        )
    locked, folder = jar_set.locked(), jar_set.folder(cache)
    if damaged(folder, locked.jars):
        try:
            with _lock(cache):
                if wrong := damaged(folder, locked.jars):
                    if folder.exists():
                        logger.warning("jars missing in %s or not those of the list: %s", folder, ", ".join(wrong))
                    logger.info("downloading %s from Maven Central into %s", jar_set.coordinates, folder)
                    _fill(jar_set, locked, folder, fetch or fetch_from_maven)
        except OSError as error:
            raise JarsError(
                f"jar cache {cache} cannot be used ({error}): set EMOSTREAM_CACHE_DIR to another folder"
            ) from error
    return sorted(folder / jar.filename for jar in locked.jars)


def fetch_from_maven(jars: Sequence[LockedJar], folder: Path) -> None:
    """Copy the jars into `folder`, from the user's local Maven repository or Maven Central.

    A jar of the local repository that is not the locked one is downloaded again, into a repository of its own: an
    interrupted download there looks complete to every Maven client.
    """
    local = MavenRepository()
    with tempfile.TemporaryDirectory(prefix="repository-", dir=folder.parent) as empty:
        fresh = MavenRepository(Path(empty))
        for jar in jars:
            try:
                found = local.jar(jar.coordinates)
                if sha256_of(found) != jar.sha256:
                    raise OSError(f"{found} is not the jar of the list")
            except Exception as error:
                logger.warning("cannot use the local Maven repository (%s): trying without it", error)
                found = fresh.jar(jar.coordinates)
            shutil.copyfile(found, folder / jar.filename)


def lock_jars(jar_sets: Iterable[JarSet], path: Path) -> None:
    """Resolve the sets at Maven Central and write the list of their jars to `path`.

    Each jar is downloaded into an empty repository, so that nothing of this machine gets into the list. Raises what jgo
    raises when a file cannot be downloaded.
    """
    with tempfile.TemporaryDirectory(prefix="repository-") as empty:
        maven = MavenRepository(Path(empty))
        sets = {}
        for jar_set in jar_sets:
            jars = [
                LockedJar(coordinates=c, sha256=sha256_of(maven.jar(c)), licences=maven.licences(c))
                for c in maven.resolve(jar_set.coordinates, jar_set.provided)
            ]
            sets[jar_set.name] = LockedSet(coordinates=jar_set.coordinates, jars=tuple(jars))
    write_lock(path, sets)


def _fill(jar_set: JarSet, locked: LockedSet, folder: Path, fetch: Fetch) -> None:
    with tempfile.TemporaryDirectory(prefix=".downloading-", dir=folder.parent) as scratch:
        staging = Path(scratch) / "jars"
        staging.mkdir()
        try:
            fetch(locked.jars, staging)
        except Exception as error:
            raise JarsError(
                f"jars {jar_set.coordinates} could not be downloaded into {folder}: {error or type(error).__name__}. "
                "This needs a network once: check that Maven Central can be reached (HTTPS_PROXY, if you use one) "
                f"and run `{jar_set.command}`; or copy a filled cache from another machine and set EMOSTREAM_CACHE_DIR "
                "to it"
            ) from error
        if wrong := damaged(staging, locked.jars):
            raise JarsError(
                f"jars {', '.join(wrong)} were downloaded and are not those that {jar_set.lock} lists (their SHA-256 "
                f"differs), so none is used: run `{jar_set.command}` again; if that says the same, ask whoever runs "
                "your network's proxy or mirror of Maven Central, because a published jar never changes"
            )
        # A rename cannot replace a folder that is not empty.
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Download every jar set and print where it is, or write the list of jars; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.jars", description="Download the pinned jars into the cache, once."
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="folder of the cache; default: EMOSTREAM_CACHE_DIR, or the user's cache"
    )
    parser.add_argument(
        "--lock", action="store_true", help="resolve the jars again and write the list of them, with their SHA-256"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        jar_sets = (kafka_jar_set(), spark_jar_set())
        if options.lock:
            lock_jars(jar_sets, LOCK)
            sys.stdout.write(f"{LOCK}\n")
            return 0
        for jar_set in jar_sets:
            jars = cached_jars(jar_set, options.cache_dir)
            sys.stdout.write(f"{jar_set.coordinates}: {len(jars)} jars in {jars[0].parent}\n")
    except EmoStreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
