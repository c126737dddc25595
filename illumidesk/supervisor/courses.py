"""What a course is on a host: the grader's folders and configuration, the exchange and the shared folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Template

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths, data
from illumidesk.supervisor import acl, files
from illumidesk.supervisor.accounts import Accounts
from illumidesk.supervisor.units import Account

log = logging.getLogger("illumidesk.supervisor")

# The folders of a course in the exchange: mode, and what a member may do there. Members enter and read what
# is released, drop submissions which they can neither list nor take away again, and open feedback whose name
# they know.
_COURSE = ("", 0o2750, 0o5)
_PARTS = (("outbound", 0o750, 0o5), ("inbound", 0o1730, 0o3), ("feedback", 0o710, 0o1))

#: Released assignments that are told of a course, and entries of its folder that are looked at.
MAX_RELEASED = 500
_MAX_ENTRIES = 10_000


class Courses:
    """Courses on this host. Everything here may block.

    Args:
        paths: the layout.
        accounts: where the grader's account comes from.
    """

    def __init__(self, paths: Paths, accounts: Accounts) -> None:
        self._paths = paths
        self._accounts = accounts

    def ensure(self, course_id: str) -> tuple[Account, bool]:
        """The course's account and whether it was made now; its folders, nbgrader's configuration, exchange and
        shared folder with it.

        Raises:
            IllumiDeskError: 409 where something else has that name, or the course is half removed.
        """
        if self._removal(course_id).exists():
            raise IllumiDeskError(
                f"the course {course_id} is being removed",
                hint=f"finish that first: sudo illumidesk course remove {course_id}",
                status=409,
            )
        account, created = self._accounts.ensure_grader(course_id)
        self._ensure_home(course_id, account)
        self._ensure_exchange(course_id, account)
        self._ensure_shared(course_id, account)
        return account, created

    def set_membership(self, course_id: str, name: str, *, member: bool, running: bool, staff: bool = False) -> None:
        """Let a person into a course's exchange and shared folder, or out.

        A running server keeps the groups it was started with. For its sake the folders get an entry that
        decides instead, until the person's next server starts (`forget_running`).

        Args:
            course_id: the course.
            name: the person.
            member: in or out.
            running: whether a server of theirs runs.
            staff: whether they write the shared folder.
        """
        uid = self._accounts.person(name).uid if member else None
        grader = self._accounts.grader(course_id)
        staff = staff and member
        if uid is None:
            with contextlib.suppress(IllumiDeskError):  # a retired person has no server that could run
                uid = self._accounts.person(name).uid
        if uid is not None and not staff:
            # Before the group goes, by which is known that the server that runs may write
            self._note_shared(course_id, name, uid, member=member, running=running)
        self._accounts.set_member(course_id, name, member=member, staff=staff)
        if uid is None:
            return
        if staff:
            with self._open_shared(course_id, grader) as shared:
                if shared is not None:
                    acl.set_entry(shared, uid, 7 if running else None)
        with self._open_exchange(course_id, grader) as folder:
            if folder is None:
                return
            for fd, allowed in self._parts(folder, grader):
                if not acl.set_entry(fd, uid, (allowed if member else 0) if running else None):
                    log.warning(
                        "no access lists in %s: %s's running server keeps its access to %s until it is restarted",
                        self._paths.exchange,
                        name,
                        course_id,
                    )
                    return

    def _note_shared(self, course_id: str, name: str, uid: int, *, member: bool, running: bool) -> None:
        """Shut the shared folder for a running server of somebody who may not write it, or let it read."""
        with self._open_shared(course_id, self._accounts.grader(course_id)) as shared:
            if shared is None:
                return
            allowed = None
            if running:
                # A server that was let in to write keeps the group that writes below the folder: it is shut out whole,
                # and so is one that was shut out before, since why is not noted
                shut = self._accounts.is_staff(course_id, name) or acl.entries(shared).get(uid) == 0
                allowed = 5 if member and not shut else 0
            acl.set_entry(shared, uid, allowed)

    def writable(self, account: Account) -> tuple[Path, ...]:
        """The shared folders that a person may write."""
        found = []
        for course_id in self._accounts.courses():
            if self._accounts.is_staff(course_id, account.name):
                with self._open_shared(course_id, self._accounts.grader(course_id)) as shared:
                    if shared is not None:
                        found.append(self._paths.shared / course_id)
        return tuple(found)

    def forget_running(self, account: Account) -> None:
        """Drop what `set_membership` noted for a running server: the account's next one starts with the right
        groups.
        """
        for course_id in self._accounts.courses():
            # a course may go meanwhile, and its entries with it
            with contextlib.suppress(IllumiDeskError):
                grader = self._accounts.grader(course_id)
                with self._open_exchange(course_id, grader) as folder:
                    for fd, _ in self._parts(folder, grader) if folder is not None else ():
                        acl.set_entry(fd, account.uid, None)
                with self._open_shared(course_id, grader) as shared:
                    if shared is not None:
                        acl.set_entry(shared, account.uid, None)

    def released(self, course_id: str) -> list[str]:
        """The names of the assignments that a course has released, sorted; at most `MAX_RELEASED`.

        Released assignments are folders in the exchange's COURSE/outbound. Teachers put there what they like, so links,
        files and names that nbgrader would not take are passed over.

        Raises:
            IllumiDeskError: 404 where there is no such course.
        """
        grader = self._accounts.grader(course_id)
        found: list[str] = []
        with self._open_exchange(course_id, grader) as folder:
            if folder is None:
                return []
            try:
                with files.open_folder("outbound", dir_fd=folder) as fd:
                    if os.fstat(fd).st_uid == grader.uid:
                        found = _folders(fd)
            except OSError as error:
                log.warning("the released assignments of %s cannot be read: %s", course_id, error.strerror)
        return sorted(found)[:MAX_RELEASED]

    def archive(self, course_id: str) -> Path:
        """Pack a course's home, exchange folder and shared folder; a second call after a kill gives the archive that is
        finished.

        The grader must be stopped. Links are packed as links, other file systems are left out.

        Returns:
            The archive (0600, root's); of a course that is gone already, its last one.

        Raises:
            IllumiDeskError: 404 where there was never such a course.
        """
        marker = self._removal(course_id)
        if marker.exists():
            return Path(json.loads(marker.read_text())["archive"])
        folder = self._paths.archive / "courses"
        try:
            account = self._accounts.grader(course_id)
        except IllumiDeskError as error:
            # Whoever asked for the removal may have died before the answer
            archives = sorted(folder.glob(f"{course_id}-????????T??????Z.tar.gz"))
            if error.status == 404 and archives:
                return archives[-1]
            raise
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.glob(f".{course_id}-*.partial"):
            left.unlink()
        name = f"{course_id}-{_utc()}.tar.gz"
        partial = folder / f".{name}.partial"
        with self._open_exchange(course_id, account) as exchange:
            parts = [str(account.home.relative_to(self._paths.root))]
            if exchange is not None:
                parts.append(str((self._paths.exchange / course_id).relative_to(self._paths.root)))
        with self._open_shared(course_id, account) as shared:
            if shared is not None:
                parts.append(str((self._paths.shared / course_id).relative_to(self._paths.root)))
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            argv = ["tar", "--create", "--gzip", "--one-file-system", f"--file=/dev/fd/{fd}", "--force-local"]
            argv += [f"--directory={self._paths.root}", "--", *parts]
            with os.fdopen(fd, "wb") as file:
                # 1: a file changed while it was read, which nothing of the course does any more
                files.run(argv, ok=(0, 1), pass_fds=(fd,))
                os.fsync(file.fileno())
        except (IllumiDeskError, OSError):
            partial.unlink()
            raise
        finished = folder / name
        partial.rename(finished)
        # From here on the course only gets less: what is left after a kill is not archived again
        partial_marker = marker.with_suffix(".new")
        partial_marker.write_text(json.dumps({"archive": str(finished)}))
        partial_marker.rename(marker)
        return finished

    def remove(self, course_id: str) -> None:
        """Remove what `archive` packed: exchange and shared folder, home, members' group, account. May be run again."""
        try:
            account = self._accounts.grader(course_id)
        except IllumiDeskError as error:
            if error.status != 404:
                raise
        else:
            with self._open_exchange(course_id, account) as exchange:
                ours = exchange is not None
            if ours:
                files.remove_tree(self._paths.exchange / course_id)
            with self._open_shared(course_id, account) as shared:
                ours = shared is not None
            if ours:
                files.remove_tree(self._paths.shared / course_id)
            files.remove_tree(self._paths.grader_socket(course_id).parent)
            self._accounts.remove_grader(course_id)
        self._removal(course_id).unlink(missing_ok=True)

    def _removal(self, course_id: str) -> Path:
        """The mark of a course that is archived and not yet wholly removed."""
        return self._paths.archive / "courses" / f".{names.check_course_id(course_id)}.removing"

    def _ensure_home(self, course_id: str, account: Account) -> None:
        own = {"uid": account.uid, "gid": account.gid}
        with files.open_folder(account.home) as home:
            with files.ensure_folder(home, ".jupyter", mode=0o700, **own) as folder:
                text = _config("grader_nbgrader_config.py", course_id, account)
                if not files.same_text(folder, "nbgrader_config.py", text):
                    files.write_file(folder, "nbgrader_config.py", text, mode=0o644, replace=True, **own)
            with files.ensure_folder(home, course_id, mode=0o755, **own) as folder:
                text = _config("course_nbgrader_config.py", course_id, account)
                files.write_file(folder, "nbgrader_config.py", text, mode=0o644, replace=False, **own)

    def _ensure_exchange(self, course_id: str, account: Account) -> None:
        gid = self._accounts.members_gid(course_id)
        exchange = self._paths.exchange
        exchange.mkdir(mode=0o755, parents=True, exist_ok=True)
        with files.open_folder(exchange) as root:
            # Everybody may write here: nbgrader insists. The sticky bit keeps people from each other's
            # folders
            if stat.S_IMODE(os.fstat(root).st_mode) != 0o1777:
                os.fchmod(root, 0o1777)
            for _ in range(5):
                with contextlib.ExitStack() as stack:
                    try:
                        folder = stack.enter_context(
                            files.ensure_folder(root, course_id, mode=_COURSE[1], uid=account.uid, gid=gid)
                        )
                    except files.ForeignFolderError:
                        aside = f"{course_id}.squatted-{_utc()}-{secrets.token_hex(2)}"
                        with contextlib.suppress(FileNotFoundError):
                            files.move_aside(root, course_id, aside)
                        log.warning("%s in the exchange was not the course's; it is now %s", course_id, aside)
                        continue
                    for name, mode, _allowed in _PARTS:
                        with files.ensure_folder(folder, name, mode=mode, uid=account.uid, gid=gid):
                            pass
                    return
        raise IllumiDeskError(
            f"somebody keeps making a folder {course_id} in {exchange}",
            hint=f"look who with ls -l {exchange}",
            status=409,
        )

    def _ensure_shared(self, course_id: str, account: Account) -> None:
        """The shared folder: the grader's, written by its own group, entered and read by the course's members.

        It is no part of anybody's home, so nothing that somebody put there is met.
        """
        self._paths.shared.mkdir(mode=0o755, parents=True, exist_ok=True)
        with files.open_folder(self._paths.shared) as root:
            if stat.S_IMODE(os.fstat(root).st_mode) != 0o755:
                os.fchmod(root, 0o755)  # which the umask made 0700
            members = self._accounts.members_gid(course_id)
            with files.ensure_folder(root, course_id, mode=0o2770, uid=account.uid, gid=account.gid) as folder:
                if not acl.open_to_group(folder, members):
                    log.warning("no access lists in %s: only the grader of %s writes it", self._paths.shared, course_id)
                    os.fchown(folder, account.uid, members)
                    os.fchmod(folder, 0o2750)

    @contextlib.contextmanager
    def _open_shared(self, course_id: str, grader: Account) -> Iterator[int | None]:
        """The course's shared folder; None where there is none yet."""
        with self._open_own(self._paths.shared, course_id, grader) as fd:
            yield fd

    @contextlib.contextmanager
    def _open_exchange(self, course_id: str, grader: Account) -> Iterator[int | None]:
        """The course's own folder in the exchange; None where there is none, or one that is not the
        grader's.
        """
        with self._open_own(self._paths.exchange, course_id, grader) as fd:
            yield fd

    @staticmethod
    @contextlib.contextmanager
    def _open_own(parent: Path, course_id: str, grader: Account) -> Iterator[int | None]:
        with contextlib.ExitStack() as stack:
            fd: int | None = None
            try:
                root = stack.enter_context(files.open_folder(parent))
                fd = stack.enter_context(files.open_folder(names.check_course_id(course_id), dir_fd=root))
                if os.fstat(fd).st_uid != grader.uid:
                    fd = None
            except OSError:
                fd = None
            yield fd

    def _parts(self, folder: int, grader: Account) -> Iterator[tuple[int, int]]:
        """The course's folder and those in it, open, with what a member may do there."""
        yield folder, _COURSE[2]
        for name, _, allowed in _PARTS:
            with contextlib.suppress(OSError), files.open_folder(name, dir_fd=folder) as fd:
                if os.fstat(fd).st_uid == grader.uid:
                    yield fd, allowed


def _folders(fd: int) -> list[str]:
    """The names of an open folder's own folders that an assignment may have."""
    found = []
    with os.scandir(fd) as entries:
        for entry in itertools.islice(entries, _MAX_ENTRIES):
            with contextlib.suppress(IllumiDeskError, OSError):
                if entry.is_dir(follow_symlinks=False):
                    found.append(names.check_assignment(entry.name))
    return found


def _config(name: str, course_id: str, account: Account) -> str:
    template = Template(data("config", "nbgrader", name).read_text("utf-8"))
    return template.substitute(course_id=course_id, home=account.home)


def _utc() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
