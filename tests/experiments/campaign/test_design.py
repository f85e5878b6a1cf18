"""Designs: what comes with the project is sound, the order is a seeded plan, and each error points at its line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
import yaml

from experiments import parameters
from experiments.campaign import campaign_file, design_file, keep
from experiments.campaign.design import Design, order
from experiments.load import plan as planning
from experiments.repository import DESIGNS, REPORTS
from pipeline.errors import SettingError

TEXT = """\
name: tiny
about: Two levels.
seed: 3
blocks: 4
warm_up_triggers: 2
measured_triggers: 3
parameters: {trigger_s: 2, clusters: 1}
levels:
  - {users: 10, rate_per_s: 20}
  - {users: 50, rate_per_s: 100, blocks: 6}
  - {users: 70, rate_per_s: 100.5}
slos: {lost: 0, oracle_share: 1.0}
together: [{factors: [users, rate_per_s], why: a fan is a user and a reaction per second}]
"""
TOGETHER = TEXT[TEXT.index("together:") :]
REPLAY = """\
name: replay
about: A recording at two speeds.
warm_up_triggers: 1
measured_triggers: 2
parameters: {arrivals: trace, trace: PATH, trigger_s: 2}
levels:
  - {speed: 1}
  - {speed: 4}
slos: {lost: 0}
"""


def tiny(text: str = TEXT) -> Design:
    """Return the design of `text`."""
    return design_file.parse(text, "tiny.yaml")


def shipped(name: str) -> Any:
    """Return what the file of a design of the project says, unchecked."""
    return yaml.safe_load((DESIGNS / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", design_file.named())
def test_every_design_of_the_project_can_be_run(name: str) -> None:
    """Each names itself as its file, has objectives, and its runs make parameters and a plan."""
    design = design_file.load(DESIGNS / f"{name}.yaml")
    assert design.name == name
    for run in order(design) if design.levels else []:
        assert parameters.checked(run.parameters).limits() == design.slos


def test_the_designs_the_issue_names_are_there() -> None:
    """Researchers start from these."""
    wanted = {"concurrency", "capacity", "window", "flush", "representatives", "topology", "trace", "smoke"}
    assert wanted <= set(design_file.named())


@pytest.mark.parametrize("name", design_file.named())
def test_every_design_of_the_project_warms_up_as_the_protocol_says(name: str) -> None:
    """For at least five micro-batches."""
    assert shipped(name).get("warm_up_triggers", 5) >= 5


def test_the_trace_is_replayed_as_it_was_and_faster() -> None:
    """At several speeds, and with windows of one length: only one factor varies."""
    levels = shipped("trace")["levels"]
    assert levels[0] == {"speed": 1}
    assert [set(level) for level in levels] == [{"speed"}] * len(levels)


@pytest.mark.parametrize("name", sorted(set(design_file.named()) - {"smoke", "capacity", "capacity_rows", "validity"}))
def test_every_design_with_levels_has_blocks_for_intervals(name: str) -> None:
    """At least six of each level.

    `smoke` only shows that everything works, a search has no blocks, and `validity` fits a line to all of its runs.
    """
    assert shipped(name)["intervals"] is True
    assert all(level.get("blocks", shipped(name)["blocks"]) >= 6 for level in shipped(name)["levels"])


CROSSED = "[{users: 9, clients: 1}, {users: 9, clients: 2}, {users: 8, clients: 1}, {users: 8, clients: 2}]"


def varied(levels: str, together: str = "") -> Design:
    """Return the design with these levels."""
    text = TEXT[: TEXT.index("levels:")] + f"levels: {levels}\nslos: {{lost: 0}}\n{together}"
    return tiny(text)


@pytest.mark.parametrize(
    "levels",
    [
        CROSSED,
        "[{users: 9, clients: 1}, {users: 8, clients: 1}, {users: 9, clients: 2}]",
        "[{users: 9, clients: 1}]",
    ],
)
def test_factors_crossed_or_one_at_a_time_are_accepted(levels: str) -> None:
    """So that each effect can be told from the others."""
    assert len(varied(levels).factors) == 2


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            "[{users: 9, clients: 1}, {users: 8, clients: 2}]",
            r"levels\[1\]: .* level 0, .* in users and clients at",
        ),
        (
            f"{CROSSED[:-1]}, {{users: 7, clients: 3}}]",
            r"levels\[4\]: .* in users and clients at once, .*`together: \[\{factors: \[users, clients\], why: REASON",
        ),
        (
            "[{users: 9, clients: 1, rate_per_s: 9}, {users: 8, clients: 2, rate_per_s: 8}]",
            r"levels\[1\]: .* in users, clients and rate_per_s at once",
        ),
    ],
)
def test_factors_that_vary_together_are_refused(levels: str, message: str) -> None:
    """The level, the one nearest to it and the factors are named, and the remedy."""
    with pytest.raises(SettingError, match=r"tiny\.yaml, line 8, field " + message):
        varied(levels)


def test_factors_named_as_one_may_vary_together_and_no_others() -> None:
    """The group counts as one factor, which has to be crossed with the rest."""
    people = "together: [{factors: [users, clients], why: each has a screen}]\n"
    assert varied("[{users: 9, clients: 1}, {users: 8, clients: 2}]", people).together[0].why == "each has a screen"
    levels = "[{users: 9, clients: 1, speed: 1}, {users: 8, clients: 2, speed: 2}]"
    with pytest.raises(SettingError, match="in users with clients and speed at once"):
        varied(levels, people)


@pytest.mark.parametrize(
    ("together", "message"),
    [
        (
            "[{factors: [users, speed], why: x}]",
            r"together\[0\]\.factors\[1\]: no level names 'speed': use one of",
        ),
        ("[{factors: [users, users], why: x}]", r"together\[0\]\.factors\[1\]: 'users' is named twice"),
        ("[{factors: [users, clients]}]", r"together\[0\]: .*`why` is missing"),
        ("[{factors: [users], why: x}]", r"together\[0\]\.factors: .*2"),
        ("[{factors: [users, clients], why: ''}]", r"together\[0\]\.why: .*1"),
    ],
)
def test_a_group_names_factors_and_a_reason(together: str, message: str) -> None:
    """A name that no level has, one in two groups, a single one, and a missing reason are errors."""
    with pytest.raises(SettingError, match=message):
        varied(CROSSED, f"together: {together}\n")


def test_a_block_runs_every_level_once() -> None:
    """Blocks are complete, apart from what a level's own `blocks` adds; indices count the order."""
    runs = order(tiny())
    assert [run.index for run in runs] == list(range(4 * 3 + 2))
    for block in range(1, 5):
        assert len({run.level for run in runs if run.block == block}) == 3
    assert {run.level for run in runs if run.block > 4} == {"users=50, rate_per_s=100"}


