"""What the picker offers is what ingest counts."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.emojis import canonical
from pipeline.registry.web.picker import TONES, choices, document


def test_everything_offered_is_counted_as_itself() -> None:
    """Ingest takes each choice, and each of its tones, in exactly this spelling."""
    offered = [text for choice in choices() for text in (choice.emoji, *choice.tones)]
    assert len(offered) > 3_000
    assert [text for text in offered if canonical(text) != text] == []
    assert len(set(offered)) == len(offered)


@pytest.mark.parametrize(
    ("emoji", "name", "word", "tones"),
    [
        ("😂", "face with tears of joy", "joy", 0),
        ("❤️", "red heart", "heart", 0),
        ("👋", "waving hand", "wave", 5),
        ("🕵️", "detective", "sleuth", 5),
    ],
)
def test_an_emoji_is_found_by_name_and_word_and_has_its_tones(emoji: str, name: str, word: str, tones: int) -> None:
    """Names without colons and underscores; the tones of a spelling with a variation selector are found too."""
    (choice,) = (choice for choice in choices() if choice.emoji == emoji)
    assert choice.name == name
    assert word in choice.words
    assert len(choice.tones) == tones


def test_tones_go_from_light_to_dark_and_are_no_choices_of_their_own() -> None:
    """The place in `tones` is the tone; the list without tones is what a person scrolls through."""
    for choice in choices():
        assert not any(tone in choice.emoji for tone in TONES)
        assert all(tone in text for tone, text in zip(TONES, choice.tones, strict=False))


def test_faces_come_first_and_flags_last() -> None:
    """The order a person expects: faces, pictures, signs, flags."""
    assert choices()[0].emoji == "😀"
    assert choices()[-1].name == "Zimbabwe"


def test_the_document_is_the_choices() -> None:
    """JSON with the fields that the page reads."""
    first = msgspec.json.decode(document())[0]
    assert set(first) == {"emoji", "name", "words", "version", "tones"}
