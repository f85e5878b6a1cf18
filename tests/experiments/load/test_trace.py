"""A recorded crowd: what is read, what is refused and how, and how it is replayed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.load.plan import plan_of
from experiments.load.schedule import PLAN_COLUMNS
from experiments.load.trace import read, replayed, summary, trace_plan
from experiments.parameters import Parameters
from experiments.units import NS_PER_MS, NS_PER_S, NS_PER_US
from pipeline.errors import SettingError

START_NS = 1_795_426_200 * NS_PER_S + 123
HEADER = "offset_ms,user_id,emoji_type\n"
ROWS = "0,ada,😂\n7,alan,❤\n7,alan,❤️\n3000,ada,🔥\n"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "mayweather_mcgregor_2017.csv"


def written(folder: Path, text: str) -> Path:
    """Return a trace file of this text."""
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def recorded(*rows: tuple[int, str]) -> pd.DataFrame:
    """Return a trace of offsets and users, as `read` does."""
    offsets, users = zip(*rows, strict=True)
    return pd.DataFrame({"offset_ms": np.array(offsets, dtype=np.int64), "user_id": users, "emoji_type": "😂"})


def test_a_trace_is_read_whole_and_canonical(tmp_path: Path) -> None:
    """Every row comes back in order, each emoji in the one form it is counted in, further columns left out."""
    rows = "0,x,ada,😂\n7,x,alan,❤\n7,x,alan,❤️\n3000,x,ada,🔥\n"
    frame = read(written(tmp_path, "offset_ms,note,user_id,emoji_type\n" + rows))
    assert list(frame.columns) == ["offset_ms", "user_id", "emoji_type"]
    assert frame["offset_ms"].dtype == np.int64
    assert frame.to_numpy().tolist() == [[0, "ada", "😂"], [7, "alan", "❤️"], [7, "alan", "❤️"], [3000, "ada", "🔥"]]


PLAIN = HEADER + ROWS
AS_SPREADSHEETS_WRITE = {
    "byte order mark": "\ufeff" + PLAIN,
    "Windows' line ends": PLAIN.replace("\n", "\r\n"),
    "old Macs' line ends": PLAIN.replace("\n", "\r"),
    "no last line end": PLAIN.rstrip(),
    "separator named": "\ufeffsep=,\r\n" + PLAIN.replace("\n", "\r\n"),
    "separator named, other": '"SEP=;"\n' + PLAIN.replace(",", ";"),
    "tab named": "sep=\t\n" + PLAIN.replace(",", "\t"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "quotes": "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in PLAIN.split()),
    "spaces after the separator": PLAIN.replace(",", ", "),
    "names with spaces and capitals": "Offset MS, User ID ,EMOJI-TYPE\n" + ROWS,
    "an index": ",offset_ms,user_id,emoji_type\n" + "".join(f"{n},{row}\n" for n, row in enumerate(ROWS.split())),
    "blank lines": "\n" + PLAIN.replace("7,alan,❤\n", "7,alan,❤\n\n  \n") + "\n\n",
    "empty rows": PLAIN + ",,\n,,,\n",
    "empty columns": "".join(f"{line},,\n" for line in PLAIN.split()),
    "empty cells beside the names": HEADER + ROWS.replace("\n", ",,\n"),
    "emoji as phones send them": HEADER + ROWS.replace("🔥", " 🔥\ufe0f").replace("❤️", "❤\ufe0e"),
}


@pytest.mark.parametrize("text", AS_SPREADSHEETS_WRITE.values(), ids=AS_SPREADSHEETS_WRITE.keys())
def test_a_trace_as_spreadsheets_write_it_is_read_alike(tmp_path: Path, text: str) -> None:
    """The separators, line ends, quotes, names and blank lines of spreadsheets change nothing."""
    path = tmp_path / "trace.csv"
    path.write_bytes(PLAIN.encode())
    plain = read(path)
    path.write_bytes(text.encode())
    pd.testing.assert_frame_equal(read(path), plain)


def test_user_ids_are_text(tmp_path: Path) -> None:
    """Ids such as `NA` or `007` are text and stay as they are."""
    assert list(read(written(tmp_path, HEADER + "0,NA,😂\n1,007,😂\n"))["user_id"]) == ["NA", "007"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", r"trace.csv is empty: begin it with the line offset_ms,user_id,emoji_type"),
        (HEADER, "no row below its first line"),
        ("offset_ms,user\n0,ada\n", r"has the columns offset_ms,user and lacks 'user_id': begin it"),
        (HEADER + "0,ada,😂\n9,ada,😂\n8,ada,😂\n", r"line 4, column offset_ms is '8': .*sort the rows"),
        (HEADER + "0,ada,😂\n-1,ada,😂\n", r"line 3, column offset_ms is '-1': give whole milliseconds from 0"),
        (HEADER + "0.5,ada,😂\n", r"line 2, column offset_ms is '0.5': give whole"),
        (HEADER + "soon,ada,😂\n", r"line 2, column offset_ms is 'soon'"),
        (HEADER + "٣,ada,😂\n", r"line 2, column offset_ms is '٣'"),
        (HEADER + "99999999999,ada,😂\n", r"line 2, column offset_ms is '99999999999': give ms since the start"),
        (HEADER + f"{10**30},ada,😂\n", r"line 2, column offset_ms is '10+': give whole"),
        (HEADER + "0,,😂\n", r"line 2, column user_id is '': give 1 to 128 characters"),
        (HEADER + f"0,{'a' * 129},😂\n", r"line 2, column user_id is 'a+…': give 1 to 128"),
        (HEADER + "0,ada,😂😂\n", r"line 2, column emoji_type is '😂😂': it holds 2 emoji: send one reaction for each"),
        (HEADER + "0,ada,x\n", r"line 2, column emoji_type is 'x': send exactly one emoji, such as 😂"),
        (
            HEADER + "0,ada,ðŸ˜Š\n",
            r"line 2, column emoji_type is 'ðŸ˜Š': it is 😊 in UTF-8 that was read as Win",
        ),
        (HEADER + "0,ada\n", r"line 2, column emoji_type is ''"),
        (HEADER + "0,ada,😂\n,ada,😂\n", r"line 3, column offset_ms is ''"),
        (HEADER + "0,ada,😂\n\n0,ada,x\n", r"line 4, column emoji_type is 'x'"),
        (HEADER + '0,"ada\nlovelace",😂\n1,ada,x\n', r"line 4, column emoji_type is 'x'"),
        (HEADER + "0,ada,😂,more\n", r"line 2, it has 4 fields, and the line with the names has 3: put a field"),
        (HEADER + "0,ada,😂\n250,5,ada,😂\n", r"line 3, it has 4 fields"),
        (HEADER + '0,ada,😂\n1,"ada,😂\n2,ada,😂\n', r"line 3, a quotation mark has no partner: add or remove one"),
        (
            HEADER + "0,ada,😂\n1," + "a" * 131_073 + ",😂\n",
            r"line 3, a field has more than 131,072 characters: shorten it",
        ),
        (HEADER + '0,"ada"x,😂\n', r"line 2, a quotation mark has no partner"),
        (
            HEADER.replace(",", ";") + "0;ada;😂\n1,5;ada;😂\n",
            r"line 3, column offset_ms is '1,5': give whole millisec",
        ),
        (HEADER + '"1,000",ada,😂\n', r"line 2, column offset_ms is '1,000': .* without separators or decimals"),
        (HEADER + "1E+05,ada,😂\n", r"line 2, column offset_ms is '1E\+05'"),
        (HEADER + "1_000,ada,😂\n", r"line 2, column offset_ms is '1_000'"),
        ("offset_ms,user_id,emoji_type,User ID\n0,a,😂,b\n", r"has the columns .*, 'user_id' 2 times: keep one"),
        ("0,fan-15,🎉\n", r"has the columns 0,fan-15,🎉 and lacks 'offset_ms': begin it with the line offset_ms,user_"),
        ("\n\n", r"trace.csv is empty: begin it"),
        ("sep=,\n", r"trace.csv is empty: begin it"),
        ("sep=\r\n" + HEADER + "0,ada,😂\n", r"has the columns sep= and lacks 'offset_ms'"),
        ('sep="\n' + HEADER + "0,ada,😂\n", r"has the columns sep=.* and lacks 'offset_ms'"),
    ],
)
def test_each_error_is_named_with_its_line(tmp_path: Path, text: str, named: str) -> None:
    """A trace that cannot be replayed is refused with its file, line, column, value and the remedy."""
    path = written(tmp_path, text)
    with pytest.raises(SettingError, match=named) as refused:
        read(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (
            HEADER.encode() + "0,adélaïde,😂\n".encode("cp1252", "replace"),
            "byte 0xe9 in line 2, .* probably Windows-1252",
        ),
        ((HEADER + ROWS).encode("utf-16"), "it is UTF-16, by its byte order mark. Save it as text in UTF-8"),
        ((HEADER + ROWS).encode("utf-16-be"), "it is probably UTF-16 without a byte order mark"),
        (b"PK\x03\x04" + bytes(50), "it begins like zip, as a workbook or an archive does"),
        (gzip.compress(HEADER.encode(), mtime=0), "it begins like gzip"),
    ],
    ids=["windows-1252", "utf-16", "utf-16 without a mark", "zip", "gzip"],
)
def test_a_trace_in_another_encoding_is_refused_by_name(tmp_path: Path, data: bytes, named: str) -> None:
    """The message names the file, the encoding that it probably has, and the remedy."""
    path = tmp_path / "trace.csv"
    path.write_bytes(data)
    with pytest.raises(SettingError, match=rf"trace .*trace\.csv is not text in UTF-8: {named}"):
        read(path)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file and a folder are named."""
    with pytest.raises(SettingError, match=r"none\.csv does not exist: give the path"):
        read(tmp_path / "none.csv")
    with pytest.raises(SettingError, match=r"cannot be read \(Is a directory\): give the path of a CSV file"):
        read(tmp_path)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=80).map(sorted),
    st.floats(1, 60),
)
@settings(deadline=None, max_examples=60)
def test_a_replay_keeps_the_recording_at_distinct_microseconds(rows: list[tuple[int, str]], speed: float) -> None:
    """Each reaction comes once, in order, never early, and late only by the microseconds that separate a user's."""
    frame = replayed(recorded(*rows), speed, START_NS)
    times = frame["t_ns"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert not pd.DataFrame({"user": frame["user_id"], "us": times // NS_PER_US}).duplicated().any()
    for user, of_user in frame.groupby("user_id"):
        after_ms = [offset - rows[0][0] for offset, name in rows if name == user]
        due_ns = START_NS + np.rint([offset * NS_PER_MS / speed for offset in after_ms]).astype(int)
        late_us = (of_user["t_ns"].to_numpy() - due_ns) // NS_PER_US
        assert len(late_us) == len(due_ns)
        assert (late_us >= 0).all()
        # One that was moved is a microsecond behind the one before.
        moved = late_us > 0
        assert not moved[0]
        assert (np.diff(of_user["t_ns"].to_numpy() // NS_PER_US)[moved[1:]] == 1).all()


def test_a_replay_has_the_phases_of_any_plan() -> None:
    """It begins with the warm-up, less than a trigger after its start, and is over when the measured phase is."""
    trace = recorded(*((ms, f"user-{ms % 7}") for ms in range(0, 40_000, 10)))
    phases = {"trigger_s": 2.0, "warm_up_triggers": 2, "measured_triggers": 3}
    plan = trace_plan(trace, 2.0, START_NS, **phases, seed=4)
    assert tuple(plan.columns) == PLAN_COLUMNS
    assert list(plan["seq"]) == list(range(2_000))
    assert list(plan["phase"]) == ["warm-up"] * 800 + ["measured"] * 1_200
    first_ns = int(plan["t_intended_ns"].iloc[0])
    assert START_NS <= first_ns < START_NS + 2 * NS_PER_S
    assert (np.diff(plan["t_intended_ns"]) == 5 * NS_PER_MS).all()
    pd.testing.assert_frame_equal(plan, trace_plan(trace, 2.0, START_NS, **phases, seed=4))
    assert trace_plan(trace, 2.0, START_NS, **phases, seed=5)["t_intended_ns"].iloc[0] != first_ns
    longer = trace_plan(trace, 2.0, START_NS, **phases, seed=4, after_triggers=1)
    assert list(longer["phase"]) == ["warm-up"] * 800 + ["measured"] * 1_200 + ["after"] * 400


def test_a_replay_begins_with_the_first_row() -> None:
    """A recording that was cut out of a longer one is replayed like one that begins at 0."""
    cut = recorded((2_499_477, "a"), (2_499_477, "b"), (2_500_477, "a"))
    whole = recorded((0, "a"), (0, "b"), (1_000, "a"))
    pd.testing.assert_frame_equal(replayed(cut, 1.0, START_NS), replayed(whole, 1.0, START_NS))
    assert summary(cut, 2.0) == f"{summary(whole, 2.0)}, from the first row on, which is at 2,499,477 ms"


def test_a_trace_too_short_is_refused_with_the_remedy() -> None:
    """Where the recording ends before the measured phase does, the message says what to lower."""
    with pytest.raises(
        SettingError, match=r"lasts 10\.0 s at speed 2, and 1 \+ 2 triggers of 6 s take 18 s: lower measured_triggers"
    ):
        trace_plan(
            recorded((0, "a"), (20_000, "a")),
            2.0,
            START_NS,
            trigger_s=6.0,
            warm_up_triggers=1,
            measured_triggers=2,
            seed=1,
        )


def test_a_trace_silent_while_measured_is_refused(tmp_path: Path) -> None:
    """A replay without a measured reaction gives no figures."""
    path = written(tmp_path, HEADER + "0,ada,😂\n600000,ada,😂\n")
    with pytest.raises(SettingError, match="measured_triggers is 3, and no reaction falls into them"):
        plan_of(Parameters(arrivals="trace", trace=str(path), measured_triggers=3), START_NS)


@pytest.mark.skipif(not SHARED.exists(), reason="the recording is not beside the repository")
def test_the_real_recording_is_read_and_replayed() -> None:
    """The recording beside the repository comes in whole, and replays at ten times its speed."""
    frame = read(SHARED)
    assert (len(frame), frame["user_id"].nunique(), int(frame["offset_ms"].iloc[-1])) == (14_810, 6_331, 2_498_557)
    plan = plan_of(Parameters(arrivals="trace", trace=str(SHARED), speed=10.0), START_NS)
    in_time = frame[frame["offset_ms"] < 1_560_000]
    assert len(plan) == len(in_time)
    pd.testing.assert_series_equal(plan["user_id"].value_counts(), in_time["user_id"].value_counts())
