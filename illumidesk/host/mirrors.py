"""Private repositories of a course: the key that reads them, and copies of them in the course's shared folder.

Students' servers pull as the students, so a key that they could use they could also read. It is the grader's account
that has the key and fetches; members pull from the copy. Root steps down to that account for all of it, so nothing in
the grader's home or in a repository is touched with root's rights.
"""

from __future__ import annotations

import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

#: Seconds that git may take.
_TIMEOUT = 1800
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[^:]+", re.ASCII)


@dataclass(frozen=True)
class Course:
    """As whom, where.

    Args:
        course_id: the course.
        home: the grader's home.
        shared: the course's shared folder.
        step_down: what a command line begins with that runs as the grader's account; empty in tests.
    """

    course_id: str
    home: Path
    shared: Path
    step_down: tuple[str, ...]

    @classmethod
    def of_this_machine(cls, course_id: str) -> Course:
        """The course as it is on this machine.

        Raises:
            IllumiDeskError: 404 where it is not set up here.
        """
        account = names.grader_account(course_id)
        shared = Paths.current().shared / course_id
        try:
            home = Path(pwd.getpwnam(account).pw_dir)
        except KeyError:
            raise IllumiDeskError(
                f"there is no course {course_id}", hint="illumidesk course list", status=404
            ) from None
        if not shared.is_dir():
            raise IllumiDeskError(
                f"the course {course_id} has no shared folder yet",
                hint=f"make it: sudo illumidesk course create {course_id}",
                status=404,
            )
        return cls(course_id, home, shared, ("runuser", "--user", account, "--"))

    @property
    def key(self) -> Path:
        """The private key, in the grader's home."""
        return self.home / ".ssh" / "illumidesk_deploy"


def deploy_key(course: Course, *, new: bool = False) -> str:
    """The public half of a course's key, made where there is none.

    Args:
        course: the course.
        new: make another in place of the one that is there.

    Raises:
        IllumiDeskError: where it cannot be made.
    """
    _need("ssh-keygen", "openssh-client")
    script = (
        'umask 077; mkdir -p "$(dirname "$1")" || exit; if [ -n "$3" ] || [ ! -s "$1" ] || [ ! -s "$1.pub" ]; then '
        # made beside and moved, so that a kill leaves the old one; the public half last, as the mark that it is whole
        'rm -f "$1.new" "$1.new.pub"; ssh-keygen -q -t ed25519 -N "" -C "$2" -f "$1.new" </dev/null && '
        'rm -f "$1.pub" && mv -T "$1.new" "$1" && mv -T "$1.new.pub" "$1.pub" || exit; fi; cat "$1.pub"'
    )
    comment = f"illumidesk-{course.course_id}"
    return _run(course, ["sh", "-c", script, "sh", str(course.key), comment, "new" if new else ""]).strip()


def mirror(course: Course, repository: str) -> Path:
    """Copy a repository into the course's shared folder, or bring the copy up to date.

    Args:
        course: the course.
        repository: its address, by ssh or https.

    Returns:
        the copy, a bare repository.

    Raises:
        IllumiDeskError: where it cannot be fetched; a copy that is there stays as it is.
    """
    copy = course.shared / _name_of(repository)
    if copy.is_dir():
        origin = _run(course, ["git", "-C", str(copy), "config", "--get", "remote.origin.url"]).strip()
        if origin != repository:
            raise IllumiDeskError(
                f"{copy} is a copy of another repository", hint=f"remove it first, or go on with {origin}", status=409
            )
        update(course, copy)
        return copy
    partial = course.shared / f".{copy.name}.partial"
    _run(course, ["rm", "-rf", "--", str(partial)])
    _git(course, ["clone", "--quiet", "--mirror", "--", repository, str(partial)], repository)
    _run(course, ["mv", "-T", "--", str(partial), str(copy)])
    return copy


def mirrors(course: Course) -> list[Path]:
    """The copies that the course has."""
    return sorted(path for path in course.shared.glob("*.git") if (path / "HEAD").is_file() and not path.is_symlink())


def update(course: Course, copy: Path) -> None:
    """Bring a copy up to date.

    Raises:
        IllumiDeskError: where it cannot be fetched.
    """
    _git(course, ["-C", str(copy), "fetch", "--quiet", "--prune"], copy.name)


def _name_of(repository: str) -> str:
    parts = urlsplit(repository)
    path = repository.partition(":")[2] if _SCP.fullmatch(repository) else parts.path
    name = path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    known = _SCP.fullmatch(repository) or parts.scheme in ("ssh", "https", "http", "git", "file")
    if not known or not _NAME.fullmatch(name) or not repository.isprintable():
        raise IllumiDeskError(
            "this is not the address of a git repository",
            hint="give git@HOST:OWNER/NAME.git, ssh://… or https://…",
        )
    if parts.password:
        raise IllumiDeskError(
            "the address holds a password, which everybody in the course could read",
            hint="use the course's key: illumidesk course deploy-key",
        )
    return f"{name}.git"


def _git(course: Course, argv: Sequence[str], what: str) -> None:
    _need("git", "git")
    ssh = f"ssh -i {course.key} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
    try:
        _run(course, ["env", f"GIT_SSH_COMMAND={ssh}", "GIT_TERMINAL_PROMPT=0", "git", *argv])
    except IllumiDeskError as error:
        raise IllumiDeskError(
            f"{what} cannot be fetched: {error.message}",
            hint=f"is the address right, and is the key entered there? illumidesk course deploy-key {course.course_id}",
            status=502,
        ) from None


def _run(course: Course, argv: Sequence[str]) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(course.home)}
    try:
        done = subprocess.run(
            [*course.step_down, *argv],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT,
            # without root's terminal, into which the account could type
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise IllumiDeskError(f"it took more than {_TIMEOUT // 60} minutes", status=504) from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        told = next((line for line in lines if line.startswith(("fatal:", "ERROR:"))), lines[-1] if lines else "")
        raise IllumiDeskError(told.partition(": ")[2] or told or f"exit code {done.returncode}", status=500)
    return done.stdout


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise IllumiDeskError(f"{program} is not installed", hint=f"sudo apt-get install {package}", status=500)
