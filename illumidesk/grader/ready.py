"""A server says when it listens: systemd hears it, the supervisor hears it from systemd, and the hub from there."""

from __future__ import annotations

import os
from typing import Any

from illumidesk import names
from illumidesk.forkserver.client import notify


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.ready"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Nothing yet: it does not listen, though its loop may run (JupyterHub's extension asks the hub meanwhile)."""


async def _start_jupyter_server_extension(server: Any) -> None:
    _tell(server.log)


def _tell(log: Any) -> None:
    try:
        notify(f"STATUS={names.READY}")
    except OSError as error:
        log.info("systemd is not told that this server is ready (%s); the hub finds out by itself", error)
    # Kernels and terminals have nothing to tell systemd.
    os.environ.pop("NOTIFY_SOCKET", None)
