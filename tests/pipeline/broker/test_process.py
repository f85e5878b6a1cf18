"""Kafka as a process: its watcher ends with it."""

from __future__ import annotations

from pathlib import Path

import psutil

from pipeline.broker import process as broker_process

GONE_S = 20


def test_process_that_ends_by_itself_leaves_no_watcher(tmp_path: Path) -> None:
    """The watcher ends when `end` is called; the exit code is the command's."""
    process = broker_process.spawn(["/bin/sh", "-c", "echo done; exit 7"], tmp_path, tmp_path / "log")
    assert process.wait(GONE_S) == 7
    # Of one that ends meanwhile, as those of other tests do, both are None.
    seen = list(psutil.process_iter(["cmdline", "cwd"]))
    watchers = [p for p in seen if "emostream-kafka" in (p.info["cmdline"] or [])]
    of_this_test = [p for p in watchers if p.info["cwd"] == str(tmp_path)]
    broker_process.end(process)
    assert psutil.wait_procs(of_this_test, GONE_S)[1] == []
    assert (tmp_path / "log").read_text() == "done\n"
