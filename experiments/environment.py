"""The environment of the instrument's processes: the chain's, and without what is set there for still other programs.

Jupyter, IPython, papermill, matplotlib, Locust, Airflow and others take settings from variables that people set for
other work. An experiment must not depend on them: this project gives these programs all that they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline import environment

OTHERS = (
    *("AIRFLOW", "_AIRFLOW", "GEVENT", "IPYKERNEL", "IPYTHON", "JPY_", "JUPYTER", "LOCUST", "NBCLIENT", "PAPERMILL"),
    # They switch the fast half of these packages off, or change what they compute.
    *("AIOHTTP_", "FROZENLIST_", "MULTIDICT_", "PANDAS_", "PROPCACHE_", "YARL_"),
    # Not MPLCONFIGDIR: it only says where matplotlib keeps its list of fonts.
    *("MATPLOTLIBRC", "MPLBACKEND"),
)
"""The beginnings of the names of variables that do not apply."""
PROXIES = frozenset(f"{scheme}_proxy" for scheme in ("http", "https", "all", "ftp", "no"))
"""The variables that name proxies, in small letters; programs read them in capital letters as well."""


def own(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` for a process of the instrument."""
    return {name: value for name, value in environment.own(env).items() if not name.startswith(OTHERS)}


def without_proxies(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` for programs that ask only this machine, where a proxy may refuse."""
    return {name: value for name, value in env.items() if name.lower() not in PROXIES}


def of_kernel(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return `env` for a notebook's kernel that keeps its own files in `folder`."""
    keeping = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    return {**own(env), **dict.fromkeys(keeping, str(folder))}
