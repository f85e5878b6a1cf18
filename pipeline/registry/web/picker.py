"""The choices of the page's emoji picker: every emoji that ingest counts, by name, with its skin tones.

Source: Unicode's emoji-test.txt as shipped by the `emoji` package, the list that ingest checks against.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import emoji
import msgspec

from pipeline.http_messages import Choice

TONES = tuple(map(chr, range(0x1F3FB, 0x1F400)))
_BARE = {ord(tone): None for tone in TONES} | {0xFE0F: None}
_FACES = range(0x1F600, 0x1F650)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_PICTURES = range(0x1F300, 0x20000)


@functools.cache
def choices() -> tuple[Choice, ...]:
    """Return every fully-qualified emoji without a skin tone: faces, other pictures, signs, and last flags.

    Within each group the order is that of Unicode, which puts similar emoji together. Forms with more than one tone
    are left out.
    """
    listed = {
        text: data for text, data in emoji.EMOJI_DATA.items() if data["status"] == emoji.STATUS["fully_qualified"]
    }
    toned: dict[tuple[str, str], str] = {}
    for text in listed:
        tones = {tone for tone in TONES if tone in text}
        if len(tones) == 1:
            toned[text.translate(_BARE), tones.pop()] = text
    plain = (text for text in listed if not any(tone in text for tone in TONES))
    return tuple(_choice(text, listed[text], toned) for text in sorted(plain, key=_order))


@functools.cache
def document() -> bytes:
    """Return `choices()` as JSON."""
    return msgspec.json.encode(choices())


def _choice(text: str, data: Mapping[str, Any], toned: Mapping[tuple[str, str], str]) -> Choice:
    forms = tuple(toned[key] for tone in TONES if (key := (text.translate(_BARE), tone)) in toned)
    words = " ".join(map(_words, data.get("alias", ())))
    return Choice(text, _words(data["en"]), words, data["E"], forms if len(forms) == len(TONES) else ())


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ")


def _order(text: str) -> tuple[int, str]:
    first = ord(text[0])
    if first in _FACES:
        return 0, text
    if first in _PICTURES:
        return 1, text
    return 3 if first in _FLAG_LETTERS else 2, text
