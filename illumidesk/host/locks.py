"""Lock files: exactly which packages an environment has, so that the same one can be built again.

`NAME.lock` beside `NAME.yml` is YAML: what was asked for (a digest), the platform and the Python, conda's packages as
a lock file of rattler's (the format of pixi.lock, with an address and a SHA-256 each), and pip's by exact version.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from illumidesk.errors import IllumiDeskError
from illumidesk.host.environments import LOCK, Environment, Pins

_VERSION = 1
_HEAD = "# Exactly what is in an environment, written by `illumidesk env`. Its description is the .yml file.\n"


@dataclass(frozen=True)
class Lock:
    """What exactly is in an environment.

    Args:
        asked: digest of what was asked for (`Environment.asked`).
        machine: the kind of machine, as `uname -m` says it.
        python: its minor version; empty where there is no Python.
        conda: rattler's lock file as data; empty where there is no conda package.
        pip: exact requirement specifiers of what pip installed, without IllumiDesk's own package.
    """

    asked: str
    machine: str
    python: str
    conda: dict[str, Any]
    pip: tuple[str, ...]

    @property
    def pins(self) -> Pins:
        """The packages, for a build."""
        return Pins(json.dumps(self.conda, sort_keys=True) if self.conda else "", self.pip)

    def misfit(self, environment: Environment) -> str:
        """Why `environment` cannot be built from this lock; empty where it can."""
        if self.machine != platform.machine():
            return f"it was made on another kind of machine ({self.machine})"
        if self.asked != environment.asked:
            return "the description has changed since it was made"
        here = ".".join(platform.python_version_tuple()[:2])
        if not environment.conda and self.python != here:
            return f"it was made with Python {self.python}, and this machine has {here}"
        return ""


@dataclass(frozen=True)
class Package:
    """A package that is installed.

    Args:
        name: as it calls itself.
        version: of it.
        by: `conda` or `pip`.
        requirement: how pip is asked for exactly this one.
    """

    name: str
    version: str
    by: str
    requirement: str = ""


def normalized(name: str) -> str:
    """A Python package's name as PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_packages(prefix: Path) -> Iterator[Package]:
    """The Python packages in a prefix, whoever installed them."""
    for folder in sorted((prefix / "lib").glob("python3*/site-packages/*.dist-info")):
        found = importlib.metadata.Distribution.at(folder)
        name = found.metadata["Name"]
        if not name:
            continue  # the rest of something that was removed
        by = "conda" if (found.read_text("INSTALLER") or "").strip() == "conda" else "pip"
        yield Package(name, found.version, by, _requirement(name, found))


def _requirement(name: str, found: importlib.metadata.Distribution) -> str:
    """PEP 440's `==`, or the address that it was installed from (PEP 610, direct_url.json)."""
    try:
        direct = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        direct = {}
    address = direct.get("url")
    if not address:
        return f"{name}=={found.version}"
    vcs = direct.get("vcs_info")
    if vcs:
        return f"{name} @ {vcs['vcs']}+{address}@{vcs['commit_id']}"
    sha256 = direct.get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{name} @ {address}" + (f"#sha256={sha256}" if sha256 else "")


def conda_packages(prefix: Path) -> list[Package]:
    """The conda packages in a prefix, by its `conda-meta`."""
    found = []
    for file in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            record = json.loads(file.read_text("utf-8"))
            found.append(Package(record["name"], record["version"], "conda"))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def contents(prefix: Path) -> list[Package]:
    """Everything in a prefix by name; a package of conda's that is one of Python's, too, is named once."""
    conda = conda_packages(prefix)
    pip = [found for found in python_packages(prefix) if found.by == "pip"]
    return sorted([*conda, *pip], key=lambda package: normalized(package.name))


def python_version(prefix: Path) -> str:
    """The minor version of a prefix's Python; empty where it has none."""
    for record in conda_packages(prefix):
        if record.name == "python":
            return ".".join(record.version.split(".")[:2])
    if not os.path.lexists(prefix / "bin/python"):
        return ""
    folders = sorted((prefix / "lib").glob("python3.*/site-packages"))
    return folders[-1].parent.name.removeprefix("python") if folders else ""


def freeze(prefix: Path, environment: Environment) -> Lock:
    """What is in the build at `prefix`."""
    conda: dict[str, Any] = {}
    if environment.conda:
        from illumidesk.host import conda as rattler

        conda = YAML(typ="safe", pure=True).load(rattler.lock_text(prefix))
    pip = [
        found.requirement
        for found in python_packages(prefix)
        if found.by == "pip" and normalized(found.name) != "illumidesk"
    ]
    python = python_version(prefix)
    return Lock(environment.asked, platform.machine(), python, conda, tuple(sorted(pip, key=str.lower)))


def dump(lock: Lock) -> str:
    """A lock as its file has it."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    raw = {
        "version": _VERSION,
        "asked": lock.asked,
        "machine": lock.machine,
        "python": lock.python,
        "pip": list(lock.pip),
        "conda": lock.conda,
    }
    yaml.dump(raw, out)
    return _HEAD + out.getvalue()


def read(file: Path) -> Lock | None:
    """The lock in a file; nothing where there is no file.

    Raises:
        IllumiDeskError: where it is none that this version understands.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, YAMLError):
        raw = None
    try:
        if raw["version"] != _VERSION:
            raise ValueError
        pip = tuple(str(line) for line in raw["pip"])
        if any(line.startswith("-") for line in pip):
            raise ValueError
        return Lock(str(raw["asked"]), str(raw["machine"]), str(raw["python"]), dict(raw["conda"]), pip)
    except (KeyError, TypeError, ValueError):
        raise IllumiDeskError(
            f"{file} is not a lock file that this version understands", hint="remove it, and update the environment"
        ) from None


def pins_of(build: Path) -> Pins | None:
    """The packages in a build; nothing where it does not say."""
    try:
        lock = read(build / LOCK)
    except IllumiDeskError:
        return None
    return None if lock is None else lock.pins
