"""`python -m experiments`: the instrument's command line. It only wires."""

from __future__ import annotations

import argparse
import atexit
import io
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments import environment as instrument
from experiments import files
from experiments.campaign import airflow_standalone
from experiments.load import recording
from experiments.load.trace import summary
from experiments.repository import DESIGNS, NOTEBOOKS, REPORTS
from experiments.run import lab, notebook
from pipeline import environment, logs
from pipeline.errors import EmoStreamError, SettingError
from pipeline.jars import default_cache_dir

SUITES = ("chain", "ingest", "load", "analysis", "delivery", "search")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; errors are one line and exit status 1."""
    line = _line()
    options, others = line.parse_known_args(argv)
    if others and options.command != "lab":
        line.error(f"unrecognized arguments: {' '.join(others)}")
    options.others = others
    _print_any_character()
    if ignored := os.environ.pop(environment.IGNORED, ""):
        print(
            f"experiments {options.command}: ignored environment variables that are set for other programs: {ignored}",
            file=sys.stderr,
        )
    try:
        _find_home()
        if "reports" in options:
            _check_writable("--reports", options.reports.resolve())
        sys.exit(COMMANDS[options.command](options))
    except EmoStreamError as error:
        sys.exit(f"experiments {options.command}: {error}")
    except PermissionError as error:
        sys.exit(
            f"experiments {options.command}: {error.filename or 'a file'} cannot be accessed ({error.strerror}): "
            "give your user access to it"
        )
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        sys.exit(f"experiments {options.command}: {files.unwritten(error.filename or 'a file', error)}")
    except KeyboardInterrupt:
        # The tasks of papermill that were cut off would be logged at exit, with all their variables.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        sys.exit(f"experiments {options.command}: interrupted; what was recorded so far is kept")


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


def _print_any_character() -> None:
    """Print a character that the terminal's encoding lacks as its escape: it must not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _line() -> argparse.ArgumentParser:
    line = argparse.ArgumentParser(prog="python -m experiments", description="Measure the chain.")
    commands = line.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="carry out one measured run: execute a notebook, print the path of its report last",
        description="Carry out one measured run: start a chain, load it, stop it, and write a report. The path of the "
        "report is printed last.",
    )
    run.add_argument(
        "-p", nargs=2, action="append", default=[], dest="parameters", metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook, such as -p users 50; repeat -p for further parameters",
    )  # fmt: skip
    run.add_argument("--notebook", type=Path, default=NOTEBOOKS / "run.ipynb", help="default: %(default)s")
    run.add_argument("--campaign", default="single", help="folder below the reports; default: %(default)s")
    sweep = commands.add_parser(
        "sweep",
        help="carry out a design; start it again to continue one that was interrupted",
        description="Carry out every run of a design and write the report of the campaign. If it is interrupted, start "
        "the same command again: finished runs are kept.",
        epilog="Exit status: 0 all objectives met, 3 some missed, 4 a level without a valid run, 1 an error.",
    )
    sweep.add_argument("design", type=Path, help="YAML, such as experiments/designs/smoke.yaml")
    sweep.add_argument("--campaign", default="", help="name of the campaign; default: the design's")
    report = commands.add_parser(
        "report",
        help="write the report of a run or a campaign again, from its files",
        description="Write the report of a run or a campaign again, from its files. No chain is needed.",
    )
    report.add_argument("directory", type=Path, help="such as reports/smoke, or one of its runs")
    compare = commands.add_parser(
        "compare",
        help="compare two campaigns, and say which differences are supported",
        description="Compare two campaigns level by level. The result is printed, and written as a page with its data.",
    )
    compare.add_argument("a", type=Path, help="directory of a campaign")
    compare.add_argument("b", type=Path, help="directory of another campaign")
    duel = commands.add_parser(
        "duel",
        help="run two versions or settings in turn; start it again to continue one that was interrupted",
        description="Run two versions, or two settings, in turn within each block, and say what that supports. The "
        "path of the page is printed last.",
    )
    duel.add_argument("a", help="folder of a checkout, or parameters of this one: NAME=VALUE,NAME=VALUE")
    duel.add_argument("b", help="the same, for the other side")
    duel.add_argument("--blocks", type=int, help="default: the design's; fewer than 6 give no interval")
    duel.add_argument("--design", type=Path, default=DESIGNS / "duel.yaml", help="default: %(default)s")
    duel.add_argument("--campaign", default="duel", help="folder below the reports; default: %(default)s")
    bench = commands.add_parser(
        "bench",
        help="run a benchmark; print its figures and write them as JSON",
        description="Run a benchmark, print its figures, and write them as JSON into bench/ of the reports.",
    )
    bench.add_argument("suite", choices=SUITES, help="what to benchmark")
    trace = commands.add_parser("trace", help="make a recording that a run can replay")
    actions = trace.add_subparsers(dest="action", required=True)
    make = actions.add_parser(
        "make",
        help="write a made-up recording as CSV: offset_ms,user_id,emoji_type",
        description="Write a made-up recording of a live audience as CSV (offset_ms,user_id,emoji_type): many emoji "
        "types with few of each, and bursts after events. The same seed gives the same bytes on every platform. With "
        "the defaults it is the recording that a run replays with `-p arrivals trace` and no path.",
    )
    make.add_argument("--seed", type=int, default=recording.SEED, help="a whole number from 0; default: %(default)s")
    make.add_argument(
        "--minutes", type=int, default=recording.MINUTES,
        help=f"length of the recording, 1 to {recording.MINUTES_MAX}; default: %(default)s",
    )  # fmt: skip
    make.add_argument(
        "--out", type=Path, default=Path("trace.csv"), help="file to write or replace; default: %(default)s"
    )
    airflow = commands.add_parser(
        "airflow",
        help="run Airflow with the sweeps until Ctrl-C; print the address of its page",
        description="Run Airflow with the DAGs of dags/ until Ctrl-C, and print the address of its page.",
    )
    airflow.add_argument(
        "--port", type=int, default=airflow_standalone.PORT,
        help="port of Airflow's page, on this machine only; default: %(default)s",
    )  # fmt: skip
    airflow.add_argument(
        "--home", type=Path, default=airflow_standalone.HOME,
        help="directory for Airflow's state and logs; default: %(default)s",
    )  # fmt: skip
    commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Open the notebooks in JupyterLab, with this environment's interpreter as their kernel. Options of "
        "JupyterLab may follow, such as --no-browser.",
    )
    docs = commands.add_parser(
        "docs",
        help="write the generated parts of the Markdown documents",
        description="Write the generated parts of the Markdown documents: settings, designs and figures.",
    )
    docs.add_argument("documents", type=Path, nargs="*", help="default: every Markdown file of the repository")
    docs.add_argument("--check", action="store_true", help="write nothing; name the documents that are not current")
    docs.add_argument("--run", type=Path, dest="run_dir", help="the run whose figures to quote")
    for command in (run, sweep, compare, duel, bench, airflow):
        command.add_argument(
            "--reports", type=Path, default=REPORTS, help="directory for the reports; default: %(default)s"
        )
    return line


