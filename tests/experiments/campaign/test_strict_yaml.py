"""YAML of designs as people and programs write it: read without guessing, or refused with file, line and field."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.campaign import design_file
from experiments.campaign.strict_yaml import read, shown
from pipeline.errors import SettingError

DESIGN = "name: tiny\nabout: One level.\nseed: 3\nlevels: [{users: 10}]\nslos: {lost: 0}\n"


def value_of(word: str) -> Any:
    """Return what a plain word is."""
    return read(f"a: {word}\n", "x.yaml")[0]["a"]


@pytest.mark.parametrize(
    ("word", "older", "newer"),
    [
        ("010", "the number 8", "the number 10"),
        ("08", "text", "the number 8"),
        ("0o10", "text", "the number 8"),
        ("0b11", "the number 3", "text"),
        ("1_000", "the number 1000", "text"),
        ("1_0.5", "the number 10.5", "text"),
        ("1:30", "the number 90", "text"),
        ("1:30.5", "the number 90.5", "text"),
        ("1e3", "text", "the number 1000"),
        ("1.5e3", "text", "the number 1500"),
        ("yes", "true", "text"),
        ("No", "false", "text"),
        ("on", "true", "text"),
        ("OFF", "false", "text"),
        ("2025-01-07", "a date", "text"),
        ("2025-01-07 12:00:00", "a date", "text"),
        ("2025-13-45", "nothing valid", "text"),
        ("=", "nothing valid", "text"),
    ],
)
def test_word_that_versions_of_yaml_read_differently_is_refused(word: str, older: str, newer: str) -> None:
    """As a value, in a list and as a name, with its line, both readings and the remedy."""
    said = f"YAML 1.1 reads as {older} and YAML 1.2 as {newer}; write a number in decimal digits"
    for text, field in ((f"b: 1\na: {word}\n", "a"), (f"b: 1\na: [{word}]\n", r"a\[0\]"), (f"b: 1\n{word}: 1\n", ".*")):
        with pytest.raises(SettingError, match=rf"^x\.yaml, line 2, field {field}: it is {word}, which {said}"):
            read(text, "x.yaml")
    assert value_of(f'"{word}"') == word


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("2.0", 2.0),
        (".5", 0.5),
        ("1.5e+3", 1500.0),
        (".inf", math.inf),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("text", "text"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_word_that_is_read_alike_is_taken(word: str, value: Any) -> None:
    """Plain numbers, truth values, nothing and text."""
    assert value_of(word) == value
    assert type(value_of(word)) is type(value)
    assert math.isnan(value_of(".nan"))


@given(number=st.integers(-(10**15), 10**15) | st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 3)))
def test_numbers_as_python_prints_them_are_taken(number: float) -> None:
    """Whole numbers and decimals."""
    if "e" not in repr(number):
        assert value_of(repr(number)) == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "^x.yaml is empty: start with"),
        ("# nothing\n", "is empty"),
        ("a: 1\n---\nb: 2\n", "line 2 is not valid YAML: a second document begins here"),
        ("a: 1\n\tb: 2\n", "line 2 is not valid YAML: it has a tab: use spaces"),
        ("a: 1\nb: [1\n", "line 3 is not valid YAML: .*: check the indentation"),
        ("a: 1\nb: c: d\n", "line 2 is not valid YAML"),
        ("a: 1\nb: *c\n", "line 2 is not valid YAML: there is no anchor &c before it"),
        ("a: 1\nb: {<<: 5}\n", "line 2 is not valid YAML: `<<` merges mappings"),
        ("a: 1\nb: {c: 1,\n c: 2}\n", r"line 3, field b\.c: it is given twice: remove one"),
        ("a: 1\nb: !!binary aGk=\n", "line 2, field b: it has the tag !!binary: remove the tag"),
        ("a: 1\nb: !!python/name:os.system x\n", "line 2, field b: it has the tag !!python/name:os.system"),
        ("a: 1\nb: !mine {c: 1}\n", "line 2, field b: it has the tag !mine"),
        ("a: 1\n[b, c]: 2\n", "line 2: a name is a list or a mapping: use text"),
        ("a: 1\n{b: 1}: 2\n", "line 2: a name is a list or a mapping: use text"),
        ("a: 1\n2: 3\n", "line 2, field 2: a name must be text: put it in quotes"),
        ("a: 1\nnull: 3\n", "line 2, field null: a name must be text"),
        ("a: 1\nb: \x07\n", r"line 2: the character U\+0007 is not text: remove it"),
        ("a: " + "[" * 5_000, "is nested too deeply"),
    ],
)
def test_invalid_yaml_is_named_with_its_line(text: str, said: str) -> None:
    """In words that say what to do; nothing but a SettingError."""
    with pytest.raises(SettingError, match=said):
        read(text, "x.yaml")


def test_anchors_and_merges_are_followed() -> None:
    """A mapping's own names prevail, and an error points at them."""
    raw, lines = read("a: &b {users: 1, rate: 2}\nc:\n  <<: *b\n  users: 3\nd: [*b, *b]\n", "x.yaml")
    assert raw["c"] == {"users": 3, "rate": 2}
    assert raw["d"] == [{"users": 1, "rate": 2}] * 2
    assert str(lines.error(("c", "users"), "wrong")) == "x.yaml, line 4, field c.users: wrong"
    assert str(lines.error(("c", "rate"), "wrong")) == "x.yaml, line 1, field c.rate: wrong"


