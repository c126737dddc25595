"""A folder per role that goes on JUPYTER_CONFIG_PATH and says which of nbgrader's pages that role sees.

It shapes pages only. What a person may do is decided by accounts, groups and modes.
"""

from __future__ import annotations

import json

from illumidesk.host.conffiles import write_file
from illumidesk.paths import Paths
from illumidesk.settings import NBGRADER_PARTS, Roles, Settings
from illumidesk.workspaces.types import BUILT_IN, installed

#: The server halves of nbgrader's parts (`create-assignment` lives in the browser alone). The course list's is
#: ours: nbgrader's own asks JupyterHub over TCP.
_SERVER_PARTS = {
    "assignment-list": "nbgrader.server_extensions.assignment_list",
    "course-list": "illumidesk.grader.course_list",
    "formgrader": "nbgrader.server_extensions.formgrader",
    "validate-assignment": "nbgrader.server_extensions.validate_assignment",
}
#: What is ours beside nbgrader's parts, and goes with them: extensions of servers, and plugins of JupyterLab.
_OURS = {
    "illumidesk.grader.duedates": "assignment-list",
    "illumidesk.grader.formgrader": "formgrader",
}
_OUR_PAGES = {"illumidesk:duedates": "assignment-list"}
#: Leads to an assignment from a link in the LMS, whatever a role sees.
_ALWAYS = "illumidesk.grader.open_assignment"
#: Compresses what every opening of JupyterLab brings anew.
_COMPRESSION = "illumidesk.grader.compression"
#: Tells systemd when a server listens.
_READY = "illumidesk.grader.ready"
#: Leads from ~/COURSE/shared to a course's shared folder.
_SHARED = "illumidesk.grader.shared"
#: nbgitpuller's links; ours loads nbgitpuller's own extension.
_GIT = "illumidesk.grader.git_pull"
_GIT_REPLACED = "nbgitpuller"
#: The programs of workspaces; ours takes jupyter-server-proxy's handlers, and leaves out its `proxy/PORT`.
_PROGRAMS = "illumidesk.workspaces.server"
_PROGRAMS_REPLACED = "jupyter_server_proxy"
#: Shows them in JupyterLab's launcher.
_PROGRAMS_PAGES = "@jupyterhub/jupyter-server-proxy"
#: Parts of JupyterLab that nobody sees: its question about news from the Internet, and the debugger, which would open a
#: TCP port to every account (config/ipython says more).
_OFF = ("@jupyterlab/apputils-extension:announcements", "@jupyterlab/debugger-extension")
_REPLACED = "nbgrader.server_extensions.course_list"
#: Lab's list of extensions shows what is installed. To install more it would have to write into the environment, which
#: is root's, and each start would make it an HTTPS client.
_LEAN = {"LabApp": {"extension_manager": "readonly"}}
#: What the hub asks for grades; it answers in a course's grader alone.
_GRADEBOOK = "illumidesk.grader.gradebook"


def ensure_roles(settings: Settings, paths: Paths) -> bool:
    """Write the folders of all roles; whether anything changed. A running server keeps what it began with."""
    changed = False
    programs = any(installed(paths.workspaces, one) for one in BUILT_IN.values() if one.program)
    for role in Roles.model_fields:
        shown = getattr(settings.roles, role).nbgrader
        folder = paths.roles / role
        files = role_files(shown, grader=role == "grader", git_folders=settings.git.folders, programs=programs)
        for name, content in files.items():
            text = json.dumps(content, indent=2, sort_keys=True) + "\n"
            changed |= write_file(folder / name, text.encode())
    return changed


def role_files(
    shown: tuple[str, ...], *, grader: bool = False, git_folders: tuple[str, ...] = (), programs: bool = False
) -> dict[str, object]:
    """The files of a role's folder, by relative path.

    Args:
        shown: the parts of nbgrader (settings.NBGRADER_PARTS) that the role sees.
        grader: whether it is the role of courses' graders.
        git_folders: folders of this machine from which links may fetch git repositories.
        programs: whether any program of a workspace is installed.
    """
    pages = {f"@jupyter/nbgrader:{part}": part not in shown for part in NBGRADER_PARTS}
    servers = {_REPLACED: False, _GRADEBOOK: grader} | {module: part in shown for part, module in _SERVER_PARTS.items()}
    # A login shell would read /etc/profile, which puts the environment's programs out of PATH.
    server: dict[str, object] = {"terminado_settings": {"shell_command": ["/bin/bash"]}}
    if "formgrader" in shown:
        # The formgrader is a page in a frame of JupyterLab, and JupyterHub forbids frames. This server's own may.
        server["tornado_settings"] = {"headers": {"Content-Security-Policy": "frame-ancestors 'self'"}}
    # A course's grader is one account for several people, and has no programs.
    servers |= {_PROGRAMS: not grader, _PROGRAMS_REPLACED: False}
    pages[_PROGRAMS_PAGES] = grader or not programs
    servers |= (
        dict.fromkeys((_ALWAYS, _COMPRESSION, _READY, _SHARED, _GIT), True)
        | {_GIT_REPLACED: False}
        | {module: part in shown for module, part in _OURS.items()}
    )
    pages |= {plugin: part not in shown for plugin, part in _OUR_PAGES.items()}
    return {
        "labconfig/page_config.json": {"disabledExtensions": pages | dict.fromkeys(_OFF, True)},
        "jupyter_server_config.d/zz-nbgrader-role.json": {"ServerApp": {"jpserver_extensions": servers}},
        "jupyter_server_config.json": {"ServerApp": server, "IllumiDeskGit": {"folders": list(git_folders)}} | _LEAN,
    }
