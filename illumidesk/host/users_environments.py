"""Users' environments by name: described in `/etc/illumidesk/environments`, built, locked, registered, removed.

`NAME.yml` describes one, and `NAME.lock` beside it says exactly which packages it has. `/opt/illumidesk/envs/NAME` is
a link to the build in use, or for one that was registered to a prefix that somebody else looks after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from illumidesk import names, settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import descriptions, locks, units
from illumidesk.host.conffiles import write_file
from illumidesk.host.descriptions import Description
from illumidesk.host.environments import (
    LOCK,
    MARKER,
    Environment,
    add_own_package,
    base_python,
    ensure_environment,
    install_server,
    is_current,
    lock,
    make_readable,
    read_requirements,
    remove_old_builds,
    requirement_name,
    wheel_in_use,
)
from illumidesk.host.kernels import ensure_kernels
from illumidesk.host.locks import Lock
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data
from illumidesk.settings import RoleName, Settings

#: Ships with IllumiDesk; the installer brings it back.
DEFAULT = "default"
#: What makes an environment one that people's servers can run from.
_SERVER = "bin/jupyterhub-singleuser"


@dataclass(frozen=True)
class Found:
    """An environment as it stands.

    Args:
        name: of it.
        kind: `conda`, `pip` or `registered`.
        prefix: where it lies; nothing where it is not built.
        state: `ready`, `changed` (the description is newer than the build), `not built` or `broken`.
        serves: whether people's servers can run from it.
        python: the minor version of its Python; empty where it has none.
        channels: where its conda packages come from.
        locked: whether there is a lock file that new builds keep to.
        roles: those whose servers run from it.
        courses: those whose servers and grader run from it.
        based_on: the environment whose packages it has besides its own; may be empty.
    """

    name: str
    kind: str
    prefix: Path | None
    state: str
    serves: bool
    python: str
    channels: tuple[str, ...]
    locked: bool
    roles: tuple[str, ...]
    courses: tuple[str, ...]
    based_on: str


# Where things are


def folder(paths: Paths) -> Path:
    """The descriptions and locks."""
    return paths.etc / "environments"


def description_file(name: str, paths: Paths) -> Path:
    """The description of an environment, an `environment.yml`."""
    return folder(paths) / f"{names.check_environment(name)}.yml"


def lock_file(name: str, paths: Paths) -> Path:
    """The lock of an environment."""
    return folder(paths) / f"{names.check_environment(name)}.lock"


def environment_names(paths: Paths) -> list[str]:
    """The environments that are described."""
    return sorted(file.stem for file in folder(paths).glob("*.yml") if not file.name.startswith("."))


def registered(name: str, paths: Paths) -> Path | None:
    """The prefix to which the environment `name` was registered; nothing where it is none of those."""
    link = paths.environments / name
    if not link.is_symlink():
        return None
    target = Path(os.path.normpath(link.parent / link.readlink()))
    return None if target.is_relative_to(paths.opt) else target


# What one is made of


def server_requirements() -> tuple[str, ...]:
    """What an environment must have so that people's servers can run from it."""
    return read_requirements(data("config", "server.txt"))


def whole(name: str, description: Description, paths: Paths) -> Description:
    """`description` with the packages of what it is based on, and of what that is based on.

    Raises:
        IllumiDeskError: where one of those is not described here.
    """
    chain = [name]
    while description.based_on:
        base = description.based_on
        if base in chain:
            raise IllumiDeskError(f"{name} is based on itself: {' → '.join([*chain, base])}")
        file = description_file(base, paths)
        if not file.exists():
            reason = "is registered, not built here" if registered(base, paths) else "is not described here"
            raise IllumiDeskError(
                f"{chain[-1]} is based on {base}, which {reason}", hint="`illumidesk env list` says what there is"
            )
        chain.append(base)
        under = descriptions.read(file)
        description = dataclasses.replace(
            under,
            channels=description.channels or under.channels,
            conda=(*under.conda, *description.conda),
            pip=(*under.pip, *description.pip),
        )
    return description


def based_on(name: str, paths: Paths) -> list[str]:
    """The environments that are based on the environment `name` itself."""
    found = []
    for other in environment_names(paths):
        with contextlib.suppress(IllumiDeskError):
            if descriptions.read(description_file(other, paths)).based_on == name:
                found.append(other)
    return found


