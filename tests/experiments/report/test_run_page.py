"""The report: whole in itself, honest about faults, and the same for the same run."""

from __future__ import annotations

import html
import json
import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from experiments.analysis import analyse
from experiments.ledger import COLUMNS, LedgerError
from experiments.report import format as forms
from experiments.report import run_page, svg
from experiments.synthetic import run
from pipeline.errors import SettingError

RUN = run.make_run(users=100, clients=8, rate_per_s=100.0, measured_triggers=9)
PROMISED = [
    "e2e_p50_s",
    "e2e_p99_s",
    "floor_p50_s",
    "floor_p99_s",
    "e2e_excess_p50_s",
    "e2e_excess_p99_s",
    "excess_worst_window_s",
    "excess_windows",
    "batch_p50_s",
    "batch_p95_s",
    "headroom",
    "accepted",
    "counted",
    "lost",
    "duplicated",
    "oracle_cells",
    "oracle_equal",
    "representation_error",
    "tv_distance",
    "clients",
    "windows",
    "deliveries_missing",
    "deliveries_duplicate",
    "deliveries_out_of_order",
    "samples",
    "valid",
    "slos",
]


def written(folder, parameters=None, manifest=None, **changes):
    """Write the report of the synthetic run with changes; return the page's text and the summary."""
    page = run_page.write_report(
        folder, RUN.frames | changes, RUN.parameters | (parameters or {}), RUN.manifest | (manifest or {})
    )
    return page.read_text(encoding="utf-8"), json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The folder, page and summary of a faultless run."""
    folder = tmp_path_factory.mktemp("run")
    return folder, *written(folder)


def test_summary_has_every_promised_key_and_is_true(good):
    """The flat summary holds what others read from it, and agrees with the run's truth."""
    _, _, summary = good
    assert [key for key in PROMISED if key not in summary] == []
    assert summary["valid"] is True
    assert summary["passed"] is True
    assert summary["accepted"] == summary["counted"] == len(RUN.frames["plan"])
    measured = RUN.frames["plan"]["phase"] == "measured"
    first_p50 = RUN.truth.loc[measured, "end_to_end_ns"].median() / 1e9
    assert summary["e2e_p50_s"] == pytest.approx(first_p50, abs=0.01)
    assert summary["floor_p50_s"] == pytest.approx(3.05, abs=0.05)
    excess_s = (RUN.truth["end_to_end_ns"] - RUN.truth["floor_ns"])[measured] / 1e9
    assert summary["e2e_excess_p50_s"] == pytest.approx(excess_s.median(), abs=0.01)
    assert summary["e2e_excess_p99_s"] == pytest.approx(excess_s.quantile(0.99), abs=0.01)
    windows = excess_s.groupby(RUN.truth["window"]).median()
    assert summary["excess_worst_window_s"] == pytest.approx(windows.iloc[:-1].max(), abs=0.01)
    assert summary["excess_windows"] == 9


def test_page_needs_nothing_from_elsewhere(good):
    """No scripts, no fetched parts; each local link leads to a file that was written."""
    folder, page, _ = good
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "@import" not in page
    assert "url(http" not in page
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert len(links) > 10
    assert [link for link in links if not (folder / link).is_file()] == []


def test_page_ids_are_unique_and_referenced_ones_exist(good):
    """Five figures in one page do not take each other's clip paths and markers."""
    _, page, _ = good
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(ids)


def test_figures_follow_the_page_colours(good):
    """Saved figures are well-formed, transparent, and colour only by variables and currentColor."""
    folder, _, _ = good
    for path in (folder / "summary").glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        ET.fromstring(text)
        drawn = text.replace(svg._STYLE, "")
        assert not re.findall(r"#[0-9a-f]{6}\b", drawn), path.name
        assert "currentColor" in drawn
        assert "prefers-color-scheme:dark" in text
        assert path.with_suffix(".csv").is_file()


def test_same_run_same_report(good, tmp_path):
    """Nothing in the page depends on when it was made."""
    _, page, _ = good
    assert written(tmp_path)[0] == page


