"""What the soak says of memory: growth is found with its size; noise, the start and the instrument are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.bench.soak import SETTLING_S, growth, load
from pipeline.errors import SettingError

MB = 2**20


def sampled(stage: str, grown_mb_min: float, *, minutes: float = 30, start_mb: float = 0.0) -> pd.DataFrame:
    """A stage's memory every two seconds: 500 MB with 5 MB of noise, growth, and some more after the start."""
    t_s = np.arange(0, minutes * 60, 2.0)
    noise = np.random.default_rng(7).normal(0, 5, len(t_s))
    rss_mb = 500 + grown_mb_min * t_s / 60 + noise + np.where(t_s < SETTLING_S, start_mb * t_s / SETTLING_S, start_mb)
    return pd.DataFrame({"t_ns": (t_s * 1e9).astype(np.int64), "stage": stage, "rss_bytes": (rss_mb * MB).astype(int)})


def test_growth_is_found_with_its_size() -> None:
    """Two megabytes a minute, within its interval."""
    found = growth(sampled("spark", 2.0))["spark"]
    assert found["low"] <= 2.0 <= found["high"]
    assert found["low"] > 1.5
    assert found["last"] - found["first"] == pytest.approx(50, abs=8)


def test_noise_and_the_start_are_no_growth() -> None:
    """The interval of a stage that fills its caches first holds zero."""
    found = growth(sampled("ingest", 0.0, start_mb=300.0))["ingest"]
    assert found["low"] <= 0 <= found["high"]


def test_the_instrument_and_the_whole_machine_are_left_out() -> None:
    """They keep what they send and receive."""
    usage = pd.concat(
        [
            sampled(name, 9.0)
            for name in ("machine", "interrupts", "others", "measurement", "load", "receivers", "kafka")
        ]
    )
    assert set(growth(usage)) == {"kafka"}


def test_without_a_capacity_there_is_no_load(tmp_path: Path) -> None:
    """The error names the folder and the sweep."""
    with pytest.raises(SettingError, match=r"nowhere has no capacity .* emostream sweep capacity_rows"):
        load(tmp_path / "nowhere")
