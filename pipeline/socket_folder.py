"""A temporary folder for Unix sockets, whose paths are limited to some hundred bytes."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

from pipeline.errors import SettingError

SHORT = "/tmp"


def socket_folder(longest: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new temporary folder that can hold a socket named `longest`: in TMPDIR, or else in /tmp.

    Raises SettingError if neither can: its path is too long, it is read-only, or its file system has no sockets.
    """
    failures = []
    for place in (None, SHORT):
        try:
            folder = tempfile.TemporaryDirectory(prefix="emostream-", dir=place, ignore_cleanup_errors=True)
        except OSError as error:
            failures.append(str(error))
            continue
        path = Path(folder.name, longest)
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(str(path))
            path.unlink()
            return folder
        except OSError as error:
            folder.cleanup()
            failures.append(f"{error}: {path}")
    raise SettingError(
        f"no temporary folder can hold a Unix socket ({'; '.join(failures)}): set TMPDIR to a folder with a short path "
        "that this user can write"
    )