def environment_of(name: str, description: Description, paths: Paths, current: Settings) -> Environment:
    """What the environment `name` is made of by its description, the settings and this version of IllumiDesk."""
    description = whole(name, description, paths)
    own = {requirement_name(line) for line in description.pip}
    server = tuple(line for line in server_requirements() if requirement_name(line) not in own)
    conda = bool(description.conda)
    return Environment(
        name=name,
        requirements=description.pip,
        wheel=wheel_in_use(paths),
        extra="",
        python=base_python(),
        server=server,
        conda=description.conda,
        channels=(description.channels or current.environments.channels) if conda else (),
        channel_alias=current.environments.channel_alias if conda else "",
    )


def how(environment: Environment) -> str:
    """In a few words, how an environment is built."""
    if environment.conda:
        return f"conda packages of {', '.join(environment.channels)}"
    return f"Python packages alone, on {environment.python.resolve()} (no conda channel is needed)"


def ensure_users_environment(name: str, paths: Paths, progress: Progress, *, refresh: bool = False) -> str:
    """Have `/opt/illumidesk/envs/NAME` built by its description, as the installation does.

    Where there is a lock that fits, the packages stay exactly those. `refresh` takes the newest ones allowed.

    Returns:
        How it is built.

    Raises:
        IllumiDeskError: where it cannot be built; what is in use stays.
    """
    current = settings.load(paths.config_file)
    environment = environment_of(name, descriptions.read(description_file(name, paths)), paths, current)
    file = lock_file(name, paths)
    locked = locks.read(file)
    pins = None
    if locked is not None and not refresh:
        misfit = locked.misfit(environment)
        if misfit:
            progress.note(f"{file} was not kept to and is made anew: {misfit}")
        else:
            pins = locked.pins

    def keep(build: Path) -> None:
        if locked is not None and pins is None:
            _write_lock(build, file)

    link = _own_link(name, paths)
    ensure_environment(environment, link, paths=paths, progress=progress, refresh=refresh, pins=pins, before_swap=keep)
    return how(environment)


def _own_link(name: str, paths: Paths) -> Path:
    """Where the environment's link is, made sure that it is none that was registered."""
    prefix = registered(name, paths)
    if prefix is not None:
        raise IllumiDeskError(
            f"{name} is registered, at {prefix}, and is not built here",
            hint="choose another name, or first remove it with illumidesk env remove (the prefix itself stays)",
            status=409,
        )
    return paths.environments / name


def _write_lock(build: Path, file: Path) -> None:
    write_file(file, (build / LOCK).read_bytes())


# Commands


def create(
    name: str | None,
    paths: Paths,
    progress: Progress,
    *,
    file: Path | None = None,
    channels: tuple[str, ...] = (),
    locked: bool = False,
) -> tuple[Environment, bool]:
    """Make a new environment.

    Args:
        name: of it; where absent, the one in the description.
        paths: the layout.
        progress: shows the steps.
        file: its description. Without one the host's own, or the one that ships under that name.
        channels: in place of those of the description.
        locked: exactly the packages of the lock file beside the description.

    Returns:
        What it is made of, and whether it was built now.

    Raises:
        IllumiDeskError: where there is already another one of that name, or it cannot be built.
    """
    description = descriptions.read(file) if file is not None else _known_description(name, paths)
    name = descriptions.checked_name(description, name)
    description = descriptions.changed(description, name=name, channels=channels)
    here = description_file(name, paths)
    if here.exists() and not _asks_the_same(descriptions.read(here), description):
        raise IllumiDeskError(
            f"there is already an environment {name}, of another description",
            hint="change it with illumidesk env update, or choose another name",
            status=409,
        )
    beside = file.with_suffix(".lock") if file is not None else lock_file(name, paths)
    return build(name, description, paths, progress, locked=beside if locked else None)


