"""Install and upgrade: idempotent steps, each of which may be run again."""

from __future__ import annotations

import grp
import http.client
import json
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from illumidesk import __version__, names, settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import settings_file, units
from illumidesk.host.accounts import ensure_accounts, ensure_folders, foreign_account
from illumidesk.host.certificates import check_stored
from illumidesk.host.conffiles import ensure_conffile, shipped_digest
from illumidesk.host.environments import lock, remove_old_builds
from illumidesk.host.hub_client import HubClient
from illumidesk.host.kernels import ensure_kernels
from illumidesk.host.memory import ensure_ksm, ensure_zram
from illumidesk.host.programs import check_node_program, ensure_program, node_programs
from illumidesk.host.proxy import ensure_proxy
from illumidesk.host.roles import ensure_roles
from illumidesk.host.secrets import ensure_secrets
from illumidesk.host.ssh import ensure_ssh_rule
from illumidesk.host.steps import Progress
from illumidesk.host.users_environments import (
    ensure_users_environment,
    environment_names,
    folder,
    migrate_lists,
)
from illumidesk.paths import Paths, data

#: Seconds until the hub must answer; an emulated machine needs most of them.
READY_TIMEOUT = 180.0
DEMO_COURSE = "intro101"
DEMO_INSTRUCTOR = "instructor1"
DEMO_STUDENT = "student1"
_ADMIN_NAMES = ("admin", "hubadmin", "teacher")


@dataclass(frozen=True)
class InstallOptions:
    """What an installation is asked for.

    Args:
        admin: the administrator's name; at the first installation `admin` where it says nothing.
        courses: courses to make, with the administrator as instructor.
        programs: programs of workspaces to install (`vscode`, `theia`).
        demo: whether the first installation makes the demo course and its two people.
        http_port: the public port; what the settings say where it says nothing.
        refresh: build the environments anew with the newest versions allowed.
    """

    admin: str | None = None
    courses: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    demo: bool = True
    http_port: int | None = None
    refresh: bool = False

    def check(self) -> None:
        """Raises an IllumiDeskError for the first thing that cannot be."""
        if self.admin is not None:
            names.check_account(self.admin)
            if foreign_account(self.admin):
                raise IllumiDeskError(
                    f"there is already an account {self.admin} on this machine that IllumiDesk did not make",
                    hint="choose another name with --admin",
                )
        for course in self.courses:
            names.check_course_id(course)
        for program in self.programs:
            check_node_program(program)
        if self.http_port is not None and not 1 <= self.http_port <= 65535:
            raise IllumiDeskError(f"{self.http_port} is not a port", hint="use a number from 1 to 65535")


@dataclass(frozen=True)
class Outcome:
    """How it came out.

    Args:
        address: where people go.
        first: whether this was the first installation.
        admin: the administrator asked for, or made at the first installation.
        courses: the courses made with that administrator as instructor.
        demo: whether the demo was made.
        environments: how each of the users' environments is built.
        started: the services that were started or restarted.
        notes: what somebody should look at.
    """

    address: str
    first: bool
    admin: str | None
    courses: tuple[str, ...]
    demo: bool
    environments: tuple[str, ...]
    started: tuple[str, ...]
    notes: tuple[str, ...]


def install(options: InstallOptions, *, paths: Paths | None = None, progress: Progress | None = None) -> Outcome:
    """Install or upgrade everything beyond the hub's own environment, in which this runs.

    Args:
        options: what is asked for.
        paths: the layout.
        progress: shows the steps.

    Raises:
        IllumiDeskError: where a step fails. Running it again goes on from there.
    """
    paths = paths or Paths()
    progress = progress or Progress()
    options.check()
    with lock(paths):
        return _install(options, paths, progress)


def _install(options: InstallOptions, paths: Paths, progress: Progress) -> Outcome:
    with progress.step("Accounts, folders and secrets"):
        ensure_accounts(paths, progress)
        ensure_folders(paths)
        ensure_secrets(paths)
    record = _Record(paths)
    with progress.step("Settings"):
        ensure_configuration(paths, progress)
        ensure_ssh_rule(paths, progress)
        if options.http_port is not None:
            ensure_http_port(options.http_port, paths)
        current = settings.load(paths.config_file)
        check_stored(current.https.domain, paths)
    built = []
    for name in environment_names(paths):
        with progress.step(f"The users' environment {name}"):
            built.append(f"{name}: {ensure_users_environment(name, paths, progress, refresh=options.refresh)}")
    with progress.step("Node and the proxy"):
        ensure_proxy(paths, progress, refresh=options.refresh)
    with progress.step("Memory"):
        ensure_zram(current.machine.zram, paths, progress)
        ensure_ksm(current.machine.ksm, paths, progress)
    for name in node_programs(paths, options.programs):
        with progress.step(f"The program {name}"):
            ensure_program(name, paths, progress)
    with progress.step("Units and services"):
        units.ensure_unit_files(paths, progress)
        _apply(current, paths)
        _ensure_command(paths, progress)
        units.daemon_reload(progress)
        units.enable(progress)
        started = units.ensure_running(paths, progress)
    with progress.step("Waiting for the hub to answer"):
        wait_until_ready(current, paths, progress)
    seeded: tuple[str | None, bool]
    with progress.step("People and courses"):
        seeded = _ensure_people(options, record, paths, progress)
    with progress.step("Removing what is no longer used"):
        ensure_kernels(paths)
        # They would keep their builds in use.
        units.renew_fork_servers(progress)
        for build in remove_old_builds(paths):
            progress.record(f"removed {build}")
    first = record.first
    record.finish()
    return Outcome(
        address=address(current),
        first=first,
        admin=seeded[0],
        courses=options.courses if seeded[0] else (),
        demo=seeded[1],
        environments=tuple(built),
        started=tuple(started),
        notes=tuple(progress.notes),
    )


