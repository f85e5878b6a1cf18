"""A campaign is kept with its rows: lossless, pinned, described, and only if everything agrees."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rocrate.rocrate import ROCrate

from experiments import ledger, run_files
from experiments.campaign import campaign_file, crate, keep, kept_rows, reanalyse
from experiments.run_files import RunFileError
from experiments.synthetic.rows import write_campaign
from pipeline.errors import EmoStreamError, SettingError
from tests.harness.paths import REPOSITORY

RUN = "20261120T000000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign of two runs."""
    directory = tmp_path_factory.mktemp("reports") / "two"
    write_campaign(directory, runs=2)
    return directory


@pytest.fixture(scope="module")
def kept(made: Path) -> Path:
    """The same campaign, kept."""
    return keep.keep(made, made.parent)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the campaign that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "two"))


@pytest.fixture
def kept_copy(kept: Path, tmp_path: Path) -> Path:
    """A copy of the kept campaign that a test may damage."""
    return Path(shutil.copytree(kept, tmp_path / "reference" / "two"))


def frames(run_dir: Path) -> dict[str, pd.DataFrame]:
    """The frames of a run, kept or not."""
    return reanalyse.frames(run_dir, run_files.manifest(run_dir))


def test_every_frame_is_lossless_and_the_plan_is_made_again(made: Path, kept: Path) -> None:
    """Bit by bit, types included; no plan is among the files, and the texts of the topic follow from it."""
    before, after = frames(made / "runs" / RUN), frames(kept / "runs" / RUN)
    for name in ledger.COLUMNS:
        pd.testing.assert_frame_equal(before[name], after[name], check_exact=True)
    assert not (kept / "runs" / RUN / "plan.parquet").exists()
    assert pd.read_parquet(kept / "runs" / RUN / "topic.parquet")["timestamp"].isna().all()


def test_a_record_that_the_plan_does_not_have_keeps_its_texts(made: Path) -> None:
    """An altered record, one that nobody sent, and a doubled one come back as they were."""
    about = run_files.manifest(made / "runs" / RUN)
    rows = frames(made / "runs" / RUN)
    topic = pd.concat([rows["topic"], rows["topic"].tail(1)], ignore_index=True)
    topic.loc[5, "emoji_type"] = "🦄"
    topic.loc[6, "user_id"] = "nobody"
    packed, needed = kept_rows.packed({**rows, "topic": topic}, about["parameters"])
    assert packed["topic"]["emoji_type"].dropna().tolist() == ["🦄", topic["emoji_type"][6]]
    assert packed["topic"]["user_id"].dropna().tolist() == ["nobody"]
    pd.testing.assert_frame_equal(kept_rows.unpacked(packed, needed, about["parameters"])["topic"], topic)


def test_a_plan_that_the_parameters_do_not_give_is_kept(made: Path) -> None:
    """As of a recording that is gone, or a plan of other code."""
    about = run_files.manifest(made / "runs" / RUN)
    rows = frames(made / "runs" / RUN)
    rows["plan"] = rows["plan"].assign(t_intended_ns=rows["plan"]["t_intended_ns"] + np.arange(len(rows["plan"])))
    packed, needed = kept_rows.packed(rows, about["parameters"])
    assert needed == {}
    pd.testing.assert_frame_equal(packed["plan"], rows["plan"])


def test_a_warm_up_that_ended_early_is_made_again(made: Path) -> None:
    """The rest of it is left out, and the measured phase moved by whole triggers."""
    about = run_files.manifest(made / "runs" / RUN)
    rows = frames(made / "runs" / RUN)
    plan, warm_up = rows["plan"], rows["plan"]["phase"] == "warm-up"
    rest = plan[~warm_up]
    moved = rest.assign(t_intended_ns=rest["t_intended_ns"] - 6_000_000_000)
    rows["plan"] = pd.concat([plan[warm_up].head(50), moved], ignore_index=True)
    packed, needed = kept_rows.packed(rows, about["parameters"])
    assert [piece[2] for piece in needed["plan"]["pieces"]] == [0, -6_000_000_000]
    assert "plan" not in packed
    pd.testing.assert_frame_equal(kept_rows.unpacked(packed, needed, about["parameters"])["plan"], rows["plan"])


