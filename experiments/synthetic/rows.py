"""A finished campaign of synthetic runs on disk, with all rows, as a sweep leaves it but for the runs' pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import files
from experiments.analysis.analyse import analyse
from experiments.load.plan import plan_of
from experiments.parameters import Parameters
from experiments.report import run_page
from experiments.run import manifest as manifests
from experiments.synthetic.run import START_NS, make_run

SLOS = {"e2e_excess_p99_s": 2.0, "lost": 0, "deliveries_missing": 0}


def write_campaign(
    directory: Path, *, runs: int = 6, rates: Sequence[float] = (20.0,), commit: str = "synthetic", search: bool = False
) -> None:
    """Write a campaign of `runs` runs in `directory`; the rates are the levels, or with `search` the probes, in turn.

    Each is a small run of its own seed: four clients, three measured windows of six seconds.
    """
    done, order = [], []
    for index in range(runs):
        rate = rates[index % len(rates)]
        own = Parameters(users=10, clients=4, rate_per_s=rate, warm_up_triggers=2, measured_triggers=3, seed=index + 1)
        # The plan of a real run, so that it can be made again.
        plan = plan_of(own, START_NS)
        run = make_run(users=10, clients=4, rate_per_s=rate, measured_triggers=3, seed=index + 1, plan=plan)
        name = f"2026112{index // 24}T{index % 24:02d}0000"
        run_dir = directory / "runs" / name
        run_dir.mkdir(parents=True)
        for frame, rows in run.frames.items():
            files.to_parquet(rows, run_dir / f"{frame}.parquet")
        parameters = {**run.parameters, "slos": json.dumps(SLOS)}
        about = {
            **run.manifest,
            "run": name,
            "commit": commit,
            "parameters": parameters,
            "cpu": "Synthetic",
            "cores": 2,
            "kernel": "Linux",
            "jvm_flags": {"kafka": [f"-Ddata.dir={run_dir / 'chain'}", "-Xmx512m"]},
            "frames": manifests.frames(run_dir, run.frames),
        }
        _write(run_dir / "manifest.json", about)
        run_page.write_summary(run_dir, analyse(run.frames, parameters, about))
        verdict = json.loads((run_dir / "verdict.json").read_text(encoding="utf-8"))
        level = {"rate_per_s": rate}
        planned = {
            "index": index,
            "block": index + 1 if search else index // len(rates) + 1,
            "level": f"rate_per_s={rate:g}",
            "factors": level,
        }
        order.append({**planned, "parameters": parameters})
        moment = f"2026-11-2{index // 24}T{index % 24:02d}:0"
        done.append(
            {
                **planned,
                "run": name,
                "started": f"{moment}0:00Z",
                "ended": f"{moment}1:00Z",
                "valid": verdict["verdict"] == "VALID",
                "passed": verdict["passed"],
                "reasons": verdict["reasons"],
            }
        )
    design = {
        "name": "synthetic",
        "about": "Synthetic runs with their rows.",
        "blocks": max(runs // len(rates), 1),
        "warm_up_triggers": 2,
        "measured_triggers": 3,
        "parameters": {"users": 10, "clients": 4},
        "levels": [] if search else [{"rate_per_s": rate} for rate in rates],
        "slos": SLOS,
        "search": {"factor": "rate_per_s", "least": 5, "most": 100, "probes": max(runs, 6)} if search else None,
    }
    campaign = {
        "campaign": directory.name,
        "design": design,
        "design_sha256": "0" * 64,
        "design_path": "../../tmp/design.yaml",
        "started": done[0]["started"],
        "ended": done[-1]["ended"],
        "order": order,
        "runs": done,
    }
    _write(directory / "campaign.json", campaign)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    files.write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
