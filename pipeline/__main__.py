"""`python -m pipeline up` runs the whole chain on one machine, `scale` changes its size, and `dead-letters` shows the
records that no stage could use.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from pipeline import environment, lifecycle, logs, settings
from pipeline.errors import EmoStreamError
from pipeline.supervisor import reports

# These settings belong to one process of several, so they are options of that process only.
NOT_FOR_UP = {"cluster", "subscriber", "subscriber_port", "subscriber_url"}
SUBSCRIBERS_MAX = 100
# At level info only what the chain's own stages do is worth a line.
QUIET_AT_INFO = ("circus", "tornado", "pipeline.cluster_routes")
USAGE = """usage: python -m pipeline up [--help]             start the whole chain and keep it running
       python -m pipeline scale [--help]          add or remove subscribers and clusters while it runs
       python -m pipeline dead-letters [--help]   show the records that a stage could not use, or send them again"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; an error is one line, with exit status 1 or 2."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        unknown = f"\npipeline: command is {name!r}: choose up, scale or dead-letters" if arguments else ""
        sys.exit(USAGE + unknown)
    line, command = COMMANDS[name]
    options = line(f"python -m pipeline {name}").parse_args(arguments[1:])
    sys.exit(carry_out(f"pipeline {name}", command, options))


def carry_out(prog: str, command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Return the exit status of a command: 130 at Ctrl-C. Ends the process with one line and status 1 at an error."""
    try:
        return command(options)
    except EmoStreamError as error:
        sys.exit(f"{prog}: {error}")
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return lifecycle.INTERRUPTED
    finally:
        logs.let_go()


def up_line(
    prog: str, make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return the parser of `up`; `make` may add it to a larger one."""
    line = settings.parser(
        prog,
        "Start the whole chain, print one line of JSON once a first window has passed through it, and keep it running. "
        "Ctrl-C, SIGTERM, or the end of the process that started this command stops every stage.",
        [name for name in settings.FIELDS if name not in NOT_FOR_UP],
        make,
    )
    line.add_argument("--ready-file", type=Path, metavar="FILE", help="also write the line of JSON to FILE")
    line.add_argument(
        "--ready-timeout-s",
        type=_seconds,
        default=120.0,
        metavar="X",
        help="give up if the chain is not ready after this time, seconds",
    )
    return line


def up(options: argparse.Namespace) -> int:
    """Run the whole chain until it is stopped; return the exit status. Raises EmoStreamError if it fails."""
    values = settings.of(options)
    started_s = time.monotonic()
    logs.configure(
        "up", values.log_level, reports.readable(lambda: time.monotonic() - started_s, otherwise=logs.READABLE)
    )
    if values.log_level == "info":
        for name in QUIET_AT_INFO:
            logging.getLogger(name).setLevel(logging.WARNING)
    environment.log_ignored()
    # Not at the top: it takes a while, in which Ctrl-C must end in one line as well. With PYTHONOPTIMIZE=2, before the
    # restart at the end of this module, it fails.
    from pipeline.supervisor.supervisor import Supervisor

    Supervisor(values, options.ready_file, options.ready_timeout_s).run()
    return 0


def scale_line(
    prog: str, make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return the parser of `scale`; `make` may add it to a larger one."""
    line = settings.parser(
        prog,
        "Set the number of subscribers of one cluster, in the chain that runs in run_dir. 0 removes the cluster; a new "
        "name adds one. Clients are redirected to the remaining or new subscribers and miss no window. Prints one line "
        "of JSON when the registry shows the new subscribers.",
        ["run_dir", "cluster"],
        make,
    )
    line.add_argument(
        "--subscribers",
        dest="count",
        type=_count,
        required=True,
        default=argparse.SUPPRESS,
        metavar="N",
        help="number of subscribers; 0 removes the cluster",
    )
    line.add_argument(
        "--timeout-s",
        type=_seconds,
        default=60.0,
        metavar="X",
        help="give up if the chain is not scaled after this time, seconds",
    )
    return line


def scale(options: argparse.Namespace) -> int:
    """Scale the chain that runs and print what was started and stopped. Raises EmoStreamError."""
    values = settings.of(options)
    logs.configure("scale", "warning" if values.log_level == "info" else values.log_level)
    from pipeline.supervisor import scaling

    done = scaling.scale(Path(values.run_dir).resolve(), values.cluster, options.count, options.timeout_s)
    print(json.dumps(done), flush=True)
    return 0


def letters_line(
    prog: str, make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Return the parser of `dead-letters`; `make` may add it to a larger one."""
    line = settings.parser(
        prog,
        "Print the records that a stage could not use, one line of JSON each: the stage, the record's topic, partition "
        "and offset, the reason, its key and its value. They are those of the chain that runs in run_dir, or those in "
        "the Kafka at bootstrap_servers.",
        ["run_dir", "bootstrap_servers", "kafka_security_file", "topic_prefix"],
        make,
    )
    line.add_argument(
        "--replay",
        action="store_true",
        help="send each to its topic again and take it out, for instance after a stage was corrected",
    )
    return line


def show_letters(options: argparse.Namespace) -> int:
    """Print the dead letters; with --replay send their records again. Raises EmoStreamError."""
    values = settings.of(options)
    logs.configure("dead-letters", "warning")
    from pipeline import dead_letters
    from pipeline.bus.kafka import KafkaBus
    from pipeline.bus.topics import topics
    from pipeline.supervisor.lock_file import find, reaching

    if not values.bootstrap_servers:
        values = reaching(find(Path(values.run_dir).resolve()))
    names = topics(values)
    with closing(KafkaBus(values.kafka, values.kafka_wait_s)) as bus:
        bus.ensure(names.dead_letters)
        letters = dead_letters.kept(bus.read(names.dead_letters.name))
        for letter in letters:
            print(json.dumps(dead_letters.shown(letter), ensure_ascii=False))
        if options.replay:
            done = dead_letters.replay(bus, names, letters)
            for letter, reason in done.stay:
                print(f"pipeline dead-letters: the letter {letter.id!r} stays: {reason}", file=sys.stderr)
            more = f"; {len(done.stay)} letters stay" if done.stay else ""
            print(f"pipeline dead-letters: {done.sent} records sent again{more}", file=sys.stderr)
    return 0


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= SUBSCRIBERS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to {SUBSCRIBERS_MAX}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a finite number above 0")
    return seconds


COMMANDS = {
    "up": (up_line, up),
    "scale": (scale_line, scale),
    "dead-letters": (letters_line, show_letters),
}

if __name__ == "__main__":
    environment.restart_without_others()
    main()
