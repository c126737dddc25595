"""Which environment, limits and pages a server gets. No systemd in here, so that another spawner can use it.

What somebody asks for is a stranger's word. It is looked up in the settings and in what they are a member of, and
nothing else is ever made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from illumidesk.settings import Limits, RoleName, Settings
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType, installed

#: These are one click apart in every server: nobody is asked which of them to start.
_NOTEBOOKS = frozenset({"notebook", "lab", "nbclassic"})

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


def asked_for(options: Mapping[str, Any], name: str) -> str:
    """What somebody chose, by a form, a query or JupyterHub's API; "" where they chose nothing.

    Args:
        options: JupyterHub's `user_options`: anything at all.
        name: of the field; `opt-NAME` is the same.
    """
    for key in (name, f"opt-{name}"):
        value = options.get(key)
        if isinstance(value, list | tuple):
            value = value[0] if value else ""
        if value:
            return str(value).strip()[:64]
    return ""


def course_of(named: str, memberships: Sequence[tuple[str, Any]]) -> str:
    """The course that a server starts for: the one that is named, else the only one that there is; "" is none.

    Args:
        named: a course's id, or anything else.
        memberships: the person's courses, with what they are in them. Others do not count.
    """
    courses = [course_id for course_id, _ in memberships]
    if named in courses:
        return named
    return courses[0] if len(courses) == 1 else ""


def startable(settings: Settings, folder: Path, course_id: str = "") -> dict[str, WorkspaceType]:
    """What people may start that is there, in order. Never empty: a server has its Notebook page.

    Args:
        settings: in force.
        folder: where programs of workspaces are.
        course_id: the course for which it is; "" is none.
    """
    offered = settings.offered_workspaces(course_id)
    there = {name: one for name, one in offered.items() if installed(folder, one)}
    return there or {"notebook": BUILT_IN["notebook"]}


def choose(settings: Settings, folder: Path, wanted: str, course_id: str = "") -> WorkspaceType | None:
    """The workspace that opens for somebody who wants that; None is the page of their role.

    Args:
        settings: in force.
        folder: where programs of workspaces are.
        wanted: a type's name, or anything else, which means Notebook; "" where they do not say.
        course_id: the course that they are in, which may restrict it; "" is none.
    """
    there = startable(settings, folder, course_id)
    course = settings.course(course_id)
    if wanted in there:
        return there[wanted]
    if not wanted and not (course.workspace or course.workspaces):
        return None
    return there.get("notebook" if wanted else "") or next(iter(there.values()))


def asks(settings: Settings, folder: Path, course_id: str = "") -> bool:
    """Whether a page asks what to start, where nobody has said it yet."""
    there = startable(settings, folder, course_id)
    match settings.workspaces.ask:
        case "always":
            return len(there) > 1
        case "auto":
            return len(there) > 1 and not _NOTEBOOKS.issuperset(there)
        case _:
            return False


def server_arguments(socket: Path, page: str, *, idle_server: int, idle_kernel: int) -> list[str]:
    """The command line of `jupyterhub-singleuser`: nothing in it is secret.

    Args:
        socket: where it listens.
        page: what opens first, such as `/lab`.
        idle_server: seconds without kernels, terminals and visits after which it stops; 0 means never.
        idle_kernel: seconds after which an idle kernel stops; 0 means never.
    """
    return [
        f"--ServerApp.sock={socket}",
        "--ServerApp.sock_mode=0660",
        # Kernels on TCP ports could be reached by every account of the machine.
        "--KernelManager.transport=ipc",
        f"--ServerApp.default_url={page}",
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


def gallery_variables(gallery: str) -> dict[str, str]:
    """The environment variables that tell VS Code (code-server) and Theia where to look for extensions.

    Args:
        gallery: the address of a server of Open VSX; empty is none. VS Code takes an empty variable for Open VSX, and
            for no gallery one without addresses; of Theia, illumidesk.workspaces.commands takes care.
    """
    if not gallery:
        return {"EXTENSIONS_GALLERY": "{}", "VSX_REGISTRY_URL": ""}
    # As code-server has them for Open VSX itself: https://github.com/coder/code-server/blob/main/patches/marketplace.diff
    addresses = {
        "serviceUrl": f"{gallery}/vscode/gallery",
        "itemUrl": f"{gallery}/vscode/item",
        "extensionUrlTemplate": f"{gallery}/vscode/gallery/{{publisher}}/{{name}}/latest",
        "resourceUrlTemplate": f"{gallery}/vscode/asset/{{publisher}}/{{name}}/{{version}}"
        "/Microsoft.VisualStudio.Code.WebResources/{path}",
        "controlUrl": "",
        "recommendationsUrl": "",
    }
    return {"EXTENSIONS_GALLERY": json.dumps(addresses), "VSX_REGISTRY_URL": gallery}


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

    def chosen_environment(self) -> str:
        """The environment from which it starts."""
        return self.settings_now.environment_of(self.chosen_role())

    def chosen_page(self) -> str:
        """The page that opens first."""
        return self.settings_now.role(self.chosen_role()).default_url


class WorkspaceChoice(RoleChoice):
    """Mixin of a spawner: the choice of a workspace, and of what a course has for itself, beside that by role.

    A subclass gives `memberships` and `programs`, too, and takes `choice_page` as its options form.
    """

    user_options: Any
    handler: Any
    hub: Any

    @property
    def memberships(self) -> Sequence[tuple[str, Any]]:
        """This person's courses, with what they are in them."""
        raise NotImplementedError

    @property
    def programs(self) -> Path:
        """Where programs of workspaces are."""
        raise NotImplementedError

    def chosen_course(self) -> str:
        """The course that the server starts for; "" is none."""
        return course_of(asked_for(self.user_options, "course"), self.memberships)

    def chosen_workspace(self) -> WorkspaceType | None:
        """The workspace that opens; None is the page of the role."""
        wanted = asked_for(self.user_options, "workspace_type")
        return choose(self.settings_now, self.programs, wanted, self.chosen_course())

    def chosen_environment(self) -> str:
        """The environment from which it starts: the course's own, where it has one."""
        return self.settings_now.environment_of(self.chosen_role(), self.chosen_course())

    def chosen_page(self) -> str:
        """The page that opens first: the workspace's."""
        workspace = self.chosen_workspace()
        return super().chosen_page() if workspace is None else f"/{workspace.path}"

    def choice_page(self) -> str:
        """The fields of the page that asks what to start; "" where nobody needs to be asked."""
        course_id = course_of("", self.memberships)
        if self._is_decided() or not asks(self.settings_now, self.programs, course_id):
            return ""
        there = startable(self.settings_now, self.programs, course_id)
        first = choose(self.settings_now, self.programs, "", course_id)
        page = super().chosen_page().strip("/")
        chosen = first or next((one for one in there.values() if one.path.strip("/") == page), None)
        template = self.user.settings["jinja2_env_sync"].get_template("workspace_choice.html")
        return str(template.render(workspaces=list(there.values()), chosen=chosen or next(iter(there.values()))))

    def _is_decided(self) -> bool:
        """Whether the link that led here names a page of the server."""
        target = self.handler.get_argument("next", "") if self.handler else ""
        return re.search(r"/user(?:-redirect|/[^/]+)/.", urlsplit(target).path) is not None
