"""A run's files read by SQL: equal to its summary, and a damaged file named with what to do."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from experiments import files
from experiments.run_files import RunFileError
from experiments.second_reading.differences import differences, frame_differences
from experiments.second_reading.reading import SecondReadingError, read, read_frames
from experiments.synthetic.run import make_run

REMEDY = "restore it from git or a copy, or remove the run's directory and measure again"


def edited(run_dir, name, change):
    """Write a frame of the run again, changed."""
    path = run_dir / f"{name}.parquet"
    files.to_parquet(change(pd.read_parquet(path)), path)


def refusal(run_dir):
    """Return the text of the error that reading the run ends with."""
    with pytest.raises(RunFileError) as error:
        read(run_dir)
    return str(error.value)


def test_files_of_a_run_agree_with_its_summary(run_dir):
    """The summary may be that of the run, or one at hand."""
    assert differences(run_dir) == []
    summary = json.loads((run_dir / "summary.json").read_text())
    assert differences(run_dir, summary | {"lost": 1}) == ["lost: the summary has 1.0, and the second reading is 0.0"]


def test_frame_cut_short_is_named(run_dir):
    """Half a file is no file."""
    path = run_dir / "topic.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    text = refusal(run_dir)
    assert text.startswith(f"{path} is cut off or damaged (")
    assert REMEDY in text


def test_missing_frame_is_named(run_dir):
    """A run without the rows of one frame cannot be read."""
    (run_dir / "sent.parquet").unlink()
    assert refusal(run_dir).startswith(f"{run_dir / 'sent.parquet'} is missing: {REMEDY}")


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("windows", lambda rows: rows.drop(columns="offsets"), "it lacks the column offsets"),
        ("sent", lambda rows: rows.assign(t_sent_ns="soon"), "Conversion Error: Could not convert string 'soon'"),
        ("plan", lambda rows: rows.assign(seq=None), "NOT NULL constraint failed: plan.seq"),
        ("plan", lambda rows: rows.assign(seq=7), "seq 7 is there twice"),
        ("plan", lambda rows: rows.assign(t_intended_ns=7), "is in the same microsecond as another reaction of "),
        ("sent", lambda rows: rows.assign(seq=7), "seq 7 is there twice"),
        ("windows", lambda rows: rows.assign(offsets="[1]"), "has offsets [1], expected JSON like"),
        ("windows", lambda rows: rows.assign(offsets='{"a": [1, 2]}'), 'has offsets {"a": [1, 2]}, expected'),
        ("windows", lambda rows: rows.assign(offsets=None), "has offsets null, expected"),
        ("windows", lambda rows: rows.assign(reactions='[{"emoji_type": "😂"}]'), "expected a JSON list of"),
        ("windows", lambda rows: rows.assign(reactions="{"), "has reactions {, expected"),
        ("windows", lambda rows: rows.assign(carried="3"), "has carried 3, expected"),
    ],
)
def test_frame_with_a_wrong_column_is_named(run_dir, name, change, fault):
    """The error names the file, the column or the row, and the remedy."""
    edited(run_dir, name, change)
    text = refusal(run_dir)
    assert text.startswith(f"{run_dir / name}.parquet is damaged (")
    assert fault in text
    assert REMEDY in text


def test_frame_that_the_run_did_not_leave_is_refused(run_dir):
    """Its hash is in the manifest."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["frames"] = {"usage": {"rows": 1, "sha256": "0" * 64}}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    assert refusal(run_dir).startswith(f"{run_dir / 'usage.parquet'} is not the file that the run left: its SHA-256")


def test_frames_in_memory_are_refused_by_name():
    """What is passed by a program has no file to name."""
    run = make_run(rate_per_s=2.0, clients=1, measured_triggers=1)
    less = {name: frame for name, frame in run.frames.items() if name != "usage"}
    with pytest.raises(SecondReadingError, match=r"^The usage frame is missing: pass"):
        read_frames(less, run.parameters, run.manifest)
    mixed = run.frames["usage"].astype({"cpu_s": object})
    mixed.loc[0, "cpu_s"] = "much"
    with pytest.raises(SecondReadingError, match=r"^The usage frame mixes kinds of values"):
        frame_differences(run.frames | {"usage": mixed}, run.parameters, run.manifest, {})
