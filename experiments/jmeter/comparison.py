"""The same load by JMeter, by Locust and by the open loop on one chain, and what each says of the latency.

Each generator's own statistics stand beside the ledger's figures of the same run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.latency import rank_quantile
from experiments.jmeter.audit import to_window_ms
from experiments.jmeter.properties import Properties
from experiments.jmeter.run import found, parameters_of
from experiments.jmeter.samples import REACTION
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.run import benchmark_file, chain, notebook
from experiments.run.drive import Load
from experiments.run.measure import measure

_COLUMNS = (
    ("reactions_per_s", "reactions/s"),
    ("own_p50_ms", "own p50 ms"),
    ("own_p99_ms", "own p99 ms"),
    ("answer_p50_ms", "answer p50 ms"),
    ("answer_p99_ms", "answer p99 ms"),
    ("window_p50_ms", "window p50 ms"),
    ("window_p99_ms", "window p99 ms"),
    ("screen_p50_ms", "screen p50 ms"),
    ("screen_p99_ms", "screen p99 ms"),
    ("cores", "cores"),
    ("valid", "valid"),
)


def compare(properties: Properties, attach: str, reports: Path) -> str:
    """Carry out the load by each generator; write `reports`/bench/jmeter-comparison.json and return it as a table.

    `attach` is the ready file of a chain that is up; without one a chain is started, and serves all. Raises
    EmoStreamError as `experiments.jmeter.run.run` does.
    """
    command = f"{properties.command(attach)} --compare"
    load = found().load(properties)
    with ExitStack() as stack:
        stack.enter_context(machine_lock.alone("A comparison of loads"))
        folder = notebook.new_run(reports / "jmeter")
        if not attach:
            # Those of a chain that a run starts, too.
            settings = parameters_of(properties, "").of_chain()
            attach = str(Path(stack.enter_context(chain.started(settings, folder / "chain")).run_dir) / "ready.json")
        parameters = parameters_of(properties, attach)
        rows = {
            "JMeter": _row(parameters, folder / "jmeter", load),
            "Locust": _row(parameters, folder / "locust"),
        }
        # What the users would send if answers took no time.
        rate_per_s = parameters.users / parameters.think_s
        rows["open loop"] = _row(replace(parameters, loop="open", rate_per_s=rate_per_s), folder / "open")
    benchmark_file.write(reports / "bench", "jmeter-comparison", {"generators": rows, "command": command})
    return table(rows)


def _row(parameters: Parameters, run_dir: Path, load: Load | None = None) -> dict[str, Any]:
    result = measure(parameters, run_dir, load=load)
    summary, reactions = result.analysis.summary, result.analysis.reactions
    took_ms = to_window_ms(reactions, pd.read_parquet(run_dir / "windows.parquet"))
    own = own_statistics(run_dir)
    return {
        "reactions_per_s": round(summary["throughput_per_s"], 1),
        **{f"own_{name}": own.get(name) for name in ("p50_ms", "p99_ms")},
        "answer_p50_ms": round(summary["answer_p50_ms"], 2),
        "answer_p99_ms": round(summary["answer_p99_ms"], 2),
        "window_p50_ms": round(rank_quantile(took_ms, 0.5)),
        "window_p99_ms": round(rank_quantile(took_ms, 0.99)),
        "screen_p50_ms": round(1000 * summary["e2e_p50_s"]),
        "screen_p99_ms": round(1000 * summary["e2e_p99_s"]),
        "cores": round(summary["cpu_share_load"], 2),
        "accepted": summary["accepted"],
        "counted": summary["counted"],
        "valid": summary["valid"],
        "unsteady": summary["unsteady"],
        "reasons": summary["reasons"],
    }


def own_statistics(run_dir: Path) -> dict[str, float]:
    """Return `p50_ms` and `p99_ms` of the reactions as the run's own generator reports them; empty for the open loop.

    JMeter writes them with its dashboard, Locust as CSV.
    """
    jmeter, locust = run_dir / "dashboard" / "statistics.json", run_dir / "locust_stats.csv"
    if jmeter.exists():
        row: Mapping[str, float] = json.loads(jmeter.read_text(encoding="utf-8"))[REACTION]
        return {"p50_ms": float(row["medianResTime"]), "p99_ms": round(float(row["pct3ResTime"]), 1)}
    if locust.exists():
        with locust.open(encoding="utf-8", newline="") as file:
            rows = {line["Name"]: line for line in csv.DictReader(file)}
        own = rows["/reactions"]
        return {"p50_ms": float(own["50%"]), "p99_ms": float(own["99%"])}
    return {}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows as a table in Markdown; what was not measured is a dash."""
    lines = [
        ["", *(title for _, title in _COLUMNS)],
        ["---", *("---:" for _ in _COLUMNS)],
        *([name, *(_cell(row[key]) for key, _ in _COLUMNS)] for name, row in rows.items()),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:,g}" if value < 1000 else f"{value:,.0f}"
