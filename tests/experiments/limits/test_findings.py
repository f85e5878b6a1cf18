"""What limits a chain of known truth: the stage that does is named, of two equal ones none, and bad data is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import run_files
from experiments.campaign import design_file
from experiments.cli import __main__ as emostream
from experiments.limits import findings, page
from experiments.limits.findings import sentences
from experiments.repository import DESIGNS
from experiments.synthetic.campaign import write_synthetic
from pipeline.errors import EmoStreamError, SettingError

LEVELS = design_file.unrehearsed(DESIGNS / "limits.yaml").levels


def excess_s(service_ms: Mapping[str, float], slowed: Mapping[str, Any]) -> float:
    """Return the mean time in a row of queues, seconds: s / (1 - load * s) each (M/M/1), at 100 per second.

    The queues are of known service times; that of the slowed stage is dilated as the throttle does.
    """
    total = 0.0
    for stage, own_ms in service_ms.items():
        service_s = own_ms / 1000 / ((1 - slowed["slow_share"]) if stage == slowed["slow_stage"] else 1)
        assert 100 * service_s < 1, "such a queue has no end"
        total += service_s / (1 - 100 * service_s)
    return total


def campaign(
    folder: Path, service_ms: Mapping[str, float], *, noise: float = 0.02, levels: Any = LEVELS, **more: Any
) -> Path:
    """Write a campaign on a chain of queues with these service times; return its directory."""
    directory = folder / "limits"
    write_synthetic(
        directory,
        levels=levels,
        blocks=more.pop("blocks", 6),
        noise=noise,
        truth=lambda factors: {
            "e2e_excess_p50_s": excess_s(service_ms, factors),
            "accepted_per_s": 1000.0,
            # Part of the processes' own on many kernels.
            "cpu_share_interrupts": 0.7,
        },
        **more,
    )
    for path in directory.glob("runs/*/manifest.json"):
        manifest = json.loads(path.read_text())
        given = manifest["parameters"]
        if given["slow_stage"] != "none":
            manifest["slowed"] = {"reached": given["slow_share"]}
        path.write_text(json.dumps(manifest))
    return directory


def test_the_queue_near_its_limit_is_named_though_another_takes_longer(tmp_path: Path) -> None:
    """Kafka is 78 % busy and named; Spark's long service of a tenth of that load is not what limits."""
    found = findings.read(campaign(tmp_path, {"ingest": 1.0, "kafka": 7.8, "spark": 2.0, "delivery": 0.5}))
    assert found.named.stage == "kafka"
    kafka = next(one for one in found.elasticities if one.stage == "kafka")
    true = math.log(7.8 / 0.8 / (1 - 0.975) / (7.8 / 0.22)) / math.log(1.25)
    # Other stages add a part that does not grow.
    assert 0.6 * true < kafka.estimate < true
    text = " ".join(sentences(found))
    assert "kafka limits. With its CPU time dilated by 1.25" in text
    assert "No footprint can be told from zero." in text


def test_of_two_equal_queues_neither_is_named(tmp_path: Path) -> None:
    """Ingest and Kafka limit alike: their intervals overlap, and the sentence names both."""
    found = findings.read(campaign(tmp_path, {"ingest": 7.5, "kafka": 7.5, "spark": 2.0}))
    assert found.named.stage is None
    assert re.search(
        r"no stage can be named .*the intervals of (ingest and kafka|kafka and ingest) overlap", sentences(found)[1]
    )


def test_an_instrument_that_limits_is_called_by_its_name(tmp_path: Path) -> None:
    """The load measures the instrument then, and the footprint is not zero."""
    found = findings.read(campaign(tmp_path, {"instrument": 4.9, "kafka": 1.0, "spark": 2.0}))
    text = " ".join(sentences(found))
    assert "the instrument limits, so that the runs measure the instrument and not the chain" in text
    assert "CPU time multiplied by 2.00" in text
    assert "The instrument changes what it measures at this load." in text