def _run(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    given = dict(options.parameters)
    if len(given) < len(options.parameters):
        names = [name for name, _ in options.parameters]
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingError(f"parameter {twice} is given {names.count(twice)} times: keep one `-p {twice}`")
    print(notebook.carry_out(options.notebook, given, options.reports.resolve() / options.campaign))
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

    outcome = sweep(options.design, options.reports.resolve(), options.campaign)
    print(outcome.page)
    return outcome.status


def _report(options: argparse.Namespace) -> int:
    from experiments.campaign import reanalyse

    print(reanalyse.report(options.directory.resolve()))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from experiments.campaign.report import compare

    a, b, reports = (path.resolve() for path in (options.a, options.b, options.reports))
    print(compare.main_text(a, b))
    with files.writing(reports):
        reports.mkdir(parents=True, exist_ok=True)
    print(compare.write(a, b, reports))
    return 0


def _duel(options: argparse.Namespace) -> int:
    _check_campaign(options.campaign)
    from experiments.duel.carry_out import duel

    directory = options.reports.resolve() / options.campaign
    print(duel(options.a, options.b, options.design, options.blocks, directory))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from experiments.bench import suites
    from experiments.run import machine_lock

    with machine_lock.alone(f"The benchmark {options.suite}"):
        suites.run(options.suite, options.reports.resolve() / "bench")
    return 0


def _trace(options: argparse.Namespace) -> int:
    print(f"{options.out}: {summary(recording.make(options.out, options.seed, options.minutes))}")
    return 0


def _airflow(options: argparse.Namespace) -> int:
    home, reports = options.home.resolve(), options.reports.resolve()
    _check_writable("--home", home)
    airflow_standalone.main(home, options.port, reports)
    return 0


def _lab(options: argparse.Namespace) -> int:
    lab.main(options.others)


def _docs(options: argparse.Namespace) -> int:
    from experiments import documents

    stale = documents.update(options.documents, check=options.check, run_dir=options.run_dir)
    for document in stale:
        print(f"{document}: {'not current, run python -m experiments docs' if options.check else 'written'}")
    return 1 if options.check and stale else 0


COMMANDS = {
    "run": _run,
    "sweep": _sweep,
    "report": _report,
    "compare": _compare,
    "duel": _duel,
    "bench": _bench,
    "trace": _trace,
    "airflow": _airflow,
    "lab": _lab,
    "docs": _docs,
}

if __name__ == "__main__":
    environment.restart_without_others(instrument.own)
    # Without this, warnings of the bus would be printed among the results.
    logs.configure("experiments", "warning")
    main()
