"""Faults done to a real chain during a real run: the instrument catches each and names it.

They are those of experiments.instrument. `make instrument` plants all of them, each in a run of its own; here several
share a run on the chain that is up.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.instrument import live
from experiments.instrument.fault import Outcome
from experiments.instrument.live_faults import CHAIN
from experiments.machine import machine_lock

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

TOGETHER = ("chain-lost", "chain-doubled", "chain-altered", "chain-generator-stopped", "chain-subscriber-stopped")


@pytest.fixture(scope="module")
def outcomes(ready_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What was found of each fault in one run: a proxy that lies, a generator and a subscriber that are stopped."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_lock, "FOLDER", folder)
        found = live.on_chain([CHAIN[name] for name in TOGETHER], ready_file, live.Place(folder, "shared", ""), "run")
    return {outcome.name: outcome for outcome in found}


@pytest.mark.parametrize("name", TOGETHER)
def test_fault_on_the_chain_is_caught_under_its_name(name: str, outcomes: dict[str, Outcome]) -> None:
    """And under no other."""
    assert outcomes[name].named, outcomes[name]
