"""POSIX access control lists, as far as we need them: entries on an open folder, and what is made in it gets.

The kernel keeps a list in the attribute `system.posix_acl_access`, and the one that new files begin with in
`system.posix_acl_default`: a version, then entries of tag, permission and id (linux/posix_acl_xattr.h, little
endian). Spoken directly, it works on a file descriptor, so no link is ever followed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from dataclasses import dataclass

_ATTRIBUTE = "system.posix_acl_access"
_DEFAULT = "system.posix_acl_default"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_LOCK = threading.Lock()
_NO_ID = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@dataclass(frozen=True, order=True)
class _Entry:
    # In the order in which the kernel wants a list sorted
    tag: int
    id: int
    permission: int


def set_entry(fd: int, uid: int, permission: int | None) -> bool:
    """Give, change or drop the entry of one account on an open folder.

    The mask grows with what is given, within what the owning group has or had; an unused list vanishes.

    Args:
        fd: the open folder.
        uid: whose entry.
        permission: 0 to 7 as in a mode (0 keeps the account out although its group may enter); None drops the
            entry.

    Returns:
        False where the file system keeps no such lists.
    """
    try:
        # A list is read, changed and written back; two at once would lose one's change
        with _LOCK:
            entries = _read(fd)
            kept = [e for e in entries if not (e.tag == _USER and e.id == uid)]
            if permission is not None:
                kept.append(_Entry(_USER, uid, permission))
            if kept != entries:
                _write(fd, kept)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise
    return True


def open_to_group(fd: int, gid: int) -> bool:
    """Let a second group read an open folder, and whatever is made in it from now on.

    What is made there belongs to its maker, may be written by the folder's own group and read by everybody who comes
    that far, whatever the maker's umask: the folder itself is the gate. The second group has an entry besides, so that
    a file that somebody moved there with a mode of its own (0640) can be read as well.

    Args:
        fd: the open folder.
        gid: the second group.

    Returns:
        False where the file system keeps no such lists.
    """
    inherited = [
        _Entry(_USER_OBJ, _NO_ID, 7),
        _Entry(_GROUP_OBJ, _NO_ID, 7),
        _Entry(_GROUP, gid, 5),
        _Entry(_OTHER, _NO_ID, 5),
    ]
    try:
        with _LOCK:
            entries = _read(fd)
            kept = [e for e in entries if not (e.tag == _GROUP and e.id == gid)]
            kept.append(_Entry(_GROUP, gid, 5))
            if sorted(kept) != sorted(entries):
                _write(fd, kept)
            _write(fd, inherited, _DEFAULT)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise
    return True


def entries(fd: int) -> dict[int, int]:
    """The permission of every account that has an entry of its own on an open folder."""
    return {e.id: e.permission for e in _read(fd) if e.tag == _USER}


def _read(fd: int) -> list[_Entry]:
    try:
        raw = os.getxattr(fd, _ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        return [
            _Entry(_USER_OBJ, _NO_ID, mode >> 6 & 7),
            _Entry(_GROUP_OBJ, _NO_ID, mode >> 3 & 7),
            _Entry(_OTHER, _NO_ID, mode & 7),
        ]
    return [_Entry(tag, id_, permission) for tag, permission, id_ in _ENTRY.iter_unpack(raw[4:])]


def _write(fd: int, wanted: list[_Entry], attribute: str = _ATTRIBUTE) -> None:
    plain = [e for e in wanted if e.tag != _MASK]
    if any(e.tag in (_USER, _GROUP) for e in plain):
        mask = 0
        for entry in plain:
            if entry.tag in (_USER, _GROUP, _GROUP_OBJ):
                mask |= entry.permission
        plain.append(_Entry(_MASK, _NO_ID, mask))
    else:
        # The kernel shows the mask as the group's bits; without a list they are the group's own again
        plain = [e for e in plain if e.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER)]
    raw = _VERSION + b"".join(_ENTRY.pack(e.tag, e.permission, e.id) for e in sorted(plain))
    os.setxattr(fd, attribute, raw)
