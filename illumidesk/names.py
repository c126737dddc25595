"""Names of accounts, courses, groups and units, and what makes them valid. Pure functions, no host touched.

Rules follow Debian's `useradd` (adduser.conf NAME_REGEX, 32 bytes at most) and JupyterHub, which lowers names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from illumidesk.errors import IllumiDeskError

#: What a person's server says of itself to systemd (`STATUS=`, sd_notify(3)) once it listens.
READY = "Ready"
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

#: Longest name of an assignment, in characters.
MAX_ASSIGNMENT = 100

_ACCOUNT = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)
_COURSE_ID = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?", re.ASCII)
_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.ASCII)
_RESERVED_PREFIXES = ("grader-", "nbgrader-", "formgrade-", "illumidesk", "jupyter-", "systemd-")
_RESERVED_NAMES = frozenset({"root", "nobody", "nogroup", "grader", "instructors", "shared"})
#: Names that an LMS gives to nobody here: a later `illumidesk user add admin --admin` must not meet somebody's account.
_NOT_FROM_PLATFORMS = frozenset({"admin", "administrator", "hub", "jupyterhub", "sysadmin", "ubuntu", "debian"})
#: Letters that do not fall apart into an ASCII letter and an accent.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ħ": "h", "ŋ": "n"}
)
#: Longest text of an LMS that is looked at.
_MAX_TEXT = 1000


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


def course_environment(course_id: str) -> str:
    """The environment of a course that has one of its own."""
    return f"course-{check_course_id(course_id)}"


def course_of_environment(name: str) -> str:
    """The course whose own environment `name` is; empty where it is none of a course."""
    course_id = name.removeprefix("course-")
    return course_id if course_id != name and _COURSE_ID.fullmatch(course_id) else ""


def check_assignment(name: str) -> str:
    """`name`, where it may name an assignment: one folder's name, without the `+` that nbgrader keeps for itself.

    Raises:
        IllumiDeskError: where it may not.
    """
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= MAX_ASSIGNMENT
        or not name.isprintable()
        or name != name.strip()
        or name.startswith(".")
        or set(name) & set("+/\\")
    ):
        raise IllumiDeskError(
            f"{_shown(name)} is not a valid assignment name",
            hint=f"use up to {MAX_ASSIGNMENT} letters, digits, spaces, - and _, not starting with a dot",
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


# From what a learning management system sends


def account_proposals(email: str, login: str, given: str, family: str, sub: str) -> list[str]:
    """Valid account names for somebody from an LMS, the best first. The same words give the same names.

    Args:
        email: e-mail address; its name counts, without a `+tag`.
        login: the name in the LMS, which may be an e-mail address.
        given: given name.
        family: family name.
        sub: the platform's id for the person; makes a name where nothing else does.

    Returns:
        at least one name. Which of them is free is the registry's to say (`numbered` goes on where none is).
    """
    proposals = []
    for text in (_mail_name(email), _mail_name(login), f"{given[:_MAX_TEXT]} {family[:_MAX_TEXT]}"):
        name = _account_of(_folded(text))
        if name and name not in proposals:
            proposals.append(name)
    return proposals or [f"user-{_digest(sub)}"]


def course_proposals(label: str, title: str, context_id: str) -> list[str]:
    """Valid course ids for a course of an LMS, the best first. The same words give the same ids.

    Args:
        label: the course's short name, free text.
        title: its long name, free text.
        context_id: the platform's id for it; makes an id where label and title do not.

    Returns:
        at least one id, of the label where that has letters or digits, so that two courses with one label are
        numbered rather than named otherwise.
    """
    for text in (label, title):
        course_id = _course_id_of(_folded(text))
        if course_id:
            return [course_id]
    return [f"course-{_digest(context_id)}"]


def numbered(name: str, number: int, longest: int) -> str:
    """`name` with a number behind it, cut so that it is no longer than `longest`: `ana-2`."""
    tail = f"-{number}"
    return name[: longest - len(tail)].rstrip("-_") + tail


def _mail_name(text: str) -> str:
    local = text[:_MAX_TEXT].partition("@")[0]
    return local.partition("+")[0] or local


def _folded(text: str) -> str:
    """`text` as lower-case ASCII words with hyphens between them; empty where it has no such letters or digits."""
    lowered = unicodedata.normalize("NFKC", text[:_MAX_TEXT]).lower().translate(_LETTERS)
    plain = "".join(char for char in unicodedata.normalize("NFKD", lowered) if not unicodedata.combining(char))
    return re.sub(r"[^a-z0-9_]+", "-", plain.replace("'", "").replace("’", ""), flags=re.ASCII).strip("-_")


def _account_of(words: str) -> str:
    if not words:
        return ""
    if not words[0].isalpha():
        words = f"u{words}"  # a student number
    if words in _RESERVED_NAMES | _NOT_FROM_PLATFORMS or words.startswith(_RESERVED_PREFIXES):
        words = f"u-{words}"
    return _cut(words, MAX_ACCOUNT)


def _course_id_of(words: str) -> str:
    if words.startswith("illumidesk"):  # the hub has services of such names
        words = f"c-{words}"
    return _cut(words, MAX_COURSE_ID)


def _cut(words: str, longest: int) -> str:
    """`words` in at most `longest` characters, at the end of a word where that keeps more than half of them."""
    if len(words) <= longest:
        return words
    cut = words[:longest]
    if words[longest] not in "-_":
        whole = cut.rpartition("-")[0]
        cut = whole if len(whole) > longest // 2 else cut
    return cut.rstrip("-_")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]
