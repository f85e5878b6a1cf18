"""Command lines that are printed or written for people to run again. No I/O."""

from __future__ import annotations

import shlex


def command(module: str, *words: str) -> str:
    """Return the command that runs a module with `words`, as one line for a POSIX shell, quoted where needed."""
    return shlex.join(["python", "-m", module, *words])


def emostream(*words: str) -> str:
    """Return the command `emostream` with `words`, as `command` does; errors name it whatever was started."""
    return shlex.join(["emostream", *words])


def path_word(path: object) -> str:
    """Return a path as a word of a command: "./" in front of a dash, or the program would take it for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text
