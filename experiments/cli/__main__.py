"""`emostream`: one command line for the chain and the instrument. `python -m experiments.cli` is the same.

It only wires, and imports little: `emostream --help` and the completion are quick.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from experiments import environment as instruments_environment
from experiments.cli import completion, doctor, instrument, send, watch
from experiments.cli.instrument import Make
from pipeline import __main__ as chain
from pipeline import environment, logs
from pipeline.jars import KAFKA_VERSION

PROG = "emostream"
Parsed = argparse.Namespace


class Entry(NamedTuple):
    """A command: a line of help, what adds its parser, and what carries it out."""

    words: str
    line: Callable[[Make], argparse.ArgumentParser]
    command: Callable[[Parsed], int]


def _of_chain(name: str, words: str) -> Entry:
    line, command = chain.COMMANDS[name]
    return Entry(words, partial(line, f"{PROG} {name}"), command)


def _of_instrument(name: str, words: str = "") -> Entry:
    own_words, line, command = instrument.LINES[name]
    return Entry(words or own_words, line, command)


OF_CHAIN = {
    "up": _of_chain("up", "start the whole chain and keep it running"),
    "scale": _of_chain("scale", "add or remove subscribers and clusters of the chain that runs"),
    "dead-letters": _of_chain("dead-letters", "show the records that a stage could not use, or send them again"),
    "send": Entry("send reactions to the chain that runs", send.line, send.send),
    "watch": Entry("watch the swarm and the most frequent emoji in the terminal", watch.line, watch.watch),
}
OF_INSTRUMENT = {
    "experiment": _of_instrument("run", "measure the chain in one run; print the path of its report last"),
    **{name: _of_instrument(name) for name in instrument.LINES if name != "run"},
}
AS_IT_IS = {
    "doctor": Entry("check this machine, and say what to do", doctor.line, doctor.doctor),
    "completion": Entry("print what a shell needs to complete commands", completion.line, completion.completion),
}
"""What depends on the environment as the user has it, or not at all."""
COMMANDS: Mapping[str, Entry] = {**OF_CHAIN, **OF_INSTRUMENT, **AS_IT_IS}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; docs/command-line.md lists the exit statuses."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    line = parser()
    if not arguments:
        line.print_help(sys.stderr)
        sys.exit(2)
    options = instrument.parse(line, arguments)
    try:
        sys.exit(_carry_out(options, argv))
    except BrokenPipeError:
        # The reader of the output has ended.
        logs.let_go()


def _carry_out(options: argparse.Namespace, argv: Sequence[str] | None) -> int:
    prog = f"{PROG} {options.command}"
    command = COMMANDS[options.command].command
    if options.command in OF_INSTRUMENT:
        _restart(argv, instruments_environment.own)
        # Without this, warnings of the bus would be printed among the results.
        logs.configure(PROG, "warning")
        return instrument.carry_out(prog, command, options)
    if options.command in OF_CHAIN:
        _restart(argv, environment.own)
    instrument.print_any_character()
    return chain.carry_out(prog, command, options)


def _restart(argv: Sequence[str] | None, own: Callable[[Mapping[str, str]], dict[str, str]]) -> None:
    """Restart this process without what is set for other programs, unless Python has called `main`."""
    if argv is None:
        environment.restart_without_others(own)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; what it parses has it as `joint`."""
    line = argparse.ArgumentParser(
        prog=PROG,
        description="Count the emoji of a live audience, watch them, and measure how long that takes.",
        epilog=f"`{PROG} COMMAND --help` lists a command's options.",
        allow_abbrev=False,
    )
    line.set_defaults(joint=line)
    line.add_argument("--version", action=_Version, help="print the versions of EmoStream and its parts")
    parsers = line.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def maker(name: str, words: str) -> Make:
        return lambda **given: parsers.add_parser(name, help=words, **{"allow_abbrev": False, **given})

    for name, entry in COMMANDS.items():
        entry.line(maker(name, entry.words))
    return line


class _Version(argparse.Action):
    """Prints the versions, which are looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, line: argparse.ArgumentParser, *_: object) -> None:
        own, spark = (importlib.metadata.version(name) for name in ("emostream", "pyspark"))
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"{PROG} {own} (Python {python}, Kafka {KAFKA_VERSION}, Spark {spark})")
        line.exit()


if __name__ == "__main__":
    main()
