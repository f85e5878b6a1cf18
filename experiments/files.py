"""Files of a run, written atomically: after a kill in the middle the old file is still complete."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import EmoStreamError

if TYPE_CHECKING:
    # Every command line imports this module, and pandas takes longer than all else.
    import pandas as pd

DISK_FULL = "the disk is full"
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically. Raises EmoStreamError naming the path if it cannot be written."""
    with _whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def to_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame`, less its index, atomically. Raises EmoStreamError naming the path if it cannot be written."""
    with _whole(path) as beside:
        frame.to_parquet(beside, index=False)


def to_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame`, less its index, atomically. Raises EmoStreamError naming the path if it cannot be written."""
    with _whole(path) as beside:
        frame.to_csv(beside, index=False)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unwritten(path: Path | str, error: OSError) -> EmoStreamError:
    """Return the error for a `path` that could not be written: it names the path, the cause and the remedy."""
    remedy = f"{DISK_FULL}: make room" if error.errno in FULL else f"{error.strerror or error}: fix that"
    return EmoStreamError(f"{path} could not be written: {remedy} and run it again")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise an OSError of the body, which writes or makes `path`, as `unwritten`."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is renamed to `path` once it is complete."""
    beside = _beside(path)
    try:
        with writing(path):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # The name holds the process id: two processes that write the same file must not share it.
    return path.with_name(f".{path.name}.{os.getpid()}.part")
