"""Which process is which stage, and what a real one and its children cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.run import usage
from tests.harness.waiting import until


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("python -m spark.job --trigger-s 6", "spark"),
        ("python -m pipeline.subscriber --cluster 1", "subscriber"),
        ("python -m pipeline up", "supervisor"),
        ("python -m locust -f x", "load"),
        ("granian wsgi 127.0.0.1:8000 pipeline.ingest worker-1", "ingest"),
        ("granian wsgi 127.0.0.1:9000 somebody.else", None),
        ("emostream", "supervisor"),
        ("python -m http.server", None),
        ("java -cp x kafka.Kafka", None),
        ("python -m experiments.twin --ready-file x", "twin"),
    ],
)
def test_a_stage_is_known_by_its_command(command: str, stage: str | None) -> None:
    """By the module that -m names, and nothing else."""
    assert usage.stage_of(command.split()) == stage


def test_a_real_process_is_sampled_with_its_children() -> None:
    """A stage's figure includes its children, and the machine's is at least as large."""
    child = "import time\nwhile True: time.sleep(0.01)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    # The words after -c stand where a stage's would.
    with subprocess.Popen([sys.executable, "-c", parent, "-m", "spark.job"]) as process:
        try:
            deadline_s = time.monotonic() + 30
            stages: dict[str, int] = {}
            alone = 0
            while time.monotonic() < deadline_s:
                stages = {stage: rss for _, stage, _, rss in usage._sample([os.getpid()], usage.CpuTimes())}
                alone = usage.psutil.Process(process.pid).memory_info().rss
                # A process that is just being started has a moment's figures of the one that starts it.
                if usage.psutil.Process(process.pid).children() and stages.get("spark", 0) > 1.5 * alone > 0:
                    break
            assert stages["spark"] > 1.5 * alone
            assert stages["machine"] > 0
        finally:
            children = usage.psutil.Process(process.pid).children()
            process.kill()
            for child_process in children:
                child_process.kill()


def test_work_of_a_process_that_has_ended_counts() -> None:
    """A sample never sees it. Interrupts are part of the machine's work."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    command = [sys.executable, "-c", parent, "-m", "spark.job"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        spent_s = {stage: cpu_s for _, stage, cpu_s, _ in usage._sample([process.pid], usage.CpuTimes())}
        own = usage.psutil.Process(process.pid).cpu_times()
        process.communicate(b"\n")
    assert spent_s["spark"] >= own.user + own.system + 0.4
    assert 0 <= spent_s["interrupts"] < spent_s["machine"]


def _process(stage: str, parent: int, own_s: float, children_s: float = 0.0) -> usage._Process:
    return usage._Process(stage, parent, own_s, children_s)


def test_a_stage_keeps_what_its_ended_processes_used() -> None:
    """The load of the warm-up ends with 2.3 s, its worker with 1.2 s, and the next load begins with nothing."""
    spent = usage.CpuTimes()
    above = (1, 0.0)
    spent.add(
        {above: _process("others", 0, 5.0), (2, 1.0): _process("load", 1, 2.0), (3, 1.0): _process("load", 2, 1.0)}
    )
    assert dict(spent.of_stage) == {"others": 5.0, "load": 3.0}
    spent.add({above: _process("others", 0, 5.5, 3.5), (2, 7.0): _process("load", 1, 0.25)})
    assert dict(spent.of_stage) == {"others": 5.5, "load": 3.75}


def test_a_program_that_no_sample_saw_counts_for_its_parent() -> None:
    """Spark's JVM starts such programs; what it waited for before it was seen counts once."""
    spent = usage.CpuTimes()
    spent.add({(2, 1.0): _process("spark", 1, 4.0, 0.5)})
    spent.add({(2, 1.0): _process("spark", 1, 4.5, 0.75)})
    assert spent.of_stage["spark"] == 5.25


def test_a_process_that_has_ended_keeps_its_stage_until_it_is_waited_for() -> None:
    """Its command line is gone by then. The load of the warm-up is one for as long as the measurement lasts."""
    burn = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()\n"
    burn += "while time.process_time() < 0.8: pass"
    command = [sys.executable, "-c", burn, "-m", "experiments.load"]
    spent = usage.CpuTimes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        usage._sample([os.getpid()], spent)
        before_s = spent.of_stage["load"]
        process.stdin.write(b"\n")
        process.stdin.flush()
        ended = usage.psutil.Process(process.pid)
        until(lambda: ended.status() == usage.psutil.STATUS_ZOMBIE, "the process has ended")
        usage._sample([os.getpid()], spent)
    assert spent.of_stage["load"] - before_s >= 0.4


def test_a_child_that_nobody_waited_for_takes_nothing_away() -> None:
    """The kernel adds its time to nobody's; that of the stage stays as it was."""
    spent = usage.CpuTimes()
    spent.add({(1, 0.0): _process("supervisor", 0, 1.0), (2, 1.0): _process("spark", 1, 4.0)})
    spent.add({(1, 0.0): _process("supervisor", 0, 1.5)})
    assert dict(spent.of_stage) == {"supervisor": 1.5, "spark": 4.0}


def test_work_of_other_programs_is_seen() -> None:
    """It belongs to no stage, and no reading of the whole machine is needed for it."""
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()"
    spent = usage.CpuTimes()
    usage._sample([os.getpid()], spent)
    before_s = spent.of_stage["others"]
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage._sample([os.getpid()], spent)
        process.communicate(b"\n")
    # A process counts its time in ticks of 10 ms, apart for user and system.
    assert spent.of_stage["others"] - before_s >= 0.45


def test_a_chain_that_was_up_is_sampled_from_its_first_process_on() -> None:
    """The process that the ready file names is a stage itself, although it is no child of the run's."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "-m", "experiments.twin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        # A process that is just being started has the words of the one that starts it.
        until(
            lambda: "twin" in {stage for _, stage, _, _ in usage._sample([process.pid], usage.CpuTimes())},
            "the named process is sampled",
        )
        assert process.stdin is not None
        process.stdin.close()


def test_a_brief_foreign_load_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts and ends during the watch: Locust by its console script, of another user."""
    script = tmp_path / "locust"
    script.write_text("import sys\nsys.stdin.read()\n")
    monkeypatch.setattr(usage, "SAMPLE_S", 0.05)
    monkeypatch.setattr(usage.machine_lock.psutil.Process, "parents", lambda _: [])
    # What else runs on this machine is no matter here.
    listed, others = usage.machine_lock.psutil.process_iter, set[int]()
    monkeypatch.setattr(
        usage.machine_lock.psutil, "process_iter", lambda *names: (one for one in listed(*names) if one.pid in others)
    )
    with usage.UsageWatch([]) as watch:
        until(lambda: len(watch.frame()) > 0, "there is a sample")
        assert not watch.other_run
        with subprocess.Popen([sys.executable, str(script), "-f", "x.py"], stdin=subprocess.PIPE) as other:
            others.add(other.pid)
            until(lambda: watch.other_run, "the other load is seen")
            assert other.stdin is not None
            other.stdin.close()
    assert watch.other_run
