"""The whole chain, for real: from a POST to every client's stream, every reaction accounted for."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import hops, latency
from experiments.ledger import REACTION_COLUMNS
from experiments.parameters import Parameters
from experiments.run.chain import Endpoints
from experiments.run.measure import Result, measure
from pipeline.sse import SseEvent, SseParser
from tests.harness.builders import reaction
from tests.harness.http import post_json, post_status, redirect_of

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def result(ready_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A small measured run on the chain that is up."""
    parameters = Parameters(
        users=20,
        rate_per_s=60.0,
        clients=8,
        warm_up_triggers=2,
        measured_triggers=6,
        attach=str(ready_file),
    )
    return measure(parameters, tmp_path_factory.mktemp("run"))


def test_every_reaction_is_counted_once(result: Result) -> None:
    """Accepted, stored and counted agree, and no reaction is lost, doubled or altered."""
    summary = result.analysis.summary
    assert summary["accepted"] == summary["planned"] == summary["in_topic"] == summary["counted"] > 0
    assert (summary["lost"], summary["duplicated"], summary["altered"], summary["foreign"]) == (0, 0, 0, 0)


def test_every_window_equals_the_oracle(result: Result) -> None:
    """Each window, recomputed from the offsets it names, has the counts it claims; offsets leave no gap."""
    oracle = result.analysis.oracle
    assert oracle.cells == oracle.equal > 0
    assert result.analysis.offset_breaks.empty


def test_every_client_gets_every_window_once_and_in_order(result: Result) -> None:
    """No client misses, doubles or disorders a window, on any subscriber of any cluster."""
    audited = result.analysis.audit
    assert len(audited) == 8
    assert audited["cluster"].nunique() == 2
    faults = audited[["missing", "duplicate", "out_of_order", "altered", "unknown"]]
    assert not faults.to_numpy().any()


def test_every_measured_reaction_has_its_latency(result: Result) -> None:
    """Each that was accepted, to each client that was there throughout: the last window's are not left out."""
    summary = result.analysis.summary
    measured = len(latency.measured(result.analysis.reactions))
    assert summary["reactions_measured"] == measured > 0
    assert summary["samples"] == measured * summary["clients"]


def test_the_hops_add_up_to_the_journey(result: Result) -> None:
    """For every reaction and client the ten hops sum to receipt minus intended send, to the nanosecond."""
    frames = {name: _frame(result, name) for name in ("windows", "clients", "deliveries")}
    reactions, windows = result.analysis.reactions, frames["windows"]
    last_ns = latency.last_counted_ns(reactions, windows)
    due = latency.receipts(windows, frames["clients"], frames["deliveries"], grace_s=2.0, last_ns=last_ns)
    journeys = hops.journeys(latency.measured(result.analysis.reactions), due)
    assert len(journeys) > 0
    assert (journeys[list(hops.HOPS)].sum(axis=1) == journeys["end_to_end"]).all()


def test_the_run_leaves_what_the_protocol_lists(result: Result) -> None:
    """Every file of a run is there, and the manifest names code, machine and parameters as they were."""
    names = {path.name for path in result.run_dir.iterdir()}
    assert names >= {
        *("manifest.json", "verdict.json", "summary.json", "report.html", "summary"),
        *("reactions.parquet", "windows.parquet", "deliveries.parquet", "progress.parquet"),
    }
    assert list(_frame(result, "reactions").columns) == list(REACTION_COLUMNS)
    manifest = json.loads((result.run_dir / "manifest.json").read_text())
    assert manifest["parameters"]["trigger_s"] == 1.0
    assert manifest["versions"]["pyspark"]


def test_the_last_reactions_before_a_silence_arrive(chain_up: Endpoints) -> None:
    """One lone reaction reaches a client within a few triggers, with nothing sent after it."""
    client = post_json(f"{chain_up.registry}/clients", {})
    with _stream(client) as stream:
        assert post_status(f"{chain_up.ingest}/reactions", reaction("lone", "🦄")) == 202
        window = _window_with(stream, "🦄", deadline_s=time.monotonic() + 20)
    cell = next(cell for cell in window["reactions"] if cell["emoji_type"] == "🦄")
    assert (cell["count"], cell["representatives"]) == (1, 1)
    assert [hop["stage"].split("-")[0] for hop in window["hops"]] == ["main", "cluster", "subscriber"]


def _frame(result: Result, name: str) -> Any:
    import pandas as pd

    return pd.read_parquet(result.run_dir / f"{name}.parquet")


def _stream(client: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {client['token']}"}
    return urllib.request.urlopen(urllib.request.Request(redirect_of(client), headers=headers), timeout=240)


def _window_with(stream: Any, emoji_type: str, deadline_s: float) -> dict[str, Any]:
    parser = SseParser()
    while time.monotonic() < deadline_s:
        events: list[SseEvent] = parser.feed(stream.read1(65536))
        for event in events:
            window: dict[str, Any] = json.loads(event.data)
            if any(cell["emoji_type"] == emoji_type for cell in window.get("reactions", ())):
                return window
    raise AssertionError(f"no window with {emoji_type} came in time")
