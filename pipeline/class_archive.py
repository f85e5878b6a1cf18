"""Archives of a JVM's classes (class-data sharing): who starts from one starts in about half of the time and CPU.

A JVM writes its archive when it ends; later ones map it. Each compares its own build, and the size and age of its jars,
with what the archive says, and if they differ starts as without one. One that was cut off would kill it, so that the
size of a whole one is kept beside it. None is needed. `make jars` writes them (experiments.machine.class_archives).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline.java import Java

# A JVM that starts without an archive that does not fit, and one that leaves out a class, say so in many lines.
_QUIET = "-Xlog:cds*=off"


def kafka(java: Java, jars: Iterable[Path]) -> Path:
    """Return where the archive of Kafka's broker is, or would be: in the cache, beside the folder of its jars."""
    own = list(jars)
    return _path(own[0].parent.parent, "kafka", java, own)


def spark(java: Java, jars: Iterable[Path]) -> Path:
    """Return where the archive of Spark's job is, or would be: in the environment that has pyspark."""
    return _path(Path(sys.prefix, "share", "emostream"), "spark", java, jars)


def mapped(archive: Path) -> tuple[str, ...]:
    """Return the options of a JVM that starts from `archive`; none if it is not there as a whole."""
    # To the JVM a colon separates two archives.
    return (f"-XX:SharedArchiveFile={archive}", _QUIET) if is_whole(archive) and ":" not in str(archive) else ()


def size_file(archive: Path) -> Path:
    """Return the file that keeps the size of `archive`, in bytes."""
    return archive.with_suffix(".size")


def is_whole(archive: Path) -> bool:
    """Return whether `archive` is there with the size that it was written with."""
    try:
        return archive.stat().st_size == int(size_file(archive).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False


def written(archive: Path) -> tuple[str, ...]:
    """Return the options of a JVM that writes `archive` when it ends."""
    return f"-XX:ArchiveClassesAtExit={archive}", _QUIET


def _path(folder: Path, name: str, java: Java, jars: Iterable[Path]) -> Path:
    release = java.home / "release"
    digest = hashlib.sha256(release.read_bytes() if release.is_file() else str(java).encode())
    for jar in jars:
        seen = jar.stat()
        digest.update(f"{jar} {seen.st_size} {seen.st_mtime_ns}\n".encode())
    return folder / f"{name}-{digest.hexdigest()[:12]}.jsa"
