"""The strings that are one emoji, and the common form of their spellings."""

from __future__ import annotations

import csv
from pathlib import Path

import emoji
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.load.schedule import POPULAR_EMOJIS
from pipeline.emojis import canonical, recognise, why_not

TRACE = Path(__file__).resolve().parents[3] / "shared" / "data" / "mayweather_mcgregor_2017.csv"
COMPONENT = emoji.STATUS["component"]
FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
SPELLINGS = sorted(text for text, data in emoji.EMOJI_DATA.items() if data["status"] != COMPONENT)
SELECTOR = "\ufe0f"
TEXT_SELECTOR = "\ufe0e"


@pytest.mark.parametrize("status", ["fully_qualified", "minimally_qualified", "unqualified"])
def test_every_spelling_has_one_fully_qualified_form(status: str) -> None:
    """Each spelling in Unicode's list maps to a fully-qualified one with the same characters, which maps to itself."""
    spellings = [text for text, data in emoji.EMOJI_DATA.items() if data["status"] == emoji.STATUS[status]]
    assert spellings
    for text in spellings:
        form = canonical(text)
        assert form is not None
        assert emoji.EMOJI_DATA[form]["status"] == FULLY_QUALIFIED
        assert canonical(form) == form
        assert form.replace(SELECTOR, "") == text.replace(SELECTOR, "")


@given(text=st.sampled_from(SPELLINGS), left=st.sampled_from(["", *SPELLINGS, "a", "\x00", "🏽", "\ue415"]))
def test_emoji_with_anything_visible_beside_it_is_refused(text: str, left: str) -> None:
    """A second emoji, a letter, a null character, a skin tone or a private character beside an emoji."""
    together = left + text
    if not left or together in emoji.EMOJI_DATA:
        assert recognise(together) is not None
    else:
        assert recognise(together) is None


UNSEEN = ["", " ", "\t", "\r\n", "\xa0", "\u3000", "\u200b", "\u200d", "\u2060", "\ufeff", "\u200e", "\u2068", "\xad"]


@given(
    text=st.sampled_from(SPELLINGS),
    selectors=st.lists(st.sampled_from(["", SELECTOR, TEXT_SELECTOR, SELECTOR * 2]), min_size=12, max_size=12),
    around=st.tuples(st.sampled_from(UNSEEN), st.sampled_from(UNSEEN)),
)
def test_spelling_of_any_device_is_the_emoji(text: str, selectors: list[str], around: tuple[str, str]) -> None:
    """Selectors after every character, for emoji or for text, and invisible characters around change nothing."""
    spelled = "".join(char + selector for char, selector in zip(text, selectors, strict=False))
    assert recognise(around[0] + spelled + around[1]) == canonical(text)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("⚽\ufe0f", "⚽"),
        ("😂\ufe0f", "😂"),
        ("❤\ufe0e", "❤️"),
        ("👍🏽\ufe0f", "👍🏽"),
        ("☝\ufe0f🏽", "☝🏽"),
        ("🕵\ufe0f🏽\u200d♂", "🕵🏽‍♂️"),
        ("👩\ufe0f\u200d🚀\ufe0f", "👩‍🚀"),
        ("1\u20e3", "1️⃣"),
        ("1\u20e3\ufe0f", "1️⃣"),
        ("🇮🇪\ufe0f", "🇮🇪"),
        ("🏴\ufe0f\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"),
    ],
)
def test_redundant_selectors_are_ignored(text: str, form: str) -> None:
    """As phones and keyboards send them: after what needs none, after modifiers, in each part of a sequence."""
    assert recognise(text) == form


def read_as(text: str, *encodings: str) -> str:
    """Return `text` after programs read its UTF-8 in these encodings, one after the other."""
    for encoding in encodings:
        text = "".join(bytes([byte]).decode(encoding, "ignore") or chr(byte) for byte in text.encode())
    return text