def test_the_order_is_drawn_from_the_seed() -> None:
    """The same seed gives the same plan, another seed another order, and blocks differ in their order."""
    assert order(tiny()) == order(tiny())
    levels = [[run.level for run in order(tiny()) if run.block == block] for block in range(1, 5)]
    assert len({tuple(block) for block in levels}) > 1
    others = [[run.level for run in order(tiny(TEXT.replace("seed: 3", f"seed: {seed}")))] for seed in range(4, 9)]
    assert any(other != [run.level for run in order(tiny())] for other in others)


def test_a_block_shares_its_load() -> None:
    """Within a block the load's seed is one, between blocks it is not."""
    seeds = {(run.block, run.parameters["seed"]) for run in order(tiny())}
    assert len(seeds) == len({block for block, _ in seeds}) == len({seed for _, seed in seeds})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users: 10", "usrs: 10", r"line 9, field levels\[0\]\.usrs: there is no factor 'usrs': use one of ack"),
        ("users: 10", "users: ten", r"line 9, field levels\[0\]\.users: .*'ten'"),
        ("users: 10", "users: 10.5", r"line 9, field levels\[0\]\.users: .*'10\.5'"),
        ("users: 10, ", "", r"line 9, field levels\[0\]: it lacks users"),
        ("blocks: 4", "blocks: 0", r"line 4, field blocks: it is 0; give a whole number from 1"),
        ("blocks: 4", "blocks: many", r"line 4, field blocks: it is 'many'"),
        ("blocks: 6", "blocks: 0", r"line 10, field levels\[1\]\.blocks: it is 0"),
        (
            "seed: 3",
            "intervals: true",
            r"line 4, field blocks: blocks is 4, and the design asks for intervals: give 6 or",
        ),
        ("seed: 3", "intervals: 1", r"line 3, field intervals: it is 1; give true or false"),
        ("trigger_s: 2", "trigger_s: -2", r"line 7, field parameters\.trigger_s: .*-2"),
        ("clusters: 1", "clusters: 0", r"line 7, field parameters\.clusters: .*0"),
        ("clusters: 1", "policy: best", r"line 7, field parameters\.policy: .*'best'.*ceil"),
        ("lost: 0", "lots: 0", r"line 12, field slos\.lots: there is no objective 'lots': use one of"),
        ("lost: 0", "lost: none", r"line 12, field slos\.lost: it is 'none'; give a number"),
        ("name: tiny", "name: ../up", r"line 1, field name: it is '\.\./up'"),
        ("seed: 3", "seed: 3\nseed: 4", r"line 4, field seed: it is given twice"),
        ("levels:", "levls:", r"unknown field `levls`"),
        ("measured_triggers: 3", "measured_triggers: 0", r"line 6, field measured_triggers: it is 0"),
        (
            "users: 70, rate_per_s: 100.5",
            "users: 10, rate_per_s: 20",
            r"line 11, field levels\[2\]: it is level 0 again",
        ),
        ("seed: 3", "notebook: walk", r"line 3, field notebook: there is no notebooks/walk\.ipynb"),
        (
            "levels:",
            "search: {factor: users, least: 9, most: 99}\nlevels:",
            "give either `levels`, or `search`",
        ),
        ("about: Two", "about: [Two", r"line \d+ is not valid YAML"),
    ],
)
def test_an_error_points_at_its_line(old: str, new: str, message: str) -> None:
    """Each names the file, the line, the field, the value seen and what to do."""
    with pytest.raises(SettingError, match=r"tiny\.yaml.*" + message):
        tiny(TEXT.replace(old, new, 1))