def test_findings_say_what_the_summary_says(good):
    """The first paragraph carries the run's own numbers."""
    _, page, summary = good
    lead = re.search(r'class="lead">(.*?)</p>', page, re.DOTALL).group(1)
    assert "A hundred simulated users sent" in lead
    assert f"within {forms.seconds(summary['e2e_p50_s'])}" in lead
    assert "counted exactly once" in lead
    assert "banner" not in page.split("<main>")[1]


def test_faults_are_loud_and_named(tmp_path):
    """An INVALID run with a lost record and a missing delivery says all three at the top."""
    topic = RUN.frames["topic"]
    gone = topic.index[topic["emoji_type"].notna()][500]
    page, summary = written(
        tmp_path,
        manifest={"other_run": True},
        topic=topic.drop(index=gone),
        deliveries=RUN.frames["deliveries"].iloc[1:],
    )
    assert summary["valid"] is False
    assert summary["slos"]["lost"] is False
    assert page.index("INVALID") < page.index("<h1>")
    assert "Another run was active" in page
    assert "one reaction lost" in page
    assert "1 missing" in page
    assert "answered 202 but not in the topic" in page
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["verdict"] == "INVALID"


def test_run_whose_windows_become_slower_is_unsteady_unless_the_machine_is_shared(tmp_path):
    """The page says so in words and colour, with the medians on either side; on a shared machine it is only stated."""
    windows, deliveries = (RUN.frames[name] for name in ("windows", "deliveries"))
    later = windows["trigger_ns"] > windows["trigger_ns"].median()
    slow = dict(zip(windows["window"], later * 100_000_000, strict=True))
    moved = {
        "windows": windows.assign(emitted_ns=windows["emitted_ns"] + later * 100_000_000),
        "deliveries": deliveries.assign(
            **{name: deliveries[name] + deliveries["window"].map(slow) for name in deliveries if name.endswith("_ns")}
        ),
    }
    page, summary = written(tmp_path, **moved)
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["passed"]) == ("UNSTEADY", False)
    assert (summary["valid"], summary["unsteady"], summary["steady"]) == (False, True, False)
    assert 90 < summary["steady_shift_s"] * 1000 < 110
    assert '<section class="banner unsteady" role="alert">' in page
    assert '<span class="badge unsteady">Unsteady</span>' in page
    assert "This run is UNSTEADY, so do not quote its figures" in page
    _, shared = written(tmp_path, {"machine": "shared"}, **moved)
    assert (shared["valid"], shared["unsteady"], shared["steady"]) == (True, False, False)


def test_a_run_in_which_nothing_arrived_still_has_a_report(tmp_path):
    """No windows, no deliveries, no progress: figures say why they are empty, JSON stays strict."""
    page, summary = written(
        tmp_path, **{name: RUN.frames[name].iloc[:0] for name in ("windows", "deliveries", "progress")}
    )
    assert summary["lost"] == summary["accepted"]
    assert summary["batch_p50_s"] is None
    assert summary["e2e_p50_s"] == "inf"
    assert "Spark reported no micro-batch" in page
    assert "never" in page


def test_an_empty_run_still_has_a_report(tmp_path):
    """Frames without a single row are reported as INVALID, not as an error."""
    page, summary = written(tmp_path, **{name: RUN.frames[name].iloc[:0] for name in COLUMNS})
    assert summary["valid"] is False
    assert summary["samples"] == 0
    assert "Too few reactions" in page


