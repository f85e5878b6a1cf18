"""The picker offers exactly the emoji that ingest counts."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.emojis import canonical
from pipeline.registry.web.picker import TONES, choices, document


def test_every_choice_is_canonical() -> None:
    """Ingest counts each choice, and each of its tones, in exactly this form."""
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
def test_choice_has_name_words_and_tones(emoji: str, name: str, word: str, tones: int) -> None:
    """Names have no colons and underscores; a form with a variation selector has its tones too."""
    (choice,) = (choice for choice in choices() if choice.emoji == emoji)
    assert choice.name == name
    assert word in choice.words
    assert len(choice.tones) == tones


def test_tones_are_ordered_and_are_not_separate_choices() -> None:
    """The index in `tones` is the tone; the list itself has no toned emoji."""
    for choice in choices():
        assert not any(tone in choice.emoji for tone in TONES)
        assert all(tone in text for tone, text in zip(TONES, choice.tones, strict=False))


def test_faces_come_first_and_flags_last() -> None:
    """The order is faces, pictures, signs, flags."""
    assert choices()[0].emoji == "😀"
    assert choices()[-1].name == "Zimbabwe"


def test_document_has_the_fields_that_the_page_reads() -> None:
    """The document is the list of choices as JSON."""
    first = msgspec.json.decode(document())[0]
    assert set(first) == {"emoji", "name", "words", "version", "tones"}
