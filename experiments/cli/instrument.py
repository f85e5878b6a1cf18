"""The commands of the instrument: their parsers, shared by `emostream` and `python -m experiments`. It only wires.

What a command needs is imported when it runs: `--help`, the completion and a mistyped option need none of it.
"""

from __future__ import annotations

import argparse
import atexit
import io
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments import files, run_files
from experiments.campaign import airflow_standalone
from experiments.load import recording_defaults
from experiments.repository import DESIGNS, NOTEBOOKS, REPORTS, ROOT
from pipeline import environment, lifecycle
from pipeline.errors import EmoStreamError, SettingError
from pipeline.jars import default_cache_dir

SUITES = ("chain", "ingest", "load", "analysis", "delivery", "search", "steady", "twin", "limits", "soak")
Make = Callable[..., argparse.ArgumentParser]
"""`make(description=…, …)` returns a new parser: of a command alone, or of a command of a larger one."""
Command = Callable[[argparse.Namespace], int]
"""Carries out a command; returns its exit status. Raises EmoStreamError."""


def carry_out(prog: str, command: Command, options: argparse.Namespace) -> int:
    """Return the exit status of a command. Ends the process with one line and status 1, or 130 at Ctrl-C."""
    print_any_character()
    if ignored := os.environ.pop(environment.IGNORED, ""):
        print(f"{prog}: ignored environment variables that are set for other programs: {ignored}", file=sys.stderr)
    try:
        _find_home()
        if "reports" in options:
            _check_writable("--reports", options.reports.resolve())
        return command(options)
    except EmoStreamError as error:
        sys.exit(f"{prog}: {error}")
    except PermissionError as error:
        sys.exit(
            f"{prog}: {error.filename or 'a file'} cannot be accessed ({error.strerror}): give your user access to it"
        )
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        sys.exit(f"{prog}: {files.unwritten(error.filename or 'a file', error)}")
    except KeyboardInterrupt:
        # The tasks of papermill that were cut off would be logged at exit, with all their variables.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        print(f"{prog}: interrupted; what was recorded so far is kept", file=sys.stderr)
        return lifecycle.INTERRUPTED


def _find_home() -> None:
    """Give a user without a home a temporary one, which libraries ask for.

    Raises SettingError if the jars would be in that home, and so be lost.
    """
    try:
        Path.home()
    except RuntimeError:
        default_cache_dir(os.environ)
        home = tempfile.TemporaryDirectory(prefix="emostream-home-")
        atexit.register(home.cleanup)
        os.environ["HOME"] = home.name


def print_any_character() -> None:
    """Print a character that the terminal's encoding lacks as its escape: it must not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of one measured run."""
    line = make(
        description="Carry out one measured run: start a chain, load it, stop it, and write a report. The path of the "
        "report is printed last.",
    )
    line.add_argument(
        "-p", nargs=2, action="append", default=[], dest="parameters", metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook, such as -p users 50; repeat -p for further parameters",
    )  # fmt: skip
    line.add_argument("--notebook", type=Path, default=NOTEBOOKS / "run.ipynb", help="default: %(default)s")
    line.add_argument("--campaign", default="single", help="folder below the reports; default: %(default)s")
    return _with_json(_with_reports(line))


def sweep_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a campaign."""
    line = make(
        description="Carry out every run of a design and write the report of the campaign. If it is interrupted, start "
        "the same command again: finished runs are kept.",
        epilog="Exit status: 0 all objectives met, 3 some missed, 4 a run that was valid at neither try, 1 an error.",
    )
    line.add_argument(
        "design", type=Path, help="YAML, such as experiments/designs/smoke.yaml, or the name of a design that comes "
        "with the project, such as smoke",
    )  # fmt: skip
    line.add_argument("--campaign", default="", help="name of the campaign; default: the design's")
    return _with_json(_with_reports(line))


def report_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a report that is written again."""
    line = make(
        description="Write the report of a run or a campaign again, from its files. No chain is needed.",
    )
    line.add_argument("directory", type=Path, help="such as reports/smoke, or one of its runs")
    return _with_json(line)


