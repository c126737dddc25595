"""Which modules a server has in memory before anybody's server is forked.

Those of the program, of the extensions that the environment enables, of the extensions that roles may enable, and what
all of these import only when a server starts. A module that an environment does not have is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from illumidesk.forkserver import program

#: The program, and the applications that it starts with.
_PROGRAMS = (
    "jupyterhub.singleuser.extension",
    "jupyter_server.serverapp",
    "jupyterlab.labapp",
    "notebook.app",
)
#: What these import when a server starts, and not before. A module that is missing here costs each start its import,
#: and each server its memory. Not nbgitpuller.handlers, which looks at whether a server runs when it is imported.
_LATE = (
    "IPython",
    "h11",
    "httpcore",
    "jinja2.ext",
    "jupyter_core.migrate",
    "jupyter_lsp.virtual_documents_shadow",
    "jupyter_server.kernelspecs.handlers",
    "jupyter_server.nbconvert.handlers",
    "jupyter_server.view.handlers",
    "nbclassic.edit.handlers",
    "nbclassic.notebook.handlers",
    "nbclassic.notebookapp",
    "nbclassic.terminal.handlers",
    "nbclassic.tree.handlers",
    "nbclassic.view.handlers",
    "notebook.files.handlers",
    "notebook.services.contents.manager",
    "notebook_shim.nbserver",
    "tornado.platform.asyncio",
)


def extensions(folders: list[Path]) -> Iterator[str]:
    """The server extensions that configuration below these folders names, enabled or not."""
    for folder in folders:
        for file in [
            folder / "jupyter_server_config.json",
            *sorted((folder / "jupyter_server_config.d").glob("*.json")),
        ]:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                named = json.loads(file.read_text("utf-8")).get("ServerApp", {}).get("jpserver_extensions", {})
                yield from named


def load(names: list[str]) -> list[str]:
    """Import modules; those that cannot be imported are told."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            missing.append(name)
    return missing


def preload(roles: Path) -> list[str]:
    """Import everything; the names of what could not be."""
    folders = [Path(sys.prefix, "etc/jupyter"), *sorted(roles.glob("*"))]
    program.load()
    missing = load([*_PROGRAMS, *dict.fromkeys(extensions(folders)), *_LATE])
    server: Any = sys.modules.get("jupyter_server.serverapp")
    services: dict[str, list[str] | None] = getattr(server, "JUPYTER_SERVICE_HANDLERS", {})
    return missing + load([name for names in services.values() for name in names or ()])
