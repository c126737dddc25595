"""A folder per role that goes on JUPYTER_CONFIG_PATH and says which of nbgrader's pages that role sees.

It shapes pages only. What a person may do is decided by accounts, groups and modes.
"""

from __future__ import annotations

import json

from illumidesk.host.conffiles import write_file
from illumidesk.paths import Paths
from illumidesk.settings import NBGRADER_PARTS, Roles, Settings

#: The server halves of nbgrader's parts (`create-assignment` lives in the browser alone). The course list's is
#: ours: nbgrader's own asks JupyterHub over TCP.
_SERVER_PARTS = {
    "assignment-list": "nbgrader.server_extensions.assignment_list",
    "course-list": "illumidesk.grader.course_list",
    "formgrader": "nbgrader.server_extensions.formgrader",
    "validate-assignment": "nbgrader.server_extensions.validate_assignment",
}
#: Parts of JupyterLab that nobody sees: its question about news from the Internet, and the debugger, which would open a
#: TCP port to every account (config/ipython says more).
_OFF = ("@jupyterlab/apputils-extension:announcements", "@jupyterlab/debugger-extension")
_REPLACED = "nbgrader.server_extensions.course_list"


def ensure_roles(settings: Settings, paths: Paths) -> bool:
    """Write the folders of all roles; whether anything changed. A running server keeps what it began with."""
    changed = False
    for role in Roles.model_fields:
        shown = getattr(settings.roles, role).nbgrader
        folder = paths.roles / role
        for name, content in role_files(shown).items():
            text = json.dumps(content, indent=2, sort_keys=True) + "\n"
            changed |= write_file(folder / name, text.encode())
    return changed


def role_files(shown: tuple[str, ...]) -> dict[str, object]:
    """The files of a role's folder, by relative path.

    Args:
        shown: the parts of nbgrader (settings.NBGRADER_PARTS) that the role sees.
    """
    pages = {f"@jupyter/nbgrader:{part}": part not in shown for part in NBGRADER_PARTS}
    servers = {_REPLACED: False} | {module: part in shown for part, module in _SERVER_PARTS.items()}
    # A login shell would read /etc/profile, which puts the environment's programs out of PATH.
    server: dict[str, object] = {"terminado_settings": {"shell_command": ["/bin/bash"]}}
    if "formgrader" in shown:
        # The formgrader is a page in a frame of JupyterLab, and JupyterHub forbids frames. This server's own may.
        server["tornado_settings"] = {"headers": {"Content-Security-Policy": "frame-ancestors 'self'"}}
    return {
        "labconfig/page_config.json": {"disabledExtensions": pages | dict.fromkeys(_OFF, True)},
        "jupyter_server_config.d/zz-nbgrader-role.json": {"ServerApp": {"jpserver_extensions": servers}},
        "jupyter_server_config.json": {"ServerApp": server},
    }
