"""Settings: sources of a value, checks, and errors that name the setting."""

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
# One strategy per kind of setting: a whole number, a measure, a choice, a name, free text.
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "partitions": st.integers(1, 100),
        "ingest_port": st.integers(0, 65535),
        "kafka_wait_s": st.floats(min_value=0, max_value=3600, exclude_min=True),
        "trigger_s": st.integers(1, 3_600_000).map(lambda ms: ms / 1000),
        "ack": st.sampled_from(["async", "durable"]),
        "cluster": NAME,
        "host": st.sampled_from(["0.0.0.0", "::1", "localhost", "my-host.example"]),
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
    ("origins", "localhost:3000"),
    ("origins", "https://a.example,*"),
    ("registry_url", "live.example"),
    ("spark_memory", "511m"),
    ("spark_master", "yarn"),
    ("spark_master", "local[0]"),
    ("silent_s", "1.5"),
    ("body_max_bytes", "64"),
    ("run_dir", ""),
    *(("checkpoint_dir", url) for url in ("s3a://bucket/chain", "GS://bucket", "abfss://a/c", "http://host/x")),
    *(("host", host) for host in ("", "[::1]", "fe80::1%eth0", "a b", "127.0.0.1/8", "user@host")),
    *(
        (f"{what}bootstrap_servers", servers)
        for what in ("", "feed_")
        for servers in ("k", "k:", ":1", "k:0", "k:65536", "http://k:1", "::1:1", "k:1,", "k:1;k:2", "k:1 ", "u@k:1")
    ),
    *(
        (f"{stage}_url", url)
        for stage in ("registry", "subscriber", "ingest")
        for url in (
            *("example.org", "//example.org", "ftp://example.org", "https://", "https://example.org:65536"),
            *("https://example.org?x=1", "https://example.org#x", "https://a b", "http://0.0.0.0:80", "http://[::]"),
            *("http://[::::]", "javascript:alert(1)"),
        )
    ),
]
GOOD = [
    *(("bootstrap_servers", servers) for servers in ("k:1", "[::1]:9092", "10.0.0.1:65535,k-2.example:9092")),
    *(("registry_url", url) for url in ("https://a.example", "http://[::1]:80", "https://a.example:8443/emo/~x")),
    *(("spark_master", master) for master in ("local", "local[*]", "local[4,2]", "spark://127.0.0.1:7077")),
    *(("spark_memory", memory) for memory in ("512m", "1g")),
    *(("checkpoint_dir", folder) for folder in ("", "a:b", "/a:b", "file:/x", "hdfs://name:9000/x", "viewfs://x/y")),
]
TOGETHER = [
    ({"trigger_s": 0.0004}, r"trigger_s .* is 0\.0004: give whole milliseconds"),
    ({"trigger_s": 0.3333}, r"trigger_s .* is 0\.3333: give whole milliseconds"),
    ({"flush_lead_ms": 501}, r"flush_lead_ms .* is 501 and flush_ms is 500: give at most flush_ms"),
    ({"flush_ms": 20}, r"flush_lead_ms .* is 50 and flush_ms is 20: .*flush_phase=free"),
    ({"array_max": 200, "buffer_max": 100}, r"array_max .* is 200 and buffer_max is 100: give at most buffer_max"),
    (
        {"rate_per_address_s": 999, "array_max": 1000},
        r"rate_per_address_s .* is 999 and array_max is 1000: give at least array_max",
    ),
    (
        {"trigger_s": 60, "retention_ms": 60_000},
        r"retention_ms .* is 60000 and trigger_s is 60: give at least two trig",
    ),
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings in the environment of the test run."""
    for key in list(settings.os.environ):
        if key.startswith(PREFIX):
            monkeypatch.delenv(key)


@given(values=VALUES)
def test_environment_round_trip_keeps_the_settings(values: dict[str, object]) -> None:
    """Settings written as variables and read again are equal, for all values."""
    original = build(values)
    assert build(from_env(to_env(original))) == original


@given(values=VALUES)
def test_value_and_its_text_give_the_same_setting(values: dict[str, object]) -> None:
    """Variables and options give text, which is converted."""
    assert build({name: str(value) for name, value in values.items()}) == build(values)


def test_option_overrides_variable_overrides_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and variables are both converted from text."""
    monkeypatch.setenv("EMOSTREAM_FLUSH_MS", "200")
    monkeypatch.setenv("EMOSTREAM_PARTITIONS", "7")
    line = settings.parser("p", "d", ("flush_ms", "partitions"))
    values, _ = settings.parse(line, ["--flush-ms", "300"])
    assert (values.flush_ms, values.partitions, values.array_max) == (300, 7, Settings().array_max)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_invalid_value_error_names_setting_variable_and_option(name: str, value: str) -> None:
    """The error also has the value."""
    with pytest.raises(SettingError) as caught:
        build({name: value})
    message = str(caught.value)
    assert f"setting {name} " in message
    assert f"{PREFIX}{name.upper()}" in message
    assert f"--{name.replace('_', '-')}" in message
    assert f"is {value!r}" in message


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_usual_value_is_taken_as_it_is(name: str, value: str) -> None:
    """Servers, URLs, masters and sizes in their usual forms."""
    assert getattr(build({name: value}), name) == value


@pytest.mark.parametrize(("values", "error_text"), TOGETHER)
def test_values_that_cannot_work_together_are_named(values: dict[str, object], error_text: str) -> None:
    """Values of several settings, or of one setting and of Spark."""
    with pytest.raises(SettingError, match=error_text):
        build(values)


@pytest.mark.parametrize(
    "values", [{"flush_lead_ms": 501, "flush_phase": "free"}, {"flush_ms": 0}, {"flush_lead_ms": 500}]
)
def test_lead_counts_only_for_aligned_flushes(values: dict[str, object]) -> None:
    """A free flush, and one after every reaction, have no lead."""
    assert build(values)


def test_password_in_a_url_is_not_printed() -> None:
    """The error would show it in logs."""
    with pytest.raises(SettingError, match=r"registry_url .* is 'https://\*\*\*@example\.org'") as caught:
        build({"registry_url": "https://ada:secret@example.org"})
    assert "secret" not in str(caught.value)


def test_host_of_a_command_line_is_resolved() -> None:
    """Stages get an address, since not every server resolves names."""
    line = settings.parser("p", "d", ("host",))
    assert settings.parse(line, ["--host", "localhost"])[0].host == "127.0.0.1"
    with pytest.raises(SettingError, match=r"host is 'no-such-host\.invalid'"):
        settings.parse(line, ["--host", "no-such-host.invalid"])


@given(name=st.from_regex(r"\A[A-Z_]{1,30}\Z"))
def test_unknown_variable_with_prefix_raises_setting_error(name: str) -> None:
    """A misspelt variable is named with the remedy instead of leaving the default in effect."""
    key = PREFIX + name
    if name.lower() in FIELDS or key in settings.NOT_SETTINGS:
        return
    with pytest.raises(SettingError, match=f"{key} is not a setting: unset it, or use .*EMOSTREAM_"):
        from_env({key: "1"})


def test_misspelt_variable_names_the_nearest_setting() -> None:
    """One name to use is more help than a list of all."""
    with pytest.raises(SettingError, match=r"TRIGER_S is not a setting: unset it, or use EMOSTREAM_TRIGGER_S$"):
        from_env({"EMOSTREAM_TRIGER_S": "1"})


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("flush_ms", "abc", "give a whole number from 0 to 60000"),
        ("trigger_s", "-3", "give a finite number above 0 and at most 3600"),
        ("ingest_port", "70000", "give a whole number from 0 to 65535"),
        ("ack", "maybe", "choose one of async, durable"),
        ("cluster", "a-feed", "give 1 to 50 letters, digits, '_' or '-' that do not end in -feed"),
        ("bootstrap_servers", "foo", r"give host:port\[,host:port\], or leave it empty"),
        ("spark_memory", "1x", "give a whole number from 1, followed by m or g"),
    ],
)
def test_invalid_value_names_what_is_allowed(name: str, value: str, remedy: str) -> None:
    """The setting, the value, and the remedy in words."""
    with pytest.raises(SettingError, match=rf"setting {name} .* is '{value}': {remedy}\. Meaning of the setting: "):
        build({name: value})


