"""The aggregation on a real Spark session, and the window made from its rows."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyspark
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as t

from experiments.run import read_back
from pipeline.java import find_java
from pipeline.messages import Window
from spark.aggregation import aggregate, identified, parse
from spark.repeats import Identified
from spark.session import session
from spark.window import countable, first_appended, last_appended, window
from tests.harness.stages.spark import end_session

RECORDS = t.StructType(
    [
        t.StructField("partition", t.IntegerType()),
        t.StructField("offset", t.LongType()),
        t.StructField("value", t.BinaryType()),
        t.StructField("timestamp", t.TimestampType()),
    ]
)
Record = tuple[int, int, bytes | None]
FIRST_S = 1_700_000_000


OTHERS = {
    "SPARK_HOME": "/opt/spark",
    "SPARK_LOCAL_IP": "203.0.113.9",
    "SPARK_REMOTE": "sc://nowhere",
    "PYSPARK_PYTHON": "/opt/python",
    "PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell",
    "HADOOP_TOKEN_FILE_LOCATION": "/nowhere",
    "CONTAINER_ID": "17",
    "JAVA_TOOL_OPTIONS": "-Xmx1m",
    "_JAVA_OPTIONS": "--no-such-option",
    "LC_ALL": "tr_TR.ISO-8859-9",
    # Without bash, which starts Spark's JVM.
    "PATH": "/nowhere",
}
"""Variables that are set for other programs."""
SETTINGS_OF_OTHERS = {
    "core-site.xml": "<configuration><property><name>fs.defaultFS</name><value>hdfs://nowhere:9</value></property></configuration>",
    "spark-defaults.conf": "spark.sql.session.timeZone Mars/Phobos\nspark.emostream.found yes\n",
    "spark-env.sh": "exit 3\n",
}


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Yield a real session, like the job's but without Kafka's connector.

    It is started among other programs' settings, by a user that the system does not know.
    """
    folder = tmp_path_factory.mktemp("conf")
    java_home = str(find_java().home)
    for name, text in SETTINGS_OF_OTHERS.items():
        (folder / name).write_text(text)

    def unknown(_: int) -> object:
        raise KeyError

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**OTHERS, "SPARK_CONF_DIR": str(folder), "HADOOP_CONF_DIR": str(folder)}.items():
            patch.setenv(name, value)
        patch.setattr("spark.session.pwd.getpwuid", unknown)
        running = session("tests", "local[1]", "512m", java_home=java_home)
    yield running
    end_session(running)


def test_session_ignores_what_is_set_for_other_programs(spark: SparkSession) -> None:
    """The installed pyspark runs on loopback, with local files and without configuration files."""
    context = spark.sparkContext
    assert (spark.version, context.master) == (pyspark.__version__, "local[1]")
    assert context._jsc.hadoopConfiguration().get("fs.defaultFS") == "file:///"
    assert context.getConf().get("spark.emostream.found") is None
    assert context.getConf().get("spark.driver.host") == "127.0.0.1"
    assert context._jvm.java.util.Locale.getDefault().toString() in ("", "en")
    assert context._jvm.java.lang.System.getProperty("sun.jnu.encoding") == "UTF-8"


def test_user_who_is_not_in_the_list_of_users_has_a_name(spark: SparkSession) -> None:
    """Hadoop would refuse to work without one."""
    assert spark.sparkContext.sparkUser() == f"user-{os.getuid()}"


def event(emoji_type: object, **more: object) -> bytes:
    """Return the value of one record."""
    return json.dumps({"user_id": "u", "emoji_type": emoji_type, "timestamp": "x", **more}).encode()


def parsed_records(spark: SparkSession, records: list[Record]) -> DataFrame:
    """Return records as the job parses them; each was appended as many seconds after FIRST_S as its offset says."""
    rows = [(*record, datetime.fromtimestamp(FIRST_S + record[1], UTC)) for record in records]
    return parse(spark.createDataFrame(rows, RECORDS))


def counted(spark: SparkSession, records: list[Record], group_size: int = 10) -> Window | None:
    """Return the window of one micro-batch of `records`."""
    rows = [row.asDict() for row in aggregate(parsed_records(spark, records)).collect()]
    return window(
        rows,
        topic="emoji-events",
        epoch="e",
        number=3,
        trigger_ns=1,
        emitted_ns=2,
        group_size=group_size,
        policy="ceil",
        appended_ms=last_appended(rows),
    )