def test_aliases_cannot_make_a_file_large() -> None:
    """Each level names the one before nine times: 9 to the 20th would not fit anywhere. Nor is one within itself."""
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 20))
    raw, _ = read(f"l0: &l0 [x]\n{levels}self: &self [*self]\n", "x.yaml")
    assert shown(raw["l19"]) == "a list of 9"
    assert shown(raw["self"]) == "a list of 1"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DESIGN.encode("utf-16"), "is not text in UTF-8: it is UTF-16, by its byte order mark. Save it as text"),
        (DESIGN.encode("utf-16-le"), "it is probably UTF-16 without a byte order mark"),
        (DESIGN.encode("utf-32"), "it is UTF-32"),
        (DESIGN.replace("One", "Öne").encode("latin-1"), "byte 0xd6 in line 2, position 18, is not UTF-8"),
        (bytes(range(256)), "is not text in UTF-8"),
        (b"PK\x03\x04\x00", "it begins like zip"),
        (b"", r"design\.yaml is empty"),
        (DESIGN.replace("3", "010").encode(), r"design\.yaml, line 3, field seed: it is 010"),
    ],
)
def test_design_in_another_encoding_is_named(data: bytes, said: str, tmp_path: Path) -> None:
    """The message names the file, the encoding that it probably has, and the remedy."""
    path = tmp_path / "design.yaml"
    path.write_bytes(data)
    with pytest.raises(SettingError, match=rf"design\.yaml.*{said}|{said}") as refused:
        design_file.unrehearsed(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["\ufeff" + DESIGN, DESIGN.replace("\n", "\r\n"), DESIGN.replace("\n", "\r")])
def test_design_with_a_mark_or_other_line_ends_is_read(text: str, tmp_path: Path) -> None:
    """As editors on other systems write it."""
    path = tmp_path / "design.yaml"
    path.write_bytes(text.encode())
    assert design_file.unrehearsed(path).name == "tiny"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("users: 10", "users: true", r"line 4, field levels\[0\]\.users: it is True; give a number or text"),
        ("users: 10", "users: [1]", r"line 4, field levels\[0\]\.users: it is a list of 1; give a number or text"),
        ("users: 10", "users:", r"line 4, field levels\[0\]\.users: it is empty; give a number or text"),
        ("lost: 0", "lost: {a: 1}", r"line 5, field slos\.lost: it is a mapping of 1; give a number"),
        ("seed: 3", "parameters: {clients: 5, users: null}", r"line 3, field parameters\.users: it is empty; give"),
        ("seed: 3", "sed: 3", r"line 3, field sed: it is 3; unknown field `sed`: remove it, or correct its name"),
    ],
)
def test_value_of_the_wrong_kind_is_named(old: str, new: str, said: str) -> None:
    """The field is named down to the parameter."""
    with pytest.raises(SettingError, match=rf"^x\.yaml, {said}"):
        design_file.parse(DESIGN.replace(old, new), "x.yaml")
