"""A capacity campaign read from its directory: what the notebook asks for, and nothing of its own."""

from __future__ import annotations

from pathlib import Path

from experiments.campaign.report import capacity, levels, provenance
from experiments.campaign.report import read as campaign_data
from pipeline.errors import SettingError


def read(campaign_dir: Path) -> capacity.Found:
    """Return what the search in `campaign_dir` found, finished or not.

    Raises SettingError naming the file for what is missing or damaged, and for a campaign without a `search`.
    """
    about = campaign_data.about(campaign_dir)
    runs = levels.derived(campaign_data.runs(campaign_dir))
    try:
        found = capacity.found(about, runs, provenance.facts(campaign_dir, runs).cores)
    except TypeError as error:
        given = about["design"]["search"]
        raise SettingError(
            f"{campaign_dir / 'campaign.json'}: search is {given!r}: give factor, start, growth, most and resolution"
        ) from error
    if found is None:
        raise SettingError(
            f"{campaign_dir} is no search for a capacity: the design in its campaign.json has no `search`. Give the "
            "directory of such a campaign, or make one with: python -m experiments sweep "
            "experiments/designs/capacity.yaml"
        )
    return found