def apply_settings(paths: Paths | None = None, progress: Progress | None = None) -> list[str]:
    """Bring the settings file into force: role folders, drop-ins, and a restart of the services it changes.

    Running notebooks go on. The hub is restarted where a file that it reads at its start changed; the proxy where
    address or port did.

    Returns:
        The services that were restarted.

    Raises:
        IllumiDeskError: where the settings are wrong (nothing is changed then) or a service does not come up.
    """
    paths = paths or Paths()
    progress = progress or Progress()
    current = settings.load(paths.config_file)
    check_stored(current.https.domain, paths)
    units.check_port(current, paths)
    with lock(paths):
        ensure_zram(current.machine.zram, paths, progress)
        ensure_ksm(current.machine.ksm, paths, progress)
        if _apply(current, paths):
            units.daemon_reload(progress)
        started = units.ensure_running(paths, progress)
        if started:
            wait_until_ready(current, paths, progress)
    return started


def ensure_pages(paths: Paths) -> None:
    """Write the role folders anew, after a program was installed or removed: JupyterLab's launcher shows those."""
    ensure_roles(settings.load(paths.config_file), paths)


def _apply(current: settings.Settings, paths: Paths) -> bool:
    ensure_roles(current, paths)
    return units.ensure_drop_ins(current, paths)


# Steps


def ensure_configuration(paths: Paths, progress: Progress) -> None:
    """Bring the files that an administrator may change. What somebody changed stays."""
    hub_gid = grp.getgrnam(names.HUB_ACCOUNT).gr_gid
    outcomes = {
        paths.config_file: ensure_conffile(
            data("config", "config.yaml"), paths.config_file, paths=paths, mode=0o640, gid=hub_gid, replace=False
        ),
        paths.hub_config: ensure_conffile(data("config", "jupyterhub_config.py"), paths.hub_config, paths=paths),
        paths.nbgrader_global_config: ensure_conffile(
            data("config", "nbgrader", "global_nbgrader_config.py"), paths.nbgrader_global_config, paths=paths
        ),
    }
    migrate_lists(paths, shipped_digest(folder(paths) / "default.txt", paths=paths), progress)
    for source in sorted(data("config", "environments").glob("*.yml")):
        target = folder(paths) / source.name
        outcomes[target] = ensure_conffile(source, target, paths=paths)
    for file, outcome in outcomes.items():
        if outcome == "beside":
            progress.note(f"{file} was changed on this machine and stays; this version's own is {file}.new")


def ensure_http_port(port: int, paths: Paths) -> None:
    """Write the public port into the settings file, whose comments and everything else stay."""
    if settings.load(paths.config_file).proxy.http_port != port:
        settings_file.set_value(paths.config_file, "proxy.http_port", str(port))


def _ensure_command(paths: Paths, progress: Progress) -> None:
    """`illumidesk` on everybody's PATH; a file of that name that is not ours stays."""
    link = paths.root / "usr/local/bin/illumidesk"
    target = paths.hub_environment / "bin/illumidesk"
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not (link.is_symlink() and str(link.readlink()).startswith(str(paths.opt))):
        progress.note(f"{link} is not ours and stays; the command is {target}")
        return
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def wait_until_ready(
    current: settings.Settings, paths: Paths, progress: Progress, *, timeout: float = READY_TIMEOUT
) -> None:
    """Wait until the hub answers on its socket, and through the proxy on the public port.

    Args:
        current: the settings: where the proxy listens.
        paths: the layout.
        progress: where the journal of what does not answer goes.
        timeout: in seconds.

    Raises:
        StepError: where they do not in time, with the end of the journal of the one that is silent.
    """
    deadline = time.monotonic() + timeout
    local = current.proxy.bind or "127.0.0.1"
    tls = bool(current.https.domain)
    port = current.https.port if tls else current.proxy.http_port
    while True:
        hub = HubClient(paths.hub_socket).answers()
        if hub and site_answers(local, port, tls=tls):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.25)
    if not hub:
        raise units.unit_failed(units.HUB, progress, f"the hub does not answer after {timeout:.0f} seconds")
    raise units.unit_failed(units.PROXY, progress, f"the hub does not answer through port {port} of {local}")


