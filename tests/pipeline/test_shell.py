"""Command lines for people: a shell gives back the very words."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shell import command, path_word

NAMES = [
    "a(1)&b.csv",
    "o'brien.csv",
    "with space.csv",
    '"q".csv',
    "$HOME.csv",
    "`id`.csv",
    "-p.csv",
    "*.csv",
    "ü.csv",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_shell_reads_the_words_back(name: str) -> None:
    """Every name arrives as it is in the program that the shell starts."""
    line = command("module", "-p", "trace", path_word(name))
    said = subprocess.run(
        ["sh", "-c", line.replace("python -m module", "printf '%s|'", 1)], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"-p|trace|{path_word(name)}|"


def test_path_with_a_dash_is_not_an_option() -> None:
    """It gets the current directory in front; other paths stay."""
    assert path_word("-p.csv") == "./-p.csv"
    assert path_word("a-b.csv") == "a-b.csv"


@given(words=st.lists(st.text()))
def test_any_words_are_quoted(words: list[str]) -> None:
    """Also quotes and line ends within a word."""
    assert shlex.split(command("module", *words)) == ["python", "-m", "module", *words]
