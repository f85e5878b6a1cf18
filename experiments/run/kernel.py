"""The kernel that carries out a notebook: this interpreter, whatever kernels and settings the user's Jupyter has."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from experiments import environment
from pipeline.socket_folder import socket_folder

# Jupyter makes the sockets kernel-ipc-1 to kernel-ipc-5.
LONGEST_SOCKET = "kernel-ipc-5"
# At its end Jupyter interrupts it, about which it would complain on standard error. A notebook's errors are not logged.
QUIET = "--log-level=CRITICAL"


class OwnKernels(KernelSpecManager):
    """Knows one kernel, `python3`: the interpreter that runs this process.

    Jupyter itself prefers a kernel of that name which another environment has installed for the user.
    """

    def _kernel_dirs_default(self) -> list[str]:
        return []

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return the spec of this interpreter, whatever name the notebook was saved with."""
        found = KernelSpec(**get_kernel_dict(), resource_dir=self.find_kernel_specs()[NATIVE_KERNEL_NAME])
        # Without it JUPYTER_DEFAULT_PROVISIONER_NAME decides where the kernel runs.
        found.metadata = {**found.metadata, "kernel_provisioner": {"provisioner_name": "local-provisioner"}}
        return found


class LocalKernel(AsyncKernelManager):
    """A kernel of this interpreter, reached by Unix sockets: one on TCP prints a warning into every notebook.

    Its sockets, its connection file and what IPython keeps are in a temporary folder of its own, which ends with it.
    """

    transport = "ipc"

    def __init__(self, **given: Any) -> None:
        folder = socket_folder(LONGEST_SOCKET)
        self._folder = Path(folder.name)
        self._remove = weakref.finalize(self, folder.cleanup)
        place = {"connection_file": str(self._folder / "kernel.json")}
        super().__init__(**{**given, **place, "kernel_name": NATIVE_KERNEL_NAME, "kernel_spec_manager": OwnKernels()})

    async def start_kernel(self, **given: Any) -> None:  # type: ignore[override]
        """Start it in an environment without other programs' settings; `given` as Jupyter's."""
        options = [*given.get("extra_arguments", ()), QUIET]
        own = {"env": environment.of_kernel(os.environ, self._folder), "extra_arguments": options}
        await super().start_kernel(**{**given, **own})

    async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]
        """Remove its files; the notebook's client calls this at its end."""
        await super().cleanup_resources(restart)
        if not restart:
            self._remove()
