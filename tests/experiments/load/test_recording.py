"""The made-up recording: the same for a seed, like a live audience, and accepted by everything that reads one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from experiments.__main__ import main
from experiments.load import recording, trace
from experiments.load.plan import plan_of
from experiments.parameters import Parameters
from experiments.units import NS_PER_S
from pipeline.emojis import canonical
from pipeline.errors import SettingError

WINDOW_MS = 6_000


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    """The recording that is replayed when none is named."""
    return recording.recorded()


def test_same_seed_gives_same_bytes_on_every_platform(tmp_path: Path) -> None:
    """The digest is part of the project: a change of it changes every figure of the trace design."""
    recording.make(tmp_path / "trace.csv", seed=7, minutes=2)
    written = (tmp_path / "trace.csv").read_bytes()
    assert b"\r" not in written
    assert hashlib.sha256(written).hexdigest() == "aea9381326db0f46099561b1cfda36697c2375032105bbaa0add281795a55153"


def test_other_seed_gives_other_recording() -> None:
    """Not one seed decides for all."""
    assert not recording.recorded(1, 1).equals(recording.recorded(2, 1))


def test_a_window_holds_few_reactions_of_many_types(made: pd.DataFrame) -> None:
    """Windows of 6 s hold 30 to 45 reactions on average, hardly a type of them ten times."""
    window = made["offset_ms"] // WINDOW_MS
    cells = made.groupby([window, "emoji_type"]).size()
    assert 30 <= len(made) / window.nunique() <= 45
    assert cells.groupby(level=0).size().mean() > 12
    assert cells.mean() < 3
    assert (cells >= 10).mean() < 0.04
    assert made["emoji_type"].nunique() > 250


def test_bursts_stand_out_and_are_of_one_type(made: pd.DataFrame) -> None:
    """Counts vary far more than Poisson's would, and the fullest windows have one type in front."""
    window = made["offset_ms"] // WINDOW_MS
    counts = window.value_counts()
    assert counts.var() / counts.mean() > 3
    fullest = made[window == counts.index[0]]["emoji_type"].value_counts()
    usual = made["emoji_type"].value_counts(normalize=True)
    assert counts.iloc[0] > 2 * counts.median()
    assert (fullest / len(fullest) > 5 * usual.reindex(fullest.index)).any()


def test_a_few_users_send_much(made: pd.DataFrame) -> None:
    """The busiest tenth sends over a quarter of all; many send once or twice."""
    per_user = made["user_id"].value_counts()
    assert per_user.iloc[: len(per_user) // 10].sum() > len(made) / 4
    assert (per_user <= 2).mean() > 0.3


def test_a_recording_passes_the_checks_of_trace_read(tmp_path: Path, made: pd.DataFrame) -> None:
    """Written and read back it is the same, row by row."""
    recording.make(tmp_path / "trace.csv")
    pd.testing.assert_frame_equal(trace.read(tmp_path / "trace.csv"), made)


def test_every_type_is_one_fully_qualified_emoji() -> None:
    """And each stands there once."""
    assert [emoji for emoji in recording.TYPES if canonical(emoji) != emoji] == []
    assert len(set(recording.TYPES)) == len(recording.TYPES)


@pytest.mark.parametrize("minutes", [1, 3])
def test_a_recording_has_the_length_asked_for(minutes: int) -> None:
    """From 0 ms to the last second of the last minute."""
    offsets = recording.recorded(minutes=minutes)["offset_ms"]
    assert offsets.iloc[0] == 0
    assert offsets.iloc[-1] == minutes * 60_000 - 1


def test_a_run_without_a_path_replays_the_recording(tmp_path: Path) -> None:
    """It is the plan of the file that `trace make` writes with its defaults."""
    recording.make(tmp_path / "trace.csv")
    parameters = {"arrivals": "trace", "speed": 60.0, "trigger_s": 1.5}
    own = plan_of(Parameters(**parameters), NS_PER_S)  # type: ignore[arg-type]
    named = plan_of(Parameters(**parameters, trace=str(tmp_path / "trace.csv")), NS_PER_S)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(own, named)


def test_a_path_without_arrivals_trace_is_refused() -> None:
    """A recording that would not be replayed is a mistake."""
    with pytest.raises(SettingError, match=r"trace and arrivals are 'x\.csv' and 'poisson': set arrivals to 'trace'"):
        Parameters(trace="x.csv")


def test_the_command_writes_a_file_and_sums_it_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`trace make` prints what the file holds."""
    path = tmp_path / "made.csv"
    with pytest.raises(SystemExit) as ended:
        main(["trace", "make", "--seed", "3", "--minutes", "1", "--out", str(path)])
    assert ended.value.code == 0
    rows = trace.read(path)
    assert capsys.readouterr().out.startswith(f"{path}: {len(rows):,} reactions of ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "-1"], "seed is -1: give a whole number from 0"),
        (["--minutes", "0"], "minutes is 0: give 1 to 1440"),
        (["--minutes", "1441"], "minutes is 1441: give 1 to 1440"),
        (["--out", "/nowhere/x.csv"], "/nowhere/x.csv could not be written"),
    ],
)
def test_an_option_out_of_bounds_is_named(options: list[str], named: str) -> None:
    """With the value and what to give instead."""
    with pytest.raises(SystemExit, match=named):
        main(["trace", "make", *options])


def test_a_word_for_a_number_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """By argparse, with exit status 2."""
    with pytest.raises(SystemExit) as ended:
        main(["trace", "make", "--minutes", "many"])
    assert ended.value.code == 2
    assert "argument --minutes: invalid int value: 'many'" in capsys.readouterr().err
