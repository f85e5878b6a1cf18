"""How a process ended, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.supervisor import exits


@pytest.mark.parametrize(
    ("code", "name"),
    [(0, "exit status 0"), (1, "exit status 1"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-40, "signal 40")],
)
def test_signal_has_its_name(code: int, name: str) -> None:
    """A status has its number."""
    assert exits.exit_name(code) == name


def test_kernels_kill_for_lack_of_memory_is_noticed_for_some_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills from before the start do not count, nor does a system that counts none."""
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(exits, "VMSTAT", counts)
    assert not exits.OutOfMemory().sample()
    now_s = 0.0
    counts.write_text("nr_free_pages 5\noom_kill 3\n")
    memory = exits.OutOfMemory(lambda: now_s)
    assert not memory.sample()
    counts.write_text("nr_free_pages 5\noom_kill 4\n")
    assert memory.sample()
    now_s = exits.OUT_OF_MEMORY_S
    assert memory.sample()
    now_s += 1
    assert not memory.sample()
