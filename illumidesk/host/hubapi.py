"""Root's line to the hub: its management API over its own socket, and whether it answers at all."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

#: Making a course makes accounts and folders.
_TIMEOUT = 120.0


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(paths: Paths, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One call of the hub's management API.

    Args:
        paths: the layout.
        method: of HTTP.
        path: below `/hub/api/illumidesk/`, already quoted.
        body: sent as JSON.

    Raises:
        IllumiDeskError: the hub's own message and hint; or that the hub does not answer.
    """
    connection = _SocketConnection(paths.hub_socket, _TIMEOUT)
    headers = {"Authorization": f"token {paths.cli_token.read_text('ascii').strip()}", "Accept": "application/json"}
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, f"/hub/api/illumidesk/{path}", body=payload, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
    except OSError as error:
        raise IllumiDeskError(
            f"the hub does not answer ({error})", hint="sudo systemctl status illumidesk-hub", status=503
        ) from None
    finally:
        connection.close()
    try:
        decoded = json.loads(content or b"{}")
    except ValueError:
        decoded = {}
    if answer.status >= 400:
        message = str(decoded.get("message") or f"the hub answered {answer.status} to {method} {path}")
        raise IllumiDeskError(message, hint=str(decoded.get("hint") or ""), status=answer.status)
    return dict(decoded)


def hub_answers(paths: Paths, *, timeout: float = 5.0) -> bool:
    """Whether the hub answers on its own socket."""
    return _is_healthy(_SocketConnection(paths.hub_socket, timeout))


def site_answers(address: str, port: int, *, timeout: float = 5.0) -> bool:
    """Whether the hub answers through the proxy, on the public port."""
    return _is_healthy(http.client.HTTPConnection(address, port, timeout=timeout))


def _is_healthy(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
