"""Descriptions of environments: conda's `environment.yml`, with its nested `pip:` list.

https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html. What conda knows beyond
`name`, `channels` and `dependencies` (`variables`, `prefix`) is refused or left out, since nothing here would act on
it. One key is ours: `based_on` names another environment that is described here, whose packages come along.
"""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.host.environments import requirement_name
from illumidesk.settings import check_channel

_KEYS = ("name", "based_on", "channels", "dependencies", "prefix")


@dataclass(frozen=True)
class Description:
    """What an environment is to have.

    Args:
        text: the file.
        name: what it calls itself; may be empty.
        channels: where conda packages come from; empty means the settings' own.
        conda: match specifications, such as `python=3.12`.
        pip: requirement specifiers (PEP 508).
        based_on: the environment whose packages come along; may be empty.
    """

    text: str
    name: str
    channels: tuple[str, ...]
    conda: tuple[str, ...]
    pip: tuple[str, ...]
    based_on: str = ""


def read(file: Path) -> Description:
    """The description in a file.

    Raises:
        IllumiDeskError: where it cannot be read, or says what is not understood.
    """
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise IllumiDeskError(f"there is no file {file}", status=404) from None
    except (OSError, UnicodeDecodeError) as error:
        raise IllumiDeskError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, file=str(file))


