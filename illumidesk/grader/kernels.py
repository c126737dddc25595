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
        folder = Path(jupyter_runtime_dir())
        # In a shell where no Jupyter has run before there is none.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Short: the address of a unix socket has no more than 107 bytes (unix(7)).
        return str(folder / f"kernel-{uuid.uuid4().hex[:12]}.json")
