"""Root's hands in folders where others may write: nothing here follows a link or trusts what it finds.

Everything works on open folders (`dir_fd`) and one name at a time, so whoever swaps a folder for a link while
we work gains nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from illumidesk.errors import IllumiDeskError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ForeignFolderError(IllumiDeskError):
    """Something of another owner, or no folder at all, stands where a folder of ours belongs."""


@contextlib.contextmanager
def open_folder(path: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """The folder as a file descriptor. Its last name must not be a link.

    Raises:
        OSError: where it is none.
    """
    fd = os.open(path, _FOLDER, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def ensure_folder(parent_fd: int, name: str, *, mode: int, uid: int, gid: int) -> Iterator[int]:
    """The folder `name` in `parent_fd`, made where it is missing, with this mode and owner, as a file
    descriptor.

    Args:
        parent_fd: an open folder.
        name: one name, without a slash.
        mode: the permission bits, set-id and sticky bits included.
        uid: its owner. One that belongs to root is taken for ours, half made.
        gid: its group.

    Raises:
        ForeignFolderError: where something else stands there.
    """
    # 0700 and root's until it is finished, so that nobody is inside before the owner is right
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent_fd)
    except OSError:
        raise ForeignFolderError(f"{name} is in the way and is no folder", status=409) from None
    try:
        found = os.fstat(fd)
        if found.st_uid not in (0, uid):
            raise ForeignFolderError(f"the folder {name} belongs to somebody else", status=409)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        # after chown, which clears set-id bits
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)
        yield fd
    finally:
        os.close(fd)


def write_file(parent_fd: int, name: str, text: str, *, mode: int, uid: int, gid: int, replace: bool) -> bool:
    """Put a file into an open folder, whole or not at all.

    Args:
        parent_fd: an open folder.
        name: one name, without a slash.
        text: what it holds.
        mode: its permission bits.
        uid: its owner.
        gid: its group.
        replace: whether to replace what is there under that name; a link is replaced, never followed.

    Returns:
        Whether it was written.

    Raises:
        IllumiDeskError: where a folder stands there.
    """
    if not replace and _exists(parent_fd, name):
        return False
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=parent_fd,
    )
    try:
        try:
            with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
            if replace:
                os.rename(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
                return True
            # link(2) refuses where the name was taken meanwhile; rename would overwrite
            os.link(temporary, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        except FileExistsError:
            return False
        except IsADirectoryError:
            raise IllumiDeskError(f"a folder named {name} is in the way", status=409) from None
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent_fd)


def same_text(parent_fd: int, name: str, text: str) -> bool:
    """Whether `name` in the open folder is a plain file that holds just `text`."""
    wanted = text.encode("utf-8")
    try:
        # O_NONBLOCK: a pipe of that name must not stop us
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent_fd)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        return stat.S_ISREG(os.fstat(fd).st_mode) and file.read(len(wanted) + 1) == wanted


def move_aside(parent_fd: int, name: str, new_name: str) -> None:
    """Rename within an open folder; links are renamed, not followed."""
    os.rename(name, new_name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)


def remove_tree(path: Path) -> None:
    """Remove a tree that may be hostile: links are not followed, depth does not matter, other mounts are left
    alone.

    Args:
        path: an absolute path whose parents belong to root.

    Raises:
        IllumiDeskError: where something is left.
    """
    run(["rm", "-rf", "--one-file-system", "--", str(path)])


def run(argv: Sequence[str], *, ok: Sequence[int] = (0,), pass_fds: Sequence[int] = ()) -> str:
    """Run one of Debian's own tools.

    Args:
        argv: the program and its arguments; never a secret, since `ps` shows them.
        ok: exit codes that mean success.
        pass_fds: open files that it may use, as /dev/fd/N.

    Returns:
        What it printed.

    Raises:
        IllumiDeskError: 500 with the last line of what it complained about.
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        check=False,
        timeout=3600,
        pass_fds=pass_fds,
    )
    if done.returncode not in ok:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise IllumiDeskError(f"{argv[0]} failed: {lines[-1]}", status=500)
    return done.stdout.decode("utf-8", "replace")


def _exists(parent_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
