"""A course's deploy key and its copies of private repositories, with real git; the account is ours here."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.host import mirrors
from illumidesk.host.mirrors import Course


@pytest.fixture
def course(tmp_path: Path) -> Course:
    for name in ("home", "shared"):
        (tmp_path / name).mkdir()
    return Course("intro101", tmp_path / "home", tmp_path / "shared", ())


def git(folder: Path, *argv: str) -> str:
    identity = ["-c", "user.name=Teacher", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *argv], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_the_key_is_made_once_and_anew_when_asked(course: Course) -> None:
    key = mirrors.deploy_key(course)
    assert key.startswith("ssh-ed25519 ")
    assert key.endswith(" illumidesk-intro101")
    assert mirrors.deploy_key(course) == key
    assert stat.S_IMODE(course.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(course.key.parent.stat().st_mode) == 0o700
    other = mirrors.deploy_key(course, new=True)
    assert other != key
    assert course.key.with_suffix(".pub").read_text().strip() == other
    derived = subprocess.run(["ssh-keygen", "-y", "-f", course.key], check=True, capture_output=True, text=True).stdout
    assert derived.split()[1] == other.split()[1]
    # a kill between the two halves
    course.key.with_suffix(".pub").unlink()
    assert mirrors.deploy_key(course).startswith("ssh-ed25519 ")
    assert sorted(file.name for file in course.key.parent.iterdir()) == ["illumidesk_deploy", "illumidesk_deploy.pub"]


def test_a_copy_follows(course: Course, private: Path) -> None:
    copy = mirrors.mirror(course, f"file://{private}")
    assert copy == course.shared / "private.git"
    assert mirrors.mirrors(course) == [copy]
    git(private, "commit", "-q", "--allow-empty", "-m", "second")
    mirrors.update(course, copy)
    assert git(copy, "log", "--format=%s", "main").split() == ["second", "first"]
    git(private, "commit", "-q", "--allow-empty", "-m", "third")
    assert mirrors.mirror(course, f"file://{private}") == copy
    assert git(copy, "log", "-1", "--format=%s", "main") == "third"


def test_what_fails_leaves_nothing_or_the_old_copy(course: Course, private: Path) -> None:
    with pytest.raises(IllumiDeskError, match=r"none cannot be fetched") as error:
        mirrors.mirror(course, f"file://{private}/none")
    assert "deploy-key intro101" in error.value.hint
    assert mirrors.mirrors(course) == []
    copy = mirrors.mirror(course, f"file://{private}")
    private.rename(private.with_name("away"))
    with pytest.raises(IllumiDeskError, match="cannot be fetched"):
        mirrors.update(course, copy)
    assert git(copy, "log", "-1", "--format=%s", "main") == "first"
    with pytest.raises(IllumiDeskError, match="copy of another repository"):
        mirrors.mirror(course, "git@git.example.org:other/private.git")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "--upload-pack=id",
        "ext::sh -c id",
        "/srv/x",
        "https://git.example.org/",
        "git@host:-x",
        "https://x/../..",
        "x",
    ],
)
def test_what_is_no_address(course: Course, address: str) -> None:
    with pytest.raises(IllumiDeskError, match="not the address"):
        mirrors.mirror(course, address)
    assert list(course.shared.iterdir()) == []


def test_a_password_in_an_address_is_refused(course: Course) -> None:
    with pytest.raises(IllumiDeskError, match="holds a password") as error:
        mirrors.mirror(course, "https://me:s3cret@git.example.org/a/b.git")
    assert "s3cret" not in f"{error.value} {error.value.hint}"
