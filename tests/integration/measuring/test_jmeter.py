"""JMeter's plan, carried out by the real JMeter on a real chain."""

from __future__ import annotations

import csv
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from experiments.jmeter import run
from experiments.jmeter.load import PLAN
from experiments.jmeter.properties import Properties, parsed
from experiments.run.chain import Endpoints
from pipeline.errors import SettingError

pytestmark = pytest.mark.integration


@pytest.mark.timeout(600)
def test_counts_of_jmeter_are_exact_and_both_reports_are_written(ready_file: Path, tmp_path: Path) -> None:
    """Every sample succeeds, refusals included; every reaction is in one window; the viewers came and left."""
    properties = parsed(["users=8", "ramp_up_s=1", "duration_s=8", "think_s=0.2", "viewers=2"])
    done = run.run(properties, str(ready_file), tmp_path)
    figures = done.figures
    assert done.faults == []
    assert figures["accepted"] == figures["in_topic"] == figures["counted"] > 0
    assert figures["oracle_cells"] == figures["oracle_equal"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] < 60_000
    assert figures["refused_as_expected"] >= 3
    statistics = json.loads(done.dashboard.with_name("statistics.json").read_text(encoding="utf-8"))
    assert statistics["Total"]["sampleCount"] == figures["samples"]
    assert statistics["POST /reactions"]["sampleCount"] == figures["accepted"]
    for label in ("POST /clients", "DELETE the client", "GET the client that left"):
        assert statistics[label]["sampleCount"] == properties.viewers
    assert statistics["GET the next windows"]["sampleCount"] >= properties.viewers
    page = done.page.read_text(encoding="utf-8")
    assert "No sample failed." in page
    for link in ("dashboard/index.html", "report.html"):
        assert f'href="{link}"' in page
        assert (done.page.parent / link).is_file()
    written = json.loads((tmp_path / "bench" / "jmeter.json").read_text(encoding="utf-8"))
    assert {"samples", "errors", "accepted", "counted", "oracle_cells", "oracle_equal", "p99_ms"} <= written.keys()


def test_every_bad_input_is_refused_as_its_file_says(chain_up: Endpoints) -> None:
    """The plan sends one per second, so that a short run does not come to all of them."""
    rows = csv.DictReader(PLAN.with_name("bad-input.csv").read_text(encoding="utf-8").splitlines())
    wrong = {}
    for row in rows:
        body = row["body"].replace("${__groovy(([0] * 1001) as String)}", str([0] * 1001)).encode()
        url = f"{chain_up.ingest if row['stage'] == 'ingest' else chain_up.registry}{row['path']}"
        headers = {"Content-Type": row["content_type"]}
        request = urllib.request.Request(url, body or None, headers, method=row["method"])
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=240)
        refused.value.close()
        if refused.value.code != int(row["status"]):
            wrong[row["case"]] = refused.value.code
    assert wrong == {}


def test_chain_that_is_not_up_is_named_before_anything_starts(tmp_path: Path) -> None:
    """No directory of a run is left."""
    with pytest.raises(SettingError, match=r"attach is .*, which names no running chain"):
        run.run(Properties(), str(tmp_path / "ready.json"), tmp_path / "reports")
    assert not (tmp_path / "reports").exists()
