"""The commands that the documents show, as a reader would paste them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from tests.harness.paths import REPOSITORY

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "reports" / "README.md",
        *sorted((REPOSITORY / "docs").glob("*.md")),
    )
    # What was typed in earlier versions.
    if path.name != "changelog.md"
}
PROGRAM = "registry=${REGISTRY:-"
"""How the programs of docs/clients.md begin, which tests/integration/page/test_client_matrix.py runs."""
OURS = re.compile(r"(?:emostream|python3? -m (?:pipeline|spark|experiments)[\w.]*)(?: .+)?")


class Shown(NamedTuple):
    """A command of a document's block."""

    page: str
    command: str


def blocks(text: str) -> Iterator[str]:
    """Yield the blocks of shell of a document, without those that are programs."""
    for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if not block.startswith(PROGRAM):
            yield block


def commands() -> list[Shown]:
    """Return every command of every block, in order: one for a line, or for the lines that belong together."""
    return [Shown(page, each) for page, text in PAGES.items() for block in blocks(text) for each in split(block)]


def split(block: str) -> list[str]:
    """Return the commands of a block without comments; a command may continue on the next lines."""
    found: list[str] = []
    begun = ""
    for line in block.splitlines():
        begun = f"{begun}\n{line}" if begun else re.sub(r"(^|\s+)# .*$", "", line)
        if begun and not begun.endswith("\\") and _is_whole(begun):
            found.append(begun.strip())
            begun = ""
    assert not begun, f"a block of shell ends within a command: {begun}"
    return found


def inline() -> list[Shown]:
    """Return the commands of ours between single backquotes, in any document."""
    found = []
    for page, text in PAGES.items():
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`]+)`", outside):
            words = " ".join(code.split())
            if OURS.fullmatch(words):
                found.append(Shown(page, words))
    return found


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True
