"""A class on a throwaway machine, installed as a user would install it."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import Machine

from tests.support.person import Person

ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"
SOURCE = "/root/illumidesk"

_SUPERVISOR_CLIENT = """
import json, sys
from pathlib import Path
from illumidesk.http_unix import request_json
verb, fields = json.loads(sys.stdin.read())
status, answer = request_json("POST", Path("/run/illumidesk/supervisor.sock"), f"/v1/{verb}", body=fields, timeout=120)
print(json.dumps([status, answer]))
"""


class SupervisorRefused(AssertionError):
    """The supervisor answered with an error."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__(f"{status}: {answer}")
        self.status = status
        self.message = answer.get("message", "") if isinstance(answer, dict) else ""


@dataclass
class Classroom:
    """An installed machine.

    Args:
        machine: runs.
        port: of the class, shared with this host.
    """

    machine: Machine
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def install(self, *flags: str) -> str:
        """Run install.sh as a user would; what it printed."""
        argv = ["./install.sh", "--yes", "--http-port", str(self.port), "--admin", "admin", *flags]
        done = self.machine.run(argv, cwd=SOURCE, timeout=1500, check=False)
        ARTEFACTS.mkdir(exist_ok=True)
        (ARTEFACTS / f"install-{self.machine.release}.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, f"install.sh failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def cli(self, *argv: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `illumidesk …` as root."""
        return self.machine.run(["illumidesk", *argv], check=check, input=input, timeout=300)

    def cli_json(self, *argv: str) -> Any:
        return json.loads(self.cli(*argv, "--json").stdout)

    def supervisor(self, verb: str, *, as_user: str = "root", **fields: Any) -> dict[str, Any]:
        """Ask the supervisor as `as_user`.

        Raises:
            SupervisorRefused: with its answer.
            machine.CommandError: where the socket cannot be reached.
        """
        done = self.machine.run(
            ["/opt/illumidesk/hub/bin/python", "-I", "-c", _SUPERVISOR_CLIENT],
            user=as_user,
            input=json.dumps([verb, fields]),
        )
        status, answer = json.loads(done.stdout)
        if status != 200:
            raise SupervisorRefused(status, answer)
        return dict(answer)

    def person(self, name: str) -> Person:
        return Person(self.url, name)

    def sign_in(self, name: str) -> Person:
        person = self.person(name)
        person.sign_in()
        return person

    def open_grader(self, person: Person, course_id: str, timeout: float = 120) -> str:
        """Open a course's grader as the Services menu does; the path of its server."""
        base = f"/services/{course_id}/"
        deadline = time.monotonic() + timeout
        while True:
            response = person.get(f"{base}lab")
            assert response.ok, f"{response.status_code} {response.url}\n{response.text[:2000]}"
            if response.url.startswith(f"{self.url}{base}lab"):
                return base
            assert time.monotonic() < deadline, f"the grader did not start: {response.url}"
            time.sleep(0.5)

    def main_pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def show(self, unit: str, name: str) -> str:
        return self.machine.run(["systemctl", "show", "-P", name, unit]).stdout.strip()

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def has_memory_limits(self) -> bool:
        """Whether a unit of this machine that takes more than its MemoryMax= is ended: a host may not lend that."""
        unit = ["systemd-run", "--wait", "--collect", "-pMemoryMax=64M", "-pMemorySwapMax=0", "-pRuntimeMaxSec=30"]
        done = self.machine.run([*unit, "/usr/bin/python3", "-c", "b'x' * (256 << 20)"], check=False)
        # systemd 252 does not see who sent the signal where the host has no cgroup v2.
        return bool(re.search(r"Finished with result: (oom-kill|signal)", done.stdout + done.stderr))

    def wait_for_hub(self, timeout: float = 60) -> None:
        """Wait until the hub answers through the proxy."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/hub/health", timeout=5) as response:
                    if response.status == 200:
                        return
            except OSError:
                pass
            assert time.monotonic() < deadline, "the hub does not answer:\n" + self.journal("illumidesk-hub")
            time.sleep(0.2)

    def journal(self, unit: str, lines: int = 40) -> str:
        return self.machine.run(["journalctl", "-u", unit, "-n", str(lines), "--no-pager"], check=False).stdout