def test_demands_add_up_and_the_bound_follows(tmp_path: Path) -> None:
    """Per stage its cores over the accepted reactions, of the runs as they are; the bound is cores over the sum."""
    found = findings.read(campaign(tmp_path, {"kafka": 7.0}, noise=0.0))
    rows = {row["stage"]: row for row in findings.demand_rows(found)}
    assert rows["spark"]["cpu_us"] == pytest.approx(300)
    assert rows["ingest"]["processes"] == 2
    assert rows["ingest"]["bound_per_s"] == pytest.approx(2 / 150e-6)
    assert rows["kafka"]["processes"] is None
    assert math.isinf(rows["kafka"]["bound_per_s"])
    assert {row["runs"] for row in rows.values()} == {6}
    # The stages' one core at 1,000 per second, and 0.02 of other programs.
    assert found.cpu_s == pytest.approx(1.02e-3)
    assert found.bound_per_s == pytest.approx(2 / 1.02e-3)
    assert found.instrument_cpu_s == pytest.approx(180e-6)


def test_the_page_says_what_the_tables_have(tmp_path: Path) -> None:
    """It runs no script, links only what is there, and result.json and CSV hold the same figures."""
    directory = campaign(tmp_path, {"ingest": 1.0, "kafka": 7.8, "spark": 2.0})
    text = page.write(directory).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>kafka</b>" in text
    for link in set(re.findall(r'href="([^"#]+)"', text)) - {"index.html"}:
        assert link.endswith("report.html") or (directory / link).is_file()
    result = json.loads((directory / "result.json").read_text())
    assert result["named"] == "kafka"
    table = pd.read_csv(directory / "elasticities.csv").set_index("stage")
    row = next(row for row in result["elasticities"] if row["stage"] == "kafka")
    assert table.loc["kafka", "elasticity"] == pytest.approx(row["elasticity"])
    assert row["passed"] == row["runs"] == 6
    assert set(pd.read_csv(directory / "demands.csv")["stage"]) >= {"ingest", "kafka", "load"}


def test_an_invalid_run_leaves_its_block_out_and_then_nothing_is_named(tmp_path: Path) -> None:
    """Without its second chance Kafka has five blocks: no interval, and the reason is said."""
    faults = {index: {"reasons": ["The clock stepped."]} for index in range(6)}
    found = findings.read(campaign(tmp_path, {"kafka": 7.8, "spark": 2.0}, faults=faults))
    assert found.named.stage is None
    text = " ".join(sentences(found))
    assert "has 5 complete blocks, and an interval needs 6" in text
    assert "Of 36 runs six are invalid; they are left out." in text


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"e2e_excess_p50_s": math.inf}, "half of the reactions or more never arrived in any run as it is.*--load"),
        ({"reasons": ["The clock stepped."]}, "no run as it is was valid at 100 reactions per second"),
    ],
)
def test_a_load_that_misses_everything_is_refused_by_name(tmp_path: Path, faults: dict[str, Any], words: str) -> None:
    """And no page is written."""
    directory = campaign(tmp_path, {"kafka": 7.8, "spark": 2.0}, faults=dict.fromkeys(range(36), faults))
    with pytest.raises(EmoStreamError, match=words):
        page.write(directory)
    assert not (directory / "limits.html").exists()


def test_runs_without_their_intervention_are_refused(tmp_path: Path) -> None:
    """A manifest that does not say what was reached names itself; a campaign that slows nothing is another thing."""
    directory = campaign(tmp_path, {"kafka": 7.0})
    for path in directory.glob("runs/*/manifest.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "slowed": None}))
    with pytest.raises(run_files.RunFileError, match=r"manifest.json lacks `slowed.reached`"):
        findings.read(directory)
    write_synthetic(tmp_path / "other")
    with pytest.raises(SettingError, match="design synthetic does not slow stages"):
        findings.read(tmp_path / "other")


def test_report_writes_the_page_of_limits_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`emostream report` writes the campaign's usual report, and this one, which it names."""
    directory = campaign(tmp_path, {"ingest": 1.0, "kafka": 7.8, "spark": 2.0, "delivery": 0.5})
    written = page.write(directory)
    written.unlink()
    written.touch()
    monkeypatch.setattr(emostream.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        emostream.main(["report", str(directory), "--json"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(written)}
    assert "kafka" in written.read_text()
    assert (directory / "index.html").is_file()