def update(
    name: str,
    paths: Paths,
    progress: Progress,
    *,
    file: Path | None = None,
    channels: tuple[str, ...] = (),
    locked: bool = False,
) -> tuple[Environment, bool]:
    """Build an environment anew with the newest packages that its description allows, and swap it in.

    Args:
        name: of it.
        paths: the layout.
        progress: shows the steps.
        file: a description that takes the place of the one it has.
        channels: in place of those of the description.
        locked: exactly the packages of the lock file.

    Returns:
        What it is made of, and whether anything is new.

    Raises:
        IllumiDeskError: where there is no such environment, or it cannot be built; what is in use stays.
    """
    here = description_file(name, paths)
    if not here.exists():
        _own_link(name, paths)
        raise _unknown(name, paths)
    description = descriptions.read(file or here)
    description = descriptions.changed(description, name=name, channels=channels)
    beside = file.with_suffix(".lock") if file is not None else lock_file(name, paths)
    return build(name, description, paths, progress, locked=beside if locked else None, refresh=not locked)


def clone(name: str, new: str, paths: Paths, progress: Progress) -> tuple[Environment, bool]:
    """Make an environment `new` with exactly the packages of `name`.

    Raises:
        IllumiDeskError: where there is no `name`, or already another `new`.
    """
    description = descriptions.changed(descriptions.read(_built_description(name, paths)), name=new)
    here = description_file(new, paths)
    if here.exists() and not _asks_the_same(descriptions.read(here), description):
        raise IllumiDeskError(
            f"there is already an environment {new}, of another description", hint="choose another name", status=409
        )
    return build(new, description, paths, progress, locked=(paths.environments / name).resolve() / LOCK)


def build(
    name: str,
    description: Description,
    paths: Paths,
    progress: Progress,
    *,
    locked: Path | None = None,
    refresh: bool = False,
) -> tuple[Environment, bool]:
    """Build by a description, and only then keep the description, its lock and the link.

    Args:
        name: of the environment.
        description: what it is to have.
        paths: the layout.
        progress: shows the steps.
        locked: a lock file whose packages are taken exactly.
        refresh: build again with the newest packages allowed, though nothing else changed.

    Returns:
        What it is made of, and whether anything is new.

    Raises:
        IllumiDeskError: where it cannot be built; what is in use stays.
    """
    current = settings.load(paths.config_file)
    link = _own_link(name, paths)
    environment = environment_of(name, description, paths, current)
    pins = _fitting(locked, environment).pins if locked is not None else None

    def keep(build: Path) -> None:
        write_file(description_file(name, paths), description.text.encode())
        _write_lock(build, lock_file(name, paths))

    with lock(paths):
        _tidy(paths)  # also what was interrupted, which takes space that this needs
        with progress.step(f"The environment {name} ({'conda' if environment.conda else 'pip'})"):
            changed = ensure_environment(
                environment,
                link,
                paths=paths,
                progress=progress,
                refresh=refresh,
                pins=pins,
                keep_same=True,
                before_swap=keep,
            )
        if changed:
            units.renew_fork_servers(progress)
        _tidy(paths)
    return environment, changed


def _tidy(paths: Paths) -> list[str]:
    """Kernels follow the builds in use, and only then go the builds that nothing uses; their names."""
    ensure_kernels(paths)
    return remove_old_builds(paths)


def _fitting(file: Path, environment: Environment) -> Lock:
    found = locks.read(file)
    if found is None:
        raise IllumiDeskError(
            f"there is no lock file {file}", hint="illumidesk env export --lock writes one", status=404
        )
    misfit = found.misfit(environment)
    if misfit:
        raise IllumiDeskError(
            f"{environment.name} cannot be built from its lock file: {misfit}",
            hint="without --locked the newest packages allowed are taken, and the lock file is made anew",
            status=409,
        )
    return found


def _known_description(name: str | None, paths: Paths) -> Description:
    if name is None:
        raise IllumiDeskError("say which environment", hint="give a name, or a description with --file")
    here = description_file(name, paths)
    shipped = data("config", "environments", here.name)
    if not here.exists() and not shipped.exists():
        raise IllumiDeskError(
            f"there is no description of an environment {name}",
            hint=f"write {here}, or give one with --file",
            status=404,
        )
    return descriptions.read(here if here.exists() else shipped)


def _asks_the_same(one: Description, other: Description) -> bool:
    return (one.based_on, one.channels, sorted(one.conda), sorted(one.pip)) == (
        other.based_on,
        other.channels,
        sorted(other.conda),
        sorted(other.pip),
    )


