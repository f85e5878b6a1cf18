"""Maven Central, and the user's local Maven repository: which jars follow from coordinates, and fetching one.

jgo is imported only on use: the import takes longer than a call with a filled cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def is_provided(artifact_id: str, provided: Iterable[str]) -> bool:
    """Return whether one of the jar names in `provided` is the artifact, in any version."""
    pattern = re.compile(re.escape(artifact_id) + r"-\d.*\.jar")
    return any(pattern.fullmatch(name) for name in provided)


class MavenRepository:
    """Jars of Maven Central, kept in `folder`; by default in the user's local Maven repository.

    Every method raises what jgo raises when a file cannot be downloaded.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from jgo.maven import MavenContext

        self._context: Any = MavenContext(repo_cache=folder)

    def resolve(self, coordinates: str, provided: frozenset[str] = frozenset()) -> list[str]:
        """Return the coordinates of the jars that the given ones (joined by `+`) need at runtime, themselves included.

        Jars whose artifact is in `provided` (names of files) are left out. The list is sorted.
        """
        from dataclasses import replace

        from jgo.parse import Coordinate

        requested = [replace(Coordinate.parse(c), scope="compile") for c in coordinates.split("+")]
        inputs, transitive = self._context.resolver.resolve([self._context.create_dependency(c) for c in requested])
        used = [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime") and d.type == "jar")]
        return sorted(
            f"{d.groupId}:{d.artifactId}:{d.version}" for d in used if not is_provided(d.artifactId, provided)
        )

    def jar(self, coordinates: str) -> Path:
        """Return the path of the jar with these coordinates, which is downloaded if it is not in the repository."""
        return Path(self._component(coordinates).artifact().resolve())

    def licences(self, coordinates: str) -> tuple[str, ...]:
        """Return the licences that the project of the jar names, or else its parent's."""
        pom = self._component(coordinates).pom()
        while pom is not None:
            if names := [name for name in pom.values("licenses/license/name") if name]:
                return tuple(" ".join(name.split()) for name in names)
            pom = self._context.pom_parent(pom)
        return ()

    def _component(self, coordinates: str) -> Any:
        group, artifact, version = coordinates.split(":")
        return self._context.project(group, artifact).at_version(version)