def compare_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a comparison."""
    line = make(
        description="Compare two campaigns level by level. The result is printed, and written as a page with its data.",
        epilog="Exit status: 0 compared, 1 nothing to compare, or an error.",
    )
    line.add_argument("a", type=Path, help="directory of a campaign")
    line.add_argument("b", type=Path, help="directory of another campaign")
    return _with_json(_with_reports(line))


def second_reading_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of the second reading."""
    line = make(
        description="Compute every figure of a run's summary a second time, from its rows in SQL, and compare. Figures "
        "that differ are named.",
        epilog="Exit status: 0 all figures are equal, 1 a figure differs, or an error.",
    )
    line.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR", help="directory of a run")
    line.add_argument(
        "--all", action="store_true", help="read each run of a campaign whose rows are kept; give its directory"
    )
    return _with_json(line)


def keep_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of campaigns that are kept."""
    line = make(
        description="Copy a finished campaign with its rows into reference/ of the reports, after every frame was "
        "compared with its hash and every run was analysed again. The path of the copy is printed last. If it "
        "is kept already, its page and its hashes are written again.",
    )
    line.add_argument("directory", type=Path, help="directory of a finished campaign, such as reports/hundred")
    line.add_argument("--name", default="", help="its name among the kept campaigns; default: the directory's")
    return _with_json(_with_reports(line))


def claims_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of published numbers."""
    line = make(
        description="Compute every published number again from the rows that are kept, and compare it with the "
        "documents: reports/claims.yaml says which. The result is written to reports/bench/claims.json.",
        epilog="Exit status: 0 every number follows from its rows, 1 one does not, or an error.",
    )
    line.add_argument(
        "--write", action="store_true", help="write the numbers into the documents, and the hashes into claims.yaml"
    )
    return _with_json(line)


def reproduce_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a reproduction."""
    line = make(
        description="Carry out reduced designs of the kept campaigns on this machine, and say which published "
        "intervals hold here. If it is interrupted, start the same command again.",
        epilog="Exit status: 0 compared, whatever the result is, 1 an error.",
    )
    line.add_argument("--minutes", type=float, default=40.0, help="how long it may take; default: %(default)s")
    return _with_json(_with_reports(line))


def duel_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a duel."""
    line = make(
        description="Run two versions, or two settings, in turn within each block, and say which differences the "
        "runs support. Start it again to continue one that was interrupted. The path of the page is printed last.",
    )
    line.add_argument("a", help="folder of a checkout, or parameters of this one: NAME=VALUE,NAME=VALUE")
    line.add_argument("b", help="the same, for the other side")
    line.add_argument("--blocks", type=int, help="default: the design's; fewer than 6 give no interval")
    line.add_argument("--design", type=Path, default=DESIGNS / "duel.yaml", help="default: %(default)s")
    line.add_argument("--campaign", default="duel", help="folder below the reports; default: %(default)s")
    return _with_reports(line)


def limits_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of the interventions."""
    line = make(
        description="Slow one stage at a time, and say what limits the chain at a load near its capacity: service "
        "demands, elasticities with intervals, and the footprint of the instrument. Start it again to continue one "
        "that was interrupted. The path of the page is printed last.",
    )
    load = line.add_mutually_exclusive_group()
    load.add_argument("--load", type=float, help="reactions per second; default: the design's")
    load.add_argument("--capacity", type=Path, metavar="DIR", help="take the load from this finished search")
    line.add_argument(
        "--demand", action="store_true", help="find the least cores that carry the load, instead of slowing stages"
    )
    line.add_argument("--share", type=float, help="slow the chain's stages by this share, at most 0.9; default: 0.2")
    line.add_argument("--blocks", type=int, help="6 or more, from 1 with --demand; default: the design's")
    line.add_argument("--stages", help="the stages to slow, separated by commas; default: all")
    line.add_argument("--design", type=Path, help="default: limits, or demand with --demand, of the project's designs")
    line.add_argument("--campaign", default="", help="folder below the reports; default: limits, or demand")
    return _with_reports(line)


def bench_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of a benchmark."""
    line = make(
        description="Run a benchmark, print its figures as JSON, and write them into bench/ of the reports.",
    )
    line.add_argument("suite", choices=SUITES, help="what to benchmark")
    return _with_reports(line)