def remove(name: str, paths: Paths) -> list[str]:
    """Remove an environment: its link, its description and lock, and its builds once nothing runs from them.

    What was registered is only forgotten; the prefix stays.

    Returns:
        What was removed, in words.

    Raises:
        IllumiDeskError: where a role uses it, or there is no such environment.
    """
    check_removable(name, paths)
    removed = []
    with lock(paths):
        link = paths.environments / name
        if link.is_symlink():
            removed.append(str(link))
            link.unlink()
        units.end_fork_server(name, Progress())
        for file in (lock_file(name, paths), description_file(name, paths)):
            if file.exists():
                removed.append(str(file))
                file.unlink()
        removed += [str(paths.opt / "builds" / build) for build in _tidy(paths)]
    return removed


def check_removable(name: str, paths: Paths) -> None:
    """Make sure that an environment exists and may be removed.

    Raises:
        IllumiDeskError: where it may not.
    """
    names.check_environment(name)
    if not description_file(name, paths).exists() and not (paths.environments / name).is_symlink():
        raise _unknown(name, paths)
    current = settings.load(paths.config_file)
    keys = [f"roles.{role}.environment" for role in roles_of(name, current)]
    keys += [f"courses.{course_id}.environment" for course_id in courses_of(name, current)]
    if keys:
        first = f"config set {keys[0]} OTHER"
        if keys[0] == f"courses.{names.course_of_environment(name)}.environment":
            first = f"course env {names.course_of_environment(name)} reset"
        raise IllumiDeskError(f"{name} is in use: {', '.join(keys)}", hint=f"first: illumidesk {first}", status=409)
    upon = based_on(name, paths)
    if upon:
        raise IllumiDeskError(
            f"{name} is in use: {', '.join(upon)} {'is' if len(upon) == 1 else 'are'} based on it",
            hint=f"first: illumidesk env remove {upon[0]}",
            status=409,
        )
    if name == DEFAULT and registered(name, paths) is None:
        raise IllumiDeskError(f"{name} comes with IllumiDesk, which would bring it back", status=409)


def register(
    name: str, prefix: Path, paths: Paths, progress: Progress, *, with_server: bool = False, owner: int = 0
) -> Path:
    """Let `name` mean a prefix that is there already: of Miniforge, micromamba or a venv.

    Nothing in it is changed, now or later, but `with_server`: that adds what serving people takes.

    Args:
        name: of the environment.
        prefix: its folder.
        paths: the layout.
        progress: shows the steps.
        with_server: whether to install the server's packages and IllumiDesk's own into it.
        owner: the uid that it must belong to; anything but root's is for tests.

    Returns:
        The folder, without links on the way.

    Raises:
        IllumiDeskError: where it is no environment, or somebody but root could change it.
    """
    names.check_environment(name)
    if description_file(name, paths).exists():
        raise IllumiDeskError(
            f"there is already an environment {name} that is built here", hint="choose another name", status=409
        )
    real = check_prefix(prefix, paths, owner=owner)
    with lock(paths):
        if with_server:
            with progress.step(f"The server's packages for {name}"):
                _add_server(name, real, paths, progress)
                make_readable(real)
        _swap_absolute(paths.environments / name, real)
        ensure_kernels(paths)
    return real


def _add_server(name: str, prefix: Path, paths: Paths, progress: Progress) -> None:
    if not (prefix / "bin/python").exists():
        raise IllumiDeskError(f"{prefix} has no Python, so no server can run from it")
    server = server_requirements()
    environment = Environment(name, (), wheel_in_use(paths), "", prefix / "bin/python", server)
    install_server(environment, prefix, paths, progress)
    add_own_package(prefix, environment, paths, progress)


