"""What all pages share: the templates and their filters, rows of tables, and strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments import files
from experiments.report import format as forms
from experiments.report import svg

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Return a page as text: it has no script and loads nothing from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(forms, name) for name in ("seconds", "ms", "share", "whole", "plain", "hop_name")
    }
    return environment.get_template(template).render(light=svg.LIGHT, dark=svg.DARK, **values)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows as a template reads them."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write strict JSON: NaN (not measured) as null, +inf (never arrived) as "inf"."""
    files.write_text(path, strict_json(values) + "\n")


def strict_json(values: Mapping[str, Any]) -> str:
    """Return the text that `write_json` writes."""
    return json.dumps(_strict(values), indent=2, ensure_ascii=False)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
