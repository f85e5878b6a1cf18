"""The open loop: its warm-up ends when the windows have settled, and the measured reactions keep their places."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.load import sender_processes
from experiments.load.plan import plan_of
from experiments.parameters import Parameters
from experiments.run import open_loop
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError
from pipeline.messages import encode
from tests.harness.builders import window

TRIGGER_NS = NS_PER_S // 2
GIVEN: dict[str, Any] = {
    "trigger_s": 0.5,
    "flush_ms": 100,
    "warm_up_most_triggers": 40,
    "measured_triggers": 10,
    "rate_per_s": 200.0,
}


class Windows:
    """A reader of windows that took `times_s` from trigger to emission; each poll has one more."""

    def __init__(self, times_s: list[float]) -> None:
        self.left = list(times_s)

    def poll(self, timeout_s: float) -> list[Any]:
        """Return the next window."""
        time.sleep(0.01)
        if not self.left:
            return []
        emitted = window(0, trigger_ns=NS_PER_S, emitted_ns=NS_PER_S + round(self.left.pop(0) * NS_PER_S))
        return [SimpleNamespace(value=encode(emitted))]


class Sender:
    """A sender that sends what is due until it is asked to stop; it ends with `status`."""

    def __init__(self, plan: Path, sent: Path, status: int) -> None:
        self.plan, self.sent, self.returncode = plan, sent, status
        self.signals: list[int] = []

    def poll(self) -> int | None:
        """Return the status once everything is sent, or at once if it is an error."""
        if not self.plan.exists():
            return None
        plan = pd.read_parquet(self.plan)
        due, now_ns = plan["t_intended_ns"].to_numpy(), time.time_ns()
        if not (self.returncode or self.signals or now_ns > due[-1]):
            return None
        rows = plan[due <= now_ns]
        columns: dict[str, Any] = {
            "t_sent_ns": rows["t_intended_ns"],
            "t_answered_ns": rows["t_intended_ns"],
            "status": 202,
        }
        rows[["seq"]].assign(**columns).to_parquet(self.sent)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Stop sending."""
        self.signals.append(signum)


def carried_out(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, times_s: list[float], status: int = 0, **given: Any
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Carry out a load with senders that need no time to start; return what the manifest says, the plan and `sent`."""
    run_dir.mkdir(exist_ok=True)

    def started(_: object, folder: Path, part: str, *__: str) -> Sender:
        return Sender(folder / f"plan{part}.parquet", folder / f"sent{part}.parquet", status)

    monkeypatch.setattr(open_loop, "_started", started)
    monkeypatch.setattr(open_loop, "LOOK_S", 0.01)
    monkeypatch.setattr(sender_processes, "START_S", 0.1)
    windows: Any = Windows(times_s)
    about = open_loop.run(Parameters(**GIVEN | given), "", windows, run_dir, lambda *_: None)
    assert sorted(path.name for path in run_dir.iterdir()) == ["invalid.parquet", "plan.parquet", "sent.parquet"]
    return about, pd.read_parquet(run_dir / "plan.parquet"), pd.read_parquet(run_dir / "sent.parquet")


def test_measurement_begins_when_the_windows_settle_with_the_same_reactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the chain settles sooner or later, the measured reactions are those of the seed, at their places."""
    cold, warm = [3.0, 1.2, 0.8, 0.6, 0.5, 0.45], [0.3] * 8
    soon, plan, sent = carried_out(tmp_path / "soon", monkeypatch, warm)
    late, other, _ = carried_out(tmp_path / "late", monkeypatch, [*cold, *warm])
    assert soon["settled"]
    assert late["settled"]
    assert len(soon["after_trigger_ms"]) < len(late["after_trigger_ms"])
    assert soon["triggers"] < GIVEN["warm_up_most_triggers"]
    asked = plan_of(Parameters(**GIVEN), 0)
    for frame in (plan, other):
        measured, expected = (rows[rows["phase"] != "warm-up"].reset_index(drop=True) for rows in (frame, asked))
        assert ((measured["t_intended_ns"] - expected["t_intended_ns"]) % TRIGGER_NS == 0).all()
        names = ["user_id", "emoji_type", "phase"]
        pd.testing.assert_frame_equal(measured[names], expected[names])
        assert (np.diff(frame["t_intended_ns"]) >= 0).all()
        assert frame["seq"].is_unique
    assert set(plan["seq"]) == set(sent["seq"])


def test_warm_up_that_never_settles_is_as_long_as_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a single window the measurement begins at the bound, and the manifest says that nothing settled."""
    about, plan, _ = carried_out(tmp_path, monkeypatch, [], warm_up_most_triggers=6)
    assert about == {"triggers": 6, "settled": False, "after_trigger_ms": []}
    spans_s = plan.groupby("phase", sort=False)["t_intended_ns"].agg(np.ptp) / NS_PER_S
    assert spans_s.tolist() == pytest.approx([3, 5, 0.5], abs=0.2)


def test_short_measurement_has_a_fixed_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sender sends it all; there is nothing to decide."""
    about, plan, _ = carried_out(tmp_path, monkeypatch, [], measured_triggers=1, warm_up_triggers=1)
    assert (about["triggers"], about["settled"]) == (1, None)
    assert list(plan["phase"].unique()) == ["warm-up", "measured", "after"]


def test_sender_that_fails_ends_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is named, and nothing is waited for."""
    with pytest.raises(EmoStreamError, match="the load ended with status 3"):
        carried_out(tmp_path, monkeypatch, [], status=3)
