"""Which strings are one emoji, and the one form in which each is counted.

Unicode lists some emoji in several spellings (with and without the variation selector U+FE0F). They look alike,
so they count together: every spelling maps to the fully-qualified one. Skin tones and genders stay distinct.
Source of the spellings: Unicode's emoji-test.txt as shipped by the `emoji` package.
"""

from __future__ import annotations

import emoji

_FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
_COMPONENT = emoji.STATUS["component"]


def _canonical_forms() -> dict[str, str]:
    by_name = {data["en"]: text for text, data in emoji.EMOJI_DATA.items() if data["status"] == _FULLY_QUALIFIED}
    return {
        text: by_name[data["en"]]
        for text, data in emoji.EMOJI_DATA.items()
        if data["status"] != _COMPONENT and data["en"] in by_name
    }


_CANONICAL = _canonical_forms()

# One lookup a reaction is the hot path of ingest, so the mapping's own method is what callers use.
canonical = _CANONICAL.get
"""`canonical(text) -> str | None`: the fully-qualified spelling of one emoji, or None if `text` is not one."""
