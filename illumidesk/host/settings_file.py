"""Read and change `/etc/illumidesk/config.yaml`, key by key, for people at a shell."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import grp
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from illumidesk import names, settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import yaml_edit
from illumidesk.paths import Paths, data
from illumidesk.settings import RoleName, Settings

_SIZE_UNITS = (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))
_DURATION_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def set_value(path: Path, key: str, given: str) -> str:
    """Set `key` in the settings file `path`, which is made from the shipped one where it does not exist.

    Args:
        path: the settings file.
        key: a dotted key, such as `limits.memory`.
        given: the value as a person types it: a YAML scalar or list.

    Returns:
        The value as it was written.

    Raises:
        IllumiDeskError: where the key or the value is wrong (with the nearest right one), where the file
            would not be valid, or where this account may not write it. The file is then as it was.
    """
    value = parse_value(key, given)
    _edit(path, lambda text: yaml_edit.with_value(text, key, value, settings.known_keys()))
    return yaml_edit.as_yaml(value)


def unset_value(path: Path, key: str) -> bool:
    """Remove `key` from the settings file `path`, so that its default applies. A section keeps its comments.

    A course's last setting takes the course's name with it. A key that the settings do not know is removed as well,
    where the file has it.

    Returns:
        Whether the file had it.

    Raises:
        IllumiDeskError: as `set_value`.
    """
    if not yaml_edit.has(own_values(path), key):
        check_key(key)
        return False
    _edit(path, lambda text: _without(text, key))
    return True


def own_values(path: Path) -> dict[str, Any]:
    """What the file itself says, as nested dictionaries and as it is written there.

    Raises:
        IllumiDeskError: where it cannot be read or is not YAML.
    """
    return yaml_edit.load(_read(path))


def load(path: Path) -> Settings:
    """The settings in `path`, as `settings.load`, with a hint for who may not read it.

    Raises:
        IllumiDeskError: where they are wrong or cannot be read.
    """
    return settings.parse(_read(path), name=str(path))


def check_environments(current: Settings, paths: Paths) -> None:
    """Make sure that every environment that a role or a course names has been built.

    Raises:
        IllumiDeskError: naming it and the nearest environment that there is.
    """
    for role in get_args(RoleName):
        check_environment(f"roles.{role}.environment", current.role(role).environment, paths)
    for course_id, course in current.courses.items():
        if course.environment:
            check_environment(f"courses.{course_id}.environment", course.environment, paths)


def check_environment(key: str, name: str, paths: Paths) -> None:
    """Make sure that the environment `name`, to which `key` is or will be set, has been built.

    Raises:
        IllumiDeskError: as `check_environments`.
    """
    try:
        built = sorted(entry.name for entry in paths.environments.iterdir() if not entry.name.startswith("."))
    except OSError:
        return  # nothing is installed here, or this account may not look
    if built and name not in built:
        near = difflib.get_close_matches(name, built, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(built)}"
        raise IllumiDeskError(f"{key} cannot be {name!r}: there is no such environment", hint=hint)
    if built and not (paths.environments / name / "bin/jupyterhub-singleuser").exists():
        raise IllumiDeskError(
            f"{key} cannot be {name!r}: people's servers cannot run from that environment, which has no "
            "jupyterhub-singleuser",
            hint="`illumidesk env list` says which can",
        )


# Keys and values


def check_key(key: str) -> str:
    """`key`, where the settings know it.

    Raises:
        IllumiDeskError: naming the nearest key that there is.
    """
    if settings.field_of(key) is None:
        near = settings.nearest_key(key)
        hint = f"did you mean {near}?" if near else "`illumidesk config show` lists every key"
        raise IllumiDeskError(f"there is no setting {key}", hint=hint)
    return key


def parse_value(key: str, given: str) -> Any:
    """The value that a person gave for `key`, checked.

    Raises:
        IllumiDeskError: where the key is unknown or a section, or where the value does not fit it.
    """
    check_key(key)
    inside = settings.keys_inside(key)
    if inside:
        shown = ", ".join(inside[:4]) + (", …" if len(inside) > 4 else "")
        raise IllumiDeskError(f"{key} is a section", hint=f"set one of {shown}")
    field = _field(key)
    value = _scalar_or_list(key, given, is_text=field.annotation is str)
    raw: Any = value
    for part in reversed(key.split(".")):
        raw = {part: raw}
    try:
        checked = settings.validate(raw)
    except IllumiDeskError as error:
        message = error.message.removeprefix("config.yaml: ")
        if not message.startswith(key):
            message = f"{key} cannot be {given!r}: {message}"
        raise IllumiDeskError(message, hint=error.hint or _value_hint(field, given)) from None
    # YAML 1.1's yes and on are taken, and written so that every reader agrees
    return _walk(checked, key) if field.annotation is bool else value


def plain_values(current: Settings) -> dict[str, Any]:
    """Settings as nested dictionaries in the file's own notation: `1G` and `2h`, not bytes and seconds.

    A role's `limits` are there only where the role has some.
    """
    return _plain_section(current)


def plain_value(current: Settings, key: str) -> Any:
    """The value of `key` in effect, as `plain_values` writes it.

    For `roles.ROLE.limits` that is what a server of that role gets, everybody's limits included.

    Raises:
        IllumiDeskError: where there is no such key.
    """
    value = _walk(current, check_key(key))
    return _plain_section(value) if isinstance(value, BaseModel) else _notation(_field(key), value)


def typed_value(current: Settings, key: str) -> Any:
    """The value of `key` in effect as a program wants it: bytes, seconds, numbers, lists.

    Raises:
        IllumiDeskError: where there is no such key.
    """
    value = _walk(current, check_key(key))
    if isinstance(value, dict):
        return {name: one.model_dump(mode="json") if isinstance(one, BaseModel) else one for name, one in value.items()}
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def format_size(size: int) -> str:
    """Bytes as `settings.parse_size` reads them: `1G`, `1536M`."""
    return _in_units(size, _SIZE_UNITS)


def format_duration(seconds: int) -> str:
    """Seconds as `settings.parse_duration` reads them: `2h`, `90m`."""
    return _in_units(seconds, _DURATION_UNITS)


def _field(key: str) -> FieldInfo:
    field = settings.field_of(key)
    assert field is not None  # noqa: S101 -- check_key came first
    return field


def _walk(current: Settings, key: str) -> Any:
    parts = key.split(".")
    value: Any = current
    if parts[0] == "roles" and parts[2:3] == ["limits"]:
        value, parts = current.limits_of(cast(RoleName, parts[1])), parts[3:]
    for part in parts:
        if value is current.courses:
            value = current.course(part)
        elif isinstance(value, dict) and part not in value:
            raise IllumiDeskError(f"{key} is not set", hint="add it in an editor")
        else:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _plain_section(section: BaseModel) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            plain[name] = _plain_section(value)
        elif value is not None:
            plain[name] = _notation(field, value)
    return plain


def _notation(field: FieldInfo, value: Any) -> Any:
    parsers = [meta.func for meta in field.metadata if isinstance(meta, BeforeValidator)]
    if settings.parse_size in parsers:
        return format_size(value) if value else 0
    if settings.parse_duration in parsers:
        return format_duration(value) if value else 0
    if isinstance(value, dict):
        return {name: _plain_section(one) if isinstance(one, BaseModel) else one for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _in_units(amount: int, units: tuple[tuple[str, int], ...]) -> str:
    for unit, size in units:
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def _scalar_or_list(key: str, given: str, *, is_text: bool) -> Any:
    try:
        value = YAML(typ="safe", pure=True).load(given)
    except YAMLError:
        if not is_text:
            hint = "give one value, or a list such as '[a, b]'"
            raise IllumiDeskError(f"{key} cannot be {given!r}: it is not valid YAML", hint=hint) from None
        value = given
    if is_text and not isinstance(value, str):
        return given
    if value is None:
        hint = f"`illumidesk config unset {key}` restores the default"
        raise IllumiDeskError(f"no value was given for {key}", hint=hint)
    if isinstance(value, dict):
        hint = f"see `illumidesk config get {key}`"
        raise IllumiDeskError(f"{key} takes one value, not keys and values", hint=hint)
    return value


def _value_hint(field: FieldInfo, given: str) -> str:
    if field.annotation is bool:
        near = difflib.get_close_matches(given.lower(), ["true", "false"], n=1)
        return f"did you mean {near[0]}?" if near else "give true or false"
    if get_args(field.annotation):
        return "give a list, such as '[assignment-list, course-list]'"
    return "the comments in config.yaml say what each key takes"


def _without(text: str, key: str) -> str:
    raw = yaml_edit.load(text)
    inside = settings.keys_inside(key)
    leaves = [known for known in inside if not settings.keys_inside(known) and yaml_edit.has(raw, known)]
    for gone in leaves or [key]:
        text = yaml_edit.without_value(text, gone)
    course = ".".join(key.split(".")[:2])
    left = yaml_edit.load(text)
    if (
        course.startswith("courses.")
        and yaml_edit.has(left, course)
        and not left["courses"][course.removeprefix("courses.")]
    ):
        text = yaml_edit.without_value(text, course)
    return text


# The file


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise _not_root(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise IllumiDeskError(f"{path} cannot be read: {error}") from None


def _edit(path: Path, change: Callable[[str], str]) -> None:
    path = path.resolve()  # a link to a file kept elsewhere stays a link
    with _locked(path.parent):
        text = _read(path) if path.exists() else data("config", "config.yaml").read_text("utf-8")
        changed = change(text)
        settings.parse(changed, name=str(path))
        _replace(path, changed)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other editors of ours out.

    The lock is on the folder, since a lock on the file would go with the file that is replaced.
    """
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IllumiDeskError(f"there is no folder {folder}", hint="install IllumiDesk first") from None
    except PermissionError:
        raise _not_root(folder) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, text: str) -> None:
    mode, owner, group = 0o640, os.geteuid(), os.getegid()
    if path.exists():
        old = path.stat()
        mode, owner, group = old.st_mode & 0o7777, old.st_uid, old.st_gid
    else:
        with contextlib.suppress(KeyError):
            group = grp.getgrnam(names.HUB_ACCOUNT).gr_gid
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text.encode("utf-8"))
            os.fchown(file.fileno(), owner, group)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except PermissionError:
        raise _not_root(path) from None
    finally:
        new.unlink(missing_ok=True)


def _not_root(path: Path) -> IllumiDeskError:
    return IllumiDeskError(f"{path} belongs to root", hint="run it with sudo")
