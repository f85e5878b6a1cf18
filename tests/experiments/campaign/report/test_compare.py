"""Two campaigns side by side: true differences are found, equal figures are not, and other differences are named."""

from __future__ import annotations

import html
import json
import math
import re
import shlex
from dataclasses import replace

import pandas as pd
import pytest

from experiments import __main__ as command_line
from experiments.campaign.report import capacity_comparison, compare, differences
from experiments.report.format import NBSP
from experiments.run_files import RunFileError
from experiments.stats.paired import Effect
from experiments.synthetic.campaign import write_synthetic

LEVELS = [{"users": n, "rate_per_s": n} for n in (10, 100, 400)]


def campaign(place, shift_s=0.0, levels=LEVELS, **options):
    """Write a synthetic campaign whose latency is `shift_s` above the synthetic run's."""
    options = {"blocks": 6, "noise": 0.01, **options}
    write_synthetic(place, levels=levels, truth=lambda _: {"shift_s": shift_s}, **options)
    return place


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """A campaign, and one whose latency is 0.2 s higher."""
    place = tmp_path_factory.mktemp("reports")
    return campaign(place / "a", seed=1), campaign(place / "b", 0.2, seed=2)


def test_a_true_difference_is_supported_with_an_interval_about_it(shifted):
    """0.2 s is found at every level in the median latency, with an interval that holds it."""
    table = differences.compare(*shifted)
    medians = table[table["key"] == "e2e_excess_p50_s"]
    assert len(medians) == 3
    assert set(medians["verdict"]) == {"supported"}
    assert ((medians["low"] - 0.02 <= 0.2) & (medians["high"] + 0.02 >= 0.2)).all()
    assert (medians["difference"] > 0.15).all()
    assert (medians["p_holm"] >= medians["p"]).all()


def test_a_percentile_with_few_windows_beyond_it_is_shown_and_not_judged(shifted):
    """Both sides and their difference are there; no interval, no p-value, and no correction for them."""
    table = differences.compare(*shifted)
    rows = table[table["key"].isin(["e2e_excess_p99_s", "batch_p95_s"])]
    assert len(rows) == 6
    assert set(rows["verdict"]) == {"too few windows"}
    assert (rows["difference"] > 0.15).all()
    assert rows[["low", "high", "ratio_low", "ratio_high", "p", "p_holm", "detectable"]].isna().all(axis=None)
    shown = " ".join(compare.findings(table))
    assert "fewer than ten windows lie beyond the percentile: p99 latency above the floor" in shown


def test_it_is_antisymmetric(shifted):
    """B against A is A against B with the sign turned."""
    forth, back = differences.compare(*shifted), differences.compare(*shifted[::-1])
    assert forth["difference"].to_numpy() == pytest.approx(-back["difference"].to_numpy())
    assert forth["ratio"].to_numpy() == pytest.approx(1 / back["ratio"].to_numpy(), nan_ok=True)
    assert list(forth["verdict"]) == list(back["verdict"])


def test_no_difference_is_claimed_between_equal_chains(tmp_path):
    """Over eight pairs of campaigns of the same chain hardly one false difference is called supported."""
    claimed = 0
    for seed in range(8):
        a = campaign(tmp_path / f"a{seed}", seed=100 + seed)
        b = campaign(tmp_path / f"b{seed}", seed=200 + seed)
        claimed += bool((differences.compare(a, b)["verdict"] == "supported").any())
    assert claimed <= 1


def test_text_names_supported_differences_and_equal_figures(shifted):
    """The text names figure, direction, size and interval, equal figures, and the number of comparisons."""
    text = compare.main_text(*shifted)
    assert re.search(
        r"The median latency above the floor is higher in B with 10 users by \d+ % \(\+\d+ to \+\d+; "
        r"\+\d+ ms, \+\d+ to \+\d+\), with 100",
        text,
    )
    assert "Equal in every run: throughput" in text
    assert "comparisons were made" in text
    assert "Holm" in text
    assert NBSP not in text
    assert "is lower in B" in compare.main_text(*shifted[::-1])


def test_the_same_campaign_twice_differs_in_nothing(shifted):
    """A against A: no difference, and no warning but that the campaigns were not made in turn."""
    text = compare.main_text(shifted[0], shifted[0])
    assert "No difference is supported." in text
    assert text.count("! ") == 1
    assert "! The two campaigns were made one after the other" in text
    assert "●" not in text.partition("Columns:")[0]


