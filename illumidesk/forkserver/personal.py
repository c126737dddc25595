"""What modules took from the environment of whoever imported them: found in the parent, put right in each fork.

JupyterLab, for one, works out where a person's settings are when it is imported. So the parent imports with values that
stand for a person's (`STAND_INS`), looks where they have ended up, and a fork puts the person's own in these places.
Other variables that modules look at while they are imported are noted: a fork for which one of them differs would not
do.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import CellType, FunctionType
from typing import Any

#: What stands for a person's variables. None is part of another, and nothing else has such names.
STAND_INS = {
    # The fork server makes it, for itself alone: empty, and root's.
    "HOME": "/tmp/illumidesk-home-of-somebody",  # noqa: S108 -- of the fork server's own /tmp
    "USER": "illumidesk-name-of-somebody",
    "JUPYTERHUB_API_URL": "http://illumidesk-hub-of-somebody.invalid/hub/api",
    "JUPYTERHUB_SERVICE_PREFIX": "/illumidesk-prefix-of-somebody/",
}
#: What is the same for everybody whose server the hub starts.
CONSTANT = {"JUPYTER_PATH": "/opt/illumidesk/share/jupyter", "JUPYTER_PREFER_ENV_PATH": "1", "LANG": "C.UTF-8"}
#: Read by code that looks for programs, which it does again when it needs one.
_FREE = frozenset({"PATH"})
_SYSTEMD = ("NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MAINPID", "LOGNAME", "SHELL")
_DEPTH = 4


@dataclass
class Environment:
    """What is found out while modules are imported.

    Args:
        values: the variables that the parent imported with.
        read: the names of those that somebody looked at, whether they were there or not.
        path: where modules were looked for at the beginning.
        added: modules of packages that have added to that.
    """

    values: dict[str, str]
    read: set[str] = field(default_factory=set)
    path: list[str] = field(default_factory=lambda: list(sys.path))
    added: list[str] = field(default_factory=list)

    def differing(self, variables: Mapping[str, str]) -> list[str]:
        """Variables that count, and in which a person differs from the parent."""
        counting = self.read - STAND_INS.keys() - _FREE
        return sorted(name for name in counting if variables.get(name) != self.values.get(name))


@contextlib.contextmanager
def observed() -> Iterator[Environment]:
    """Import in here: with stand-ins for variables, and without those that systemd gives to each unit anew.

    What an administrator has systemd give to every unit (`DefaultEnvironment=`) is the same for everybody.
    """
    for name in list(os.environ):
        if name in _SYSTEMD or name.startswith("LISTEN_"):
            del os.environ[name]
    os.environ.update({**CONSTANT, **STAND_INS})
    found = Environment(dict(os.environ))
    kind = type(os.environ)
    ordinary = kind.__getitem__

    def noting(self: os._Environ[Any], name: Any) -> Any:
        found.read.add(os.fsdecode(name))
        return ordinary(self, name)

    kind.__getitem__ = noting  # type: ignore[method-assign]
    try:
        yield found
    finally:
        kind.__getitem__ = ordinary  # type: ignore[method-assign]
    found.added = additions(found.path)


def additions(path: list[str]) -> list[str]:
    """The modules that are loaded, of packages that have added to `sys.path`.

    setuptools, which nbgrader imports, adds a folder with its own copies of packages. A program that does not import
    setuptools does not find them.

    Args:
        path: `sys.path` without additions.
    """
    owners = tuple(f"{_owner(folder, path)}/" for folder in sys.path if folder not in path)
    files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
    return [name for name, file in files.items() if file.startswith(owners)]


def forget_additions(path: list[str], added: list[str]) -> None:
    """Take back what modules added to `sys.path`, and these modules: whoever imports one of them gets it anew.

    Args:
        path: `sys.path` without additions.
        added: what `additions` found, in the parent. To look for them in a fork would write into every module.
    """
    sys.path[:] = path
    # Taken apart, they would have all their pages copied.
    _forgotten.extend(sys.modules.pop(name) for name in added if name in sys.modules)


_forgotten: list[Any] = []


def _owner(folder: str, path: list[str]) -> PurePath:
    """The package that a folder belongs to; itself where it is in none."""
    within = [place for place in path if folder.startswith(f"{place}/")]
    return PurePath(*PurePath(folder).parts[: len(PurePath(max(within, key=len)).parts) + 1] if within else [folder])


@dataclass(frozen=True)
class Place:
    """Where a stand-in ended up: an attribute of a module, a class, a function, a closure or a trait."""

    owner: Any
    name: str

    def put_right(self, variables: dict[str, str]) -> None:
        """Put a person's values there."""
        setattr(self.owner, self.name, _replaced(getattr(self.owner, self.name), variables, _DEPTH))


def places() -> list[Place]:
    """Every place in the modules that are loaded."""
    found: list[Place] = []
    seen: set[int] = {id(os.environ)}
    for module in list(sys.modules.values()):
        if module is None or module.__name__.startswith(__package__):
            continue
        _look(module, found, seen)
    return found


def _look(owner: Any, found: list[Place], seen: set[int]) -> None:
    for name, value in list(vars(owner).items()):
        if name == "environ" or (name.startswith("__") and name != "__defaults__"):
            continue
        if _holds(value, _DEPTH):
            # `os_environ` of wsgiref, a copy of all, is put right as any other.
            found.append(Place(owner, name))
        elif id(value) in seen:
            continue
        elif isinstance(value, type):
            seen.add(id(value))
            with contextlib.suppress(TypeError):
                _look(value, found, seen)
        elif isinstance(value, FunctionType):
            seen.add(id(value))
            if _holds(value.__defaults__, _DEPTH):
                found.append(Place(value, "__defaults__"))
            found += [Place(cell, "cell_contents") for cell in value.__closure__ or () if _holds_cell(cell)]
        elif hasattr(type(value), "default_value") and hasattr(value, "__dict__"):  # traitlets.TraitType
            seen.add(id(value))
            found += [Place(value, part) for part, held in vars(value).items() if _holds(held, _DEPTH)]


def _holds_cell(cell: CellType) -> bool:
    """Whether a variable of a function that is kept for another one holds any: where matplotlib keeps its folders."""
    try:
        return _holds(cell.cell_contents, _DEPTH)
    except ValueError:  # empty
        return False


def _holds(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return any(stand_in in value for stand_in in STAND_INS.values())
    if kind is bytes:
        return any(stand_in.encode() in value for stand_in in STAND_INS.values())
    if isinstance(value, PurePath):
        return _holds(str(value), depth)
    if depth == 0:
        return False
    if kind is dict:
        return any(_holds(one, depth - 1) or _holds(other, depth - 1) for one, other in list(value.items()))
    if kind in (list, tuple, set, frozenset):
        return any(_holds(one, depth - 1) for one in value)
    return False


def _replaced(value: Any, variables: dict[str, str], depth: int) -> Any:
    if not _holds(value, depth):
        return value
    kind = type(value)
    if kind is str:
        for name, stand_in in STAND_INS.items():
            value = value.replace(stand_in, variables.get(name, ""))
        return value
    if kind is bytes:
        return os.fsencode(_replaced(os.fsdecode(value), variables, depth))
    if isinstance(value, PurePath):
        return type(value)(_replaced(str(value), variables, depth))
    if kind is dict:
        return {
            _replaced(one, variables, depth - 1): _replaced(other, variables, depth - 1) for one, other in value.items()
        }
    return kind(_replaced(one, variables, depth - 1) for one in value)
