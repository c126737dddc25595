"""One typed view of `/etc/illumidesk/config.yaml`.

Every key has a default, so an empty file is a valid one. `config/config.yaml` explains each key to people; a test
keeps the two the same.
"""

from __future__ import annotations

import difflib
import io
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+)\s*(s|m|h|d)?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_PUBLIC_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^/:\[\]]+)(?::(\d{1,5}))?/?")
_WORKSPACE = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_PAGE = re.compile(r"[A-Za-z0-9_.~-]+(?:/[A-Za-z0-9_.~-]+)*/?", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """`1G`, `512 MiB` or a number of bytes, as bytes. Units are powers of 1024."""
    match = _SIZE.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError("give a size such as 512M or 1G")
    return int(float(match[1]) * _SIZE_UNITS[match[2].upper()])


def parse_duration(value: object) -> int:
    """`90s`, `30m`, `2h`, `1d` or a number of seconds, as seconds."""
    match = _DURATION.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError("give a time such as 30m or 2h (0 means never)")
    return int(match[1]) * _DURATION_UNITS[match[2]]


def check_folder(value: object) -> str:
    """A folder of this machine by its whole path; `/` is none."""
    text = str(value).rstrip("/")
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/"):
        raise ValueError("give the whole path of a folder, such as /srv/git")
    return text


def check_host(value: object) -> str:
    """A host as browsers name it, in lower case: a DNS name or an address; empty stays empty."""
    text = str(value).strip().lower().rstrip(".")
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _HOST.fullmatch(text) or text.rsplit(".", 1)[-1].isdigit():
        raise ValueError("give a name such as class.example.org (one with other letters as its xn-- form)")
    return text


def check_public_url(value: object) -> str:
    """The address in a browser, `https://HOST[:PORT]`, without a slash at its end; empty stays empty."""
    text = str(value).strip().lower()
    if not text:
        return ""
    match = _PUBLIC_URL.fullmatch(text)
    if match is None or not 1 <= int(match[3] or 1) <= 65535:
        raise ValueError("give an address such as https://class.example.org, without a path")
    # Without the scheme's own port, as browsers write it.
    port = "" if match[3] in (None, {"https": "443", "http": "80"}[match[1]]) else f":{match[3]}"
    return f"{match[1]}://{in_url(check_host(match[2].strip('[]')))}{port}"


def check_network(value: object) -> str:
    """An address, or a network such as 10.0.0.0/8, always with its prefix length."""
    try:
        return str(ipaddress.ip_network(str(value).strip(), strict=False))
    except ValueError:
        raise ValueError("give addresses or networks such as 127.0.0.1 or 10.0.0.0/8") from None


def check_channel(value: object) -> str:
    """A conda channel: a name such as conda-forge, an `https:`, `http:` or `file:` URL, or a folder.

    Without credentials: a channel is written into files that everybody may read.
    """
    text = str(value).strip().rstrip("/")
    if text.startswith("/") and text.isprintable():
        return Path(text).as_uri()
    if _CHANNEL.fullmatch(text) and ".." not in text:
        return text
    return check_channel_url(text)


def check_channel_url(value: object) -> str:
    """An `https:`, `http:` or `file:` URL without credentials, and without a slash at its end."""
    text = str(value).strip().rstrip("/")
    parts = urlsplit(text)
    place = parts.netloc if parts.scheme in ("http", "https") else parts.path if parts.scheme == "file" else ""
    if not place or not text.isprintable() or " " in text or parts.query or parts.fragment:
        raise ValueError("give a name such as conda-forge, an address such as https://conda.example.org, or a folder")
    if "@" in parts.netloc or re.search(r"/t/[^/]+/", f"{parts.path}/"):
        raise ValueError("passwords and tokens belong in /root/.rattler/credentials.json, not in an address")
    return text


def check_gallery(value: object) -> str:
    """The address of a gallery of extensions, without credentials and without a slash at its end; empty stays empty.

    By `https:` alone: the page of VS Code asks no other.
    """
    text = str(value).strip().rstrip("/")
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    fit = parts.scheme == "https" and parts.netloc and text.isascii() and text.isprintable()
    if text and (not fit or "@" in parts.netloc or any(sign in text for sign in ' ?#{}"\\')):
        raise ValueError("give an address such as https://open-vsx.org, or nothing")
    return text


def check_course(value: object) -> str:
    """A course's id as a key of YAML, where `2024` is a number."""
    return names.check_course_id(str(value) if type(value) is int else value)  # type: ignore[arg-type]


def check_workspace(value: object) -> str:
    """The name of a type of workspaces."""
    if not isinstance(value, str) or not _WORKSPACE.fullmatch(value):
        raise ValueError("give a name of up to 32 lower-case letters, digits and -, starting with a letter")
    return value


def check_own_workspace(value: object) -> str:
    """The name of a type of workspaces that is none of ours."""
    if check_workspace(value) in BUILT_IN:
        raise ValueError("this name has a meaning already; choose another")
    return str(value)


def check_page(value: object) -> str:
    """A page in people's servers, such as `marimo/`, without a slash in front."""
    text = str(value).removeprefix("/")
    if not _PAGE.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise ValueError("give a page of people's servers, such as marimo/")
    return text


def in_url(host: str) -> str:
    """`host` as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Duration = Annotated[int, BeforeValidator(parse_duration), Field(ge=0)]
Host = Annotated[str, BeforeValidator(check_host)]
AbsolutePath = Annotated[str, BeforeValidator(check_folder)]
PublicUrl = Annotated[str, BeforeValidator(check_public_url)]
Network = Annotated[str, BeforeValidator(check_network)]
Channel = Annotated[str, BeforeValidator(check_channel)]
ChannelUrl = Annotated[str, BeforeValidator(check_channel_url)]
Gallery = Annotated[str, BeforeValidator(check_gallery)]
Environment = Annotated[str, BeforeValidator(names.check_environment)]
OptionalEnvironment = Annotated[str, BeforeValidator(lambda value: value and names.check_environment(value))]
CourseId = Annotated[str, BeforeValidator(check_course)]
Workspace = Annotated[str, BeforeValidator(check_workspace)]
OwnWorkspace = Annotated[str, BeforeValidator(check_own_workspace)]
OptionalWorkspace = Annotated[str, BeforeValidator(lambda value: value and check_workspace(value))]
Page = Annotated[str, BeforeValidator(check_page)]

#: What somebody may be in a course.
CourseRole = Literal["student", "ta", "instructor"]
#: What the roles of an LMS are here, where `sign_in.lti.roles` says nothing else. A role that is not in it: student.
LTI_ROLES: Mapping[str, CourseRole] = MappingProxyType(
    {
        "Administrator": "instructor",
        "ContentDeveloper": "instructor",
        "Instructor": "instructor",
        "TeachingAssistant": "ta",
        "Learner": "student",
        "Mentor": "student",
    }
)

#: What nbgrader shows to people, by the names that its JupyterLab plugins have (`@jupyter/nbgrader:NAME`).
NbgraderPart = Literal["assignment-list", "course-list", "create-assignment", "formgrader", "validate-assignment"]
NBGRADER_PARTS: tuple[str, ...] = get_args(NbgraderPart)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Proxy(_Section):
    """The only process on a public port."""

    http_port: int = Field(80, ge=1, le=65535)
    #: Address to listen on; empty means every address.
    bind: str = ""
    #: Reverse proxies in front, whose word about visitors is believed.
    trusted: tuple[Network, ...] = ()


class Https(_Section):
    """HTTPS at the proxy itself, with the certificate in /etc/illumidesk/tls."""

    #: The name that people type, which the certificate names, too. Empty: no HTTPS.
    domain: Host = ""
    port: int = Field(443, ge=1, le=65535)
    #: How long browsers insist on HTTPS after a visit (seconds; 0 means not at all).
    hsts: Duration = 180 * 86400


class LocalSignIn(_Section):
    """Names and passwords kept on this host."""

    #: Whether strangers may make themselves an account. Closed: only names that exist may set a password.
    open_signup: bool = False
    min_password_length: int = Field(8, ge=1, le=64)


def _with_default_roles(value: object) -> object:
    return {**LTI_ROLES, **value} if isinstance(value, dict) else value


class LTISignIn(_Section):
    """People who come from learning management systems."""

    enabled: bool = True
    #: Whether an LMS may be on this machine itself; its addresses may then be http, too.
    loopback_platforms: bool = False
    #: What a role in a course of the LMS is here, by its short name; what is absent is as by default.
    roles: Annotated[dict[str, CourseRole], BeforeValidator(_with_default_roles)] = Field(
        default_factory=lambda: dict(LTI_ROLES)
    )


class SignIn(_Section):
    """How people come in."""

    local: LocalSignIn = LocalSignIn()
    lti: LTISignIn = LTISignIn()


class Limits(_Section):
    """What one server may use. 0 means no limit."""

    #: Bytes of memory (MemoryMax).
    memory: Size = 1 << 30
    #: Processor cores (CPUQuota).
    cpu: float = Field(1.0, ge=0, allow_inf_nan=False)
    #: Processes and threads (TasksMax).
    tasks: int = Field(512, ge=0)


class Environments(_Section):
    """Where conda packages come from, for descriptions that name no channels."""

    channels: tuple[Channel, ...] = ("conda-forge",)
    #: Where the channels are that are given by name: conda's own place, or a mirror of it.
    channel_alias: ChannelUrl = "https://conda.anaconda.org"


class ClassLimits(_Section):
    """What all servers together may use, so that the hub and the machine stay usable. Percent of the machine."""

    memory_percent: int = Field(80, ge=10, le=100)


class Role(_Section):
    """What a role gets when its server starts."""

    environment: Environment = "default"
    nbgrader: tuple[NbgraderPart, ...] = ()
    default_url: str = "/lab"
    #: Limits of this role; what is absent comes from `limits`.
    limits: Limits | None = None


class Learner(Role):
    """A student of a course."""

    nbgrader: tuple[NbgraderPart, ...] = ("assignment-list", "validate-assignment")


class Instructor(Role):
    """An instructor or TA of a course."""

    nbgrader: tuple[NbgraderPart, ...] = ("assignment-list", "course-list")


class Grader(Role):
    """A course's grader."""

    nbgrader: tuple[NbgraderPart, ...] = ("create-assignment", "formgrader")


class Roles(_Section):
    """The roles; `standard` is somebody without a course."""

    standard: Role = Role()
    learner: Learner = Learner()
    instructor: Instructor = Instructor()
    grader: Grader = Grader()


RoleName = Literal["standard", "learner", "instructor", "grader"]


class Machine(_Section):
    """What is set up on the machine itself."""

    #: Compressed swap in memory, where the machine has no swap.
    zram: bool = True
    #: Whether the kernel joins equal pages of forked servers (KSM).
    ksm: bool = False


class OwnType(_Section):
    """A type of workspaces that an administrator adds: a page that an environment's servers have."""

    #: What people read; the name where it is empty.
    title: str = Field("", max_length=60)
    path: Page
    #: Bytes that it takes in use, for people to read; 0 is unknown.
    memory: Size = 0


class Workspaces(_Section):
    """What people work in: a page of their server."""

    #: What people may start, of what there is. Empty: everything.
    offered: tuple[Workspace, ...] = ()
    #: When a page asks what to start: `auto` is where there is more than Notebook and JupyterLab.
    ask: Literal["auto", "always", "never"] = "auto"
    #: Where VS Code and Theia look for extensions: a server of Open VSX. Empty: nowhere.
    gallery: Gallery = "https://open-vsx.org"
    types: dict[OwnWorkspace, OwnType] = {}


class Course(_Section):
    """What a course has for itself. What is empty is as everywhere."""

    environment: OptionalEnvironment = ""
    #: What its people may start. The first opens where nobody says what.
    workspaces: tuple[Workspace, ...] = ()
    #: What its people start, whatever they ask for.
    workspace: OptionalWorkspace = ""


class Idle(_Section):
    """When what nobody uses is stopped (seconds; 0 means never)."""

    kernels: Duration = 4 * 3600
    servers: Duration = 2 * 3600
    graders: Duration = 1800


class Grades(_Section):
    """Grades on their way to learning management systems."""

    #: How often grades that have changed are sent by themselves (seconds; 0 means only when somebody asks).
    auto_send: Duration = 0
    #: Whether TAs may send grades, give extensions and fetch rosters, as instructors may.
    tas_may_send: bool = False


class Rosters(_Section):
    """Lists of people from learning management systems."""

    #: How often a roster that was fetched once is fetched again (seconds; 0 means only when somebody asks).
    refresh: Duration = 86400


class ForkServer(_Section):
    """Processes that hold an environment's modules in memory and fork people's servers."""

    #: Whether servers are forked where they can be; otherwise each starts by itself.
    enabled: bool = True
    #: Environments that are loaded when the machine starts; others when somebody needs them.
    at_boot: tuple[Environment, ...] = ("default",)


class Git(_Section):
    """Links that fetch git repositories."""

    #: Folders of this machine from which links may fetch, beside courses' shared folders.
    folders: tuple[AbsolutePath, ...] = ()


class Settings(_Section):
    """The whole file."""

    #: Where people go, when it is not what `https` and this machine's name say.
    public_url: PublicUrl = ""
    proxy: Proxy = Proxy()
    https: Https = Https()
    sign_in: SignIn = SignIn()
    limits: Limits = Limits()
    class_limits: ClassLimits = ClassLimits()
    environments: Environments = Environments()
    roles: Roles = Roles()
    workspaces: Workspaces = Workspaces()
    courses: dict[CourseId, Course] = {}
    idle: Idle = Idle()
    machine: Machine = Machine()
    grades: Grades = Grades()
    rosters: Rosters = Rosters()
    git: Git = Git()
    fork_server: ForkServer = ForkServer()

    def public_address(self) -> str:
        """Where people go, as `https://HOST[:PORT]` without a slash at its end; empty where the settings do not say.

        `public_url` where it is set, else what `https` says. It is what signatures and links are made of, so it is
        never guessed.
        """
        if self.public_url or not self.https.domain:
            return self.public_url
        port = "" if self.https.port == 443 else f":{self.https.port}"
        return f"https://{in_url(self.https.domain)}{port}"

    def role(self, name: RoleName) -> Role:
        """The settings of a role."""
        role: Role = getattr(self.roles, name)
        return role

    def limits_of(self, name: RoleName) -> Limits:
        """The limits of a role: its own where it names them, else everybody's."""
        own = self.role(name).limits
        if own is None:
            return self.limits
        return self.limits.model_copy(update=own.model_dump(exclude_unset=True))

    def course(self, course_id: str) -> Course:
        """What the course has for itself; "" is no course."""
        return self.courses.get(course_id) or Course()

    def environment_of(self, role: RoleName, course_id: str = "") -> str:
        """The environment of servers of that role: the course's own where it has one."""
        return self.course(course_id).environment or self.role(role).environment

    def workspace_types(self) -> dict[str, WorkspaceType]:
        """Every type of workspaces, by name: ours, then an administrator's."""
        own = {
            name: WorkspaceType(name, one.title or name, one.path, one.memory)
            for name, one in self.workspaces.types.items()
        }
        return {**BUILT_IN, **own}

    def offered_workspaces(self, course_id: str = "") -> dict[str, WorkspaceType]:
        """The types that people may start, in the order in which they are shown; whether they are installed aside.

        Args:
            course_id: a course that may restrict them; "" is none.
        """
        types = self.workspace_types()
        course = self.course(course_id)
        offered = (course.workspace,) if course.workspace else course.workspaces or self.workspaces.offered
        return {name: types[name] for name in offered or types}


def load(path: Path) -> Settings:
    """The settings in `path`; the defaults where the file does not exist.

    Raises:
        IllumiDeskError: one sentence for the first thing that is wrong, with the nearest right key where one is near.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise IllumiDeskError(f"{path} cannot be read: {error}") from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str = "config.yaml") -> Settings:
    """The settings in the YAML `text`; `name` is the file's, for errors.

    Raises:
        IllumiDeskError: as `load`.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise IllumiDeskError(f"{name} is not valid YAML{where}: {problem}", hint="check the indentation") from None
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise IllumiDeskError(f"{name} must hold keys and values", hint="see the comments in the shipped file")
    current = validate(_without_empty_sections(raw), name=name)
    try:
        _check_workspaces(current)
    except IllumiDeskError as error:
        raise IllumiDeskError(f"{name}: {error.message}", hint=error.hint) from None
    return current


def validate(raw: dict[str, Any], *, name: str = "config.yaml") -> Settings:
    """`raw` as settings.

    Raises:
        IllumiDeskError: as `load`.
    """
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise _explained(error, name) from None
    except IllumiDeskError as error:
        raise IllumiDeskError(f"{name}: {error.message}", hint=error.hint) from None


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key that the settings know, sections included; what people name themselves is not in it."""
    keys: list[str] = []
    for field, info in model.model_fields.items():
        keys.append(prefix + field)
        section, by_name = _section_of(info.annotation)
        if section is not None and not by_name:
            keys += known_keys(section, f"{prefix}{field}.")
    return keys


def field_of(key: str) -> FieldInfo | None:
    """The field that the dotted `key` names, `courses.bio101.environment` too; None where there is no such key.

    `courses.bio101` has the field of `courses`.
    """
    found = _found(key)
    return None if found is None else found[0]


def keys_inside(key: str) -> list[str]:
    """The dotted keys in the section `key`, those in sections of it too; empty where it is none."""
    found = _found(key)
    return [] if found is None or found[1] is None else known_keys(found[1], f"{key}.")


def nearest_key(key: str) -> str | None:
    """The known dotted key that looks most like `key`; nothing where none is near."""
    near = difflib.get_close_matches(key, keys_inside(key.rpartition(".")[0]), n=1, cutoff=0.8)
    if near:
        return near[0]
    leaf = key.rsplit(".", 1)[-1]
    elsewhere = [known for known in known_keys() if known.rsplit(".", 1)[-1] == leaf]
    if len(elsewhere) == 1:
        return elsewhere[0]
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
    if near:
        return near[0]
    by_leaf = {known.rsplit(".", 1)[-1]: known for known in reversed(known_keys())}
    near = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[near[0]] if near else None


def _found(key: str) -> tuple[FieldInfo, type[BaseModel] | None] | None:
    """The field that `key` names, and its section where it is one."""
    info: FieldInfo | None = None
    section: type[BaseModel] | None = Settings
    parts = key.split(".")
    while parts:
        if section is None or parts[0] not in section.model_fields:
            return None
        info = section.model_fields[parts.pop(0)]
        section, by_name = _section_of(info.annotation)
        if by_name and parts:
            parts.pop(0)
        elif by_name:
            section = None
    return None if info is None else (info, section)


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, and whether it holds one for each name that somebody gives."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate, get_origin(annotation) is dict
    return None, False


def _check_workspaces(current: Settings) -> None:
    """Nothing, where every workspace that is named exists.

    Raises:
        IllumiDeskError: naming the first that does not, and the nearest that does.
    """
    known = current.workspace_types()
    named = [("workspaces.offered", name) for name in current.workspaces.offered]
    for course_id, course in current.courses.items():
        named += [(f"courses.{course_id}.workspaces", name) for name in course.workspaces]
        named += [(f"courses.{course_id}.workspace", course.workspace)] if course.workspace else []
    for key, name in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
            raise IllumiDeskError(f"{key} cannot be {name!r}: there is no such workspace", hint=hint)


def _without_empty_sections(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` without keys that hold nothing: `limits:` with every line below it commented out means the defaults."""
    return {
        key: _without_empty_sections(value) if isinstance(value, dict) else value
        for key, value in raw.items()
        if value is not None
    }


def _explained(error: ValidationError, name: str) -> IllumiDeskError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = nearest_key(key)
        hint = f"did you mean {near}?" if near else "`illumidesk config show` lists every key"
        return IllumiDeskError(f"{name}: there is no setting {key}", hint=hint)
    message = str(first["msg"]).removeprefix("Value error, ")
    hint = ""
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        near_values = difflib.get_close_matches(first["input"], [*NBGRADER_PARTS, *get_args(CourseRole)], n=1)
        hint = f"did you mean {near_values[0]}?" if near_values else ""
    return IllumiDeskError(f"{name}: {key} cannot be {first['input']!r}: {_lower_first(message)}", hint=hint)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