def parse(text: str, *, file: str) -> Description:
    """The description in `text`; `file` names it in errors.

    Raises:
        IllumiDeskError: as `read`.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise IllumiDeskError(f"{file} is not valid YAML{where}: {problem}", hint="check the indentation") from None
    if not isinstance(raw, dict) or "dependencies" not in raw:
        raise IllumiDeskError(
            f"{file} is not the description of an environment: it has no dependencies",
            hint="it must be an environment.yml as conda has them",
        )
    for key in raw:
        if key not in _KEYS:
            raise IllumiDeskError(f"{file}: {key} is not understood here", hint=f"there is {', '.join(_KEYS[:4])}")
    name = raw.get("name")
    if name is not None and not isinstance(name, str):
        name = str(name)
    conda: list[str] = []
    pip: list[str] = []
    for entry in _list_of(raw, "dependencies", file):
        if isinstance(entry, dict):
            if list(entry) != ["pip"]:
                raise IllumiDeskError(f"{file}: of nested lists there is only pip, not {', '.join(map(str, entry))}")
            pip += [_requirement(line, file) for line in _list_of(entry, "pip", file)]
        elif isinstance(entry, str) and entry.strip():
            conda.append(_specification(entry.strip(), file))
        else:
            raise IllumiDeskError(f"{file}: {entry!r} is not a dependency", hint="each is a word such as python=3.12")
    if conda == ["pip"]:
        conda = []  # as conda wants it said where there is a pip list; every Python of ours can do without
    channels = [_channel(entry, file) for entry in _list_of(raw, "channels", file)]
    based_on = raw.get("based_on") or ""
    if based_on:
        try:
            names.check_environment(based_on)
        except IllumiDeskError as error:
            raise IllumiDeskError(f"{file}: based_on: {error.message}", hint=error.hint) from None
    return Description(text, name or "", tuple(channels), tuple(conda), tuple(pip), based_on)


def _list_of(raw: dict[str, Any], key: str, file: str) -> list[Any]:
    found = raw.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise IllumiDeskError(f"{file}: {key} must be a list", hint="a line for each, beginning with -")
    return found


def _requirement(line: object, file: str) -> str:
    text = line.split(" #", 1)[0].strip() if isinstance(line, str) else ""
    if not text or "\n" in text:
        raise IllumiDeskError(f"{file}: {line!r} is not a package for pip")
    if text.startswith("-"):
        raise IllumiDeskError(
            f"{file}: {text.split()[0]} is an option, not a package",
            hint="name packages only; package indexes belong in pip's own settings (pip config)",
        )
    return text


def _specification(text: str, file: str) -> str:
    if text.startswith("-") or not text.isprintable():
        raise IllumiDeskError(f"{file}: {text!r} is not a dependency", hint="each is a word such as python=3.12")
    return text


def _channel(entry: object, file: str) -> str:
    try:
        return check_channel(entry)
    except ValueError as error:
        raise IllumiDeskError(f"{file}: {entry!r} is no channel: {error}") from None


def changed(description: Description, *, name: str, channels: tuple[str, ...] = ()) -> Description:
    """`description` with another name, and other channels where some are given; comments stay."""
    channels = channels or description.channels
    if description.name == name and description.channels == channels:
        return description
    yaml = _round_trip()
    raw = yaml.load(description.text)
    _put_first(raw, "name", name)
    if channels != description.channels:
        raw["channels"] = list(channels)
        if "dependencies" in raw:
            raw.move_to_end("dependencies")
    out = io.StringIO()
    yaml.dump(raw, out)
    return parse(out.getvalue(), file=f"{name}.yml")


def with_packages(description: Description, add: Sequence[str], remove: Sequence[str] = ()) -> Description:
    """`description` with other packages for pip; comments and everything else stay.

    Args:
        description: as it is now.
        add: requirement specifiers; one takes the place of that of the same package.
        remove: names of packages.
    """
    gone = {requirement_name(line) for line in (*add, *remove)}
    yaml = _round_trip()
    raw = yaml.load(description.text)
    if not raw.get("dependencies"):
        raw["dependencies"] = []  # one that was written as [] would stay on one line
    dependencies = raw["dependencies"]
    listed = [entry for entry in dependencies if isinstance(entry, dict)]
    for entry in listed:
        lines = entry["pip"] or []
        for index in reversed(range(len(lines))):
            if requirement_name(_requirement(lines[index], description.name)) in gone:
                del lines[index]
    if add:
        if not listed:
            listed = [{"pip": []}]
            dependencies.extend(listed)
        listed[-1]["pip"] = listed[-1]["pip"] or []
        listed[-1]["pip"].extend(add)
    for entry in listed:
        if not entry["pip"]:
            dependencies.remove(entry)
    out = io.StringIO()
    yaml.dump(raw, out)
    return parse(out.getvalue(), file=f"{description.name}.yml")


def _put_first(raw: CommentedMap, key: str, value: str) -> None:
    if key in raw:
        raw[key] = value
    else:
        raw.insert(0, key, value)


def from_requirements(name: str, text: str) -> str:
    """A list of requirements, as earlier versions had them, as a description; its comments stay.

    But for the head of the list that was shipped, which explains how to use such a list.

    Args:
        name: of the environment.
        text: a package or a comment a line.
    """
    lines = [f"name: {name}", "dependencies:", "  - pip:"]
    packages = 0
    listed = text.splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#"), listed))
    if "run install.sh" in "".join(head):
        listed = listed[len(head) :]
    for line in listed:
        stripped = line.strip()
        if not stripped:
            lines.append("")
        elif stripped.startswith("#"):
            lines.append(f"      {stripped}")
        else:
            requirement, _, comment = stripped.partition(" #")
            behind = f"  # {comment.strip()}" if comment else ""
            lines.append(f"      - {_quoted(requirement.strip())}{behind}")
            packages += 1
    if not packages:
        lines[2] += " []"
    return "\n".join(lines).rstrip() + "\n"


def _quoted(text: str) -> str:
    """A requirement as a plain scalar, or in quotes where YAML would read something else."""
    yaml = YAML(typ="safe", pure=True)
    try:
        plain = yaml.load(f"- {text}") == [text]
    except YAMLError:
        plain = False
    return text if plain else "'" + text.replace("'", "''") + "'"


def pinned(name: str, channels: tuple[str, ...], conda: list[str], pip: list[str]) -> str:
    """A description that names exact versions, for conda anywhere."""
    dependencies: list[Any] = list(conda)
    if pip:
        if conda and not any(line.split("=")[0] == "pip" for line in conda):
            dependencies.append("pip")
        dependencies.append({"pip": pip})
    raw: dict[str, Any] = {"name": name}
    if conda:
        raw["channels"] = list(channels)
    raw["dependencies"] = dependencies
    out = io.StringIO()
    _round_trip().dump(raw, out)
    return out.getvalue()


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def checked_name(description: Description, name: str | None) -> str:
    """The environment's name: the one that was given, else the one that the description has.

    Raises:
        IllumiDeskError: where there is none, or it may not be one.
    """
    chosen = name or description.name
    if not chosen:
        raise IllumiDeskError("the description has no name", hint="give the environment's name")
    return names.check_environment(chosen)


if __name__ == "__main__":
    # For scripts/test: what a description asks pip for, a line each.
    print(*read(Path(sys.argv[1])).pip, sep="\n")