def _swap_absolute(link: Path, target: Path) -> None:
    """As `swap`, with a link that says where it leads whatever is moved: the supervisor compares it."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def check_prefix(prefix: Path, paths: Paths, *, owner: int = 0) -> Path:
    """The real folder of a prefix, made sure that root alone can change it and everybody can read it.

    Args:
        prefix: an absolute path.
        paths: the layout; nothing above its root is looked at.
        owner: the uid that everything must belong to.

    Raises:
        IllumiDeskError: with the first path that is not so, and why.
    """
    if not prefix.is_absolute():
        raise IllumiDeskError(f"{prefix} is not a whole path", hint="write it from / on")
    try:
        real = prefix.resolve(strict=True)
    except OSError:
        raise IllumiDeskError(f"there is no folder {prefix}", status=404) from None
    if real.is_relative_to(paths.opt.resolve()):
        raise IllumiDeskError(f"{prefix} is IllumiDesk's own", hint="illumidesk env create makes environments there")
    if real.is_relative_to(paths.home.resolve()):
        raise IllumiDeskError(
            f"{prefix} cannot be registered: people's servers see nothing of {paths.home} but their own home",
            hint="choose or make an environment in a folder of root's, such as /opt",
            status=403,
        )
    if not (real / "bin").is_dir() or not any(
        os.path.lexists(real / mark) for mark in ("conda-meta", "pyvenv.cfg", "bin/python")
    ):
        raise IllumiDeskError(
            f"{prefix} is not an environment: it has neither conda-meta nor pyvenv.cfg nor bin/python"
        )
    for path in _looked_at(real, paths):
        reason = _why_not(path, owner)
        if reason:
            raise IllumiDeskError(
                f"{prefix} cannot be registered: {path} {reason}",
                hint=f"sudo chown -R root:root {real}; sudo chmod -R go-w,a+rX {real}"
                if path.is_relative_to(real)
                else "choose or make an environment in a folder of root's, such as /opt",
                status=403,
            )
    return real


def _looked_at(real: Path, paths: Paths) -> Iterator[Path]:
    """The folders above a prefix, all in it, and where links lead out of it with all that is above."""
    top = paths.root.resolve()
    seen: set[Path] = set()

    def above(path: Path) -> Iterator[Path]:
        for parent in (path, *path.parents):
            if parent in seen or not parent.is_relative_to(top):
                return
            seen.add(parent)
            yield parent

    yield from above(real)
    for base, folders, files in os.walk(real):
        for name in (*folders, *files):
            path = Path(base, name)
            yield path
            if path.is_symlink():
                target = Path(os.path.realpath(path))
                if target.exists() and not target.is_relative_to(real):
                    yield from above(target)


def _why_not(path: Path, owner: int) -> str:
    """Why people's programs may not come from a path; empty where they may."""
    found = path.lstat()
    if found.st_uid != owner:
        return "does not belong to root"
    if stat.S_ISLNK(found.st_mode):
        return ""
    if found.st_mode & 0o022:
        return "can be changed by others than root"
    readable = 0o001 if stat.S_ISDIR(found.st_mode) else 0o004
    return "" if found.st_mode & readable else "cannot be read by everybody"


# What there is


def find(name: str, paths: Paths, current: Settings | None) -> Found:
    """An environment as it stands; `current` is absent where the settings may not be read.

    Raises:
        IllumiDeskError: where there is no such environment.
    """
    names.check_environment(name)
    link = paths.environments / name
    file = description_file(name, paths)
    prefix = link.resolve() if link.exists() else None
    roles = roles_of(name, current) if current is not None else ()
    channels: tuple[str, ...] = ()
    base = ""
    if registered(name, paths) is not None:
        kind, state = "registered", "ready" if prefix is not None else "broken"
    elif file.exists():
        kind, state, channels = _described(name, paths, current)
        with contextlib.suppress(IllumiDeskError):
            base = descriptions.read(file).based_on
    elif prefix is not None:
        kind, state = "conda" if (prefix / "conda-meta").is_dir() else "pip", "ready"
    else:
        raise _unknown(name, paths)
    return Found(
        name=name,
        kind=kind,
        prefix=prefix,
        state=state,
        serves=prefix is not None and (prefix / _SERVER).exists(),
        python=locks.python_version(prefix) if prefix is not None else "",
        channels=channels,
        locked=lock_file(name, paths).exists(),
        roles=roles,
        courses=courses_of(name, current) if current is not None else (),
        based_on=base,
    )


def _described(name: str, paths: Paths, current: Settings | None) -> tuple[str, str, tuple[str, ...]]:
    link = paths.environments / name
    try:
        description = descriptions.read(description_file(name, paths))
        environment = environment_of(name, description, paths, current or Settings())
    except IllumiDeskError:
        return "pip", "broken", ()
    kind = "conda" if environment.conda else "pip"
    if not (link / MARKER).exists():
        return kind, "not built", environment.channels
    # Without the settings it cannot be said which channels and packages are meant.
    ready = is_current(link, environment.digest) or (current is None and bool(environment.conda))
    return kind, "ready" if ready else "changed", environment.channels


