"""The properties of JMeter's plan on the command line: what is refused, and that the plan has the same defaults."""

from __future__ import annotations

import ast
import csv
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.jmeter.load import PLAN, address, phases
from experiments.jmeter.properties import Properties, parsed
from experiments.load import closed_loop
from experiments.load.schedule import POPULAR_EMOJIS, popularity
from pipeline.errors import SettingError
from pipeline.ingest import intake
from pipeline.problems import Refusal


def test_given_properties_replace_the_defaults() -> None:
    """Whole numbers and numbers are read as such; the rest stays as the plan has it."""
    given = parsed(["users=20", "think_s=0.5"])
    assert given == Properties(users=20, think_s=0.5)
    assert {"-Jusers=20", "-Jthink_s=0.5", "-Jduration_s=60", "-Jmix=emoji-mix.csv"} <= set(given.words())
    assert given.command() == "emostream jmeter -Jusers=20 -Jthink_s=0.5"
    assert given.command("my ready.json") == "emostream jmeter -Jusers=20 -Jthink_s=0.5 --attach 'my ready.json'"


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("users=ten", "property users is 'ten': give a whole number from 1 to 10000"),
        ("users=1.5", "property users is '1.5': give a whole number"),
        ("users=²", "property users is '²': give a whole number"),
        ("users=0", "property users is '0': give a whole number from 1"),
        ("users=", "property users is ''"),
        ("duration_s=-1", "property duration_s is '-1'"),
        ("think_s=nan", "property think_s is 'nan': give a number from 0"),
        ("think_s=inf", "property think_s is 'inf'"),
        ("viewers=100000", "property viewers is '100000'"),
        ("mix=/nowhere.csv", "property mix is '/nowhere.csv', which is not a file"),
        ("user=1", "-J is 'user=1': give NAME=VALUE, where NAME is one of users, ramp_up_s"),
        ("users", "-J is 'users': give NAME=VALUE"),
        ("ingest_port=1", "-J is 'ingest_port=1'"),
    ],
)
def test_property_that_cannot_be_is_named(word: str, error: str) -> None:
    """JMeter takes 0 for a text that is no number, and starts no user."""
    with pytest.raises(SettingError, match=re.escape(error)):
        parsed([word])


def test_command_ends_with_the_property_in_one_line(tmp_path: Path) -> None:
    """Nothing is started or written for it."""
    with pytest.raises(SystemExit, match="experiments jmeter: property users is 'ten'"):
        main(["jmeter", "-Jusers=ten", "--reports", str(tmp_path / "reports")])
    assert not (tmp_path / "reports").exists()


def test_number_has_no_exponent() -> None:
    """JMeter's plan takes digits and a point; large and small values keep theirs."""
    words = ["rate_per_s=1000000", "think_s=0.00005"]
    assert {"-Jrate_per_s=1000000", "-Jthink_s=0.00005"} <= set(parsed(words).words())
    assert "-Jrate_per_s=12345.678" in parsed(["rate_per_s=12345.678"]).words()


def test_property_given_twice_is_refused() -> None:
    """The second would win silently."""
    with pytest.raises(SettingError, match="property users is given twice"):
        parsed(["users=1", "users=2"])


def test_only_whole_windows_after_the_ramp_up_are_measured() -> None:
    """The ramp-up and at least one window warm up; what is left of the last window is not measured."""
    assert phases(Properties(duration_s=60, ramp_up_s=6), 6.0) == (1, 8)
    assert phases(Properties(duration_s=61, ramp_up_s=7), 6.0) == (2, 7)
    assert phases(Properties(duration_s=6, ramp_up_s=0), 2.0) == (1, 1)
    with pytest.raises(SettingError, match=r"duration_s is 11, and ramp_up_s 6: give a duration_s of at least 18"):
        phases(Properties(duration_s=11), 6.0)


def test_addresses_become_properties_of_the_plan() -> None:
    """An address of IPv6 goes without its brackets, a port that is not named is that of HTTP."""
    assert address("ingest", "http://[::1]:8000") == {"ingest_host": "::1", "ingest_port": 8000}
    assert address("registry", "http://host") == {"registry_host": "host", "registry_port": 80}


def test_plan_has_the_defaults_of_the_command() -> None:
    """Whoever opens the plan in JMeter gets the same load."""
    values = [element.text or "" for element in ET.parse(PLAN).iter("stringProp")]
    defaults = dict(match.groups() for text in values if (match := re.fullmatch(r"\$\{__P\((\w+),(.*)\)\}", text)))
    expected = {
        name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in asdict(Properties()).items()
    }
    addresses = {
        "ingest_host": "127.0.0.1",
        "ingest_port": "8000",
        "registry_host": "127.0.0.1",
        "registry_port": "8080",
    }
    assert defaults == expected | addresses


def test_bad_input_is_refused_as_the_files_say() -> None:
    """Each body for ingest, of JMeter's file and of Locust's users, is one that it refuses with that status."""
    rows = list(csv.DictReader(PLAN.with_name("bad-input.csv").read_text(encoding="utf-8").splitlines()))
    bodies = [
        (row["body"], int(row["status"]))
        for row in rows
        if row["path"] == "/reactions" and row["content_type"] == "application/json" and row["method"] == "POST"
    ]
    text = closed_loop.LOCUSTFILE.read_text(encoding="utf-8")
    careless = ast.literal_eval(text[text.index("BAD_INPUT = ") :].partition("= ")[2].partition("\n)\n")[0] + "\n)")
    assert len(bodies) > 8
    for body, status in (*bodies, *careless):
        if "__groovy" not in body:
            with pytest.raises(Refusal) as refused:
                intake.read(body.encode(), 1000)
            assert refused.value.status == status, body


def test_mix_has_the_popularity_of_a_run() -> None:
    """Each emoji is in the file as often as the other loads send it, to the nearest line."""
    heading, *lines = PLAN.with_name("emoji-mix.csv").read_text(encoding="utf-8").splitlines()
    assert heading == "emoji_type"
    counts = Counter(lines)
    shares = popularity("zipf", len(POPULAR_EMOJIS))
    assert set(counts) == set(POPULAR_EMOJIS)
    for emoji, share in zip(POPULAR_EMOJIS, shares, strict=True):
        assert abs(counts[emoji] - share * len(lines)) < 1