def test_markup_in_data_stays_text(tmp_path):
    """A parameter, a user or an emoji with markup in it is shown, not interpreted."""
    topic = RUN.frames["topic"].copy()
    topic.loc[topic.index[300], "emoji_type"] = "<b>x</b>"
    page, _ = written(tmp_path, parameters={"note": "<script>alert(1)</script>"}, topic=topic)
    assert "<script" not in page
    assert "<b>x" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"trigger_s": "soon"}, "trigger_s is 'soon'"),
        ({"flush_phase": "sideways"}, "sideways"),
        ({"policy": "nearest"}, "nearest"),
        ({"trigger_s": 0}, "trigger_s"),
    ],
)
def test_parameters_no_analysis_can_use_are_refused_by_name(change, named):
    """A parameter with an impossible value is named before anything is written."""
    with pytest.raises(SettingError, match=named):
        analyse.analyse(RUN.frames, RUN.parameters | change, RUN.manifest)


def test_missing_parameters_and_frames_are_named():
    """What the analysis needs and did not get is named."""
    with pytest.raises(SettingError, match="lack flush_ms"):
        analyse.Conditions.of({"trigger_s": 6})
    frames = {name: frame for name, frame in RUN.frames.items() if name != "progress"}
    with pytest.raises(LedgerError, match="no progress frame"):
        analyse.analyse(frames, RUN.parameters, RUN.manifest)


def test_percentiles_without_enough_reactions_are_not_printed():
    """A thousand reactions carry p99 and not p99.9; a handful carry no percentile at all."""
    small = run.make_run(rate_per_s=1.0, measured_triggers=2)
    result = analyse.analyse(small.frames, small.parameters, small.manifest)
    assert result.percentiles.empty
    assert math.isnan(result.summary["e2e_p50_s"])
    assert not result.verdict.passed
    whole = analyse.analyse(RUN.frames, RUN.parameters, RUN.manifest)
    assert list(whole.percentiles["percentile"]) == ["p50", "p90", "p95", "p99"]


def test_a_closed_loop_says_so_everywhere(tmp_path):
    """A closed loop is named in the first paragraph, beside the title, and in the explanation of latency."""
    about = RUN.manifest | {"run": "closed"}
    path = run_page.write_report(tmp_path, RUN.frames, RUN.parameters | {"loop": "closed", "think_s": 1.5}, about)
    page = html.unescape(re.sub(r"\s+", " ", path.read_text(encoding="utf-8")))
    assert "waited for the answer and then 1.50 s on average" in page
    assert "counts from the actual send and is not comparable with that of an open loop" in page
    assert '<span class="badge">Closed loop</span>' in page
    assert "<em>actually</em> sent" in page
    assert "<em>planned</em>" not in page
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["loop"] == "closed"
    sent = RUN.frames["sent"][RUN.frames["plan"]["phase"] == "measured"]
    took_ms = (sent["t_answered_ns"] - sent["t_sent_ns"]) / 1e6
    assert summary["throughput_per_s"] == pytest.approx(len(sent) / 54)
    assert summary["answer_p50_ms"] == pytest.approx(took_ms.median(), rel=0.02)
    assert summary["answer_p99_ms"] == pytest.approx(took_ms.quantile(0.99), rel=0.1)


def test_an_open_loop_is_not_called_closed(good):
    """Nothing of that stands in the report of an open loop."""
    _, page, summary = good
    assert summary["loop"] == "open"
    assert "losed loop" not in page


def test_an_answer_that_never_came_is_infinitely_late():
    """Requests without an answer count in the percentiles of the answer time."""
    sent = RUN.frames["sent"].copy()
    sent.loc[:, ["t_answered_ns", "status"]] = 0
    frames = RUN.frames | {"sent": sent}
    assert analyse.analyse(frames, RUN.parameters, RUN.manifest).summary["answer_p99_ms"] == math.inf


def test_figure_does_not_depend_on_the_users_matplotlibrc() -> None:
    """What a user sets for other figures changes neither the parts made before nor those drawn after."""

    @svg.defaults()
    def figure() -> str:
        drawn, (axes,) = svg.canvas(2.0)
        axes.plot([1, 2], [3, 4], label="line")
        axes.legend()
        return svg.render(drawn, "figure", "A line")

    plain = figure()
    with mpl.rc_context({"axes.facecolor": "black", "lines.linewidth": 9.0, "text.usetex": True, "font.size": 30.0}):
        assert figure() == plain
