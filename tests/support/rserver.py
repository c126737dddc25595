#!/usr/bin/env python3
"""Takes the place of RStudio Server's `rserver`, which no package index that tests can reach has.

It keeps to how the real one is run (jupyter-rsession-proxy, `rserver --help`): the options below and no others, a
cookie key and a database configuration that it can read, and a page that redirects below --www-root-path.
"""

import argparse
import getpass
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

OPTIONS = (
    "auth-none",
    "database-config-file",
    "secure-cookie-key-file",
    "server-data-dir",
    "server-user",
    "www-frame-origin",
    "www-port",
    "www-root-path",
    "www-socket",
    "www-verify-user-agent",
)

parser = argparse.ArgumentParser(prog="rserver")
for option in OPTIONS:
    parser.add_argument(f"--{option}")
given = parser.parse_args()

if given.www_port:  # as its own service
    import http.server

    http.server.HTTPServer(("", int(given.www_port)), BaseHTTPRequestHandler).serve_forever()
if given.auth_none != "1" or given.server_user != getpass.getuser():
    sys.exit("rserver: would ask for a password")
for file in (given.secure_cookie_key_file, given.database_config_file):
    if not Path(file).read_text():
        sys.exit(f"rserver: {file} is empty")
Path(given.server_data_dir, "rserver.pid").write_text(str(os.getpid()))
ROOT = given.www_root_path.rstrip("/")


class Handler(BaseHTTPRequestHandler):
    """Redirects once, as the real one does after it signed somebody in by itself."""

    def do_GET(self) -> None:
        """The page."""
        if not self.path.startswith("/signed-in"):
            self.send_response(302)
            host = self.headers["Host"].partition(":")[0]
            # The real one appends a port of its own to the address.
            self.send_header("Location", f"http://{host}:8787{ROOT}/signed-in")
            self.send_header("Set-Cookie", "user-id=x; path=/; HttpOnly")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        page = f"<!doctype html><title>R</title><h1>RStudio stand-in</h1><p>as {getpass.getuser()}</p>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def address_string(self) -> str:
        """Nobody's: it is a socket."""
        return "socket"


class Server(socketserver.ThreadingUnixStreamServer):
    """On the unix socket that it is told."""

    daemon_threads = True


Server(given.www_socket, Handler).serve_forever()