def instrument_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of the instrument's own test."""
    line = make(
        description="Plant faults in recorded frames, on a twin, on a chain and in the instrument's own source, and "
        "measure clean runs. The table of what was caught under which name is printed, and written as JSON into bench/ "
        "of the reports: instrument.json, or instrument-short.json.",
        epilog="Exit status: 0 every fault was caught under its name and no clean run gave an alarm, 1 otherwise, "
        "or an error.",
    )
    line.add_argument("--short", action="store_true", help="plant only some of the faults, which takes about a minute")
    line.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="plant this fault, with those that share its run, and write no file; repeat --only for further ones; "
        "clean-twin and clean-chain are runs without a fault",
    )  # fmt: skip
    line.add_argument(
        "--machine", choices=("own", "shared"), default="own",
        help="shared: a check beside other work, whose share of the machine is not judged; default: %(default)s",
    )  # fmt: skip
    return _with_reports(line)


def faults_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of the fault suite."""
    line = make(
        description="Harm real chains while reactions flow through them, and account for every reaction and window. "
        "The outcome of each scenario is printed, and written as JSON into bench/ of the reports: faults.json, or "
        "faults-short.json. Start it again to continue a full suite that was cut off, with the same code.",
        epilog="Without --short and --only, eight bugs are planted in copies of the code afterwards, and a scenario "
        "has to fail for each. Exit status: 0 nothing was wrong and every bug was found, 1 otherwise, or an error.",
    )
    line.add_argument("--short", action="store_true", help="carry out only some scenarios, which takes some minutes")
    line.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="carry out this scenario alone, and write no file; repeat --only for further ones",
    )  # fmt: skip
    line.add_argument(
        "--seeds", type=int, default=1, metavar="N",
        help="carry out each scenario with the seeds 1 to N; default: %(default)s",
    )  # fmt: skip
    line.add_argument(
        "--jobs", type=int, default=2, metavar="N",
        help="how many chains are up at a time; each needs about a core; default: %(default)s",
    )  # fmt: skip
    return _with_reports(line)


def jmeter_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of JMeter's plan."""
    line = make(
        description="Carry out JMeter's plan, experiments/jmeter/emostream.jmx, with a chain that is up or one that is "
        "started. JMeter's dashboard and the ledger's audit of the same run are written, and their paths printed last.",
        epilog="Exit status: 0 no sample failed and every count is exact, 3 otherwise, 1 an error.",
    )
    line.add_argument(
        "-J", action="append", default=[], dest="properties", metavar="NAME=VALUE",
        help="set a property of the plan, such as -Jusers=50; repeat -J for further properties",
    )  # fmt: skip
    line.add_argument(
        "--attach", default="", metavar="FILE", help="the ready file of a chain that is up; default: start a chain"
    )
    what = line.add_mutually_exclusive_group()
    what.add_argument("--window", action="store_true", help="open the plan in JMeter's own window instead")
    what.add_argument(
        "--compare", action="store_true", help="carry out the same load by JMeter, Locust and the open loop instead"
    )
    return _with_reports(line)


def postman_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of the Postman collection."""
    line = make(
        description="Run the Postman collection with newman against the chain at two addresses, or against one that is "
        "started for it, and write the figures as JSON into bench/ of the reports.",
        epilog="Exit status: 0 every request passed, 1 some did not, or an error.",
    )
    line.add_argument("--ingest", default="", metavar="URL", help="address of ingest; default: start a chain")
    line.add_argument("--registry", default="", metavar="URL", help="address of the registry")
    return _with_reports(line)


def trace_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of recordings."""
    line = make(description="Make a recording that a run can replay.")
    actions = line.add_subparsers(dest="action", metavar="make", required=True)
    action = actions.add_parser(
        "make",
        help="write a made-up recording as CSV: offset_ms,user_id,emoji_type",
        description="Write a made-up recording of a live audience as CSV (offset_ms,user_id,emoji_type): many emoji "
        "types with few of each, and bursts after events. The same seed gives the same bytes on every platform. With "
        "the defaults it is the recording that a run replays with `-p arrivals trace` and no path.",
    )
    action.add_argument(
        "--seed", type=int, default=recording_defaults.SEED, help="a whole number from 0; default: %(default)s"
    )
    action.add_argument(
        "--minutes", type=int, default=recording_defaults.MINUTES,
        help=f"length of the recording, 1 to {recording_defaults.MINUTES_MAX}; default: %(default)s",
    )  # fmt: skip
    action.add_argument(
        "--out", type=Path, default=Path("trace.csv"), help="file to write or replace; default: %(default)s"
    )
    return line


