"""What the hub may ask for: one model per verb, and nothing that is not in it.

Pure: no host is touched, except by `check_environment_tree`, which looks at the owners of an installed tree.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

#: Largest request, in bytes.
MAX_BODY = 256 << 10
MAX_ARGUMENTS = 64
MAX_ARGUMENT = 4 << 10
MAX_VARIABLES = 256
MAX_VALUE = 32 << 10

_ARGUMENT = re.compile(r"--[A-Za-z][A-Za-z0-9_.-]*(=.*)?", re.ASCII | re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED_VARIABLES = frozenset(
    {
        # systemd takes these from the account
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        # ... and these are its own channel to a service
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "MAINPID",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "CREDENTIALS_DIRECTORY",
        # The loader's
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        # The grader's unit runs what these say
        "ILLUMIDESK_COMMAND",
        "ILLUMIDESK_ARGUMENTS",
    }
)
_RESERVED_VARIABLE_PREFIXES = ("LD_", "LISTEN_", "SYSTEMD_")
_IP_WORDS: dict[str, tuple[str, ...]] = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_argument(argument: str) -> str:
    """`argument`, where a server may be started with it: `--Name`, `--Name.trait` or `--name=value`.

    Raises:
        ValueError: where it may not.
    """
    if not _ARGUMENT.fullmatch(argument) or any(c < " " or c == "\x7f" for c in argument):
        raise ValueError("an argument must look like --Name=value and hold no control character")
    if len(_utf8(argument)) > MAX_ARGUMENT:
        raise ValueError(f"an argument may have {MAX_ARGUMENT} bytes")
    return argument


def check_variables(variables: dict[str, str]) -> dict[str, str]:
    """`variables`, where a server may be started with them.

    Control characters other than tab and newline are refused, since systemd would write the whole line to the
    journal as one that it ignores.

    Raises:
        ValueError: where they may not; the message names the variable, never its value.
    """
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or len(name) > 256:
            raise ValueError("the name of an environment variable must be letters, digits and _")
        if name in _RESERVED_VARIABLES or name.startswith(_RESERVED_VARIABLE_PREFIXES):
            raise ValueError(f"the environment variable {name} is not the hub's to set")
        if len(_utf8(value)) > MAX_VALUE:
            raise ValueError(f"the environment variable {name} may have {MAX_VALUE} bytes")
        if any(_unfit_for_systemd(c) for c in value):
            raise ValueError(f"the environment variable {name} holds a character that systemd does not take")
    return variables


def check_networks(networks: list[str]) -> list[str]:
    """`networks` as plain prefixes; systemd's words (`any`, `localhost`, …) are spelt out.

    Raises:
        ValueError: where one is not a network.
    """
    plain: list[str] = []
    for network in networks:
        try:
            plain += _IP_WORDS.get(network) or [str(ipaddress.ip_network(network, strict=False))]
        except ValueError:
            raise ValueError("give networks such as 10.0.0.0/8, or any, localhost") from None
    return plain


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("text must be valid Unicode") from None


def _unfit_for_systemd(c: str) -> bool:
    """Whether systemd's `env_value_is_valid` would refuse a value with `c` in it."""
    code = ord(c)
    return (code < 0x20 and c not in "\t\n") or code == 0x7F or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


AccountName = Annotated[str, AfterValidator(names.check_account)]
CourseId = Annotated[str, AfterValidator(names.check_course_id)]
EnvironmentName = Annotated[str, AfterValidator(names.check_environment)]
Argument = Annotated[str, AfterValidator(check_argument)]
Arguments = Annotated[list[Argument], Field(max_length=MAX_ARGUMENTS)]
Variables = Annotated[dict[str, str], Field(max_length=MAX_VARIABLES), AfterValidator(check_variables)]
Networks = Annotated[list[str], Field(max_length=64), AfterValidator(check_networks)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


class _Model(BaseModel):
    # strict: "1" is not a number and 1 is not a truth value
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Model):
    """What one unit may use; 0 means no limit.

    Args:
        memory: bytes.
        cpu: processor cores.
        tasks: processes and threads.
    """

    memory: Bytes = 0
    cpu: Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)] = 0.0
    tasks: Annotated[int, Field(ge=0, le=1 << 22)] = 0


class Properties(_Model):
    """The unit properties that an administrator may set for people's servers: none that widens the
    sandbox.
    """

    CPUWeight: Annotated[int, Field(ge=1, le=10000)] | None = None
    IOWeight: Annotated[int, Field(ge=1, le=10000)] | None = None
    MemoryHigh: Bytes | None = None
    MemorySwapMax: Bytes | None = None
    LimitNOFILE: Annotated[int, Field(ge=64, le=1 << 20)] | None = None
    PrivateNetwork: bool | None = None
    IPAddressDeny: Networks | None = None
    IPAddressAllow: Networks | None = None
    Nice: Annotated[int, Field(ge=0, le=19)] | None = None


