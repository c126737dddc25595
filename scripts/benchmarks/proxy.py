"""What the proxy costs for a request: something small from a server behind it, and a file of JupyterLab.

Both proxies are configurable-http-proxy of the same version on the same Node; ours has what our unit loads before it.
The files that ours gives out itself come from the server behind it in a stock class. `wrk` asks.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Sequence
from urllib.parse import urljoin
from urllib.request import urlopen

from benchmarks.figures import OURS, STOCK, Figure
from benchmarks.processes import Meter
from benchmarks.rooms import NODE, PROXY, Room, Rooms

#: Seconds of asking before the clock runs: Node compiles what it runs often.
WARM = 3
#: A server behind the proxy that costs next to nothing.
BACKEND = "require('http').createServer((q, s) => s.end('{}')).listen({port}, '127.0.0.1')"


def measure(rooms: Rooms, seconds: int, connections: int = 32) -> list[Figure]:
    """Ask each proxy for `seconds`, over so many connections."""
    machine, meter = rooms.machine, Meter(rooms.machine.name)
    if machine.run(["which", "wrk"], check=False).returncode:
        machine.run(["apt-get", "update", "-q"])
        machine.run(["apt-get", "install", "-qy", "--no-install-recommends", "wrk"])
    port, own, api = free_ports(3)
    rooms.stock.use("class")
    small: dict[str, dict[str, float | None]] = {"rate": {}, "cpu": {}}
    file: dict[str, dict[str, float | None]] = {"rate": {}, "cpu": {}}
    base = "/opt/illumidesk/proxy"
    ours = [f"--import={base}/keep-alive.mjs", f"--import={base}/public-port.mjs"]
    backend = f"bench-backend-{port}"
    _run(rooms, backend, [NODE, "-e", BACKEND.replace("{port}", str(port))])
    try:
        for label, room, loaded in ((STOCK, rooms.stock, []), (OURS, rooms.ours, ours)):
            name = f"bench-proxy-{label.lower()}"
            _run(
                rooms, name,
                [
                    NODE, *loaded, PROXY, "--ip=127.0.0.1", f"--port={own}", "--api-ip=127.0.0.1",
                    f"--api-port={api}", f"--default-target=http://127.0.0.1:{port}", "--log-level=warn",
                ],
            )  # fmt: skip
            try:
                rate, cpu = _ask(rooms, meter, f"http://127.0.0.1:{own}/", [f"{name}.service"], seconds, connections)
            finally:
                machine.run(["systemctl", "stop", f"{name}.service"], check=False)
            small["rate"][label], small["cpu"][label] = rate, cpu
            rate, cpu = _ask(rooms, meter, a_file(room), room.services, seconds, connections)
            file["rate"][label], file["cpu"][label] = rate, cpu
    finally:
        machine.run(["systemctl", "stop", f"{backend}.service"], check=False)
    return [
        Figure("small answers through the proxy", "a second", 0, small["rate"], less=False),
        Figure("the proxy's CPU for a small answer", "ms", 0, small["cpu"]),
        Figure("files of pages", "a second", 0, file["rate"], less=False),
        Figure("CPU of all services for a file of a page", "ms", 0, file["cpu"]),
    ]


def a_file(room: Room) -> str:
    """The address of a file of the hub's pages: require.js, in the version that its sign-in page asks for."""
    with urlopen(f"{room.url}/hub/login", timeout=60) as answer:  # noqa: S310 -- http by construction
        page = answer.read().decode()
    found = re.search(r'src="([^"]*/require\.js\?v=[^"]+)"', page)
    if not found:
        raise RuntimeError(f"no require.js in {room.url}/hub/login")
    return urljoin(room.url, found[1])


def free_ports(number: int) -> list[int]:
    """Ports of this host (and so of the machine) that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


def _run(rooms: Rooms, name: str, argv: Sequence[str]) -> None:
    rooms.machine.run(["systemctl", "stop", f"{name}.service"], check=False)
    rooms.machine.run(["systemd-run", "--quiet", "--collect", f"--unit={name}", *argv])
    time.sleep(2)


def _ask(
    rooms: Rooms, meter: Meter, url: str, units: Sequence[str], seconds: int, connections: int
) -> tuple[float, float]:
    """Answers a second, and CPU milliseconds of `units` for each.

    Raises:
        RuntimeError: where an answer was an error, or none came.
    """
    wrk = ["wrk", "-t1", f"-c{connections}"]
    rooms.machine.run([*wrk, f"-d{WARM}s", url])
    before = meter.cpu(units)
    said = rooms.machine.run([*wrk, f"-d{seconds}s", url]).stdout
    used = meter.cpu(units) - before
    found = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not found or not rate or not int(found[1]) or "Non-2xx" in said:
        raise RuntimeError(f"{url}:\n{said}")
    return float(rate[1]), round(1000 * used / int(found[1]), 3)