def test_other_variables_are_ignored() -> None:
    """Variables without the prefix, and those that are read before the settings."""
    assert from_env({"PATH": "x", "emostream_flush_ms": "1", "EMOSTREAM_CACHE_DIR": "y"}) == {}


def test_unknown_setting_raises_setting_error() -> None:
    """The error lists the existing settings."""
    with pytest.raises(SettingError, match=r"setting 'flush_s' does not exist.*flush_ms"):
        Settings().replace(flush_s=1)


def test_replace_checks_the_new_value() -> None:
    """The copy is checked, and the original does not change."""
    original = Settings()
    assert original.replace(flush_ms="250").flush_ms == 250
    assert original.flush_ms == FIELDS["flush_ms"].default
    with pytest.raises(SettingError, match=r"flush_ms .* is -1"):
        original.replace(flush_ms=-1)


def test_every_setting_has_a_description_and_a_valid_default() -> None:
    """`--help` lists every setting, and the defaults pass their own checks."""
    assert build({name: field.default for name, field in FIELDS.items()}) == Settings()
    help_text = settings.parser("p", "d", list(FIELDS)).format_help()
    assert all(settings._description(name) for name in FIELDS)
    assert all(f"--{name.replace('_', '-')}" in help_text for name in FIELDS)


def test_invalid_setting_exits_with_program_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` exits with the program's name and the error instead of a traceback."""
    monkeypatch.setenv("EMOSTREAM_BUFFER_MAX", "none")
    with pytest.raises(SystemExit) as caught:
        settings.main("pipeline.ingest", "d", ("buffer_max",), [])
    assert str(caught.value.code).startswith("pipeline.ingest: setting buffer_max")


def test_feed_is_on_the_main_kafka_by_default() -> None:
    """An empty bootstrap_servers means the embedded broker's usual port, also for the feed."""
    assert Settings().feed_kafka == Settings().kafka == "127.0.0.1:9092"
    assert Settings(bootstrap_servers="k:1").feed_kafka == "k:1"
    assert Settings(bootstrap_servers="k:1", feed_bootstrap_servers="f:2").feed_kafka == "f:2"


def test_infinite_value_raises_setting_error() -> None:
    """An infinite value would cause an overflow far from its source."""
    for name, field in FIELDS.items():
        if isinstance(field.default, float):
            with pytest.raises(SettingError, match=f"setting {name} "):
                build({name: math.inf})


def test_settings_are_frozen() -> None:
    """The settings that `main` read do not change during the run."""
    with pytest.raises(AttributeError):
        Settings().flush_ms = 1  # type: ignore[misc]
    assert msgspec.structs.asdict(Settings()) == msgspec.structs.asdict(build({}))
