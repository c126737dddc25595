"""Names of accounts, courses, groups and units, and what makes them valid. Pure functions, no host touched.

Rules follow Debian's `useradd` (adduser.conf NAME_REGEX, 32 bytes at most) and JupyterHub, which lowers names.
"""

from __future__ import annotations

import re

from illumidesk.errors import IllumiDeskError

#: Local service accounts and groups.
HUB_ACCOUNT = "illumidesk-hub"
PROXY_ACCOUNT = "illumidesk-proxy"
#: Linux group of the hub and the proxy: it may open people's sockets.
SOCKETS_GROUP = "illumidesk-sockets"
#: Linux groups that mark the accounts the supervisor made, and so may use.
PEOPLE_GROUP = "illumidesk-people"
GRADERS_GROUP = "illumidesk-graders"

#: Longest Linux account or group name, in bytes (useradd(8), LOGIN_NAME_MAX is larger but tools truncate at 32).
MAX_ACCOUNT = 32
#: Longest course id: `nbgrader-ID` and `grader-ID` must be valid Linux names.
MAX_COURSE_ID = MAX_ACCOUNT - len("nbgrader-")

_ACCOUNT = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_COURSE_ID = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.ASCII)
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.ASCII)
_RESERVED_PREFIXES = ("grader-", "nbgrader-", "formgrade-", "illumidesk", "jupyter-", "systemd-")
_RESERVED_NAMES = frozenset({"root", "nobody", "nogroup", "grader", "instructors", "shared"})


def check_account(name: str) -> str:
    """`name`, where it may be the name of a person's account.

    Raises:
        IllumiDeskError: with the reason, where it may not.
    """
    hint = f"use up to {MAX_ACCOUNT} lower-case letters, digits, - and _, starting with a letter"
    if not isinstance(name, str) or not _ACCOUNT.fullmatch(name) or len(name) > MAX_ACCOUNT:
        raise IllumiDeskError(f"{_shown(name)} is not a valid user name", hint=hint)
    if name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES):
        raise IllumiDeskError(f"{_shown(name)} is reserved for the system", hint="choose another name")
    return name


def check_course_id(course_id: str) -> str:
    """`course_id`, where it may be one.

    Raises:
        IllumiDeskError: with the reason, where it may not.
    """
    if not isinstance(course_id, str) or not _COURSE_ID.fullmatch(course_id) or len(course_id) > MAX_COURSE_ID:
        raise IllumiDeskError(
            f"{_shown(course_id)} is not a valid course id",
            hint=f"use up to {MAX_COURSE_ID} lower-case letters, digits, - and _, "
            "starting and ending with a letter or digit",
        )
    return course_id


def check_environment(name: str) -> str:
    """`name`, where it may name an environment in `/opt/illumidesk/envs`.

    Raises:
        IllumiDeskError: where it may not.
    """
    if not isinstance(name, str) or not _ENVIRONMENT.fullmatch(name) or len(name) > 64 or ".." in name:
        raise IllumiDeskError(
            f"{_shown(name)} is not a valid environment name",
            hint="use lower-case letters, digits, -, _ and .",
        )
    return name


def grader_account(course_id: str) -> str:
    """The Linux account of a course's grader."""
    return f"grader-{check_course_id(course_id)}"


def members_group(course_id: str) -> str:
    """The Linux group of a course's members, and the JupyterHub group of its students."""
    return f"nbgrader-{check_course_id(course_id)}"


def formgrade_group(course_id: str) -> str:
    """The JupyterHub group of those who may open a course's grader."""
    return f"formgrade-{check_course_id(course_id)}"


def server_unit(account: str) -> str:
    """The systemd unit of a person's server."""
    return f"jupyter-{check_account(account)}.service"


def grader_unit(course_id: str) -> str:
    """The systemd unit of a course's grader."""
    return f"illumidesk-grader@{check_course_id(course_id)}.service"


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]
