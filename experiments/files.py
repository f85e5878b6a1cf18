"""Files of a run, written whole or not at all: a kill in the middle leaves what stood there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pipeline.errors import EmoStreamError

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


def unwritten(path: Path | str, error: OSError) -> EmoStreamError:
    """Return the error to raise where `path` could not be written: it names the path, the cause and what to do."""
    remedy = f"{DISK_FULL}: make room" if error.errno in FULL else f"{error.strerror or error}: mend that"
    return EmoStreamError(f"{path} could not be written: {remedy} and run it again")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have what keeps the body from writing or making `path` raised as `unwritten`."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a place beside `path` to write to, which takes its name once it is whole."""
    beside = _beside(path)
    try:
        with writing(path):
            yield beside
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # Named by the process: two that write the same file do not write into each other's.
    return path.with_name(f".{path.name}.{os.getpid()}.part")
