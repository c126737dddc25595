"""Which environment, limits and pages a server gets. No systemd in here, so that another spawner can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from illumidesk.settings import Limits, Role, RoleName, Settings

#: A member's role in the registry → the role that servers know. A TA works as an instructor does.
_ROLE_OF_MEMBER: dict[str | None, RoleName] = {
    "instructor": "instructor",
    "ta": "instructor",
    "student": "learner",
    None: "standard",
}


def server_role(member_role: str | None) -> RoleName:
    """The role of a server for somebody whose most able role in any course is `member_role`; None is no course."""
    return _ROLE_OF_MEMBER[member_role]


def server_arguments(socket: Path, role: Role, *, idle_server: int, idle_kernel: int) -> list[str]:
    """The command line of `jupyterhub-singleuser`: nothing in it is secret.

    Args:
        socket: where it listens.
        role: gives the page that opens first.
        idle_server: seconds without kernels, terminals and visits after which it stops; 0 means never.
        idle_kernel: seconds after which an idle kernel stops; 0 means never.
    """
    return [
        f"--ServerApp.sock={socket}",
        "--ServerApp.sock_mode=0660",
        # Kernels on TCP ports could be reached by every account of the machine.
        "--KernelManager.transport=ipc",
        f"--ServerApp.default_url={role.default_url}",
        f"--ServerApp.shutdown_no_activity_timeout={idle_server}",
        f"--MappingKernelManager.cull_idle_timeout={idle_kernel}",
        f"--TerminalManager.cull_inactive_timeout={idle_kernel}",
    ]


def server_variables(role_folder: Path, environment: Path) -> dict[str, str]:
    """The environment variables that make a server one of that role.

    Args:
        role_folder: holds the configuration that switches nbgrader's pages.
        environment: the environment whose programs come first.
    """
    return {
        "PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
        "LANG": "C.UTF-8",
        "JUPYTER_CONFIG_PATH": str(role_folder),
        # The kernels of all environments, as illumidesk.host.kernels keeps them beside the environments' folder.
        "JUPYTER_PATH": str(environment.parent.parent / "share/jupyter"),
        # Otherwise what a person wrote in ~/.jupyter outranks a root-owned environment's settings.
        "JUPYTER_PREFER_ENV_PATH": "1",
        # Sockets of kernels: short, and in the unit's own /tmp.
        "JUPYTER_RUNTIME_DIR": "/tmp/.jupyter-runtime",  # noqa: S108 -- PrivateTmp
    }


class RoleChoice:
    """Mixin of a spawner: the choice by role.

    A subclass gives `settings_now` and `member_role`.
    """

    user: Any

    @property
    def settings_now(self) -> Settings:
        """The settings in force."""
        raise NotImplementedError

    @property
    def member_role(self) -> str | None:
        """The most able role that this person has in any course."""
        raise NotImplementedError

    def chosen_role(self) -> RoleName:
        """The role as which the server starts."""
        return server_role(self.member_role)

    def chosen_limits(self) -> Limits:
        """Its limits."""
        return self.settings_now.limits_of(self.chosen_role())
