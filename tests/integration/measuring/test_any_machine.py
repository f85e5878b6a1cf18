"""An experiment on a machine as people have it: nothing that is set for other programs changes it, nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.jars import default_cache_dir
from tests.harness import machines
from tests.harness.processes import run_to_end
from tests.harness.waiting import until

pytestmark = pytest.mark.integration

SHORT = {"clients": 4, "warm_up_triggers": 1, "measured_triggers": 1}


def run(reports: Path, **parameters: object) -> list[str]:
    """Return the command that carries out a short run."""
    given = [word for name, value in {**SHORT, **parameters}.items() for word in ("-p", name, str(value))]
    return [sys.executable, "-m", "experiments", "run", *given, "--reports", str(reports)]


def files_in(folder: Path) -> list[Path]:
    """Return every file below `folder`, except caches and the bytecode that Python keeps beside its sources."""
    return sorted(path for path in folder.rglob("*") if not {"__pycache__", ".cache"} & set(path.parts))


@pytest.mark.timeout(600)
def test_run_ignores_what_is_set_for_other_programs_and_leaves_nothing(ready_file: Path, tmp_path: Path) -> None:
    """From a copy of the checkout, in a home full of settings, with a proxy that refuses; a second run is refused."""
    home, reports = tmp_path / "home", tmp_path / "reports"
    scratch = tmp_path / ("scratch-" + "x" * 100)
    scratch.mkdir()
    checkout = machines.checkout(tmp_path / "checkout")
    (checkout / "locust.conf").write_text("run-time = 5s\n", encoding="utf-8")
    command = run(reports, attach=ready_file, loop="closed", users=10, think_s=0.3)
    with machines.refusing_proxy() as (proxy, asked):
        env = {**os.environ, **machines.furnish(home), **proxy, "TMPDIR": str(scratch)}
        before = files_in(home), files_in(checkout)
        with (
            (tmp_path / "out").open("w+", encoding="utf-8") as out,
            subprocess.Popen(command, cwd=checkout, env=env, stdout=out, stderr=out) as first,
        ):
            until(lambda: list(reports.rglob("locust.log")) or first.poll() is not None, "the load began", 120)
            second = run_to_end(run(tmp_path / "others", attach=ready_file))
            first.wait(120)
            out.seek(0)
            printed = out.read()
    assert first.returncode == 0, printed
    report = Path(printed.splitlines()[-1])
    summary = json.loads((report.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["users"] == 10
    assert summary["accepted"] > 0
    assert summary["lost"] == summary["duplicated"] == summary["deliveries_missing"] == 0
    assert "black" not in (report.parent / "summary" / "spectrum.svg").read_text(encoding="utf-8")
    assert (files_in(home), files_in(checkout)) == before
    assert list(scratch.iterdir()) == []
    assert asked == []
    assert second.returncode == 1
    assert f"(process {first.pid} of user " in second.stderr
    assert not (tmp_path / "others").exists()


@pytest.mark.skipif(not machines.may_become_unknown(), reason="only root, with setpriv, can become an unknown user")
@pytest.mark.timeout(600)
def test_run_of_a_user_without_a_name_or_home_who_cannot_write_the_checkout(ready_file: Path, tmp_path: Path) -> None:
    """As in a container that is started for an arbitrary user id, with the checkout mounted read-only."""
    checkout = machines.checkout(tmp_path / "checkout")
    reports = tmp_path / "reports"
    reports.mkdir()
    os.chown(reports, machines.UNKNOWN_USER, -1)
    left_out = ("HOME", "USER", "LOGNAME", "USERNAME", "XDG_CACHE_HOME", "EMOSTREAM_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    jars = {"EMOSTREAM_CACHE_DIR": str(default_cache_dir(os.environ))}
    before = files_in(checkout)

    def attempt(reports: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            machines.by_unknown_user(run(reports, attach=ready_file, users=5, rate_per_s=20.0)),
            cwd=checkout,
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=200,
        )

    done = attempt(reports, {**env, **jars})
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.splitlines()[-1])
    summary = json.loads((report.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["accepted"] > 0
    assert summary["lost"] == summary["duplicated"] == summary["deliveries_missing"] == 0
    assert files_in(checkout) == before
    sealed = attempt(checkout / "reports", {**env, **jars})
    assert sealed.returncode == 1
    assert "cannot be written: give a folder that you can write with --reports" in sealed.stderr
    homeless = attempt(reports, env)
    assert homeless.returncode == 1
    assert "EMOSTREAM_CACHE_DIR is not set and this user has no home directory: set EMOSTREAM_CACHE" in homeless.stderr
