"""The properties of JMeter's plan, as `-J NAME=VALUE` sets them, checked before anything starts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.errors import SettingError
from pipeline.shell import path_word

# JMeter gives each user a thread.
MOST_THREADS = 10_000
MOST_S = 86_400
_BOUNDS: dict[str, tuple[float, float]] = {
    "users": (1, MOST_THREADS),
    "ramp_up_s": (0, MOST_S),
    "duration_s": (1, MOST_S),
    "think_s": (0, MOST_S),
    "rate_per_s": (0, 1_000_000),
    "viewers": (0, MOST_THREADS),
    "bad_users": (0, MOST_THREADS),
}


@dataclass(frozen=True)
class Properties:
    """The plan's properties, without the addresses, which come from the chain. The plan has the same defaults."""

    users: int = 100
    ramp_up_s: int = 6
    duration_s: int = 60
    think_s: float = 1.0
    rate_per_s: float = 0.0
    viewers: int = 3
    bad_users: int = 1
    mix: str = "emoji-mix.csv"

    @property
    def cycle_s(self) -> float:
        """The mean time from one reaction of a fan to its next, without the answer, seconds."""
        return self.users / self.rate_per_s if self.rate_per_s else self.think_s

    def words(self) -> list[str]:
        """Return them as JMeter's command line has them."""
        return [f"-J{name}={_plain(value)}" for name, value in asdict(self).items()]

    def command(self, attach: str = "") -> str:
        """Return the command that starts a run with them, on the chain whose ready file is `attach`, if it is given."""
        changed = [f"-J{f.name}={_plain(getattr(self, f.name))}" for f in fields(self) if _differs(self, f.name)]
        attached = ["--attach", path_word(attach)] if attach else []
        return shlex.join(["emostream", "jmeter", *changed, *attached])


def parsed(words: Sequence[str]) -> Properties:
    """Return the properties of `words`, each `NAME=VALUE`.

    Raises SettingError naming the property if it is unknown, given twice, no number or out of bounds; and for a `mix`
    that is no file.
    """
    kinds: dict[str, type] = {field.name: type(getattr(Properties(), field.name)) for field in fields(Properties)}
    given: dict[str, int | float | str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in kinds or not equals:
            raise SettingError(f"-J is {word!r}: give NAME=VALUE, where NAME is one of {', '.join(kinds)}")
        if name in given:
            raise SettingError(f"property {name} is given twice: keep one -J{name}=…")
        given[name] = str(_file(text)) if kinds[name] is str else _number(name, text, kinds[name])
    return Properties(**given)  # type: ignore[arg-type]


def _number(name: str, text: str, kind: type) -> int | float:
    """Return the value of a property; JMeter itself would take 0 for a text that is no number."""
    low, high = _BOUNDS[name]
    what = "a whole number" if kind is int else "a number"
    try:
        value = int(text) if kind is int and text.isascii() else float(text) if kind is float else math.nan
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise SettingError(
            f"property {name} is {text!r}: give {what} from {_plain(float(low))} to {_plain(float(high))}"
        )
    return value


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise SettingError(
            f"property mix is {text!r}, which is not a file: give a CSV with the heading emoji_type and one emoji per "
            "line"
        )
    return path.resolve()


def _plain(value: float | str) -> str:
    # The plan takes no exponent.
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _differs(properties: Properties, name: str) -> bool:
    return bool(getattr(properties, name) != getattr(Properties(), name))
