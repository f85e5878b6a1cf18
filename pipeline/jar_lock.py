"""The committed list of every jar that is used: its coordinates, SHA-256 and licence, the transitive jars included.

`make lock` writes such a file; the cache accepts no jar that differs from it. Reading it needs no network and no Java.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline.errors import JarsError


class LockedJar(msgspec.Struct, frozen=True):
    """One jar: `group:artifact:version`, its SHA-256 in hexadecimal, and its licences as its project names them."""

    coordinates: str
    sha256: str
    licences: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """The name of its file, as in every Maven repository."""
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"

    @property
    def artifact(self) -> str:
        """The artifact without its group and version."""
        return self.coordinates.split(":")[1]


class LockedSet(msgspec.Struct, frozen=True):
    """Jars that were resolved together: the coordinates asked for, joined by `+`, and all that follow from them."""

    coordinates: str
    jars: tuple[LockedJar, ...]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when any jar changes."""
        text = "\n".join(f"{jar.coordinates} {jar.sha256}" for jar in self.jars)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_lock(path: Path) -> dict[str, LockedSet]:
    """Return the locked sets by name. Raises JarsError if the file is missing or is not such a list."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, LockedSet])
    except (OSError, msgspec.DecodeError) as error:
        raise JarsError(f"list of jars {path} cannot be read ({error}): restore it, or install again") from error


def write_lock(path: Path, sets: Mapping[str, LockedSet]) -> None:
    """Write the locked sets by name, sorted, so that a change of one jar changes one entry of the file."""
    text = json.dumps(msgspec.to_builtins(sets), indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: Path, jars: Sequence[LockedJar]) -> list[str]:
    """Return the names of the jars that are missing in the folder or are not the locked ones."""

    def as_locked(jar: LockedJar) -> bool:
        try:
            return sha256_of(folder / jar.filename) == jar.sha256
        except OSError:
            return False

    return [jar.filename for jar in jars if not as_locked(jar)]
