"""Kernels that nbgrader starts by itself, for autograding and validating: on unix sockets, as those of people are."""

from __future__ import annotations

import uuid
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import default


class IpcKernelManager(AsyncKernelManager):
    """A kernel whose sockets lie beside its connection file.

    With `transport` alone, jupyter_client puts the sockets of a kernel without a connection file at `kernel-ipc-N` in
    the working folder, and nbclient gives the kernel another one: the two never meet.
    """

    @default("transport")
    def _transport_default(self) -> str:
        return "ipc"

    @default("connection_file")
    def _connection_file_default(self) -> str:
        return str(Path(jupyter_runtime_dir()) / f"kernel-{uuid.uuid4()}.json")
