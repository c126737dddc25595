"""Linux accounts and groups of people and graders, made by Debian's own tools.

Every step may be cut off by a kill and is finished by the next call. What tells an account of ours from any
other, even half made, is written with its line in /etc/passwd at once: the comment. The groups are the mark
that everything else goes by.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Protocol

import psutil

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.supervisor import files
from illumidesk.supervisor.units import Account

#: Comments (GECOS) of the accounts we make; no account can change its own.
_PERSON = "IllumiDesk person"
_GRADER = "IllumiDesk grader"
_MIN_UID = 1000


class Accounts(Protocol):
    """Where accounts come from: Linux's on a host, one for all in tests. Everything here may block."""

    def ensure_person(self, name: str, *, restore: bool = False) -> tuple[Account, bool]:
        """A person's account and whether it was made now.

        Raises:
            IllumiDeskError: 409 where the name belongs to something else, or to a retired person and not
                `restore`.
        """

    def person(self, name: str) -> Account:
        """A person's account.

        Raises:
            IllumiDeskError: 404 or 403 where the supervisor made none of that name, or it is retired.
        """

    def retire_person(self, name: str) -> None:
        """Close a person's account for good; home and name are kept."""

    def ensure_grader(self, course_id: str) -> tuple[Account, bool]:
        """The account of a course's grader with the group of its members, and whether it was made now."""

    def grader(self, course_id: str) -> Account:
        """The account of a course's grader.

        Raises:
            IllumiDeskError: 404 or 403 where the supervisor made none.
        """

    def courses(self) -> list[str]:
        """The id of every course that has a grader."""

    def remove_grader(self, course_id: str) -> None:
        """End every process of a grader, then remove its home, the members' group and the account, in this
        order.
        """

    def members_gid(self, course_id: str) -> int:
        """The group of a course's members."""

    def set_member(self, course_id: str, name: str, *, member: bool, staff: bool = False) -> None:
        """Put a person into the group of a course's members, or take them out; and into the grader's own group, which
        may write the course's shared folder, where they are `staff`.
        """

    def is_staff(self, course_id: str, name: str) -> bool:
        """Whether a person is in the grader's own group."""

    def sockets_gid(self) -> int:
        """The group that may open people's sockets."""