class EnsureAccount(_Model):
    """Make a person's account, or find it made."""

    name: AccountName
    #: Whether to bring back an account that was retired.
    restore: bool = False


class OfPerson(_Model):
    """A verb about a person's account or server."""

    name: AccountName


class OfCourse(_Model):
    """A verb about a course."""

    course_id: CourseId


class SetMembership(_Model):
    """Let a person into a course's exchange and shared folder, or out."""

    course_id: CourseId
    name: AccountName
    member: bool
    #: Whether they write the shared folder; of no account where they are no member.
    staff: bool = False


class _Start(_Model):
    environment: EnvironmentName
    arguments: Arguments = []
    variables: Variables = {}
    limits: Limits = Limits()


class StartServer(_Start):
    """Start a person's server."""

    name: AccountName
    properties: Properties = Properties()
    #: Whether the environment's fork server is asked first.
    fork_server: bool = False


class StartGrader(_Start):
    """Start a course's grader."""

    course_id: CourseId


class Nothing(_Model):
    """A verb without arguments."""


#: Every verb there is, and what it takes.
VERBS: dict[str, type[BaseModel]] = {
    "ensure_account": EnsureAccount,
    "retire_account": OfPerson,
    "ensure_course": OfCourse,
    "remove_course": OfCourse,
    "set_membership": SetMembership,
    "assignments": OfCourse,
    "start_server": StartServer,
    "start_grader": StartGrader,
    "stop_server": OfPerson,
    "stop_grader": OfCourse,
    "units": Nothing,
    "host": Nothing,
}


def parse(verb: str, raw: Any) -> BaseModel:
    """The request `raw` (decoded JSON) for `verb`.

    Raises:
        IllumiDeskError: 404 for an unknown verb, 400 for anything in `raw` that the policy does not allow.
            The message holds no value out of `raw` but names, since values may be secrets.
    """
    model = VERBS.get(verb)
    if model is None:
        raise IllumiDeskError("there is no such verb", status=404)
    if not isinstance(raw, dict):
        raise IllumiDeskError("the request must be a JSON object")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _explained(error) from None


def _explained(error: ValidationError) -> IllumiDeskError:
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return IllumiDeskError(f"{_short(where)} is not something the hub may set")
    message = first["msg"].removeprefix("Value error, ")
    return IllumiDeskError(f"{_short(where)}: {message[:1].lower()}{message[1:]}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def check_environment_tree(paths: Paths, environment: str, *, owner: int = 0) -> Path:
    """The program of an installed environment's servers, which only `owner` (root) could have put there:
    `illumidesk-singleuser` (illumidesk/forkserver/program.py), or `jupyterhub-singleuser` where that is all there is.

    Every folder from `/opt/illumidesk` down to the program must be a real one that belongs to `owner` and
    that nobody else may write. `envs/NAME` itself may be a link, as an upgrade swaps it. It may lead elsewhere
    (`illumidesk env register`): then to a folder without further links on the way, and all of it from `/` down must
    be so.

    Raises:
        IllumiDeskError: where it is not so.
    """
    programs = paths.environments / names.check_environment(environment) / "bin"
    command = programs / "illumidesk-singleuser"
    if not command.exists():
        command = programs / "jupyterhub-singleuser"
    try:
        real = Path(os.path.realpath(command, strict=True))
        top = Path(os.path.realpath(paths.opt, strict=True))
        link = paths.environments / environment
        if not real.is_relative_to(top) and link.is_symlink():
            prefix = link.readlink()
            top = Path(os.path.realpath(paths.root, strict=True))
            direct = prefix.is_absolute() and Path(os.path.realpath(prefix)) == prefix and real.is_relative_to(prefix)
            fit = direct and prefix != top
        else:
            fit = real.is_relative_to(top) and real != top
    except OSError:
        raise IllumiDeskError(
            f"there is no environment {environment}", hint=_which_environments(paths), status=404
        ) from None
    for path in (real, *real.parents):
        found = path.lstat()
        fit = fit and found.st_uid == owner and not found.st_mode & 0o022
        if path == top or not fit:
            break
    # Also what leads to the link: whoever may write `envs` chooses what it points to
    for folder in (paths.opt, paths.environments):
        found = folder.lstat()
        fit = fit and stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o022
    if not fit or not stat.S_ISREG(real.lstat().st_mode) or not real.lstat().st_mode & 0o111:
        raise IllumiDeskError(
            f"the environment {environment} is not one that root alone can change",
            hint="build or register it anew: `illumidesk env list` shows them",
            status=403,
        )
    return command


def _which_environments(paths: Paths) -> str:
    try:
        found = sorted(entry.name for entry in paths.environments.iterdir() if not entry.name.startswith("."))
    except OSError:
        found = []
    return f"there is {', '.join(found)}" if found else "run install.sh"
