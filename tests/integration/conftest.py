"""Two real chains for the tests that only need one to be up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.run import chain
from experiments.run.chain import Endpoints

# Quick windows and few processes: these tests ask whether it works, not how fast it is.
SETTINGS: dict[str, object] = {"trigger_s": 2.0, "ingest_workers": 1}


@pytest.fixture(scope="session")
def chain_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The endpoints of a chain that is measured: 2 clusters of 1 subscriber, 2-second windows."""
    with chain.started({**SETTINGS, "clusters": 2, "subscribers": 1}, tmp_path_factory.mktemp("chain")) as endpoints:
        yield endpoints


@pytest.fixture(scope="session")
def ready_file(chain_up: Endpoints) -> Path:
    """The ready file of that chain: what `attach` takes."""
    return Path(chain_up.run_dir) / "ready.json"


@pytest.fixture(scope="session")
def two_subscribers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The endpoints of a chain whose subscribers may be killed: when one dies its clients go to the other."""
    with chain.started({**SETTINGS, "clusters": 1, "subscribers": 2}, tmp_path_factory.mktemp("two")) as endpoints:
        yield endpoints