def test_a_plan_that_the_code_makes_otherwise_now_is_an_error(kept_copy: Path) -> None:
    """The message names the run, the cause and the remedy."""
    path = kept_copy / "runs" / RUN / "manifest.json"
    about = json.loads(path.read_text())
    about["kept"]["plan"]["sha256"] = "0" * 64
    path.write_text(json.dumps(about))
    with pytest.raises(RunFileError, match=rf"{RUN} cannot be unpacked \(the plan that its seed gives now is not"):
        reanalyse.analysed(kept_copy / "runs" / RUN)


def test_the_report_of_a_kept_campaign_is_written_again(kept_copy: Path) -> None:
    """From the rows that are kept, the same figures."""
    before = (kept_copy / "runs" / RUN / "summary.json").read_bytes()
    assert reanalyse.report(kept_copy) == kept_copy / "index.html"
    assert (kept_copy / "runs" / RUN / "summary.json").read_bytes() == before


def test_a_kept_campaign_is_described_again(kept_copy: Path, tmp_path: Path) -> None:
    """Its page may say more of the same rows by now. Without a change it is the same to the byte; damage is refused."""
    before = (kept_copy / keep.SUMS).read_text()
    assert keep.keep(kept_copy, tmp_path) == kept_copy
    assert (kept_copy / keep.SUMS).read_text() == before
    keep.check(kept_copy)
    crate.check(kept_copy)
    page = kept_copy / "index.html"
    page.write_text("changed")
    with pytest.raises(RunFileError, match=r"index\.html has another SHA-256"):
        keep.keep(kept_copy, tmp_path)


def test_no_name_of_the_machine_is_kept(made: Path, kept: Path) -> None:
    """Paths are cut down to their last name; the measured manifest had some."""
    assert str(made) in (made / "runs" / RUN / "manifest.json").read_text()
    texts = [path.read_text() for path in kept.rglob("*") if path.suffix in (".json", ".html")]
    assert not any(str(made.parent) in text for text in texts)
    assert run_files.manifest(kept / "runs" / RUN)["jvm_flags"]["kafka"] == ["-Ddata.dir=…/chain", "-Xmx512m"]
    assert campaign_file.read(kept).design_path == "…/design.yaml"