@pytest.mark.integration
def test_micro_batch_equals_a_count_in_python(spark: SparkSession) -> None:
    """A thousand random records on three partitions; counts and offsets are compared."""
    rng = random.Random(7)
    types = [rng.choice("😂🔥👏🎉💯") for _ in range(1000)]
    offsets: Counter[int] = Counter()
    records: list[Record] = []
    for kind in types:
        partition = rng.randrange(3)
        records.append((partition, 100 + offsets[partition], event(kind)))
        offsets[partition] += 1
    made = counted(spark, records)
    assert made is not None
    assert {cell.emoji_type: cell.count for cell in made.reactions} == Counter(types)
    assert made.total == 1000
    assert made.offsets == {f"emoji-events-{p}": (100, 99 + n) for p, n in sorted(offsets.items())}
    assert made.appended_ms == {name: (FIRST_S + last) * 1000 for name, (_, last) in made.offsets.items()}
    assert [cell.count for cell in made.reactions] == sorted((c.count for c in made.reactions), reverse=True)


@pytest.mark.integration
def test_unreadable_records_count_as_malformed(spark: SparkSession) -> None:
    """Null, broken, foreign and empty records are within the offsets, and no count includes them."""
    odd: list[bytes | None] = [None, b"", b"rubbish", b"{}", b"[1]", b"\xff", event(""), event(None)]
    records: list[Record] = [(0, number, value) for number, value in enumerate([*odd, event("😂")])]
    made = counted(spark, records)
    assert made is not None
    assert [(cell.emoji_type, cell.count) for cell in made.reactions] == [("😂", 1)]
    assert (made.total, made.malformed, made.offsets) == (1, len(odd), {"emoji-events-0": (0, len(odd))})


ODD_JSON: dict[str, str | bytes] = {
    "bytes that are no text": b'{"user_id":"\xff","reaction_id":"\xff","emoji_type":"\xf0\x9f\x98\x82"}',
    "single quotes": "{'emoji_type':'😂'}",
    "a single-quoted value": "{\"emoji_type\":'😂'}",
    "not a number": '{"emoji_type":"😂","x":NaN}',
    "infinity": '{"emoji_type":"😂","x":-Infinity}',
    "infinity with a sign": '{"emoji_type":"😂","x":+INF}',
    "a name without quotes": '{emoji_type:"😂"}',
    "a comment": '{"emoji_type":"😂"/*x*/}',
    "a comma at the end": '{"emoji_type":"😂",}',
    "a leading zero": '{"emoji_type":"😂","x":007}',
    "a control character": '{"emoji_type":"😂","x":"\t"}',
    "an escape that is none": '{"emoji_type":"😂","x":"\\q"}',
    "cut": '{"emoji_type":"😂","x":',
    "in an array": '[{"emoji_type":"😂"}]',
    "a name twice": '{"emoji_type":"😂","emoji_type":"word"}',
    "a name twice, the emoji last": '{"emoji_type":"word","emoji_type":"😂"}',
    "more behind it": '{"emoji_type":"😂"} junk',
    "an object behind it": '{"emoji_type":"😂"}{}',
    "a brace too many": '{"emoji_type":"😂"}}',
    "something before it": 'x{"emoji_type":"😂"}',
    "a null before it": 'null {"emoji_type":"😂"}',
    "a byte order mark": '\N{ZERO WIDTH NO-BREAK SPACE}{"emoji_type":"😂"}',
    "half a surrogate": '{"emoji_type":"😂","x":"\\ud800"}',
    "a form feed": '\f{"emoji_type":"😂"}',
    "a null, and again": '{"emoji_type":null,"emoji_type":"😂"}',
    "a number, and again": '{"emoji_type":7,"emoji_type":"😂"}',
    "again as null": '{"emoji_type":"😂","emoji_type":null}',
    "white space": ' \n{ "emoji_type" : "😂" }\r\n',
    "escaped": '{"emoji_type":"\\ud83d\\ude02"}',
    "other fields": '{"emoji_type":"😂","user_id":7,"timestamp":null,"reaction_id":"a"}',
    "an id that is no text": '{"emoji_type":"😂","reaction_id":[1,{"a":2}]}',
}


@pytest.mark.integration
def test_spark_counts_the_json_that_others_read(spark: SparkSession) -> None:
    """Each record counts in Spark exactly if it does for those who count again."""
    values = {name: text if isinstance(text, bytes) else text.encode() for name, text in ODD_JSON.items()}
    parsed = parsed_records(spark, [(0, number, value) for number, value in enumerate(values.values())])
    kinds = {row.offset: row.emoji_type for row in parsed.collect()}
    found = {name: countable({"emoji_type": kinds[number]})["emoji_type"] for number, name in enumerate(ODD_JSON)}
    assert found == {name: read_back.counted(value)[0] for name, value in values.items()}


