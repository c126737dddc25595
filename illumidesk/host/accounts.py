"""The service accounts, and the Linux groups that mark the accounts of people and graders."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.host.certificates import ensure_tls_folder
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths


def ensure_accounts(paths: Paths, progress: Progress) -> None:
    """Make the accounts that the hub and the proxy run as, and the groups."""
    for group in (names.SOCKETS_GROUP, names.PEOPLE_GROUP, names.GRADERS_GROUP):
        if not _group_exists(group):
            progress.run(["groupadd", "--system", group], what=f"making the group {group}")
    _ensure_account(names.HUB_ACCOUNT, paths.hub_state, "IllumiDesk hub", progress)
    _ensure_account(names.PROXY_ACCOUNT, Path("/nonexistent"), "IllumiDesk proxy", progress)
    for account in (names.HUB_ACCOUNT, names.PROXY_ACCOUNT):
        if account not in grp.getgrnam(names.SOCKETS_GROUP).gr_mem:
            progress.run(["usermod", "--append", "--groups", names.SOCKETS_GROUP, account])


def ensure_folders(paths: Paths) -> None:
    """Make the folders that outlive a boot, each with its owner and mode."""
    hub = pwd.getpwnam(names.HUB_ACCOUNT)
    for folder, mode in (
        (paths.etc, 0o755),
        (paths.hub_config_d, 0o755),
        (paths.nbgrader_global_config.parent, 0o755),
        (paths.opt, 0o755),
        (paths.environments, 0o755),
        (paths.state, 0o755),
        (paths.archive, 0o700),
        (paths.exchange.parent, 0o755),
        # nbgrader refuses an exchange that is not writable for everybody; the courses' folders in it are not.
        (paths.exchange, 0o1777),
        (paths.shared, 0o755),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    paths.hub_state.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.hub_state.chmod(0o700)
    if paths.hub_state.stat().st_uid != hub.pw_uid:
        # An earlier installation's state, kept while its account was not.
        give(paths.hub_state, hub.pw_uid, hub.pw_gid)
    if paths.config_file.exists():
        os.chown(paths.config_file, 0, hub.pw_gid)
    ensure_tls_folder(paths)


def foreign_account(name: str) -> bool:
    """Whether `name` is an account of this machine that the supervisor did not make."""
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return False
    try:
        marked = grp.getgrnam(names.PEOPLE_GROUP).gr_gid
    except KeyError:
        return True
    return marked not in os.getgrouplist(name, account.pw_gid)


def _ensure_account(name: str, home: Path, comment: str, progress: Progress) -> None:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        what = ["--system", "--user-group", "--no-create-home", "--home-dir", str(home)]
        login = ["--shell", "/usr/sbin/nologin", "--comment", comment]
        progress.run(["useradd", *what, *login, name], what=f"making the account {name}")
        return
    if account.pw_uid == 0 or account.pw_uid >= 1000:
        raise IllumiDeskError(
            f"there is an account {name} on this machine that is not a service's", hint="rename it", status=409
        )


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def give(folder: Path, uid: int, gid: int) -> None:
    """Give a folder and all in it to an account. Links are given, not what they point to."""
    for base, _, files in os.walk(folder):
        for name in (".", *files):
            os.chown(Path(base) / name, uid, gid, follow_symlinks=False)
