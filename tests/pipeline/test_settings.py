"""Settings: where a value comes from, what is refused, and that the refusal names the culprit."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import settings
from pipeline.errors import SettingError
from pipeline.settings import FIELDS, PREFIX, Settings, build, from_env, to_env

NAME = st.from_regex(r"\A[A-Za-z0-9_-]{1,50}\Z")
# One strategy for each kind of setting: a whole number, a measure, a choice, a name, free text.
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "partitions": st.integers(1, 100),
        "ingest_port": st.integers(0, 65535),
        "kafka_wait_s": st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        "trigger_s": st.floats(min_value=0, max_value=3600, exclude_min=True),
        "ack": st.sampled_from(["async", "durable"]),
        "cluster": NAME,
        "host": st.text(),
    },
)
BAD = [
    ("partitions", "0"),
    ("partitions", "101"),
    ("partitions", "two"),
    ("partitions", "1.5"),
    ("partitions", ""),
    ("partitions", "9" * 30),
    ("ingest_port", "65536"),
    ("ingest_port", "-1"),
    ("trigger_s", "0"),
    ("trigger_s", "3601"),
    ("trigger_s", "nan"),
    ("kafka_wait_s", "inf"),
    ("kafka_wait_s", "1e999"),
    ("ack", "sometimes"),
    ("ack", "Durable"),
    ("topic_prefix", "a b"),
    ("topic_prefix", "line\n"),
    ("cluster", ""),
    ("cluster", "1\n"),
    ("spark_memory", "1 GB"),
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the settings out of whoever runs the tests."""
    for key in list(settings.os.environ):
        if key.startswith(PREFIX):
            monkeypatch.delenv(key)


@given(values=VALUES)
def test_a_child_gets_the_settings_it_is_handed(values: dict[str, object]) -> None:
    """Settings written as variables and read again are the same settings, whatever their values."""
    given_values = build(values)
    assert build(from_env(to_env(given_values))) == given_values


@given(values=VALUES)
def test_strings_and_values_make_the_same_settings(values: dict[str, object]) -> None:
    """A value and its text, as a variable or an option gives it, are cast to the same setting."""
    assert build({name: str(value) for name, value in values.items()}) == build(values)


def test_options_come_before_variables_and_variables_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line overrides the environment, which overrides the default; both are cast."""
    monkeypatch.setenv("EMOSTREAM_FLUSH_MS", "20")
    monkeypatch.setenv("EMOSTREAM_PARTITIONS", "7")
    line = settings.parser("p", "d", ("flush_ms", "partitions"))
    values, _ = settings.parse(line, ["--flush-ms", "30"])
    assert (values.flush_ms, values.partitions, values.array_max) == (30, 7, Settings().array_max)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_named_with_its_setting_and_every_way_to_give_it(name: str, value: str) -> None:
    """The error names the setting, its variable, its option, and the value that was seen."""
    with pytest.raises(SettingError) as caught:
        build({name: value})
    message = str(caught.value)
    assert f"setting {name} " in message
    assert f"{PREFIX}{name.upper()}" in message
    assert f"--{name.replace('_', '-')}" in message
    assert f"is {value!r}" in message


@given(name=st.from_regex(r"\A[A-Z_]{1,30}\Z"))
def test_an_unknown_variable_with_the_prefix_is_an_error(name: str) -> None:
    """A misspelt variable is named together with the remedy; it never leaves a default silently in force."""
    key = PREFIX + name
    if name.lower() in FIELDS or key in settings.NOT_SETTINGS:
        return
    with pytest.raises(SettingError, match=f"{key} names no setting.*EMOSTREAM_TRIGGER_S"):
        from_env({key: "1"})


def test_variables_of_others_are_left_alone() -> None:
    """Variables without the prefix, and those read before settings are, mean nothing here."""
    assert from_env({"PATH": "x", "emostream_flush_ms": "1", "EMOSTREAM_CACHE_DIR": "y"}) == {}


def test_an_unknown_setting_is_an_error() -> None:
    """Code that names a setting that is not there hears which ones are."""
    with pytest.raises(SettingError, match=r"no setting 'flush_s'.*flush_ms"):
        Settings().replace(flush_s=1)


def test_replace_checks_like_any_other_way() -> None:
    """A copy with a changed value is checked, and the original stays as it is."""
    original = Settings()
    assert original.replace(flush_ms="250").flush_ms == 250
    assert original.flush_ms == FIELDS["flush_ms"].default
    with pytest.raises(SettingError, match=r"flush_ms .* is -1"):
        original.replace(flush_ms=-1)


def test_every_setting_has_a_description_and_a_default_that_passes_its_own_check() -> None:
    """`--help` can say what each setting is for, and the defaults are allowed values."""
    assert build({name: field.default for name, field in FIELDS.items()}) == Settings()
    help_text = settings.parser("p", "d", list(FIELDS)).format_help()
    assert all(settings._description(name) for name in FIELDS)
    assert all(f"--{name.replace('_', '-')}" in help_text for name in FIELDS)


def test_a_stage_with_a_bad_setting_ends_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` prints the program and the error instead of a traceback, and the exit status is not 0."""
    monkeypatch.setenv("EMOSTREAM_BUFFER_MAX", "none")
    with pytest.raises(SystemExit) as caught:
        settings.main("pipeline.ingest", "d", ("buffer_max",), [])
    assert str(caught.value.code).startswith("pipeline.ingest: setting buffer_max")


def test_the_feed_lies_on_the_main_kafka_unless_it_is_told_otherwise() -> None:
    """An empty bootstrap_servers is the embedded broker's port, and the feed follows the main Kafka."""
    assert Settings().feed_kafka == Settings().kafka == "127.0.0.1:9092"
    assert Settings(bootstrap_servers="k:1").feed_kafka == "k:1"
    assert Settings(bootstrap_servers="k:1", feed_bootstrap_servers="f:2").feed_kafka == "f:2"


def test_no_setting_is_infinite() -> None:
    """Every measure is a finite number: an infinite one ends in an overflow far from its cause."""
    for name, field in FIELDS.items():
        if isinstance(field.default, float):
            with pytest.raises(SettingError, match=f"setting {name} "):
                build({name: math.inf})


def test_settings_do_not_change() -> None:
    """What `main` read holds for the whole run."""
    with pytest.raises(AttributeError):
        Settings().flush_ms = 1  # type: ignore[misc]
    assert msgspec.structs.asdict(Settings()) == msgspec.structs.asdict(build({}))