def test_only_emoji_count() -> None:
    """Text of another program, markup for instance, is malformed, and so is a spelling that ingest never writes."""
    kinds = ["😂", "❤️", "❤", "12345", "<img src=x onerror=alert(1)>", "😂😂", " 😂", None]
    rows = [{"emoji_type": kind, "partition": 0, "count": 2, "first": 0, "last": 9} for kind in kinds]
    assert [countable(row)["emoji_type"] for row in rows] == ["😂", "❤️", *[None] * 6]
    assert all({**countable(row), "emoji_type": 0} == {**row, "emoji_type": 0} for row in rows)


@pytest.mark.integration
def test_records_with_an_id_are_counted_and_found(spark: SparkSession) -> None:
    """By the id's hash; a record without an id, with a null id, or without an emoji has none."""
    values = [
        *(event("😂", reaction_id="a"), event("😂", reaction_id="b"), event("😂"), event("😂", reaction_id=None)),
        *(event("🔥", reaction_id="a"), event("", reaction_id="c"), event("word", reaction_id="d")),
    ]
    parsed = parsed_records(spark, [(0, number, value) for number, value in enumerate(values)])
    assert sum(row["identified"] for row in aggregate(parsed).collect() if row["emoji_type"] in ("😂", "🔥")) == 3
    found = Identified.of(identified(parsed).toArrow())
    assert found.offset.tolist() == [0, 1, 4]
    assert found.emoji_type.tolist() == ["😂", "😂", "🔥"]
    first, other, again = found.id.tolist()
    assert first == again != other


def test_repeats_do_not_count() -> None:
    """A type of which all are repeats did not occur; the records stay within the offsets."""
    rows: list[dict[str, Any]] = [
        {"emoji_type": "😂", "partition": 0, "count": 4, "first": 5, "last": 9, "first_ms": 28, "last_ms": 1},
        {"emoji_type": "😂", "partition": 1, "count": 7, "first": 0, "last": 8, "first_ms": 28, "last_ms": 1},
        {"emoji_type": "🔥", "partition": 0, "count": 2, "first": 4, "last": 20, "first_ms": 28, "last_ms": 2},
    ]
    repeats = {("😂", 1): 5, ("🔥", 0): 2}
    made = window(
        rows, topic="t", epoch="e", number=0, trigger_ns=1, emitted_ns=2, group_size=10, policy="ceil", repeats=repeats
    )
    assert made is not None
    assert [(c.emoji_type, c.count, c.representatives) for c in made.reactions] == [("😂", 6, 1)]
    assert (made.total, made.repeats, made.offsets) == (6, 7, {"t-0": (4, 20), "t-1": (0, 8)})


@pytest.mark.integration
def test_probe_alone_gives_an_empty_window(spark: SparkSession) -> None:
    """A null record gives a window without reactions, which shows that the probe has passed."""
    made = counted(spark, [(1, 42, None)])
    assert made is not None
    assert (made.total, made.reactions, made.offsets) == (0, [], {"emoji-events-1": (42, 42)})


@pytest.mark.integration
def test_empty_micro_batch_gives_no_window(spark: SparkSession) -> None:
    """Without records nothing is emitted."""
    assert counted(spark, []) is None


def test_rows_of_several_partitions_are_added_up() -> None:
    """Counts are summed over partitions, offsets and times are each partition's; equal counts are sorted by name."""
    rows: list[dict[str, Any]] = [
        {"emoji_type": "b", "partition": 0, "count": 4, "first": 5, "last": 9, "first_ms": 28, "last_ms": 30},
        {"emoji_type": "b", "partition": 1, "count": 7, "first": 0, "last": 8, "first_ms": 28, "last_ms": 31},
        {"emoji_type": "a", "partition": 0, "count": 11, "first": 4, "last": 20, "first_ms": 28, "last_ms": 32},
        {"emoji_type": None, "partition": 1, "count": 2, "first": 9, "last": 10, "first_ms": 28, "last_ms": 33},
        {"emoji_type": "c", "partition": 0, "count": 0, "first": 7, "last": 7, "first_ms": 28, "last_ms": 29},
    ]
    times = last_appended(rows)
    assert first_appended([*rows, {"first_ms": 27}]) == 27
    assert times == {0: 32, 1: 33}
    made = window(
        rows,
        topic="t",
        epoch="e",
        number=0,
        trigger_ns=1,
        emitted_ns=2,
        group_size=10,
        policy="ceil",
        appended_ms=times,
    )
    assert made is not None
    assert [(c.emoji_type, c.count, c.representatives) for c in made.reactions] == [("a", 11, 2), ("b", 11, 2)]
    assert (made.offsets, made.total, made.malformed) == ({"t-0": (4, 20), "t-1": (0, 10)}, 22, 2)
    assert made.appended_ms == {"t-0": 32, "t-1": 33}