def site_answers(address: str, port: int, *, tls: bool = False, timeout: float = 5.0) -> bool:
    """Whether the hub answers through the proxy, on the public port."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    if tls:
        # By its address, which no certificate names; whom we ask is clear.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, port, timeout=timeout, context=context)
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# People and courses


class _Record:
    """What the first installation did, so that a later one does not bring back what somebody removed."""

    def __init__(self, paths: Paths) -> None:
        self._file = paths.state / "install.json"
        self.first = True
        self._known: dict[str, str] = {}
        if self._file.exists():
            self._known = json.loads(self._file.read_text("utf-8"))
            self.first = False

    def finish(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        known = {"first": now, **self._known, "last": now, "version": __version__}
        self._file.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


def _ensure_people(
    options: InstallOptions, record: _Record, paths: Paths, progress: Progress
) -> tuple[str | None, bool]:
    """The administrator and courses asked for, and at the first installation the demo; who is admin, was it made."""
    hub = HubClient.of_this_machine(paths)
    admin = options.admin
    if admin is None and (record.first or options.courses):
        admin = next((user["name"] for user in hub.users() if user["admin"]), None) or _default_admin()
    if admin is not None:
        hub.add_user(admin, admin=True)
        for course in options.courses:
            _ensure_course(hub, course, "", admin)
    demo = options.demo and record.first
    if demo:
        taken = [name for name in (DEMO_INSTRUCTOR, DEMO_STUDENT) if foreign_account(name)]
        if taken:
            progress.note(f"no demo course: this machine has an account {taken[0]} of its own")
            return admin, False
        _ensure_course(hub, DEMO_COURSE, "Introduction (demo)", DEMO_INSTRUCTOR)
        hub.enroll(DEMO_COURSE, DEMO_STUDENT, "student", create=True)
    return admin, demo


def _default_admin() -> str:
    """`admin`, or another name where this machine has an account of that name (as some clouds' images do)."""
    return next(name for name in _ADMIN_NAMES if not foreign_account(name))


def _ensure_course(hub: HubClient, course_id: str, title: str, instructor: str) -> None:
    hub.create_course(course_id, title)
    hub.enroll(course_id, instructor, "instructor", create=True)


# The end


def address(current: settings.Settings) -> str:
    """Where people go: what the settings say, else this machine's full name, else its address on the way out."""
    said = current.public_address()
    if said:
        return said
    host = current.proxy.bind or _full_name() or _own_address()
    if ":" in host:
        host = f"[{host}]"
    port = current.proxy.http_port
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


def _full_name() -> str:
    """The machine's name with a domain, where that name leads to an address that is not its own loopback."""
    name = socket.getfqdn()
    if "." not in name or name.startswith("localhost") or name.endswith((".local", ".localdomain", ".arpa")):
        return ""
    try:
        found = socket.gethostbyname(name)
    except OSError:
        return ""
    return "" if found.startswith("127.") else name


def _own_address() -> str:
    """The address of the way out. Nothing is sent: connecting a datagram socket only chooses a route."""
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((anywhere, 9))
            except OSError:
                continue
            return str(probe.getsockname()[0])
    return "localhost"


def farewell(outcome: Outcome, seconds: float) -> str:
    """What the installation says at its end."""
    lines = [""]
    if outcome.first:
        lines += [f"IllumiDesk {__version__} is ready after {seconds:.0f} s:  {outcome.address}", ""]
    else:
        restarted = ", ".join(unit.removesuffix(".service") for unit in outcome.started) or "nothing"
        lines += [
            f"IllumiDesk {__version__} is up to date after {seconds:.0f} s:  {outcome.address}",
            f"  Restarted: {restarted}. Running notebooks went on.",
            "",
        ]
    people = _people(outcome)
    if people:
        lines += ["Who signs in as what:", *(f"  {name:<14} {what}" for name, what in people), ""]
        lines += [
            "Whoever signs in first under one of these names sets its password. Do it right away, for each of them.",
            "",
        ]
    if outcome.environments:
        lines += ["Environments:", *(f"  {built}" for built in outcome.environments), ""]
    for note in outcome.notes:
        lines += [f"Note: {note}", ""]
    lines += ["Next:"]
    if people:
        lines += [f"  1. Open {outcome.address} and sign in as {people[0][0]} with a password of your choice"]
    lines += [
        f"  {'2' if people else '1'}. sudo illumidesk status            how it goes",
        f"  {'3' if people else '2'}. sudo illumidesk --help            people, courses, settings",
    ]
    return "\n".join(lines)


def _people(outcome: Outcome) -> Sequence[tuple[str, str]]:
    what: dict[str, list[str]] = {}
    if outcome.admin is not None:
        taught = [f"instructor of {', '.join(outcome.courses)}"] if outcome.courses else []
        what[outcome.admin] = ["administrator", *taught]
    if outcome.demo:
        # The administrator may be one of them, as in `scripts/machine.py try`.
        what.setdefault(DEMO_INSTRUCTOR, []).append(f"instructor of the demo course {DEMO_COURSE}")
        what.setdefault(DEMO_STUDENT, []).append(f"student of {DEMO_COURSE}")
    return [(name, ", and ".join(parts)) for name, parts in what.items()]