def test_a_search_is_checked_as_a_level_is() -> None:
    """Its factor is a parameter, and its start makes a run."""
    levels = TEXT[TEXT.index("levels:") : TEXT.index("slos:")]
    search = "search: {factor: rate_per_s, least: 100, most: 900, probes: 12}\n"
    good = TEXT.replace(levels, search).replace(TOGETHER, "")
    assert tiny(good).factors == ("rate_per_s",)
    for old, new, message in (
        ("factor: rate_per_s", "factor: rate", "there is no factor 'rate'"),
        ("probes: 12", "probes: 3", "give a whole number from 6"),
        ("probes: 12", "footprint: 3", "give 6 or more, or 0 for none"),
        ("probes: 12", "placement: ramp", "only campaigns of before have it"),
        ("most: 900", "most: 9", "give at least 1.1 times least"),
    ):
        with pytest.raises(SettingError, match=rf"line 8, field search.*{message}"):
            tiny(good.replace(old, new))
    assert tiny(good).sha256 == tiny(good.replace("probes: 12", "probes: 12, footprint: 0")).sha256
    # As before there were footprints, so that a search that is half done goes on.
    before = msgspec.json.encode(tiny(good), order="deterministic").replace(b'"footprint":0,', b"")
    assert tiny(good).sha256 == hashlib.sha256(before).hexdigest()
    with_footprint = good.replace("probes: 12", "probes: 12, footprint: 6")
    assert tiny(with_footprint).sha256 != tiny(good).sha256
    with pytest.raises(SettingError, match=r"field search\.footprint: its probes set slow_share, which"):
        tiny(with_footprint.replace("clusters: 1", "clusters: 1, slow_share: 0.2"))


