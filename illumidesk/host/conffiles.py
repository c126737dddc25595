"""Files that ship with IllumiDesk and that an administrator may change, by the habits of Debian's conffiles.

A file that nobody changed follows the release. One that somebody changed stays, and the release's own is put
beside it as `NAME.new`. What was shipped last is remembered by digest in `/var/lib/illumidesk/shipped.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from illumidesk.paths import Paths


def ensure_conffile(
    source: Path, target: Path, *, paths: Paths, mode: int = 0o644, gid: int = 0, replace: bool = True
) -> str:
    """Bring the shipped file `source` to `target`.

    Args:
        source: the file in the package.
        target: where the administrator looks for it.
        paths: the layout.
        mode: of the file.
        gid: its group.
        replace: whether a file that nobody changed follows the release; False for settings, where a default
            that moves is a change of behaviour.

    Returns:
        `same`, `written`, `kept` (somebody changed it and the release has nothing new) or `beside` (somebody
        changed it, and the release's new one lies beside it).
    """
    shipped = source.read_bytes()
    record = _Record(paths.state / "shipped.json")
    before = record.get(target)
    now = _digest(shipped)
    try:
        current = target.read_bytes()
    except FileNotFoundError:
        current = None

    if current == shipped:
        outcome = "same"
    elif current is None or (replace and _digest(current) == before):
        write_file(target, shipped, mode=mode, gid=gid)
        outcome = "written"
    elif before == now:
        outcome = "kept"
    else:
        write_file(_beside(target), shipped, mode=mode, gid=gid)
        outcome = "beside"
    if outcome in ("same", "written"):
        _beside(target).unlink(missing_ok=True)
    if before is None and current is not None and current != shipped:
        record.set(_foreign(target), "foreign")
    record.set(target, now)
    return outcome


def shipped_digest(target: Path, *, paths: Paths) -> str | None:
    """SHA-256 of what was shipped last for `target`; nothing where nothing was."""
    return _Record(paths.state / "shipped.json").get(target)


def remove_conffile(target: Path, *, paths: Paths) -> None:
    """Remove a file that `ensure_conffile` brought; one that was on the machine before IllumiDesk stays."""
    _beside(target).unlink(missing_ok=True)
    if _Record(paths.state / "shipped.json").get(_foreign(target)) is None:
        target.unlink(missing_ok=True)


def write_file(target: Path, content: bytes, *, mode: int = 0o644, gid: int = 0) -> bool:
    """Write a file in one step, with its final mode from the start; whether its content changed."""
    try:
        same = target.read_bytes() == content
    except OSError:
        same = False
    if same:
        target.chmod(mode)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o700)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        if os.geteuid() == 0:
            os.fchown(opened.fileno(), 0, gid)
        os.fchmod(opened.fileno(), mode)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(target)
    return True


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.new")


def _foreign(target: Path) -> Path:
    """The key under which the record says that a file was there before IllumiDesk."""
    return target.with_name(f"{target.name} (foreign)")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Record:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._known = json.loads(file.read_text("utf-8"))

    def get(self, target: Path) -> str | None:
        return self._known.get(str(target))

    def set(self, target: Path, digest: str) -> None:
        if self._known.get(str(target)) != digest:
            self._known[str(target)] = digest
            write_file(self._file, (json.dumps(self._known, indent=1, sort_keys=True) + "\n").encode())