def test_other_differences_are_named(tmp_path, shifted):
    """Levels in one only, another design, commit, machine, invalid and unfinished runs: each in a sentence."""
    levels = [*LEVELS[1:], {"users": 800, "rate_per_s": 800}]
    other = campaign(tmp_path / "other", levels=levels, unfinished=2, faults={0: {"reasons": ["no"]}})
    about = json.loads((other / "campaign.json").read_text())
    about["design"]["measured_triggers"] = 7
    about["design"]["parameters"]["trigger_s"] = 2
    (other / "campaign.json").write_text(json.dumps(about))
    for path in other.glob("runs/*/manifest.json"):
        changed = {"commit": "0123456789abcdef", "cpu": "Abacus", "dirty": True}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    text = " ".join(differences.context(shifted[0], other)).replace(NBSP, " ")
    assert "Only A has the level 10 users." in text
    assert "Only B has the level 800 users." in text
    assert "B is not finished: 16 of 18 runs." in text
    assert "Of B's 16 runs one is invalid, and left out." in text
    assert "measured_triggers 6 and 7" in text
    assert "trigger_s 6.0 and 2" in text
    assert "different commits: A synthetic, B 0123456789ab." in text
    assert "different machines" in text
    assert "uncommitted changes" in text
    assert set(differences.compare(shifted[0], other)["words"]) == {f"100{NBSP}users", f"400{NBSP}users"}


def test_five_blocks_are_too_few(tmp_path):
    """However far apart two campaigns of five blocks are, no interval is stated and nothing is called supported."""
    a, b = campaign(tmp_path / "a", blocks=5), campaign(tmp_path / "b", 3.0, blocks=5, seed=2)
    table = differences.compare(a, b)
    assert set(table["verdict"]) == {"too few blocks"}
    assert table[["p", "low", "ratio_high", "detectable"]].isna().all().all()
    text = compare.main_text(a, b)
    assert "fewer than six), so that no interval is stated: 10 users; 100 users; 400 users." in text
    assert "no interval" in text


def test_no_difference_has_its_smallest_detectable_effect_beside_it(tmp_path):
    """The text and the page say what as many blocks would have found."""
    a, b = campaign(tmp_path / "a", noise=0.05, seed=1), campaign(tmp_path / "b", noise=0.05, seed=5)
    table = differences.compare(a, b)
    none = table[(table["verdict"] == "not supported") & table["ratio"].notna()]
    assert (none["detectable"] > none["ratio_high"].where(none["ratio"] > 1, 1)).mean() > 0.5
    assert re.search(r"smallest detectable \d+ %", compare.main_text(a, b))
    assert "smallest detectable" in compare.write(a, b, tmp_path).read_text(encoding="utf-8")


def test_interval_without_holm_is_a_hint():
    """Verdicts follow interval and corrected p together."""
    found = Effect("ratio", 6, 1.2, 1.1, 1.3, 0.03, 0.1)
    assert differences._verdict(found, 0.2) == "hint"
    assert differences._verdict(found, 0.04) == "supported"
    assert differences._verdict(replace(found, low=0.9), 0.04) == "not supported"
    assert differences._verdict(replace(found, p=math.nan), math.nan) == "alike"


def test_no_common_level_gives_an_empty_table_and_a_sentence(tmp_path, shifted):
    """Campaigns without a common level give an empty table and a sentence."""
    other = campaign(tmp_path / "other", levels=[{"policy": "ceil"}, {"policy": "floor"}])
    assert differences.compare(shifted[0], other).empty
    assert not compare.comparable(shifted[0], other)
    assert compare.comparable(*shifted)
    assert "There is nothing to compare" in compare.main_text(shifted[0], other)
    page = compare.write(shifted[0], other, tmp_path / "out.html")
    assert "There is nothing to compare" in page.read_text(encoding="utf-8")


def test_the_page_is_whole_and_carries_its_data(tmp_path, shifted):
    """No scripts, nothing fetched, every link leads to a file; into a directory it goes by both names."""
    page = compare.write(*shifted, tmp_path)
    assert page == tmp_path / "compare-a-b.html"
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
    links = set(re.findall(r'href="([^"#]+)"', text))
    assert links == {"compare-a-b.csv"}
    assert list(pd.read_csv(tmp_path / "compare-a-b.csv").columns) == differences.COLUMNS
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_command_of_a_comparison_is_quoted(tmp_path):
    """A shell gives back both directories."""
    places = [campaign(tmp_path / name) for name in ("o'brien", "a (1)&b")]
    text = html.unescape(compare.write(*places, tmp_path / "out.html").read_text(encoding="utf-8"))
    (command,) = re.findall(r"<code>(python.*?)</code>", text)
    assert shlex.split(command) == ["python", "-m", "experiments", "compare", *map(str, places)]


def test_reports_directory_is_made_if_it_does_not_exist(tmp_path, shifted, capsys):
    """The page is in the directory that --reports names, under the names of both campaigns."""
    with pytest.raises(SystemExit, match=r"^0$"):
        command_line.main(["compare", *map(str, shifted), "--reports", str(tmp_path / "new" / "reports")])
    page = tmp_path / "new" / "reports" / f"compare-{shifted[0].name}-{shifted[1].name}.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    assert page.is_file()


