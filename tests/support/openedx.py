"""Open edX's LTI consumer in a process of its own, with an environment of its own (tests/peers.txt)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def make_environment(folder: Path) -> Path:
    """The Python of a new environment with `lti-consumer-xblock` at `folder`."""
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "-q"]
    subprocess.run([*uv, "venv", "--python", sys.executable, folder], check=True)
    subprocess.run([*uv, "pip", "install", "--python", python, "-r", TESTS / "peers.txt"], check=True)
    return python


class Peer:
    """One of the `openedx_*.py` beside this file, which answers lines of JSON."""

    def __init__(self, python: Path, script: str, *arguments: str | Path) -> None:
        # -I: edx-platform has modules of the names of those beside the script.
        self._process = subprocess.Popen(
            [python, "-I", TESTS / "support" / script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the peer ended; what it says is on the error output"
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate(timeout=30)
