"""Leave the host as it was. People's files go only with `purge`."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from illumidesk import names
from illumidesk.host import units
from illumidesk.host.accounts import give
from illumidesk.host.conffiles import remove_conffile
from illumidesk.host.environments import lock
from illumidesk.host.https import forget_certbot
from illumidesk.host.memory import remove_ksm, remove_zram
from illumidesk.host.programs import loud_unit
from illumidesk.host.ssh import remove_ssh_rule
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths


def uninstall(paths: Paths | None = None, *, purge: bool = False, progress: Progress | None = None) -> None:
    """Remove IllumiDesk; may be run again after it was interrupted.

    Args:
        paths: the layout.
        purge: whether people's accounts and homes, courses, archives, settings, secrets and logs go too.
        progress: shows the steps.

    Raises:
        IllumiDeskError: where a step fails.
    """
    paths = paths or Paths()
    progress = progress or Progress()
    with lock(paths):
        with progress.step("Stopping services and servers"):
            _stop_units(progress)
        with progress.step("Removing units"):
            _remove_units(paths, progress, purge=purge)
        if purge:
            with progress.step("Removing people, courses and settings"):
                _remove_people(paths, progress)
                remove_ssh_rule(paths, progress)
                _remove_data(paths)
        with progress.step("Compressed swap and joined memory"):
            remove_zram(paths, progress)
            remove_ksm(paths, progress)
        with progress.step("Ending the certificate's renewal"):
            forget_certbot(paths, progress)
        with progress.step("Removing service accounts"):
            _remove_service_accounts(paths, progress, purge=purge)
        with progress.step("Removing programs"):
            loud_unit(paths, progress)
            _remove_link(paths)
            # Last: this very program runs from there.
            _remove(paths.opt)
    print(
        "\nIllumiDesk is removed. Debian packages that it installed stay (python3-venv, acl, git, openssh-client and "
        "what they need)."
    )
    if not purge:
        kept = (paths.exchange.parent, paths.hub_state, paths.etc, paths.hub_config.parent, paths.archive, paths.state)
        print(
            f"People's accounts and homes stay, and {', '.join(map(str, kept))}, {paths.log} and "
            f"{paths.nbgrader_global_config}: a new installation finds them again."
        )


def _stop_units(progress: Progress) -> None:
    # The hub first, which would start servers again, and the supervisor last, which tidies up after them.
    people = ("jupyter-*.service", "illumidesk-grader@*.service")
    for pattern in (units.HUB, units.PROXY, *people, units.SUPERVISOR, "illumidesk-forkserver@*"):
        progress.run(["systemctl", "stop", pattern], check=False)
    progress.run(["systemctl", "stop", *reversed(units.SLICES)], check=False)


def _remove_units(paths: Paths, progress: Progress, *, purge: bool) -> None:
    folder = units.unit_folder(paths)
    present = [name for name in (*units.SLICES, *units.SERVICES) if (folder / name).exists()]
    if present:
        progress.run(["systemctl", "disable", *present], check=False)
    for name in units.FILES:
        (folder / name).unlink(missing_ok=True)
        drop_ins = folder / f"{name}.d"
        (drop_ins / "50-settings.conf").unlink(missing_ok=True)
        # An administrator's own drop-ins stay for a new installation.
        _remove(drop_ins) if purge else _remove_empty(drop_ins)
    units.tmpfiles(paths).unlink(missing_ok=True)
    progress.run(["systemctl", "daemon-reload"])
    progress.run(["systemctl", "reset-failed", "illumidesk*", "jupyter-*"], check=False)
    _remove(paths.run)
    (paths.state / "started.json").unlink(missing_ok=True)


def _remove_people(paths: Paths, progress: Progress) -> None:
    graders = list(_marked(names.GRADERS_GROUP))
    for account in [*_marked(names.PEOPLE_GROUP), *graders]:
        _kill_all(account.pw_uid)
        progress.run(["userdel", account.pw_name], what=f"removing the account {account.pw_name}")
        home = Path(account.pw_dir)
        # Only what is where we make homes, whatever the password file says by now.
        if home.parent == paths.home and not home.is_symlink():
            _remove(home)
    of_courses = [f"nbgrader-{account.pw_name.removeprefix('grader-')}" for account in graders]
    # userdel leaves an account's own group where somebody is in it
    own = [account.pw_name for account in graders]
    for group in (*of_courses, *own, names.PEOPLE_GROUP, names.GRADERS_GROUP):
        progress.run(["groupdel", group], check=False)


def _remove_data(paths: Paths) -> None:
    _remove(paths.exchange)
    _remove(paths.shared)
    _remove_empty(paths.exchange.parent)
    for file in (paths.hub_config, paths.nbgrader_global_config):
        remove_conffile(file, paths=paths)
    for folder in (paths.hub_state, paths.etc, paths.state, paths.archive, paths.log, paths.hub_config_d):
        _remove(folder)
    _remove_empty(paths.hub_config.parent)
    _remove_empty(paths.nbgrader_global_config.parent)


def _remove_service_accounts(paths: Paths, progress: Progress, *, purge: bool) -> None:
    if not purge:
        # Their numbers will be somebody else's some day.
        if paths.hub_state.exists():
            give(paths.hub_state, 0, 0)
        if paths.config_file.exists():
            os.chown(paths.config_file, 0, 0)
        if paths.tls.exists():
            give(paths.tls, 0, 0)
    for name in (names.HUB_ACCOUNT, names.PROXY_ACCOUNT):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            progress.run(["userdel", name], what=f"removing the account {name}")
    for name in (names.HUB_ACCOUNT, names.PROXY_ACCOUNT, names.SOCKETS_GROUP):
        with contextlib.suppress(KeyError):
            grp.getgrnam(name)
            progress.run(["groupdel", name], what=f"removing the group {name}")


def _remove_link(paths: Paths) -> None:
    link = paths.root / "usr/local/bin/illumidesk"
    if link.is_symlink() and str(link.readlink()).startswith(str(paths.opt)):
        link.unlink()


def _marked(group: str) -> Iterator[pwd.struct_passwd]:
    """The accounts of a marker group that are an ordinary person's or grader's."""
    with contextlib.suppress(KeyError):
        for name in grp.getgrnam(group).gr_mem:
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(name)
                if account.pw_uid >= 1000:
                    yield account


def _kill_all(uid: int) -> None:
    """End an account's processes: userdel refuses while there are any."""
    for attempt in range(20):
        found = False
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if process.stat().st_uid == uid:
                    os.kill(int(process.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.05 * (attempt + 1))


def _remove(folder: Path) -> None:
    # rmtree follows no link, so nothing that somebody put into their home leads out of it.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
