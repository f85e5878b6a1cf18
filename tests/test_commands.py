"""Every command of the documents is executed by a test: here, in another test that is named, or by CI itself.

Every option that a document names exists, and every option that exists is in docs/command-line.md.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import __main__ as experiments_command
from experiments import documents as generated
from experiments.campaign import design_file, sweep
from experiments.cli import __main__ as emostream
from experiments.cli import completion, reference
from experiments.repository import DESIGNS
from experiments.run import notebook
from pipeline import __main__ as pipeline_command
from pipeline import settings
from pipeline.supervisor import supervisor
from tests.harness.documents import PAGES, Shown, commands, inline, split
from tests.harness.paths import REPOSITORY

# On one chain that is up, in their order: tests/integration/page/test_documented_commands.py imports this.
ON_A_CHAIN = (
    "curl ",
    "emostream send",
    "emostream watch",
    "emostream scale ",
    "emostream dead-letters",
    "printf ",
    "kill -9 $(pgrep ",
    # The steps of a client with curl.
    *("CLIENT=$(curl ", "field() ", "TOKEN=", "STREAM_URL=", 'echo "$CLIENT"'),
)
"""How the commands begin."""
# `make -n` shows what a target runs: each is a command of ours that is executed elsewhere.
MAKE = "make "
# As far as the chain, the kernel or the runs would start, with all their checks; a test of a small one goes on.
AS_FAR_AS_THE_START = {
    "emostream up --origins http://localhost:3000,https://app.example": (
        "tests/integration/page/test_page.py::test_listed_page_of_another_origin_reacts_and_streams"
    ),
    "emostream up --origins https://www.example.com": (
        "tests/integration/page/test_page_moments.py::test_embed_on_a_listed_page_shows_the_swarm_and_reacts"
    ),
    "emostream up --host 0.0.0.0 --host-names live.example,www.live.example": (
        "tests/pipeline/test_origins.py::test_names_of_this_machine_are_known_and_so_is_the_one_that_it_listens_on"
    ),
    "emostream up --metrics-port 9500": (
        "tests/integration/measuring/test_metrics.py::test_every_stage_of_a_chain_can_be_asked"
    ),
    "emostream up": "tests/integration/chains/test_wheel.py::test_wheel_in_an_empty_environment_runs_a_chain",
    "emostream experiment": (
        "tests/integration/measuring/test_any_machine.py::test_run_ignores_what_is_set_for_other_programs_and_leaves_nothing"
    ),
    "emostream experiment -p users 50 -p measured_triggers 10": (
        "tests/integration/measuring/test_any_machine.py::test_run_ignores_what_is_set_for_other_programs_and_leaves_nothing"
    ),
    "emostream experiment -p loop closed -p users 200 -p think_s 1.0": (
        "tests/integration/measuring/test_closed_loop.py::test_a_closed_loop_is_measured_like_any_run"
    ),
    "emostream sweep smoke": (
        "tests/integration/measuring/test_sweep.py::test_smoke_killed_in_the_middle_completes_without_repeating_what_was_done"
    ),
    "emostream sweep experiments/designs/smoke.yaml": (
        "tests/integration/measuring/test_sweep.py::test_smoke_killed_in_the_middle_completes_without_repeating_what_was_done"
    ),
    "emostream sweep experiments/designs/concurrency.yaml": (
        "tests/integration/measuring/test_dag.py::test_a_tiny_sweep_drives_the_chain"
    ),
}
IN_ANOTHER_TEST = {
    ". .venv/bin/activate": "tests/integration/chains/test_wheel.py::test_wheel_in_an_empty_environment_runs_a_chain",
    "(nohup emostream up > up.json 2> up.log < /dev/null &)": (
        "tests/integration/chains/test_wheel.py::test_wheel_in_an_empty_environment_runs_a_chain"
    ),
    "kill $(grep -o '\"pid\": [0-9]*' up.json | grep -o '[0-9]*')": (
        "tests/integration/chains/test_wheel.py::test_wheel_in_an_empty_environment_runs_a_chain"
    ),
    # No conda here: the environment's file is compared with the lock, Python and Java.
    "conda env create --file environment.yml": (
        "tests/test_environment.py::test_conda_installs_the_lock_and_nothing_else"
    ),
    "conda activate emostream": "tests/test_environment.py::test_conda_gives_the_same_python_and_java",
    # What `make env` ends with.
    "pip install --no-deps --editable .": "tests/test_environment.py::test_environment_has_the_command",
    "python -m experiments.twin twin.yaml --ready-file twin/ready.json --run-dir twin": (
        "tests/integration/kafka/test_twin.py::test_planted_delays_and_faults_are_found"
    ),
    "emostream experiment -p attach twin/ready.json": (
        "tests/integration/kafka/test_twin.py::test_planted_delays_and_faults_are_found"
    ),
    "emostream duel . ../other": "tests/experiments/duel/test_duel.py::test_a_slower_version_is_found_with_its_size",
    "emostream duel . . --blocks 10": (
        "tests/experiments/duel/test_duel.py::test_a_version_against_itself_differs_in_nothing"
    ),
    "emostream duel flush_ms=500 flush_ms=100": (
        "tests/experiments/duel/test_duel.py::test_settings_of_one_checkout_are_sides_too"
    ),
    "emostream limits --capacity reports/reference/capacity_rows": (
        "tests/experiments/limits/test_carry_out.py::test_the_load_is_that_of_a_finished_search"
    ),
    "emostream limits --load 3000 --stages ingest,kafka,spark": (
        "tests/experiments/limits/test_carry_out.py::test_options_replace_what_the_design_has"
    ),
    "emostream faults --only kafka-killed": (
        "tests/integration/chains/test_fault_suite.py::test_scenario_loses_and_doubles_nothing"
    ),
    "emostream limits --demand --load 1000": "tests/experiments/limits/test_demand.py::test_options_of_the_demand",
    # No Docker here: the file's steps, and what each service runs, are checked and carried out without it.
    "docker build --file deploy/Containerfile --tag emostream .": (
        "tests/deploy/test_compose.py::test_image_copies_what_exists_and_keeps_the_rest_out"
    ),
    **dict.fromkeys(
        (
            "docker run --rm --init --network host emostream",
            "docker run --rm --init --network host emostream python -m pipeline.client http://127.0.0.1:8080",
            'docker run --rm --init --network host --user "$(id -u)" --volume "$PWD:/work" --workdir /work \\\n'
            "  emostream python -m experiments run",
        ),
        "tests/deploy/test_compose.py::test_image_has_the_commands_that_exist",
    ),
    "docker compose --file deploy/compose.yaml up --build": (
        "tests/integration/page/test_compose.py::test_each_service_starts_and_its_health_check_passes"
    ),
    "jmeter -n -t experiments/jmeter/emostream.jmx -l results.jtl -e -o dashboard -Jusers=20 -Jduration_s=30": (
        "tests/integration/measuring/test_jmeter.py::test_counts_of_jmeter_are_exact_and_both_reports_are_written"
    ),
    "emostream jmeter --compare": (
        "tests/experiments/jmeter/test_comparison.py::test_own_statistics_are_the_generators"
    ),
    "emostream postman --ingest http://127.0.0.1:8000 --registry http://127.0.0.1:8080": (
        "tests/integration/page/test_postman.py::test_every_request_passes_on_a_chain"
    ),
    # No k6 here: Node runs the script's functions.
    "k6 run -e USERS=100 -e DURATION=60s experiments/k6/emostream.js": (
        "tests/experiments/k6/test_script.py::test_client_registers_polls_and_leaves"
    ),
    # No Prometheus here: what it would ask is asked.
    "prometheus --config.file pipeline/metrics/prometheus.yml": (
        "tests/integration/measuring/test_metrics.py::test_the_registry_leads_prometheus_to_the_subscribers"
    ),
    "python -m pytest --nbval --nbval-current-env -c /dev/null notebooks/representatives.ipynb notebooks/sweep.ipynb": (
        "tests/integration/test_notebooks_alone.py::test_nbval_passes_on_the_policies"
    ),
    "emostream report reports/<campaign>": (
        "tests/experiments/cli/test_instrument.py::test_report_of_a_campaign_is_written_again"
    ),
    "emostream report reports/single/runs/<moment>": (
        "tests/experiments/campaign/test_reanalyse.py::test_the_files_alone_give_the_same_report"
    ),
    **dict.fromkeys(
        ("emostream second-reading reports/single/runs/<moment>", "emostream second-reading --all reports/<campaign>"),
        "tests/experiments/second_reading/test_check.py::test_equal_figures_are_counted",
    ),
    "emostream keep reports/hundred": (
        "tests/experiments/claims/test_commands.py::test_a_campaign_is_kept_and_its_numbers_are_written"
    ),
    "emostream claims --write": (
        "tests/experiments/claims/test_commands.py::test_a_campaign_is_kept_and_its_numbers_are_written"
    ),
    "emostream compare reports/concurrency reports/mine": (
        "tests/experiments/cli/test_instrument.py::test_two_campaigns_are_compared"
    ),
}
HERE = {
    "emostream doctor",
    "python -m pipeline.jars",
    "python -m experiments docs",
    "python -m experiments docs --check",
    *completion.SHELLS.values(),
}
SHOWN = commands()


def way(command: str) -> str:
    """How a command is executed; empty if it is not."""
    for name, table in (
        ("start", AS_FAR_AS_THE_START),
        ("another", IN_ANOTHER_TEST),
        ("here", HERE),
    ):
        if command in table:
            return name
    if command.startswith(MAKE):
        return "make"
    return "chain" if command.startswith(ON_A_CHAIN) else ""


def test_every_command_is_executed() -> None:
    """A new command in a document needs a row in a table above, and a test that runs it."""
    assert [shown for shown in SHOWN if not way(shown.command)] == []


def test_every_row_is_a_command_of_a_document() -> None:
    """A command that was removed leaves no row behind."""
    shown = {each.command for each in SHOWN}
    rows = {*AS_FAR_AS_THE_START, *IN_ANOTHER_TEST, *HERE}
    assert rows - shown == set()
    assert [start for start in ON_A_CHAIN if not any(each.startswith(start) for each in shown)] == []


@pytest.mark.parametrize("test", sorted({*AS_FAR_AS_THE_START.values(), *IN_ANOTHER_TEST.values()}))
def test_named_test_is_there(test: str) -> None:
    """And is not skipped."""
    path, _, name = test.partition("::")
    functions = {
        each.name: each
        for each in ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body
        if isinstance(each, ast.FunctionDef)
    }
    assert name in functions
    assert "skip" not in " ".join(map(ast.unparse, functions[name].decorator_list))


class StartedError(Exception):
    """The command would start its work now."""


def stop(*_: Any, **__: Any) -> None:
    """Stand for what starts."""
    raise StartedError


@pytest.mark.parametrize("command", AS_FAR_AS_THE_START)
def test_command_gets_as_far_as_its_start(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its options are accepted, and what they name passes every check that comes before."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("EMOSTREAM_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(supervisor.java, "find_java", stop)
    monkeypatch.setattr(pipeline_command.logs, "configure", lambda *_: None)
    monkeypatch.setattr(emostream.logs, "configure", lambda *_: None)
    monkeypatch.setattr(notebook, "new_run", stop)
    monkeypatch.setattr(sweep.Campaign, "open", stop)
    # Another measurement may run on this machine.
    monkeypatch.setattr("experiments.machine.machine_lock.alone", lambda what: contextlib.nullcontext())
    with pytest.raises(StartedError):
        emostream.main(shlex.split(command)[1:])


def bin_folder(folder: Path) -> Path:
    """Make a folder for PATH with this environment's `emostream` and `python`, as `make env` does."""
    folder.mkdir()
    for name, words in (("emostream", "-m experiments.cli "), ("python", ""), ("python3", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words}"$@"\n')
        script.chmod(0o755)
    return folder


@pytest.mark.parametrize("command", sorted(HERE))
def test_command_runs(command: str, tmp_path: Path) -> None:
    """It ends with status 0; the line for a shell's start-up file in that shell, where it is installed."""
    env = {
        **os.environ,
        "PATH": f"{bin_folder(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "EMOSTREAM_INGEST_PORT": "0",
        "EMOSTREAM_REGISTRY_PORT": "0",
    }
    shell = next((name for name, line in completion.SHELLS.items() if line == command), "bash")
    if shell != "bash":
        # bash reads what the other two would; their own syntax is tested where they are installed.
        command = f'test -n "$(emostream completion {shell})"'
    done = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", sorted({shown.command for shown in SHOWN if shown.command.startswith(MAKE)}))
def test_make_target_runs_commands_that_exist(command: str) -> None:
    """What `make -n` prints parses: CI itself runs `make check` and `make test`, and with them env, jars and docs."""
    words = re.sub(r"<\w+>", "moment", command)
    done = subprocess.run(
        ["bash", "-c", f"{words} -n --assume-old .venv/.installed --assume-old .ci/env VENV=.venv"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        match = re.search(r"python (-m (?:pipeline|experiments|spark).*)$", line)
        if match is not None:
            parse(f"python {match.group(1)}")


def parse(command: str) -> None:
    """Check the options of a command of ours against its parser, and its values if it has all that it needs."""
    words = shlex.split(command.replace("…", ""))
    line = parser_of(words)
    given = [word.partition("=")[0] for word in words if word.startswith("-") and word not in ("-m",)]
    known = set(line._option_string_actions)
    if words[-1] != "lab" and "lab" not in words:
        assert [option for option in given if option not in known] == [], command


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of a command of ours: of `emostream`, of `python -m experiments` and so on, or of a module."""
    if words[0] == "emostream":
        line, rest = emostream.parser(), words[1:]
    elif words[2] == "experiments":
        line, rest = experiments_command.parser(), words[3:]
    elif words[2] == "experiments.cli" or words[2] == "pipeline":
        line, rest = emostream.parser(), words[3:]
    else:
        return reference.parser_of(words[2])
    while rest:
        sub = next((a for a in line._actions if isinstance(a, argparse._SubParsersAction)), None)
        if sub is None or rest[0].startswith("-"):
            break
        if rest[0] == "COMMAND":
            break
        assert rest[0] in sub.choices, f"{' '.join(words)}: no command {rest[0]}"
        line, rest = sub.choices[rest[0]], rest[1:]
    return line


@pytest.mark.parametrize("shown", inline(), ids=lambda shown: f"{shown.page}: {shown.command}")
def test_command_in_a_sentence_has_options_that_exist(shown: Shown) -> None:
    """A document names no command and no option that is not there."""
    parse(shown.command)


def test_every_option_is_documented_and_no_other() -> None:
    """The reference in docs/command-line.md is what the parsers give now."""
    name = "docs/command-line.md"
    assert generated.generated(PAGES[name], REPOSITORY / name) == PAGES[name], "run `python -m experiments docs`"


def test_option_that_is_added_or_removed_changes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above turns red: of a command of ours, and of a module."""
    before = reference.reference()
    entry = emostream.COMMANDS["watch"]

    def with_another(make: Any) -> argparse.ArgumentParser:
        line = entry.line(make)
        line.add_argument("--another", help="an option that nobody has documented")
        return line

    monkeypatch.setattr(emostream, "COMMANDS", {**emostream.COMMANDS, "watch": entry._replace(line=with_another)})
    after = reference.reference()
    assert set(after.splitlines()) - set(before.splitlines()) == {
        "| `--another ANOTHER` | an option that nobody has documented |"
    }
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.main_publisher.OPTIONS", ("host",))
    assert reference.reference() != before


def test_reference_has_every_module_that_can_be_run() -> None:
    """A module with options of its own that `python -m` runs has a heading."""
    headings = set(re.findall(r"^#### python -m (\S+)$", PAGES["docs/command-line.md"], re.MULTILINE))
    assert headings == set(reference.modules()) - set(reference.JOINT)


def test_exit_statuses_are_documented() -> None:
    """Every status that a command may end with has a row."""
    rows = set(re.findall(r"^\| (\d+) \|", PAGES["docs/command-line.md"], re.MULTILINE))
    assert rows == {"0", "1", "2", "3", "4", "130"}


def test_designs_of_the_documents_are_there() -> None:
    """A design that a document names with its path, or alone, is one."""
    named = re.findall(r"experiments/designs/([\w-]+)\.yaml", "\n".join(PAGES.values()))
    assert set(named) <= set(design_file.named())
    assert DESIGNS.is_dir()


def test_splitting_keeps_a_command_together() -> None:
    """Over lines that end in a backslash or within quotes; comments are left out."""
    block = "# alone\nmake test   # all\ncurl -d '[1,\n  2]' \\\n  http://x\n\n. .venv/bin/activate        # after\n"
    assert split(block) == ["make test", "curl -d '[1,\n  2]' \\\n  http://x", ". .venv/bin/activate"]


def test_defaults_of_settings_are_unique() -> None:
    """An option of a setting is one setting's only, so that the reference may list it by its name."""
    assert len({name.replace("_", "-") for name in settings.FIELDS}) == len(settings.FIELDS)
