"""The real supervisor over plain processes: `run_supervisor.py ROOT`.

Serves `ROOT/run/illumidesk/supervisor.sock` for the uid that starts it; ROOT must be short enough for socket
paths (108 bytes). Environments are taken from `ROOT/opt/illumidesk/envs` and must belong to that uid. SIGTERM
ends it; what it started goes on and is found again by the next.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from illumidesk.paths import Paths
from illumidesk.supervisor.server import bind, make_server, serve, setup_logging
from illumidesk.supervisor.verbs import Supervisor
from tests.support.process_units import PrivateAccounts, ProcessUnits


async def main(root: Path) -> None:
    paths = Paths(root)
    for folder in (paths.home, paths.exchange, paths.run, paths.unit_environments):
        folder.mkdir(parents=True, exist_ok=True)
    units = ProcessUnits(paths)
    supervisor = Supervisor(paths, units, PrivateAccounts(paths), owner=os.getuid())
    server = make_server(supervisor, units, {os.getuid()})
    await serve(server, bind(paths.supervisor_socket, os.getgid()))
    supervisor.close()


if __name__ == "__main__":
    setup_logging()
    asyncio.run(main(Path(sys.argv[1]).resolve()))
