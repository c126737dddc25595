"""The types of workspaces: what is where in a person's server. Pure; no JupyterHub, and no host but for `installed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_MIB = 1 << 20


@dataclass(frozen=True)
class WorkspaceType:
    """What somebody may work in.

    Attributes:
        name: as links and settings have it.
        title: as people read it.
        path: its page in a person's server, relative to the server's own address.
        memory: bytes that it takes once it is open, the person's server included; a hint, 0 is unknown.
        program: whether it needs a program of its own (`illumidesk workspace install NAME`).
    """

    name: str
    title: str
    path: str
    memory: int = 0
    program: bool = False


#: The types that IllumiDesk knows, in the order in which people see them.
BUILT_IN: Mapping[str, WorkspaceType] = MappingProxyType(
    {
        one.name: one
        for one in (
            WorkspaceType("notebook", "Notebook", "tree", 140 * _MIB),
            WorkspaceType("lab", "JupyterLab", "lab", 140 * _MIB),
            WorkspaceType("nbclassic", "Classic Notebook", "nbclassic/tree", 140 * _MIB),
            WorkspaceType("vscode", "VS Code", "vscode/", 450 * _MIB, program=True),
            WorkspaceType("theia", "Theia", "theia/", 470 * _MIB, program=True),
            WorkspaceType("rstudio", "RStudio", "rstudio/", program=True),
        )
    }
)


def installed(folder: Path, type: WorkspaceType) -> bool:
    """Whether people's servers have it.

    Args:
        folder: where programs are (`Paths.workspaces`); `NAME` in it is a link to a complete build.
        type: a program is looked for there; anything else is a page that every server has.
    """
    return not type.program or (folder / type.name).is_dir()
