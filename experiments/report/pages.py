"""What all pages share: the templates, and how figures are written in tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments import files
from experiments.report import svg
from experiments.report.sentences import seconds

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Return a page as text: it needs no script, and fetches nothing."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds, "ms": ms, "share": share, "whole": whole, "plain": plain}
    return environment.get_template(template).render(light=svg.LIGHT, dark=svg.DARK, **values)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows as a template reads them."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> str:
    """Return any value as a table shows it, a dash for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def ms(value: float) -> str:
    """Return milliseconds without their unit."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def share(value: float | None) -> str:
    """Return a share in per cent, never rounded up to a perfect one."""
    if value is None or math.isnan(value):
        return "–"
    # 99.98 % must not be rounded into a perfect score.
    return (
        f"{math.floor(value * 1000) / 10:.1f} %" if 0.99 < value < 1 else f"{value * 100:.1f} %".replace("100.0", "100")
    )


def whole(value: int) -> str:
    """Return an integer with its digits in groups."""
    return f"{value:,}"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write strict JSON: NaN (not measured) as null, +inf (never arrived) as "inf"."""
    files.write_text(path, json.dumps(_strict(values), indent=2, ensure_ascii=False) + "\n")


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
