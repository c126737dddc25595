"""The types of workspace that there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_MIB = 1024 * 1024


@dataclass(frozen=True)
class WorkspaceType:
    """A type of workspace.

    Args:
        name: in settings, links and on the command line.
        title: for people.
        path: where it is below a person's server.
        memory: bytes that it takes idle, beside the server's own; a hint.
        program: whether it is a program of its own that is installed for the machine.
    """

    name: str
    title: str
    path: str
    memory: int
    program: bool


BUILT_IN: Mapping[str, WorkspaceType] = MappingProxyType(
    {
        one.name: one
        for one in (
            WorkspaceType("notebook", "Notebook", "tree", 0, False),
            WorkspaceType("lab", "JupyterLab", "lab", 0, False),
            WorkspaceType("vscode", "VS Code", "vscode/", 433 * _MIB, True),
            WorkspaceType("theia", "Theia", "theia/", 386 * _MIB, True),
            WorkspaceType("rstudio", "RStudio", "rstudio/", 300 * _MIB, True),
        )
    }
)


def installed(folder: Path, workspace: WorkspaceType) -> bool:
    """Whether a type can be had.

    Args:
        folder: `Paths.workspaces`.
        workspace: the type.
    """
    return not workspace.program or (folder / workspace.name).exists()
