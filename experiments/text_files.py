"""Text files that people write: designs, recordings, notebooks. It imports little, since a scheduler imports it."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import SettingError
from pipeline.text_encoding import not_utf8, packing


def read(path: Path, kind: str) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Raises OSError if it cannot be opened, and SettingError naming `kind`, the path, the encoding that the file probably
    has and the remedy if it is not UTF-8.
    """
    data = path.read_bytes()
    packed = packing(data)
    wrong = f"it begins like {packed}, as a workbook or an archive does" if packed else not_utf8(data)
    if wrong:
        raise SettingError(f"{kind} {path} is not text in UTF-8: {wrong}. Save it as text in UTF-8")
    return data.decode("utf-8-sig")


def mutated(path: Path, old: str, new: str, name: str) -> str:
    """Return the text of a source file with `old` replaced, which it has once.

    Raises SettingError naming the mutation `name` if the text is not there, or more than once.
    """
    source = path.read_text(encoding="utf-8")
    if (times := source.count(old)) != 1:
        raise SettingError(
            f"mutation {name}: {old!r} is {times} times in {path.parent.name}/{path.name}, and must be there once: "
            "write the mutation for the source as it is now"
        )
    return source.replace(old, new)