def test_hostname_in_a_page_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for in every text that is kept; nothing is kept then."""
    monkeypatch.setattr(keep.platform, "node", lambda: "Synthetic")
    with pytest.raises(RunFileError, match="holds 'Synthetic', a name of this machine"):
        keep.keep(copy, tmp_path)
    assert list((tmp_path / keep.FOLDER).iterdir()) == []


def test_pins_name_every_file(kept: Path) -> None:
    """SHA256SUMS has each of them but itself, with the hash that it has."""
    sums = keep.check(kept)
    there = {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
    assert set(sums) == set(there) - {keep.SUMS}
    assert all(hashlib.sha256(there[name].read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_crate_is_read_back_with_its_facts(kept: Path) -> None:
    """Licence, authors, dates, the design, the commit, and each file with its hash."""
    read = ROCrate(str(kept))
    root = read.root_dataset
    assert root["license"].id == "https://spdx.org/licenses/MIT"
    assert root["author"]["name"] in (REPOSITORY / "LICENSE").read_text()
    assert root["datePublished"] == campaign_file.read(kept).ended
    assert read.get("#emostream")["identifier"] == ["commit synthetic"]
    assert json.loads(read.get("#design")["text"])["name"] == "synthetic"
    topic = read.get(f"runs/{RUN}/topic.parquet")
    assert topic["sha256"] == keep.check(kept)[f"runs/{RUN}/topic.parquet"]
    assert len(read.data_entities) == len(crate.contents(kept)) - 1  # without SHA256SUMS, which is written after it


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda crate: crate.pop("@graph"), "is not an RO-Crate"),
        (lambda crate: crate["@graph"][1].pop("license"), "lacks `license` of its root"),
        (lambda crate: _entity(crate, "campaign.json").update(sha256="0" * 64), "another SHA-256 for campaign.json"),
        (lambda crate: _entity(crate, "campaign.json").update({"@id": "gone.json"}), "names gone.json, which is not"),
    ],
)
def test_a_crate_that_is_wrong_is_named(kept_copy: Path, damage: Callable[[dict], object], message: str) -> None:
    """No graph, no licence, another hash, a file that is not there."""
    path = kept_copy / crate.NAME
    content = json.loads(path.read_text())
    content["@graph"].sort(key=lambda entity: entity["@id"] not in ("ro-crate-metadata.json", "./"))
    if content["@graph"][0]["@id"] == "./":
        content["@graph"][:2] = content["@graph"][1::-1]
    damage(content)
    if "gone.json" in message:
        for part in _entity(content, "./")["hasPart"]:
            part["@id"] = part["@id"].replace("campaign.json", "gone.json")
    path.write_text(json.dumps(content))
    with pytest.raises(RunFileError, match=message):
        crate.check(kept_copy)


def _entity(crate: dict, identifier: str) -> dict:
    return next(entity for entity in crate["@graph"] if entity["@id"] == identifier)


def cut_short(run: Path) -> None:
    """Half a frame."""
    path = run / "topic.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_row_less(run: Path) -> None:
    """A frame without its last row."""
    rows = pd.read_parquet(run / "sent.parquet")
    rows.iloc[:-1].to_parquet(run / "sent.parquet", index=False)


def no_frame(run: Path) -> None:
    """A frame that is not there."""
    (run / "usage.parquet").unlink()


def another_summary(run: Path) -> None:
    """A figure that somebody has changed."""
    path = run / "summary.json"
    path.write_text(path.read_text().replace('"counted": ', '"counted": 1'))


def no_hashes(run: Path) -> None:
    """A run of an earlier version."""
    path = run / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "frames"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, r"topic\.parquet is cut off or damaged"),
        (a_row_less, r"sent\.parquet is not the file that the run left"),
        (no_frame, r"usage\.parquet is missing"),
        (another_summary, r"summary\.json differs from the rows in counted: counted is 1\d+, the rows give \d+"),
        (no_hashes, r"manifest\.json has no SHA-256 of each frame"),
    ],
)
def test_nothing_is_kept_of_a_campaign_that_contradicts_itself(
    copy: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """The file is named; no half of a campaign is left behind."""
    damage(copy / "runs" / RUN)
    with pytest.raises(RunFileError, match=message):
        keep.keep(copy, tmp_path)
    assert list((tmp_path / keep.FOLDER).iterdir()) == []


def test_an_unfinished_campaign_is_refused(copy: Path, tmp_path: Path) -> None:
    """With the remedy."""
    path = copy / "campaign.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": None}))
    with pytest.raises(SettingError, match="is not finished: finish it with emostream sweep"):
        keep.keep(copy, tmp_path)


def test_a_campaign_is_not_replaced(made: Path, kept: Path) -> None:
    """A second one of that name needs another name."""
    with pytest.raises(SettingError, match="is there: give another name with --name"):
        keep.keep(made, made.parent)
    assert keep.keep(made, made.parent, "second").name == "second"
    shutil.rmtree(kept.parent / "second")


def test_too_much_is_refused_with_the_sizes(made: Path, kept: Path) -> None:
    """Of the campaigns that are kept, and of each run of the new one."""
    with pytest.raises(SettingError, match=rf"more than 0\.3 MB \(two 0\.\d MB; run {RUN} 0\.\d MB.*sweep with fewer"):
        keep.keep(made, made.parent, "second", budget=300_000)
    assert [path.name for path in kept.parent.iterdir()] == ["two"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: (kept / "runs" / RUN / "sent.parquet").unlink(), r"sent\.parquet is missing"),
        (lambda kept: a_row_less(kept / "runs" / RUN), r"sent\.parquet has another SHA-256 than SHA256SUMS names"),
        (lambda kept: (kept / keep.SUMS).write_text("nonsense\n"), r"SHA256SUMS has the line 'nonsense'"),
        (lambda kept: (kept / keep.SUMS).unlink(), r"SHA256SUMS is missing"),
    ],
)
def test_pins_catch_a_change(kept_copy: Path, change: Callable[[Path], object], message: str) -> None:
    """The file is named, with the remedy."""
    change(kept_copy)
    with pytest.raises(EmoStreamError, match=message):
        keep.check(kept_copy)
