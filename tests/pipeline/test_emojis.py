"""The strings that are one emoji, and the common form of their spellings."""

from __future__ import annotations

import csv
from pathlib import Path

import emoji
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.load.schedule import POPULAR_EMOJIS
from pipeline.emojis import canonical

TRACE = Path(__file__).resolve().parents[3] / "shared" / "data" / "mayweather_mcgregor_2017.csv"
COMPONENT = emoji.STATUS["component"]
FULLY_QUALIFIED = emoji.STATUS["fully_qualified"]
SPELLINGS = sorted(text for text, data in emoji.EMOJI_DATA.items() if data["status"] != COMPONENT)
SELECTOR = "\ufe0f"


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


@given(text=st.sampled_from(SPELLINGS), left=st.sampled_from(["", *SPELLINGS, "a", " ", "\x00"]))
def test_emoji_with_anything_beside_it_is_refused(text: str, left: str) -> None:
    """A second emoji, a letter, a space or a null character beside an emoji."""
    together = left + text
    if not left or together in emoji.EMOJI_DATA:
        assert canonical(together) is not None
    else:
        assert canonical(together) is None


@given(text=st.text(st.characters(exclude_categories=["So", "Sk", "Mn", "Cf", "Cs"])))
def test_plain_text_is_refused(text: str) -> None:
    """Letters, digits, punctuation and the empty string; keycaps and flags need their combining characters."""
    if text not in emoji.EMOJI_DATA:
        assert canonical(text) is None


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
    assert canonical(text) is None


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
