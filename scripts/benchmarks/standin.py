#!/usr/bin/python3 -IS
"""Stands in for a single-user server where the hub is measured and not the servers: it answers everything with 200.

It listens where JupyterHub tells every server to (JUPYTERHUB_SERVICE_URL), on a port or a unix socket, and reports
activity as real ones do. Python's standard library alone: three hundred of them must fit.
"""

import json
import os
import random
import socket
import sys
import threading
import time
from datetime import datetime, timezone
from urllib.parse import unquote, urlsplit

VERSION = os.environ.get("STANDIN_VERSION", "6.1.1")
ANSWER = (
    f"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: {VERSION}\r\nContent-Type: application/json\r\n"
    "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
).encode()


def listening():
    """Where the hub looks."""
    sock = next((a.partition("=")[2] for a in sys.argv if a.startswith("--ServerApp.sock=")), "")
    if sock:
        server = socket.socket(socket.AF_UNIX)
        server.bind(sock)
        os.chmod(sock, 0o660)  # noqa: PTH101 -- pathlib costs a megabyte for each
    else:
        url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
        server = socket.create_server((url.hostname, url.port))
    server.listen(16)
    return server


def connected(url):
    """A connection to the hub."""
    if url.scheme == "http+unix":
        client = socket.socket(socket.AF_UNIX)
        client.connect(unquote(url.netloc))
    else:
        client = socket.create_connection((url.hostname, url.port), timeout=60)
    return client


def report():
    """Tell the hub of activity every five minutes, as jupyterhub-singleuser does.

    The first time at any moment, so that one minute of a class is like any other.
    """
    url = urlsplit(os.environ["JUPYTERHUB_ACTIVITY_URL"])
    token = os.environ["JUPYTERHUB_API_TOKEN"]
    interval = int(os.environ.get("JUPYTERHUB_ACTIVITY_INTERVAL") or 300)
    time.sleep(random.random() * interval)  # noqa: S311
    while True:
        now = datetime.now(timezone.utc).isoformat()  # noqa: UP017 -- whatever Python the system has
        body = json.dumps({"servers": {"": {"last_activity": now}}, "last_activity": now}).encode()
        head = (
            f"POST {url.path} HTTP/1.1\r\nHost: hub\r\nAuthorization: token {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            with connected(url) as client:
                client.sendall(head.encode() + body)
                while client.recv(4096):
                    pass
        except OSError as error:
            print(f"activity: {error}", file=sys.stderr)
        time.sleep(interval)


def main():
    """Serve."""
    server = listening()
    threading.Thread(target=report, daemon=True).start()
    while True:
        client, _ = server.accept()
        with client:
            client.settimeout(10)
            try:
                asked = received = client.recv(65536)
                while received and b"\r\n\r\n" not in asked:
                    received = client.recv(65536)
                    asked += received
                if received:  # else somebody only looked whether anybody listens
                    client.sendall(ANSWER)
            except OSError:
                pass


main()
