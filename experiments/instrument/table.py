"""The table of the planted faults: on the terminal, and in the documents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.instrument.fault import Outcome

HEAD = "| fault | planted | expected under | found under |"


def line(outcome: Outcome) -> str:
    """Return an outcome as a line of the terminal's table."""
    verdict = "ok      " if outcome.named else "WRONG   " if outcome.caught else "MISSED  "
    names = ", ".join(outcome.found) or "nothing"
    text = f"{verdict}{outcome.where:7} {outcome.name}: {names if len(names) <= 160 else f'{names[:159]}…'}"
    return text if outcome.named else f"{text}; expected {', '.join(outcome.expected)}"


def last_line(figures: Mapping[str, Any]) -> str:
    """Return the counts in one sentence."""
    again = sum(map(len, figures["made_again"].values()))
    return (
        f"{figures['caught']} of {figures['planted']} planted faults were caught, {figures['named']} under the right "
        f"name; {figures['false_alarms']} of {figures['clean_runs']} clean runs gave an alarm."
    ) + (f" {again} runs were made again, because the machine was disturbed." if again else "")


PLACES = {
    "frames": "In the frames of a run",
    "twin": "On a twin, while a run is measured",
    "chain": "On a real chain, while a run is measured",
    "source": "In the instrument's own source",
}


def markdown(figures: Mapping[str, Any]) -> list[str]:
    """Return the lines of the documents' tables, from the content of instrument.json."""
    machine = figures["machine"]
    about = f"{machine['cores']} cores, commit {str(machine['commit'])[:7]}, machine={figures['measured_on']}"
    lines = [f"{last_line(figures)} ({about})"]
    for where, words in PLACES.items():
        rows = [row for row in figures["faults"] if row["where"] == where]
        if rows:
            lines += ["", f"**{words}**", "", HEAD, "| --- | --- | --- | --- |", *map(_row, rows)]
    return lines


def _row(row: Mapping[str, Any]) -> str:
    found = row["found"] if row["where"] != "source" else [name for name in row["found"] if name in row["expected"]]
    more = len(row["found"]) - len(found)
    cell = (_names(found) or "nothing") + (f" and {more} more" if more else "")
    return f"| `{row['name']}` | {row['what']} | {_names(row['expected'])} | {cell} |"


def _names(names: Iterable[str]) -> str:
    # A reason is a sentence's beginning, an objective a key.
    return ", ".join(name if " " in name else f"`{name}`" for name in names)
