"""The pinned jars of Kafka's broker and Spark's connector: downloaded once from Maven Central, then used offline."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import EmoStreamError, JarsError

KAFKA_VERSION = "4.2.2"
SCALA_VERSION = "2.13"
# The binding for the slf4j-api that Kafka 4.2 ships, which does not find a 2.x binding.
SLF4J_SIMPLE_VERSION = "1.7.36"
MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JarSet:
    """Jars resolved together: name, Maven coordinates joined by `+`, and names of jars already provided."""

    name: str
    coordinates: str
    provided: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """The name of the set's folder in the cache, which depends on the pins and the provided jars."""
        key = "\n".join([self.coordinates, *sorted(self.provided)])
        return f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


# (jar set, folder): puts exactly the jars that are needed into the folder.
Resolve = Callable[[JarSet, Path], None]


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
    return JarSet(f"kafka-{KAFKA_VERSION}", f"{kafka}+org.slf4j:slf4j-simple:{SLF4J_SIMPLE_VERSION}")


def spark_jar_set() -> JarSet:
    """Return Spark's Kafka connector in the installed pyspark's version, without the jars that pyspark ships.

    Raises JarsError if pyspark is not installed.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("pyspark is not installed in this environment: run `make env`")
    version = importlib.metadata.version("pyspark")
    shipped = frozenset(jar.name for jar in (Path(spec.origin).parent / "jars").glob("*.jar"))
    coordinates = f"org.apache.spark:spark-sql-kafka-0-10_{SCALA_VERSION}:{version}"
    return JarSet(f"spark-kafka-{version}", coordinates, shipped)


def kafka_classpath(cache_dir: Path | None = None) -> list[Path]:
    """Return the class path of Kafka's broker and tools, resolving it on first use. Raises JarsError."""
    return cached_jars(kafka_jar_set(), cache_dir)


def spark_connector_jars(cache_dir: Path | None = None) -> list[Path]:
    """Return the jars that pyspark needs (`spark.jars`) to use Kafka. Raises JarsError."""
    return cached_jars(spark_jar_set(), cache_dir)


def cached_jars(jar_set: JarSet, cache_dir: Path | None = None, resolve: Resolve | None = None) -> list[Path]:
    """Return the set's jars, sorted by name; once they are in the cache this is fast and offline.

    If a jar is missing or has the wrong size, the set is resolved again. Only one process resolves at a time; others
    wait and use its result. Raises JarsError with the coordinates, the cache and the remedy.
    """
    cache = default_cache_dir(os.environ) if cache_dir is None else cache_dir.absolute()
    if os.pathsep in str(cache):
        raise JarsError(
            f"jar cache {cache} has a {os.pathsep!r} in its path, which separates the entries of Java's class path: "
            "set EMOSTREAM_CACHE_DIR to another folder"
        )
    folder = cache / jar_set.folder
    if (jars := intact_jars(folder)) is not None:
        return jars
    try:
        with _lock(cache):
            if (jars := intact_jars(folder)) is None:
                logger.info("resolving %s from Maven Central into %s", jar_set.coordinates, folder)
                _fill(jar_set, folder, resolve or resolve_from_maven)
                jars = intact_jars(folder)
    except OSError as error:
        raise JarsError(
            f"jar cache {cache} cannot be used ({error}): set EMOSTREAM_CACHE_DIR to another folder"
        ) from error
    if jars is None:
        raise JarsError(f"jar cache {folder} was damaged while it was filled: delete it and run `make jars`")
    return jars


def intact_jars(folder: Path) -> list[Path] | None:
    """Return the jars in the folder's manifest if each exists with its size in bytes, else None."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["jars"]
        sizes = {folder / str(entry["name"]): int(entry["bytes"]) for entry in entries}
        if not sizes or any(path.stat().st_size != size for path, size in sizes.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sorted(sizes)


def is_provided(artifact_id: str, provided: Iterable[str]) -> bool:
    """Return whether one of the jar names in `provided` is the artifact, in any version."""
    pattern = re.compile(re.escape(artifact_id) + r"-\d.*\.jar")
    return any(pattern.fullmatch(name) for name in provided)


def resolve_from_maven(jar_set: JarSet, folder: Path) -> None:
    """Copy the set's jars into `folder`, from Maven Central or the user's local Maven repository."""
    try:
        _copy_with_jgo(jar_set, folder, None)
    except Exception as error:
        # An interrupted download in the shared local repository looks complete to every Maven client. A second attempt
        # with an empty repository separates that damage from a real failure.
        logger.warning("cannot use the local Maven repository (%s): trying without it", error)
        for jar in folder.glob("*.jar"):
            jar.unlink()
        with tempfile.TemporaryDirectory(prefix="repository-", dir=folder.parent) as repository:
            _copy_with_jgo(jar_set, folder, Path(repository))


def _copy_with_jgo(jar_set: JarSet, folder: Path, repository: Path | None) -> None:
    # Imported here because the import takes longer than a call with a filled cache.
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    context = MavenContext(repo_cache=repository)
    requested = [replace(Coordinate.parse(c), scope="compile") for c in jar_set.coordinates.split("+")]
    inputs, transitive = context.resolver.resolve([context.create_dependency(c) for c in requested])
    for dependency in [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime"))]:
        if not is_provided(dependency.artifactId, jar_set.provided):
            jar = Path(dependency.artifact.resolve())
            copy = Path(shutil.copyfile(jar, folder / jar.name))
            with zipfile.ZipFile(copy) as archive:
                if (broken := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{jar}: {broken} is damaged")


def _fill(jar_set: JarSet, folder: Path, resolve: Resolve) -> None:
    with tempfile.TemporaryDirectory(prefix=".resolving-", dir=folder.parent) as scratch:
        staging = Path(scratch) / "jars"
        staging.mkdir()
        try:
            resolve(jar_set, staging)
        except Exception as error:
            raise JarsError(
                f"jars {jar_set.coordinates} could not be resolved into {folder}: {error or type(error).__name__}. "
                "This needs a network once: check that Maven Central can be reached (HTTPS_PROXY, if you use one) "
                "and run `make jars`; or copy a filled cache from another machine and set EMOSTREAM_CACHE_DIR to it"
            ) from error
        entries = [
            {
                "name": jar.name,
                "bytes": jar.stat().st_size,
                "sha256": hashlib.sha256(jar.read_bytes()).hexdigest(),
            }
            for jar in sorted(staging.glob("*.jar"))
        ]
        manifest = {"coordinates": jar_set.coordinates, "jars": entries}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
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
    """Resolve every jar set and print where it is; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.jars", description="Download the pinned jars into the cache, once."
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="folder of the cache; default: EMOSTREAM_CACHE_DIR, or the user's cache"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        for jar_set in (kafka_jar_set(), spark_jar_set()):
            jars = cached_jars(jar_set, options.cache_dir)
            sys.stdout.write(f"{jar_set.name}: {len(jars)} jars in {jars[0].parent}\n")
    except EmoStreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