def test_a_search_whose_most_cannot_be_planned_is_refused() -> None:
    """Ten users cannot send so often; the search would come to it in the middle of a night."""
    levels = TEXT[TEXT.index("levels:") : TEXT.index("slos:")]
    search = "search: {factor: rate_per_s, least: 100, most: 900000}\n"
    text = TEXT.replace(levels, search).replace("clusters: 1", "users: 10").replace(TOGETHER, "")
    with pytest.raises(SettingError, match=r"line 8, field search\.most: rate_per_s is 900000\.0: 10 users"):
        tiny(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "users: 10, rate_per_s: 20",
            "users: 1, rate_per_s: 20000",
            r"line 9, field levels\[0\]\.users: rate_per_s is",
        ),
        (
            "users: 50, rate_per_s: 100",
            "users: 50, rate_per_s: 0.001",
            r"line 10, field levels\[1\]: measured_triggers",
        ),
        ("trigger_s: 2", "arrivals: bursts, trigger_s: 1", r"line 9, field levels\[0\]: .*a burst lasts 5 s"),
    ],
)
def test_a_load_that_cannot_be_planned_is_refused_before_anything_runs(old: str, new: str, message: str) -> None:
    """Its values are each possible and do not go together: the level is pointed at."""
    with pytest.raises(SettingError, match=r"tiny\.yaml, " + message):
        tiny(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, r"line 5, field parameters\.trace: trace .*replay\.csv does not exist: give the path"),
        ("0,ada\n", r"line 5, field parameters\.trace: trace .*replay\.csv .*'emoji_type'"),
        ("0,ada,😂\n10,ada,x\n", r"line 5, field parameters\.trace: .*line 3, column emoji_type is 'x'"),
        ("0,ada,😂\n9,ada,😂\n8,ada,😂\n", r"line 5, field parameters\.trace: .*line 4, column offset_ms is '8'"),
        (
            "0,ada,😂\n3000,ada,😂\n20000,ada,😂\n",
            r"line 8, field levels\[1\]\.speed: the trace lasts 5\.0 s .* 1 \+ 2 \+ 1 triggers of 2 s take 8 s: lower",
        ),
    ],
)
def test_a_recording_that_cannot_be_replayed_is_refused_before_anything_runs(
    tmp_path: Path, rows: str | None, message: str
) -> None:
    """One that does not exist, lacks a column, holds no emoji, is out of order, or ends too soon for a level."""
    path = tmp_path / "replay.csv"
    if rows is not None:
        header = "offset_ms,user_id,emoji_type\n" if rows.count("😂") else "offset_ms,user_id\n"
        path.write_text(header + rows, encoding="utf-8")
    with pytest.raises(SettingError, match=r"tiny\.yaml, " + message):
        tiny(REPLAY.replace("PATH", str(path)))


def test_a_recording_is_sought_where_the_notebook_will(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the project's folder, wherever the command was given; and it is read once for all levels."""
    rows = "".join(f"{second}000,ada,😂\n" for second in range(34))
    (tmp_path / "replay.csv").write_text(f"offset_ms,user_id,emoji_type\n{rows}", encoding="utf-8")
    reads: list[Path] = []
    read = planning.trace.read

    def counted(path: Path) -> pd.DataFrame:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(planning.trace, "read", counted)
    monkeypatch.setattr(design_file, "ROOT", tmp_path)
    assert len(tiny(REPLAY.replace("PATH", "replay.csv")).levels) == 2
    assert reads == [tmp_path / "replay.csv"]


def test_of_a_long_heavy_plan_only_a_part_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of a hundred million reactions is rehearsed only in part: all of it would take minutes."""
    lengths: list[int] = []
    plan_of = planning.plan_of

    def measured(run: parameters.Parameters, start_ns: int) -> pd.DataFrame:
        plan = plan_of(run, start_ns)
        lengths.append(len(plan))
        return plan

    monkeypatch.setattr(planning, "plan_of", measured)
    heavy = TEXT.replace("users: 70, rate_per_s: 100.5", "users: 5000, rate_per_s: 20000")
    tiny(heavy.replace("_triggers: 3", "_triggers: 2500"))
    assert 50_000 < max(lengths) < 500_000


def test_a_design_that_is_not_there_or_no_mapping_is_named(tmp_path: Path) -> None:
    """The path is named, with designs that are there."""
    with pytest.raises(SettingError, match=r"none\.yaml cannot be read \(no such file.* project: capacity, .*smoke, "):
        design_file.load(tmp_path / "none.yaml")
    with pytest.raises(SettingError, match="holds a list of 1, not a mapping"):
        tiny("- 1\n")


def test_a_kept_design_has_the_hash_that_it_was_started_with() -> None:
    """Another hash would refuse to continue a campaign whose design did not change."""
    state = campaign_file.read(REPORTS / keep.FOLDER / "hundred")
    assert state.design.sha256 == state.design_sha256