class LinuxAccounts:
    """Accounts in /etc/passwd.

    Args:
        home: where homes are made.
        skeleton: what a new home starts with.
    """

    def __init__(self, home: Path = Path("/home"), skeleton: Path = Path("/etc/skel")) -> None:
        self._home = home
        self._skeleton = skeleton

    def ensure_person(self, name: str, *, restore: bool = False) -> tuple[Account, bool]:
        """See `Accounts`."""
        names.check_account(name)
        account, created = self._ensure(name, comment=_PERSON, groups=[names.PEOPLE_GROUP])
        if _is_expired(name):
            if not restore:
                raise IllumiDeskError(
                    f"the account {name} is retired",
                    hint="names are never given to somebody else; choose another, or restore it",
                    status=409,
                )
            files.run(["usermod", "--expiredate", "", name])
        return account, created

    def person(self, name: str) -> Account:
        """See `Accounts`."""
        account = _ours(names.check_account(name), names.PEOPLE_GROUP)
        if _is_expired(name):
            raise IllumiDeskError(f"the account {name} is retired", status=403)
        return account

    def retire_person(self, name: str) -> None:
        """See `Accounts`."""
        _ours(names.check_account(name), names.PEOPLE_GROUP)
        files.run(["usermod", "--lock", "--expiredate", "1", name])

    def ensure_grader(self, course_id: str) -> tuple[Account, bool]:
        """See `Accounts`."""
        name, group = names.grader_account(course_id), names.members_group(course_id)
        if _find(name) is None and _find_group(group) is not None:
            # We make the account first and remove it last, so this group is not ours, nor are its members
            raise IllumiDeskError(
                f"{group} is a group of this machine that IllumiDesk did not make",
                hint=f"choose another course id, or remove it with `sudo groupdel {group}`",
                status=409,
            )
        account, created = self._ensure(name, comment=_GRADER, groups=[names.GRADERS_GROUP])
        if _find_group(group) is None:
            files.run(["groupadd", group])
        _join(name, group)
        return account, created

    def grader(self, course_id: str) -> Account:
        """See `Accounts`."""
        return _ours(names.grader_account(course_id), names.GRADERS_GROUP)

    def courses(self) -> list[str]:
        """See `Accounts`."""
        graders = _find_group(names.GRADERS_GROUP)
        found = [name.removeprefix("grader-") for name in (graders.gr_mem if graders else ())]
        # gr_mem may name an account that userdel has not wholly removed
        return [course_id for course_id in found if _find(names.grader_account(course_id)) is not None]

    def remove_grader(self, course_id: str) -> None:
        """See `Accounts`."""
        account = self.grader(course_id)
        _kill_all(account.uid)
        files.remove_tree(self._home / account.name)
        group = names.members_group(course_id)
        if _find_group(group) is not None:
            files.run(["groupdel", group])
        files.run(["userdel", account.name])
        # Where login.defs says USERGROUPS_ENAB no, userdel leaves the account's own group
        if _find_group(account.name) is not None:
            files.run(["groupdel", account.name])

    def members_gid(self, course_id: str) -> int:
        """See `Accounts`."""
        return _gid(names.members_group(course_id))

    def set_member(self, course_id: str, name: str, *, member: bool, staff: bool = False) -> None:
        """See `Accounts`."""
        grader = self.grader(course_id)
        if not member and _find(names.check_account(name)) is None:
            return  # who has no account is in no group
        _ours(names.check_account(name), names.PEOPLE_GROUP)
        # What goes goes first, so that a kill between leaves nobody with more than they should have
        for group, wanted in ((grader.name, member and staff), (names.members_group(course_id), member)):
            if wanted:
                _join(name, group)
            elif name in grp.getgrnam(group).gr_mem:
                files.run(["gpasswd", "--delete", name, group])

    def is_staff(self, course_id: str, name: str) -> bool:
        """See `Accounts`."""
        group = _find_group(names.grader_account(course_id))
        return group is not None and names.check_account(name) in group.gr_mem

    def sockets_gid(self) -> int:
        """See `Accounts`."""
        return _gid(names.SOCKETS_GROUP)

    def _ensure(self, name: str, *, comment: str, groups: list[str]) -> tuple[Account, bool]:
        entry = _find(name)
        created = entry is None
        if entry is None:
            if _find_group(name) is not None:
                # `docker` and its like: whoever got that group would get its rights
                raise IllumiDeskError(
                    f"{name} is a group of this machine that IllumiDesk did not make",
                    hint="choose another name",
                    status=409,
                )
            argv = ["useradd", "--comment", comment, "--shell", "/bin/bash", "--user-group", "--no-create-home"]
            argv += ["--home-dir", str(self._home / name), "--groups", ",".join(groups), name]
            files.run(argv)
            entry = pwd.getpwnam(name)
        elif entry.pw_uid < _MIN_UID or (
            entry.pw_gecos != comment and not all(name in grp.getgrnam(group).gr_mem for group in groups)
        ):
            raise IllumiDeskError(
                f"{name} is an account of this machine that IllumiDesk did not make",
                hint="choose another name",
                status=409,
            )
        # useradd writes passwd, shadow, group in turn; a kill between them leaves the account without its
        # groups
        if _find_group(name) is None:
            files.run(["groupadd", "--gid", str(entry.pw_gid), name])
        for group in groups:
            _join(name, group)
        self._ensure_home(entry)
        return _account(entry), created

    def _ensure_home(self, entry: pwd.struct_passwd) -> None:
        """The home, 0700. It is root's until it is complete, and belongs to nobody else's leftover."""
        home = Path(entry.pw_dir)
        if home.parent != self._home:
            raise IllumiDeskError(f"the home of {entry.pw_name} is not in {self._home}", status=409)
        try:
            found = home.lstat()
        except FileNotFoundError:
            home.mkdir(0o700)
            found = home.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == entry.pw_uid:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
            raise IllumiDeskError(
                f"{home} is already there and belongs to somebody else",
                hint=f"move it away, for example: sudo mv {home} {home}.old",
                status=409,
            )
        home.chmod(0o700)
        for top in self._skeleton.iterdir() if self._skeleton.is_dir() else ():
            target = home / top.name
            if top.is_dir() and not top.is_symlink():
                shutil.copytree(top, target, symlinks=True, dirs_exist_ok=True)
            elif not os.path.lexists(target):
                shutil.copy2(top, target, follow_symlinks=False)
            for path in (target, *target.rglob("*")) if target.is_dir() else (target,):
                os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
        os.chown(home, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _find_group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _gid(group: str) -> int:
    found = _find_group(group)
    if found is None:
        raise IllumiDeskError(f"the group {group} is missing", hint="run install.sh again", status=500)
    return found.gr_gid


def _ours(name: str, group: str) -> Account:
    entry = _find(name)
    if entry is None:
        raise IllumiDeskError(f"there is no account {name}", status=404)
    marked = _find_group(group)
    if entry.pw_uid < _MIN_UID or marked is None or name not in marked.gr_mem:
        raise IllumiDeskError(f"{name} is an account of this machine that IllumiDesk did not make", status=403)
    return _account(entry)


def _join(name: str, group: str) -> None:
    if name not in grp.getgrnam(group).gr_mem:
        files.run(["gpasswd", "--add", name, group])


def _is_expired(name: str) -> bool:
    """Whether the account was retired: `usermod --expiredate 1` puts a 1 into its line of /etc/shadow."""
    for line in Path("/etc/shadow").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return len(fields) > 7 and fields[7] == "1"
    return False


def _kill_all(uid: int) -> None:
    """End what still runs as `uid` outside its unit; userdel refuses while something does."""
    for process in psutil.process_iter():
        try:
            if uid in process.uids():
                process.kill()
        except psutil.NoSuchProcess:
            continue
