"""jupyter_client's way to start a kernel: forked from the server's helper where that will do, else as always."""

from __future__ import annotations

import os
from typing import Any, cast

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from illumidesk.forkserver import kernels
from illumidesk.forkserver.caller import Refused


class ForkingProvisioner(LocalProvisioner):
    """See https://jupyter-client.readthedocs.io/en/stable/provisioning.html."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start a kernel with a command."""
        folder = str(kwargs.get("cwd") or os.getcwd())  # noqa: PTH109 -- compared with nothing
        try:
            kernel = kernels.fork(cmd, kwargs.get("env") or os.environ, folder)
        except (OSError, ValueError, Refused) as error:
            self.log.info("Kernel started the ordinary way, not forked: %s", error)
            return await super().launch_kernel(cmd, **kwargs)
        self.log.info("Kernel forked as process %d", kernel.pid)
        self.process = cast(Any, kernel)
        self.pid = self.pgid = kernel.pid
        self.cwd = folder
        return self.connection_info
