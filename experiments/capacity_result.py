"""A capacity campaign read from its directory: what the notebook asks for, and nothing of its own."""

from __future__ import annotations

from pathlib import Path

from experiments import campaign_capacity, campaign_data, campaign_facts, campaign_levels
from pipeline.errors import SettingError


def read(campaign_dir: Path) -> campaign_capacity.Found:
    """Return what the search in `campaign_dir` found, finished or not.

    Raises SettingError naming the file for what is missing or damaged, and for a campaign without a `search`.
    """
    about = campaign_data.about(campaign_dir)
    runs = campaign_levels.derived(campaign_data.runs(campaign_dir))
    try:
        found = campaign_capacity.found(about, runs, campaign_facts.facts(campaign_dir, runs).cores)
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
