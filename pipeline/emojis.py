"""The strings that are exactly one emoji, and the form in which each is counted.

Unicode lists some emoji in several spellings (with and without the variation selector U+FE0F). They look the same, so
they count together: every spelling maps to the fully-qualified one. Skin tones and genders stay distinct.
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

# Ingest calls this for every reaction, so callers use the dict's own method without a wrapper.
canonical = _CANONICAL.get
"""`canonical(text) -> str | None`: the fully-qualified spelling, or None if `text` is not exactly one emoji."""