@pytest.mark.parametrize("form", ["😂", "❤️", "👍🏽", "⚽"])
@pytest.mark.parametrize(
    ("encodings", "named"),
    [
        (["latin-1"], "ISO-8859-1"),
        (["cp1252"], "Windows-1252"),
        (["mac_roman"], "Mac OS Roman"),
        (["cp1251"], "Windows-1251"),
        (["cp437"], "code page 437"),
        (["latin-1", "latin-1"], "ISO-8859-1 (Latin-1), 2 times"),
        (["cp1252", "cp1252"], "Windows-1252, 2 times"),
        (["mac_roman", "cp1252"], "and then as"),
    ],
)
def test_misread_emoji_is_named_with_its_encoding(form: str, encodings: list[str], named: str) -> None:
    """For UTF-8 that was read as another encoding, once or twice: the emoji, the encoding and the remedy."""
    misread = read_as(form, *encodings)
    assert recognise(misread) is None
    why = why_not(misread)
    assert f"it is {form} in UTF-8 that was read as " in why
    # Some bytes read alike in both.
    alike = misread == read_as(form, *("cp1252" for _ in encodings))
    assert ("Windows-1252" if alike else named) in why
    assert why.endswith(f"read it as UTF-8, and send {form}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "send exactly one emoji, such as 😂"),
        ("5", "send exactly one emoji"),
        ("x" * 1_000, "send exactly one emoji"),
        ("😂😂", "it holds 2 emoji: send one reaction for each, in an array"),
        ("😂 🔥 👍🏽", "it holds 3 emoji"),
        ("goal ⚽!", "it holds more than ⚽: send ⚽ alone"),
        ("⚽🏽", "⚽ has no variant with this skin tone or hair: send ⚽"),
        ("👍🏽🏽", "👍🏽 has no variant with this skin tone"),
        ("🏽", "only a part of an emoji"),
        ("🦰", "only a part of an emoji"),
        ("🐶\u200d🐱", "does not list this combination as one emoji: send one of 🐶 🐱"),
        ("\U0001f1ee", "does not list this flag, or a part of it is missing"),
        ("\U0001f1fd\U0001f1fd", "does not list this flag"),
        ("🏴\U000e0075\U000e0073\U000e0074\U000e0078\U000e007f", "does not list this flag"),
        ("🏴\U000e0067\U000e0062\U000e0065", "does not list this flag"),
        ("?", "the emoji was lost before it was sent"),
        ("????", "use UTF-8 there"),
        ("\ufffd", "the emoji was lost before it was sent"),
        ("ðŸ˜", "begins like an emoji in UTF-8 that was read as Windows-1252, and cut"),
        ("馃槀", "it is 😂 in UTF-8 that was read as GBK"),
        ("&#128514;", "it is the HTML entity of 😂: send 😂 itself"),
        ("%F0%9F%98%82", "it is the percent-encoding of 😂"),
        (":red_heart:", "it is the short name of ❤️"),
        ("party-popper", "it is the short name of 🎉"),
        ("Thumbs up", "it is the short name of 👍"),
        ("clap", "it is the short name of 👏"),
        ("x", "send exactly one emoji"),
        ("\\ud83d\\ude02", "it is the code point of 😂"),
        ("U+1F602", "it is the code point of 😂"),
        ("U+FFFFFFFF", "send exactly one emoji"),
    ],
)
def test_what_is_not_one_emoji_is_explained(text: str, why: str) -> None:
    """The message says what the text is, and what to send instead."""
    assert recognise(text) is None
    assert why in why_not(text)


@given(text=st.text(max_size=300))
def test_any_text_is_one_emoji_or_explained(text: str) -> None:
    """No text makes the explanation fail."""
    assert recognise(text) or "send" in why_not(text) or "read it" in why_not(text)


@given(text=st.text(st.characters(exclude_categories=["So", "Sk", "Mn", "Cf", "Cs"])))
def test_plain_text_is_refused(text: str) -> None:
    """Letters, digits, punctuation and the empty string; keycaps and flags need their combining characters."""
    if text not in emoji.EMOJI_DATA:
        assert recognise(text) is None


@pytest.mark.parametrize(("text", "form"), [("❤", "❤️"), ("☺", "☺️"), ("👁‍🗨", "👁️‍🗨️"), ("👍🏽", "👍🏽"), ("🇮🇪", "🇮🇪")])
def test_spellings_that_look_the_same_count_together(text: str, form: str) -> None:
    """For example, a heart with and without the variation selector."""
    assert canonical(text) == form


@pytest.mark.parametrize(("first", "second"), [("👍", "👍🏽"), ("👍🏻", "👍🏿"), ("🤷‍♀️", "🤷‍♂️"), ("🇮🇪", "🇮🇹")])
def test_tones_genders_and_flags_stay_distinct(first: str, second: str) -> None:
    """Emoji that look different are counted separately."""
    assert canonical(first) != canonical(second)


@pytest.mark.parametrize("text", ["", "🏽", "😂😂", "\U0001f1ee", SELECTOR, "\u200d", ":joy:", "\ud83d"])
def test_parts_and_names_of_emoji_are_refused(text: str) -> None:
    """A skin tone alone, half a flag, a joiner, a short name, or half a surrogate pair."""
    assert recognise(text) is None


def test_emojis_of_the_load_are_canonical() -> None:
    """The instrument compares counts per type that it sent, so it must send the form that is counted."""
    assert [canonical(text) for text in POPULAR_EMOJIS] == list(POPULAR_EMOJIS)


def test_every_emoji_of_a_real_audience_is_accepted() -> None:
    """The emoji of a recorded live event, as people typed them."""
    if not TRACE.exists():
        pytest.skip(f"the recording {TRACE.name} is not on this machine")
    with TRACE.open(encoding="utf-8", newline="") as handle:
        typed = {row["emoji_type"] for row in csv.DictReader(handle)}
    assert len(typed) > 100
    assert {text for text in typed if canonical(text) is None} == set()