def all_names(paths: Paths) -> list[str]:
    """Every environment that is described or built."""
    built = paths.environments.iterdir() if paths.environments.is_dir() else ()
    return sorted({*environment_names(paths), *(entry.name for entry in built if not entry.name.startswith("."))})


def roles_of(name: str, current: Settings) -> tuple[str, ...]:
    """The roles whose servers run from an environment."""
    return tuple(role for role in get_args(RoleName) if current.role(role).environment == name)


def courses_of(name: str, current: Settings) -> tuple[str, ...]:
    """The courses that have an environment instead of that of their people's roles."""
    return tuple(course_id for course_id, course in current.courses.items() if course.environment == name)


def prefix_of(name: str, paths: Paths) -> Path:
    """Where an environment lies.

    Raises:
        IllumiDeskError: where it does not exist or is not built.
    """
    link = paths.environments / names.check_environment(name)
    if link.exists():
        return link.resolve()
    if description_file(name, paths).exists():
        raise IllumiDeskError(f"{name} is described and not built", hint=f"illumidesk env create {name}", status=409)
    raise _unknown(name, paths)


def export(name: str, paths: Paths, *, as_lock: bool = False) -> str:
    """An environment for somewhere else: a description with exact versions, or the lock file.

    Raises:
        IllumiDeskError: where it is not built, or was registered and a lock is asked for.
    """
    prefix = prefix_of(name, paths)
    if as_lock:
        file = prefix / LOCK
        if registered(name, paths) is not None or not file.exists():
            raise IllumiDeskError(f"{name} was not built here, so there is no lock of it", status=409)
        return file.read_text("utf-8")
    channels: tuple[str, ...] = ()
    if description_file(name, paths).exists():
        description = whole(name, descriptions.read(description_file(name, paths)), paths)
        channels = description.channels or settings.load(paths.config_file).environments.channels
    conda = [f"{found.name}={found.version}" for found in locks.conda_packages(prefix)]
    pip = [
        found.requirement
        for found in locks.contents(prefix)
        if found.by == "pip" and locks.normalized(found.name) != "illumidesk"
    ]
    return descriptions.pinned(name, channels, conda, pip)


def _built_description(name: str, paths: Paths) -> Path:
    prefix_of(name, paths)
    file = description_file(name, paths)
    if not file.exists():
        raise IllumiDeskError(f"{name} was not built here, so it cannot be cloned", status=409)
    return file


def _unknown(name: str, paths: Paths) -> IllumiDeskError:
    known = all_names(paths)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}" if known else ""
    return IllumiDeskError(f"there is no environment {name}", hint=hint, status=404)


# Earlier versions


def migrate_lists(paths: Paths, shipped_before: str | None, progress: Progress) -> None:
    """Turn the lists of packages that earlier versions had (`NAME.txt`) into descriptions, once.

    What somebody wrote into one stays: it becomes `NAME.yml`, and the list lies beside it as `NAME.txt.old`. The
    list that came with IllumiDesk and that nobody changed just goes.

    Args:
        paths: the layout.
        shipped_before: SHA-256 of the list `default.txt` that was shipped last; nothing where none was.
        progress: where it is noted.
    """
    for file in sorted(folder(paths).glob("*.txt")):
        target = file.with_suffix(".yml")
        if target.exists():
            progress.note(f"{file} is not read any more: the environment is described by {target}")
            continue
        if file.stem == DEFAULT and shipped_before and _sha256(file) == shipped_before:
            file.unlink()
        else:
            names.check_environment(file.stem)
            read_requirements(file)
            text = descriptions.from_requirements(file.stem, file.read_text("utf-8"))
            descriptions.parse(text, file=str(target))
            write_file(target, text.encode())
            file.replace(file.with_name(f"{file.name}.old"))
            progress.note(f"{file} is now {target}; the list itself is {file}.old")
        file.with_name(f"{file.name}.new").unlink(missing_ok=True)


def _sha256(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


__all__ = [
    "DEFAULT",
    "Found",
    "all_names",
    "based_on",
    "build",
    "check_prefix",
    "check_removable",
    "clone",
    "courses_of",
    "create",
    "description_file",
    "ensure_users_environment",
    "environment_names",
    "environment_of",
    "export",
    "find",
    "folder",
    "how",
    "lock_file",
    "migrate_lists",
    "prefix_of",
    "register",
    "registered",
    "remove",
    "roles_of",
    "server_requirements",
    "update",
    "whole",
]