def test_directory_without_campaign_is_refused(tmp_path, shifted):
    """The error names the directory and how to make a campaign."""
    with pytest.raises(RunFileError, match=r"campaign\.json is missing.*emostream sweep"):
        compare.main_text(shifted[0], tmp_path)


SEARCH = {"factor": "rate_per_s", "least": 1000, "most": 16000, "probes": 12}
LOADS = (1000, 2000, 4000, 8000, 1300, 2600, 5200, 10400, 1700, 3400, 6800, 13600)


def search(place, limit, **options):
    """Write a search that probed LOADS once each, of a chain that carries `limit`."""

    def truth(factors):
        return {"headroom": 0.2 if factors["rate_per_s"] <= limit else 0.95}

    levels = [{"rate_per_s": load} for load in LOADS]
    write_synthetic(place, levels=levels, truth=truth, noise=0.001, search=SEARCH, **options)
    return place


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (2200, 9000, r"B carries more than A: \d+\u00a0% more \(95\u00a0% interval \d+\u00a0% to \d+\u00a0%\)"),
        (2200, 99000, r"B carries more than A: \d+\u00a0% more \(95\u00a0% interval at least \d+\u00a0%\)"),
        (3000, 3000, r"No difference is supported: B’s capacity is 0\.\d+ to 1\.\d+ times A’s"),
        (99000, 99000, r"No difference is supported: B’s capacity is 0\.00 to any number of times A’s"),
    ],
)
def test_two_searches_are_compared_by_the_ratio(tmp_path, a, b, words):
    """If the interval of the ratio leaves 1 out, which carries more and by how much; else no difference; both ways."""
    places = search(tmp_path / "a", a), search(tmp_path / "b", b)
    words = words.replace("\\u00a0", " ")
    assert re.search(words, compare.main_text(*places))
    turned = words.translate(str.maketrans("AB", "BA")).replace("B’s capacity", "[AB]’s capacity")
    turned = turned.replace("times A’s", "times [AB]’s").replace("times B’s", "times [AB]’s")
    assert re.search(turned.replace("A’s capacity", "[AB]’s capacity"), compare.main_text(*places[::-1]))


def test_no_difference_of_two_searches_says_what_would_have_been_found(tmp_path):
    """Beside "no difference" stands the smallest one that such searches find."""
    text = compare.main_text(search(tmp_path / "a", 3000), search(tmp_path / "b", 3000))
    assert re.search(r"Two such searches find a difference of \d+ % or more in 80 % of cases", text)


def test_words_and_page_of_two_searches_have_their_intervals_and_no_levels(tmp_path):
    """Each capacity, and that a search is not at its end; probes are not compared one by one."""
    a, b = search(tmp_path / "a", 2200), search(tmp_path / "b", 9000, faults={0: {"reasons": ["no"]}})
    text = compare.main_text(a, b)
    assert re.search(
        r"A: The chain meets every objective in nine runs of ten at 2,\d\d0 reactions/s \(95 % interval", text
    )
    assert "B: The search has not ended." in text
    assert "A: The search has not ended." not in text
    assert "Of B's twelve runs one is invalid, and left out." in text
    assert "Too few" not in text
    assert "has the level" not in text
    page = compare.write(a, b, tmp_path).read_text(encoding="utf-8")
    assert "B carries more than A" in page
    assert "Capacity of each" in page
    assert "Level by level" not in page
    data = pd.read_csv(tmp_path / "compare-a-b.csv")
    assert list(data.columns) == capacity_comparison.COLUMNS
    assert data["probes"].tolist() == [12, 11]
    assert data["low"][0] < 2200 < data["high"][0]


def test_searches_without_a_common_factor_or_load_have_no_verdict(tmp_path):
    """Nothing measured, or another factor: no verdict; a search beside another campaign goes level by level."""
    a = search(tmp_path / "a", 1500)
    nothing = search(tmp_path / "b", 1500, faults={index: {"reasons": ["no"]} for index in range(7)})
    assert "There is nothing to compare: B has fewer than 6 valid probes." in compare.main_text(a, nothing)
    assert not compare.comparable(a, nothing)
    assert compare.comparable(a, a)
    users = SEARCH | {"factor": "users"}
    levels = [{"users": 1000}]
    write_synthetic(tmp_path / "c", levels=levels, search=users)
    assert "A seeks the highest rate_per_s, B the highest users" in compare.main_text(a, tmp_path / "c")
    assert capacity_comparison.searches(a, campaign(tmp_path / "d", blocks=1)) is None


def test_cores_used_are_those_of_the_stages() -> None:
    """The machine's total, other programs and the kernel's interrupts are no stages."""
    shares = {"spark": 0.5, "load": 0.25, "machine": 1.5, "others": 0.5, "interrupts": 0.25}
    runs = pd.DataFrame([{f"cpu_share_{name}": share for name, share in shares.items()}])
    assert differences.with_cores(runs)["cores_used"].tolist() == [0.75]
