"""Text is UTF-8 on every machine: no file and no pipe of the project is read or written in the locale's encoding."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.harness.paths import REPOSITORY

PACKAGES = ("dags", "experiments", "pipeline", "spark")
TEXT_METHODS = {"read_text": 0, "write_text": 1}
"""Methods of a Path, and how many arguments come before the encoding."""
OTHER_OWNERS = {"Campaign", "files", "os"}
"""Their functions of these names open no file as text, or name the encoding themselves."""


def unspecified(source: str) -> Iterator[str]:
    """Yield `line: what` for every call in `source` that reads or writes text without an encoding."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if "encoding" in named:
            continue
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = getattr(getattr(call.func, "value", None), "id", "")
        # A URL is opened with a timeout.
        if owner in OTHER_OWNERS or (name == "open" and "timeout" in named):
            continue
        if name in TEXT_METHODS and len(call.args) <= TEXT_METHODS[name]:
            yield f"{call.lineno}: {name}"
        elif name == "open":
            mode = named.get("mode", call.args[not method] if len(call.args) > (not method) else None)
            if not (isinstance(mode, ast.Constant) and "b" in str(mode.value)):
                yield f"{call.lineno}: {name}"
        elif {"text", "universal_newlines"} & set(named):
            yield f"{call.lineno}: {name} with text"


def test_every_text_has_its_encoding() -> None:
    """Files and pipes of text name UTF-8: a report has emoji, and a machine's locale may be C or Latin-1."""
    sources = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    assert sources
    found = {
        f"{path.relative_to(REPOSITORY)}:{call}"
        for path in sources
        for call in unspecified(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", ["1: read_text"]),
        ("path.write_text(text)", ["1: write_text"]),
        ("path.open('w')", ["1: open"]),
        ("open(path)", ["1: open"]),
        ("subprocess.run(words, text=True)", ["1: run with text"]),
        ("path.open('wb'), open(path, 'rb'), path.read_text('utf-8'), path.write_text(text, encoding='utf-8')", []),
        ("os.open(path, os.O_RDWR), files.write_text(path, text), opener.open(url, timeout=1)", []),
        ("(folder / name).open('ab')", []),
    ],
)
def test_a_missing_encoding_is_found(source: str, found: list[str]) -> None:
    """The check itself finds each kind, and leaves bytes and calls with an encoding alone."""
    assert list(unspecified(source)) == found
