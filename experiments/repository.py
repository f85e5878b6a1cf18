"""The paths of the project's folders. It imports little, because a scheduler imports it again and again.

They are those of the checkout. A package that was installed from a wheel has the notebooks and the DAGs in itself, and
keeps reports and state below the working directory.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file() and (PACKAGE.parent / "notebooks").is_dir()
"""Whether this is a checkout of the repository, and not an installed wheel."""
ROOT = PACKAGE.parent if CHECKOUT else Path.cwd()
DESIGNS = PACKAGE / "designs"
NOTEBOOKS = (ROOT if CHECKOUT else PACKAGE) / "notebooks"
DAG_FILES = (ROOT if CHECKOUT else PACKAGE) / "dags"
REPORTS = ROOT / "reports"
