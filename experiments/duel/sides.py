"""The two sides of a duel: a checkout with its own code and interpreter, and the parameters that its runs set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.parameters import PARAMETERS
from experiments.repository import ROOT
from experiments.run.chain import clean_environment
from experiments.run.code_state import code_state
from pipeline.errors import EmoStreamError, SettingError

START_S = 180.0


@dataclass(frozen=True)
class Side:
    """One side: `name` is A or B, `text` what the command line said, `parameters` what its runs set of their own."""

    name: str
    text: str
    checkout: Path
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def interpreter(self) -> str:
        """The checkout's own Python if it has an environment, else this process's."""
        own = self.checkout / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def code(self) -> dict[str, Any]:
        """Return the `commit`, `dirty` and `diff_sha256` of the checkout."""
        return code_state(self.checkout)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of the checkout's own instrument."""
        return [self.interpreter, "-m", "experiments", *arguments]

    def error(self, what: str, stderr: str) -> EmoStreamError:
        """Return the error that names this side, `what` happened to it, and the last line that it wrote."""
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else "it wrote nothing"
        return EmoStreamError(f"version {self.name} ({self.text}) {what}: {last}. No report is written")


def side(name: str, text: str) -> Side:
    """Return the side that `text` names: a checkout's folder, or NAME=VALUE,… for this checkout.

    Raises SettingError naming the side if it is neither.
    """
    folder = Path(text)
    if (folder / "experiments" / "__main__.py").is_file():
        return Side(name, text, folder.resolve())
    pairs = [pair.partition("=") for pair in text.split(",")]
    if folder.exists() or not all(key.strip() and equals for key, equals, _ in pairs):
        raise SettingError(
            f"{name} is {text!r}: give the folder of a checkout of EmoStream, or parameters such as flush_ms=100"
        )
    given = {key.strip(): value.strip() for key, _, value in pairs}
    if len(given) < len(pairs):
        raise SettingError(f"{name} is {text!r}: it names a parameter twice; keep one")
    for parameter in given:
        if parameter not in PARAMETERS:
            raise SettingError(
                f"{name} is {text!r}: there is no parameter {parameter!r}; use one of {', '.join(PARAMETERS)}"
            )
    return Side(name, text, ROOT, given)


def check_start(one: Side) -> None:
    """Raise EmoStreamError naming the side if its instrument does not even start."""
    try:
        done = subprocess.run(
            one.command("run", "--help"), cwd=one.checkout, env=clean_environment(), capture_output=True, text=True,
            encoding="utf-8", errors="replace", timeout=START_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise one.error(f"does not start within {START_S:g} s", "") from None
    except OSError as error:
        raise one.error("does not start", str(error)) from error
    if done.returncode:
        raise one.error("does not start", done.stderr)
