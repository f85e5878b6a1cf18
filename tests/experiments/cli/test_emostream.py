"""`emostream`: its commands, what it refuses, its completion, and how it ends."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from experiments.__main__ import parser as experiments_parser
from experiments.cli import __main__ as emostream
from experiments.cli import completion
from experiments.cli.__main__ import COMMANDS, main, parser
from tests.harness.paths import REPOSITORY
from tests.harness.processes import module, run_to_end

ASKED_FOR = {
    *("up", "scale", "send", "watch"),
    *("experiment", "sweep", "compare", "report", "bench", "trace", "airflow"),
    "doctor",
}
SLOW = ("pandas", "numpy", "pyspark", "circus", "aiohttp", "locust", "papermill")
"""What `emostream --help` and the completion do not need."""


def test_every_command_is_there() -> None:
    """Those that the project was asked for, and what else is useful on a command line."""
    assert set(COMMANDS) > ASKED_FOR
    assert set(COMMANDS) - ASKED_FOR == {
        *(
            "claims",
            "completion",
            "dead-letters",
            "duel",
            "faults",
            "instrument",
            "jmeter",
            "keep",
            "lab",
            "limits",
            "postman",
        ),
        "reproduce",
        "second-reading",
    }


def test_wheel_installs_the_command() -> None:
    """Its entry point is `main`."""
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert EntryPoint("emostream", scripts["emostream"], "console_scripts").load() is main


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with the status of a mistake."""
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    listed = {line.split()[0] for line in capsys.readouterr().err.splitlines() if line.startswith("    ")}
    assert set(COMMANDS) <= listed


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["down"], "invalid choice: 'down'"),
        (["up", "--ingest", "1"], "unrecognized arguments: --ingest 1"),
        (["experiment", "--note", "x.ipynb"], "unrecognized arguments: --note x.ipynb"),
        (["doctor", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["completion", "csh"], "invalid choice: 'csh'"),
        (["watch", "--windows", "0"], "give a whole number from 1"),
        (["watch", "--transport", "pigeon"], "invalid choice: 'pigeon'"),
    ],
)
def test_mistake_exits_with_2(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option, also a shortened one, or a value that cannot be."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert error in capsys.readouterr().err


def test_version_names_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """Of EmoStream, Python, Kafka and Spark."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("emostream 0.")
    assert f"Python {sys.version.split()[0]}, Kafka 4." in out


def test_parsers_are_those_of_the_modules() -> None:
    """`python -m experiments` and `emostream` have the same options, under another name of one command."""
    joint = {line.prog.split()[-1]: line for line in completion.commands(parser())}
    for line in completion.commands(experiments_parser()):
        name = line.prog.split()[-1]
        if name in ("docs", "make"):
            continue
        other = joint["experiment" if name == "run" else name]
        assert options(line) == options(other), name


def options(line: argparse.ArgumentParser) -> list[list[str]]:
    """The options of a parser."""
    return [action.option_strings for action in line._actions]


def test_help_is_quick() -> None:
    """It imports none of the big libraries: the completion of a shell would be slow."""
    code = "import sys, experiments.cli.__main__ as m; m.parser(); print([n for n in sys.argv[1:] if n in sys.modules])"
    done = run_to_end([sys.executable, "-c", code, *SLOW])
    assert done.stdout == "[]\n", done.stderr


def test_doctor_sees_the_environment_that_others_do_not(tmp_path: Path) -> None:
    """The other commands restart without what is set for other programs, and say so."""
    set_for_others = {"PYTHONOPTIMIZE": "1", "EMOSTREAM_RUN_DIR": str(tmp_path)}
    done = run_to_end(module("experiments.cli", "airflow", "--port", "0"), **set_for_others)
    assert (done.returncode, "ignored environment variables" in done.stderr) == (1, True)
    assert "PYTHONOPTIMIZE" in done.stderr
    done = run_to_end(module("experiments.cli", "doctor", "--json"), **set_for_others)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["report", "scale"])
def test_ctrl_c_exits_with_130(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell reports it, of the chain's and the instrument's commands."""

    def interrupted(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    entry = COMMANDS[command]._replace(command=interrupted)
    monkeypatch.setattr(emostream, "COMMANDS", {**COMMANDS, command: entry})
    monkeypatch.setattr(emostream.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main([command, *(["."] if command == "report" else ["--subscribers", "1"])])
    assert end.value.code == 130


def test_design_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes with the project; a file of that name in the working directory comes first."""
    from experiments.cli.instrument import _design
    from experiments.repository import DESIGNS

    monkeypatch.chdir(tmp_path)
    assert _design(Path("smoke")) == DESIGNS / "smoke.yaml"
    assert _design(Path("designs/smoke")) == Path("designs/smoke")
    assert _design(Path("nothing")) == Path("nothing")
    Path("smoke").write_text("")
    assert _design(Path("smoke")) == Path("smoke")


COMPLETED = {
    "emostream do": ["doctor"],
    "emostream watch --tr": ["--transport"],
    "emostream bench in": ["ingest"],
    "emostream sweep smo": ["smoke"],
}


@pytest.mark.parametrize(("typed", "expected"), COMPLETED.items())
def test_bash_completes(typed: str, expected: list[str]) -> None:
    """What the script offers for the last word."""
    words = typed.split()
    script = f"""
        eval "$({sys.executable} -m experiments.cli completion bash)"
        COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        $(complete -p emostream | grep -o -- '-F [^ ]*' | cut -c4-) emostream {words[-1]} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = run_to_end(["bash", "-c", script])
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And is a script that the shell reads, where it is installed."""
    with pytest.raises(SystemExit) as end:
        main(["completion", shell])
    assert end.value.code == 0
    script = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in script] == []
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False, env=os.environ)
        assert (done.returncode, done.stderr) == (0, "")
