"""`python -m experiments lab`: the notebooks in JupyterLab, whose kernels are this interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from experiments import environment, files
from experiments.repository import CHECKOUT, NOTEBOOKS
from pipeline.errors import SettingError
from pipeline.jars import default_cache_dir


def command(arguments: Sequence[str], user_id: int) -> list[str]:
    """Return the command line of JupyterLab, with further `arguments` of its own.

    What it says of kernels takes precedence over every configuration file.
    """
    return [
        *(sys.executable, "-m", "jupyterlab", str(NOTEBOOKS)),
        "--ServerApp.kernel_spec_manager_class=experiments.run.kernel.OwnKernels",
        # No kernels of a gateway on another machine.
        "--GatewayClient.url=",
        # In a container the user often is root. JupyterLab listens on loopback only, and asks for a token.
        *(["--allow-root"] if user_id == 0 else []),
        *arguments,
    ]


def main(arguments: Sequence[str]) -> NoReturn:
    """Become JupyterLab. Its settings, and what IPython keeps, are in the user's cache, apart from other Jupyters'.

    Raises SettingError where the project was installed from a wheel: its notebooks are to be edited.
    """
    if not CHECKOUT:
        raise SettingError(
            f"the notebooks in {NOTEBOOKS} belong to an installed package: clone the repository to open them, or carry "
            "one out with `emostream experiment --notebook`"
        )
    folder = default_cache_dir(os.environ) / "jupyter"
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    os.execve(sys.executable, command(arguments, os.getuid()), environment.of_kernel(os.environ, folder))
