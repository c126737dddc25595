"""What is wrong with this machine's class, and what to do: each thing is looked at, and nothing is changed.

`illumidesk status` tells what is; this tells what should not be so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from illumidesk import __version__, names, settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import apt, https, memory, programs, units, users_environments
from illumidesk.host.hub_client import HubClient
from illumidesk.host.settings_file import check_environments
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths
from illumidesk.settings import Settings

#: `problem`: something does not work. `warning`: it works, and will not for long, or not as was asked for.
#: `note`: good to know. `unknown`: this account may not look.
State = Literal["ok", "note", "warning", "problem", "unknown"]

#: Bytes that a build, a database or a notebook needs to be written in peace.
_LITTLE_DISK, _NO_DISK = 2 << 30, 256 << 20


@dataclass(frozen=True)
class Finding:
    """What one look showed.

    Args:
        subject: what was looked at, such as `services`.
        state: how it is.
        said: a sentence without a full stop.
        hint: what to do; empty where there is nothing to do.
    """

    subject: str
    state: State
    said: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """As it is printed with `--json`."""
        return asdict(self)


def examine(paths: Paths, progress: Progress) -> Iterator[Finding]:
    """Look at everything, one after the other. What cannot be looked at is a finding, too, never an error.

    Args:
        paths: the layout.
        progress: runs what is asked of systemd.
    """
    current: Settings | None = None
    with contextlib.suppress(IllumiDeskError):
        current = settings.load(paths.config_file)
    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("services", lambda: _services(paths, progress)),
        ("hub", lambda: _hub(paths)),
        ("settings", lambda: _settings(paths)),
        ("environments", lambda: _environments(paths, current)),
        ("workspaces", lambda: _workspaces(paths, current)),
        ("https", lambda: _https(paths, progress)),
        ("disk", lambda: _disk(paths)),
        ("memory", lambda: _memory(paths, current)),
        ("clock", lambda: _clock(progress)),
    ]
    if paths.config_file.exists() and not os.access(paths.config_file, os.R_OK):
        yield Finding("settings", "unknown", f"{paths.config_file} may not be read", "run it with sudo")
        looks = [(subject, look) for subject, look in looks if subject not in ("settings", "https")]
    for subject, look in looks:
        try:
            yield from look()
        except IllumiDeskError as error:
            yield Finding(subject, "problem", error.message, error.hint)
        except PermissionError as error:
            yield Finding(subject, "unknown", f"{error.filename} may not be read", "run it with sudo")
        except OSError as error:
            yield Finding(subject, "unknown", f"it cannot be looked at: {error}")


def _services(paths: Paths, progress: Progress) -> Iterator[Finding]:
    if not (paths.root / "run/systemd/system").is_dir():
        yield Finding("services", "problem", "systemd does not run on this machine", "run this where the class is")
        return
    good = True
    for unit in units.SERVICES:
        state = progress.run(["systemctl", "is-active", unit], check=False).strip()
        if state != "active":
            good = False
            hint = f"sudo systemctl restart {unit} (why: sudo journalctl -u {unit} -n 50)"
            yield Finding("services", "problem", f"{unit} is {state or 'not known to systemd'}", hint)
    failed = progress.run(
        ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "illumidesk-*"], check=False
    )
    for line in failed.splitlines():
        unit = line.split()[0]
        if unit not in units.SERVICES:
            good = False
            hint = f"sudo journalctl -u {unit} -n 50, then sudo systemctl reset-failed {unit}"
            yield Finding("services", "warning", f"{unit} failed", hint)
    if good:
        yield Finding("services", "ok", "all services run")


def _hub(paths: Paths) -> Iterator[Finding]:
    if not HubClient(paths.hub_socket).answers():
        hint = "sudo journalctl -u illumidesk-hub -n 50"
        yield Finding("hub", "problem", "the hub does not answer", hint)
        return
    try:
        own = HubClient.of_this_machine(paths).status()
    except IllumiDeskError as error:
        yield Finding("hub", "unknown", f"the hub answers, and {error.message}", error.hint)
        return
    if own.get("version") not in (None, __version__):
        said = f"the hub still runs version {own['version']}, and {__version__} is installed"
        yield Finding("hub", "warning", said, "sudo systemctl restart illumidesk-hub")
    else:
        yield Finding("hub", "ok", "the hub answers")
    asked = own.get("package_requests") or 0
    if asked:
        yield Finding("hub", "note", f"instructors ask for packages: {asked}", "sudo illumidesk env requests")


def _settings(paths: Paths) -> Iterator[Finding]:
    check_environments(settings.load(paths.config_file), paths)
    if os.access(paths.state / "started.json", os.R_OK) and any(
        units.Started(paths).is_stale(unit) for unit in (units.HUB, units.PROXY)
    ):
        said = "something was changed since the hub or the proxy was started"
        yield Finding("settings", "warning", said, "sudo illumidesk config reload")
    else:
        yield Finding("settings", "ok", f"{paths.config_file} is valid")


def _environments(paths: Paths, current: Settings | None) -> Iterator[Finding]:
    good = []
    for name in users_environments.all_names(paths):
        found = users_environments.find(name, paths, current)
        used = [*found.roles, *found.courses]
        course = names.course_of_environment(name)
        again = f"sudo illumidesk env update {name}"
        if found.state == "ready":
            good.append(name)
        elif found.state == "changed":
            said = f"{name} was built from another description than it has now"
            yield Finding("environments", "warning", said, again)
        else:
            # A half of what a course asked for harms nobody who does not use it.
            state: State = "problem" if used else "warning"
            hint = f"sudo illumidesk env create {name}" if found.state == "not built" and not course else again
            yield Finding("environments", state, f"{name} is {found.state}", hint)
        if used and found.prefix is not None and not found.serves:
            said = f"people's servers cannot run from {name}, which {', '.join(used)} has"
            yield Finding("environments", "problem", said, again)
    if good:
        yield Finding("environments", "ok", f"ready: {', '.join(good)}")


def _workspaces(paths: Paths, current: Settings | None) -> Iterator[Finding]:
    offered = set(current.workspaces.offered) if current is not None else set()
    here = []
    for name in programs.program_names():
        found = programs.find(name, paths)
        title = found.type.title
        if found.state == "ready":
            here.append(f"{title} {found.version}".strip())
        elif found.state == "outdated":
            yield Finding("workspaces", "warning", f"{title} is of another version of IllumiDesk", found.note)
        elif found.note:
            r = apt.is_installed("r-cran-irkernel")
            instead = "R works in JupyterLab" if r else "for R in JupyterLab: sudo illumidesk kernel install r"
            yield Finding("workspaces", "note", programs.NO_RSTUDIO, instead)
        elif name in offered:
            said = f"{title} is offered by the settings, and is not installed"
            yield Finding("workspaces", "note", said, f"sudo illumidesk workspace install {name}")
    yield Finding("workspaces", "ok", f"JupyterLab, Notebook{''.join(f', {one}' for one in here)}")


def _https(paths: Paths, progress: Progress) -> Iterator[Finding]:
    report = https.status(paths, progress)
    for problem in report["problems"]:
        yield Finding("https", "problem", problem, "sudo illumidesk https status")
    if not report["enabled"]:
        yield Finding(
            "https", "warning", "passwords and grades travel unencrypted", "sudo illumidesk https letsencrypt --help"
        )
    elif not report["problems"]:
        left = report["certificate"]["days_left"]
        yield Finding("https", "ok", f"{report['address']}, a certificate for {left} more days")


def _disk(paths: Paths) -> Iterator[Finding]:
    where: dict[int, Path] = {}
    for folder in (paths.root / "home", paths.opt, paths.state, paths.root / "var/log"):
        with contextlib.suppress(OSError):
            where.setdefault(folder.stat().st_dev, folder)
    good = True
    for folder in where.values():
        free = psutil.disk_usage(str(folder)).free
        if free < _LITTLE_DISK:
            good = False
            said = f"{free >> 20} MiB are left on the disk of {folder}"
            hint = f"sudo du -xh --max-depth=2 {folder} | sort -h | tail"
            yield Finding("disk", "problem" if free < _NO_DISK else "warning", said, hint)
    if good:
        yield Finding("disk", "ok", "there is room on every disk")


def _memory(paths: Paths, current: Settings | None) -> Iterator[Finding]:
    available, swap = psutil.virtual_memory().available, psutil.swap_memory().total
    if available < 256 << 20:
        hint = "illumidesk status shows who uses it"
        yield Finding("memory", "warning", f"{available >> 20} MiB of memory are left", hint)
    elif not swap:
        why = memory.why_not(paths) if current is not None and current.machine.zram else ""
        said = "there is no swap: where memory ends, something is killed"
        yield Finding("memory", "note", f"{said} ({why})" if why else said, "see the setting machine.zram")
    else:
        yield Finding("memory", "ok", f"{available >> 20} MiB are left, and there is swap")


def _clock(progress: Progress) -> Iterator[Finding]:
    told = progress.run(["timedatectl", "show", "-P", "NTPSynchronized"], check=False).strip()
    if told == "no":
        said = "nobody keeps this machine's clock right; an LMS's messages are refused where it is minutes off"
        yield Finding("clock", "note", said, "sudo timedatectl set-ntp true")
    elif told == "yes":
        yield Finding("clock", "ok", "the clock is kept right")
