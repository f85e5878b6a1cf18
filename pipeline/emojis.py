"""The strings that are exactly one emoji, the form in which each is counted, and what other strings are. No I/O.

Unicode lists some emoji in several spellings (with and without the variation selector U+FE0F), and devices and programs
send more: selectors where none is needed, invisible characters and spaces around. They look the same, so they count
together: every spelling maps to the fully-qualified one. Skin tones and genders stay distinct.
Source of the spellings: Unicode's emoji-test.txt as shipped by the `emoji` package.
"""

from __future__ import annotations

import html
import re
from urllib.parse import unquote

import emoji

from pipeline import text_encoding
from pipeline.messages import EMOJI_MAX

EXAMPLE = "😂"

_FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
_COMPONENT = emoji.STATUS["component"]
_COMPONENTS = {text for text, data in emoji.EMOJI_DATA.items() if data["status"] == _COMPONENT}
# Only the emoji presentation exists here, so that a request for the text presentation (U+FE0E) changes nothing.
_SELECTORS = {0xFE0E: None, 0xFE0F: None}
# White space, and characters that show nothing: joiners, direction marks, soft hyphens, byte order marks.
_UNSEEN = (
    "".join(char for char in map(chr, range(0x3001)) if char.isspace())
    + "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    + "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufeff"
)
_TAGS = re.compile("[\U000e0020-\U000e007f]")
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]{1,2}")
# A single letter is more likely a mistake than the name of ❌ or ⭕.
_BARE_NAME = re.compile(r"[A-Za-z0-9_+ -]{2,}")
_CODE_POINTS = re.compile(r"(?:\\u\{?|\\U|\\x\{|U\+|0x)([0-9A-Fa-f]{4,8})\}?\s*")
# The longest text that is examined. UTF-8 misread twice has up to five times the characters.
_EXAMINED = 4 * EMOJI_MAX


def _canonical_forms() -> dict[str, str]:
    by_name = {data["en"]: text for text, data in emoji.EMOJI_DATA.items() if data["status"] == _FULLY_QUALIFIED}
    return {
        text: by_name[data["en"]]
        for text, data in emoji.EMOJI_DATA.items()
        if data["status"] != _COMPONENT and data["en"] in by_name
    }


_CANONICAL = _canonical_forms()
_WITHOUT_SELECTORS = {text.translate(_SELECTORS): form for text, form in _CANONICAL.items()}

# Ingest calls this for every reaction, so callers use the dict's own method without a wrapper.
canonical = _CANONICAL.get
"""`canonical(text) -> str | None`: the fully-qualified spelling of a spelling that Unicode lists, or None."""


def counts(text: str) -> bool:
    """Return whether an `emoji_type` in `emoji-events` is one that ingest writes: all others are no reaction."""
    return canonical(text) == text


def recognise(text: str) -> str | None:
    """Return the fully-qualified spelling of `text`, or None if it is not exactly one emoji.

    White space and invisible characters around it are ignored, and variation selectors anywhere.
    """
    return canonical(text) or _WITHOUT_SELECTORS.get(text.translate(_SELECTORS).strip(_UNSEEN))


def why_not(text: str) -> str:
    """Return what `text` is, which `recognise` does not know, and what to send instead; no end of sentence."""
    return _what_it_is(text) if 0 < len(text) <= _EXAMINED else f"send exactly one emoji, such as {EXAMPLE}"


def _what_it_is(text: str) -> str:
    bare = text.translate(_SELECTORS).strip(_UNSEEN)
    if "\ufffd" in text or (bare and not bare.strip("?")):
        return (
            "the emoji was lost before it was sent, in a program or database column whose encoding has no emoji (such "
            f"as Latin-1, or utf8 in MySQL): use UTF-8 there (utf8mb4 in MySQL) and send exactly one emoji, such as "
            f"{EXAMPLE}"
        )
    for before, reading in text_encoding.misread(text):
        if form := recognise(before):
            return f"it is {form} in UTF-8 that was read as {reading}: read it as UTF-8, and send {form}"
    for kind, written in _written_out(bare):
        if form := recognise(written):
            return f"it is {kind} of {form}: send {form} itself"
    found = [match["emoji"] for match in emoji.emoji_list(bare)]
    plain = [part for part in found if part not in _COMPONENTS]
    if found and "".join(found) == bare.replace("\u200d", ""):
        if not plain:
            return f"it is only a part of an emoji, a skin tone or hair: send exactly one emoji, such as {EXAMPLE}"
        if len(plain) == 1:
            return f"{plain[0]} has no variant with this skin tone or hair: send {plain[0]}"
        if "\u200d" in bare:
            return f"Unicode does not list this combination as one emoji: send one of {' '.join(dict.fromkeys(plain))}"
    if len(plain) > 1:
        return f"it holds {len(plain)} emoji: send one reaction for each, in an array"
    if _TAGS.search(bare) or _FLAG_LETTERS.fullmatch(bare):
        return "Unicode does not list this flag, or a part of it is missing: send exactly one emoji, such as 🇺🇳"
    if plain:
        return f"it holds more than {plain[0]}: send {plain[0]} alone"
    if encoding := text_encoding.cut_emoji(text):
        return f"it begins like an emoji in UTF-8 that was read as {encoding}, and cut: read it as UTF-8, and whole"
    return f"send exactly one emoji, such as {EXAMPLE}"


def _written_out(text: str) -> list[tuple[str, str]]:
    """Return the ways in which programs write an emoji with other characters, each with what `text` would be."""
    return [
        ("the HTML entity", html.unescape(text)),
        ("the percent-encoding", unquote(text)),
        ("the short name", emoji.emojize(_in_colons(text), language="alias")),
        ("the code point", _from_code_points(text)),
    ]


def _in_colons(text: str) -> str:
    """Return a name such as `party-popper` as `:party_popper:`, any other text as it is."""
    return f":{re.sub('[ -]', '_', text.lower())}:" if _BARE_NAME.fullmatch(text) else text


def _from_code_points(text: str) -> str:
    if not _CODE_POINTS.match(text) or _CODE_POINTS.sub("", text):
        return ""
    numbers = [int(number, 16) for number in _CODE_POINTS.findall(text)]
    if max(numbers) > 0x10FFFF:
        return ""
    # Two halves of a surrogate pair become one character.
    return "".join(map(chr, numbers)).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
