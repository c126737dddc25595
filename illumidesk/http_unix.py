"""A JSON request over a unix socket, with the standard library alone.

For the command line and for the extensions in people's servers, where no HTTP library that knows unix sockets is at
hand. The hub uses aiohttp.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket.

    Args:
        path: the socket.
        timeout: seconds to wait for it.
    """

    def __init__(self, path: Path, timeout: float = 10) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket (the base class calls it)."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request_json(
    method: str, path: Path, target: str, *, token: str = "", body: object = None, timeout: float = 10
) -> tuple[int, Any]:
    """Ask a server on a unix socket.

    Args:
        method: GET, POST, …
        path: the socket.
        target: the request's path and query.
        token: JupyterHub API token, if any.
        body: what to send as JSON; nothing where None.
        timeout: seconds to wait for each step.

    Returns:
        the status and the decoded JSON (None where the answer is no JSON).

    Raises:
        OSError: where the server does not answer.
        http.client.HTTPException: where it answers no HTTP.
    """
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"token {token}"
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    connection = UnixHTTPConnection(path, timeout)
    try:
        connection.request(method, target, body=data, headers=headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def split_unix_url(url: str) -> tuple[Path, str]:
    """The socket and the path of an `http+unix://` URL.

    Raises:
        ValueError: where it is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "http+unix":
        raise ValueError(f"{url} is not an http+unix URL")
    return Path(unquote(parts.netloc)), parts.path