def airflow_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of Airflow."""
    line = make(
        description="Run Airflow with the DAGs of dags/ until Ctrl-C, and print the address of its page.",
    )
    line.add_argument(
        "--port", type=int, default=airflow_standalone.PORT,
        help="port of Airflow's page, on this machine only; default: %(default)s",
    )  # fmt: skip
    line.add_argument(
        "--home", type=Path, default=airflow_standalone.HOME,
        help="directory for Airflow's state and logs; default: %(default)s",
    )  # fmt: skip
    return _with_reports(line)


def lab_line(make: Make) -> argparse.ArgumentParser:
    """Return the parser of JupyterLab; options that it does not know are JupyterLab's."""
    return make(
        description="Open the notebooks in JupyterLab, with this environment's interpreter as their kernel. Options of "
        "JupyterLab may follow, such as --no-browser.",
    )


def _with_reports(line: argparse.ArgumentParser) -> argparse.ArgumentParser:
    line.add_argument("--reports", type=Path, default=REPORTS, help="directory for the reports; default: %(default)s")
    return line


def _with_json(line: argparse.ArgumentParser) -> argparse.ArgumentParser:
    line.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    return line


def parse(line: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Return the parsed options; only `lab` may have others, which are in `others`."""
    options, others = line.parse_known_args(arguments)
    if others and options.command != "lab":
        line.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others
    return options


def _say(options: argparse.Namespace, path: Path, **facts: Any) -> None:
    """Print where the report is: as the last line, or in an object with further facts about it."""
    print(json.dumps({"report": str(path), **facts}) if options.json else path)


def _run(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    given = dict(options.parameters)
    if len(given) < len(options.parameters):
        names = [name for name, _ in options.parameters]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingError(f"parameter {twice} is given {names.count(twice)} times: keep one `-p {twice}`")
    from experiments.run import notebook

    page = notebook.carry_out(options.notebook, given, options.reports.resolve() / options.campaign)
    if (page.parent / "verdict.json").exists():
        verdict = run_files.verdict(page.parent)
        for reason in verdict.reasons:
            print(f"{verdict.verdict}: {reason}", file=sys.stderr)
        _say(options, page, run_dir=str(page.parent), verdict=verdict.verdict)
    else:
        _say(options, page, run_dir=str(page.parent))
    return 0


def _check_writable(option: str, folder: Path) -> None:
    """Raise SettingError if nothing can be written to `folder`, which may be missing; nothing is made for it."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
        raise SettingError(
            f"{option} is {str(folder)!r}, and {existing} cannot be written: give a folder that you can write with "
            f"{option}"
        )


def _check_campaign(name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SettingError(f"campaign is {name!r}: give the name of a folder below the reports, such as 'first-try'")


def _sweep(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    from experiments.campaign.sweep import sweep

    outcome = sweep(_design(options.design), options.reports.resolve(), options.campaign)
    counts = {name: getattr(outcome, name) for name in ("finished", "invalid", "unsteady", "missed", "unfinished")}
    _say(options, outcome.page, **counts, status=outcome.status)
    return outcome.status


def _design(given: Path) -> Path:
    """Return the design's path; a name alone is a design that comes with the project."""
    named = DESIGNS / f"{given}.yaml"
    return named if len(given.parts) == 1 and not given.exists() and named.is_file() else given


def _report(options: argparse.Namespace) -> int:
    from experiments.campaign import reanalyse
    from experiments.limits import demand, page

    directory = options.directory.resolve()
    report = reanalyse.report(directory)
    # A campaign of interventions has a page of its own, which is the one to read.
    for kind in (page, demand):
        if (directory / kind.NAME).exists():
            report = kind.write(directory)
    _say(options, report)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from experiments.campaign.report import compare

    a, b, reports = (path.resolve() for path in (options.a, options.b, options.reports))
    text = compare.main_text(a, b)
    if not options.json:
        print(text)
    with files.writing(reports):
        reports.mkdir(parents=True, exist_ok=True)
    page = compare.write(a, b, reports)
    _say(options, page, csv=str(page.with_suffix(".csv")))
    return 0 if compare.comparable(a, b) else 1


def _second_reading(options: argparse.Namespace) -> int:
    from experiments.campaign import reanalyse
    from experiments.second_reading import check
    from experiments.second_reading.reading import read_frames

    checks = []
    for run_dir in check.runs(options.directories, whole_campaigns=options.all):
        about = run_files.manifest(run_dir)
        # Of a run that is kept, some rows have to be made again.
        rows = reanalyse.frames(run_dir, about) if "frames_as_measured" in about else None
        second = None if rows is None else read_frames(rows, about["parameters"], about)
        checks.append(check.check(run_dir, second))
    print(json.dumps([each._asdict() for each in checks]) if options.json else check.table(checks))
    return 1 if any(each.differing for each in checks) else 0


def _keep(options: argparse.Namespace) -> int:
    _check_campaign(options.name)
    from experiments.campaign import keep

    kept = keep.keep(options.directory.resolve(), options.reports.resolve(), options.name)
    _say(options, kept / "index.html", kept=str(kept))
    return 0


def _claims(options: argparse.Namespace) -> int:
    from experiments.claims.recompute import recompute

    outcome = recompute(ROOT, write=options.write)
    print(json.dumps(outcome.to_json()) if options.json else "\n".join(outcome.lines()))
    return outcome.status


def _reproduce(options: argparse.Namespace) -> int:
    from experiments.claims.reproduce import reproduce
    from experiments.report.pages import strict_json

    found = reproduce(options.reports.resolve(), options.minutes)
    print(json.dumps(json.loads(strict_json(found.to_json()))) if options.json else "\n".join(found.lines()))
    return 0


def _duel(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    from experiments.duel.carry_out import duel

    directory = options.reports.resolve() / options.campaign
    print(duel(options.a, options.b, options.design, options.blocks, directory))
    return 0


def _limits(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    from experiments.limits.carry_out import demanded, limits

    name = "demand" if options.demand else "limits"
    design = _design(options.design or DESIGNS / f"{name}.yaml")
    directory = options.reports.resolve() / (options.campaign or name)
    if options.demand:
        for option in ("share", "stages", "capacity"):
            if getattr(options, option) is not None:
                raise SettingError(f"--{option} has no meaning with --demand: leave one of them out")
        print(demanded(design, directory, load=options.load, blocks=options.blocks))
        return 0
    page = limits(
        design,
        directory,
        load=options.load,
        capacity_dir=options.capacity,
        share=options.share,
        blocks=options.blocks,
        stages=None if options.stages is None else [stage.strip() for stage in options.stages.split(",")],
    )
    print(page)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from experiments.bench import suites
    from experiments.machine import machine_lock

    with machine_lock.alone(f"The benchmark {options.suite}"):
        suites.run(options.suite, options.reports.resolve() / "bench")
    return 0


def _faults(options: argparse.Namespace) -> int:
    from experiments.faults import mutations
    from experiments.faults.carry_out import figures, last_line, selected
    from experiments.faults.kept import Kept
    from experiments.faults.suite import beyond_scenarios, passed, with_seeds
    from experiments.machine import machine_lock
    from experiments.repository import ROOT
    from experiments.run import benchmark_file
    from experiments.run.code_state import code_state

    def say(line: str) -> None:
        print(line, flush=True)

    for name in ("seeds", "jobs"):
        if (value := getattr(options, name)) < 1:
            raise SettingError(f"--{name} is {value}: give a whole number from 1")
    scenarios = selected(options.only, short=options.short)
    full = not (options.only or options.short)
    if full:
        mutations.check()
    # A scenario that is interrupted has processes to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(lifecycle.TERMINATED))
    seeds = range(1, options.seeds + 1)
    with machine_lock.alone("The fault suite"):
        kept = Kept(options.reports.resolve() / "faults.json", code_state(ROOT)) if full else None
        if kept and (number := len(kept)):
            say(f"going on after {number} outcomes, which are in {kept.path}: remove it to start over")
        outcomes = with_seeds(scenarios, seeds, full=not options.short, at_a_time=options.jobs, say=say, kept=kept)
        found = figures(outcomes)
        if full:
            found |= beyond_scenarios(options.jobs, say)
    if not options.only:
        benchmark_file.write(options.reports.resolve() / "bench", "faults" if full else "faults-short", found)
    if kept is not None:
        kept.forget()
    say(last_line(found))
    return int(not passed(found))


def _instrument(options: argparse.Namespace) -> int:
    from experiments.instrument import table
    from experiments.instrument.carry_out import carry_out, selected
    from experiments.run import benchmark_file

    selection = selected(options.only, short=options.short)
    # A run that is interrupted has processes to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(lifecycle.TERMINATED))
    result = carry_out(selection, options.machine, lambda line: print(line, flush=True))
    figures = result.figures()
    if not options.only:
        name = "instrument-short" if options.short else "instrument"
        benchmark_file.write(options.reports.resolve() / "bench", name, figures | {"measured_on": options.machine})
    print(table.last_line(figures))
    return 0 if result.passed else 1


def _jmeter(options: argparse.Namespace) -> int:
    from experiments.jmeter import comparison, run
    from experiments.jmeter.properties import parsed
    from experiments.report.pages import strict_json

    properties, reports = parsed(options.properties), options.reports.resolve()
    # A run that is interrupted has processes to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(lifecycle.TERMINATED))
    if options.window:
        return run.window()
    if options.compare:
        print(comparison.compare(properties, options.attach, reports))
        return 0
    done = run.run(properties, options.attach, reports)
    print(strict_json(done.figures))
    for fault in done.faults:
        print(f"emostream jmeter: {fault}", file=sys.stderr)
    print(done.dashboard, done.page, sep="\n")
    return 3 if done.faults else 0


def _postman(options: argparse.Namespace) -> int:
    from experiments.postman import command

    return command.main(options.ingest, options.registry, options.reports.resolve() / "bench")


def _trace(options: argparse.Namespace) -> int:
    from experiments.load import recording
    from experiments.load.trace import summary

    print(f"{options.out}: {summary(recording.make(options.out, options.seed, options.minutes))}")
    return 0


def _airflow(options: argparse.Namespace) -> int:
    home, reports = options.home.resolve(), options.reports.resolve()
    _check_writable("--home", home)
    airflow_standalone.main(home, options.port, reports)
    return 0


def _lab(options: argparse.Namespace) -> int:
    from experiments.run import lab

    lab.main(options.others)


LINES: Mapping[str, tuple[str, Callable[[Make], argparse.ArgumentParser], Command]] = {
    "run": ("carry out one measured run: execute a notebook, print the path of its report last", run_line, _run),
    "sweep": ("carry out a design; start it again to continue one that was interrupted", sweep_line, _sweep),
    "report": ("write the report of a run or a campaign again, from its files", report_line, _report),
    "compare": ("compare two campaigns, and say which differences are supported", compare_line, _compare),
    "second-reading": (
        "compute a run's figures a second time, in SQL, and compare",
        second_reading_line,
        _second_reading,
    ),
    "keep": ("keep a finished campaign in the repository, with its rows", keep_line, _keep),
    "claims": ("compute every published number again from the rows that are kept", claims_line, _claims),
    "reproduce": ("say which published intervals hold on this machine", reproduce_line, _reproduce),
    "duel": ("run two versions or settings in turn, and say which differences the runs support", duel_line, _duel),
    "limits": ("slow one stage at a time, and say what limits the chain", limits_line, _limits),
    "bench": ("run a benchmark; print its figures and write them as JSON", bench_line, _bench),
    "faults": ("harm real chains under load, and account for every reaction", faults_line, _faults),
    "instrument": ("plant faults, and say which the instrument catches by name", instrument_line, _instrument),
    "jmeter": ("carry out JMeter's plan; write its dashboard and the ledger's audit of it", jmeter_line, _jmeter),
    "postman": ("run the Postman collection with newman; write its figures as JSON", postman_line, _postman),
    "trace": ("make a recording that a run can replay", trace_line, _trace),
    "airflow": ("run Airflow with the sweeps until Ctrl-C; print the address of its page", airflow_line, _airflow),
    "lab": ("open the notebooks in JupyterLab", lab_line, _lab),
}
"""The commands by their names in `python -m experiments`: a line of help, the parser, and what is carried out."""
