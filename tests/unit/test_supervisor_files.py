"""Root's hands in folders where others may write."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.supervisor import acl, files

OWN = {"uid": os.getuid(), "gid": os.getgid()}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    with files.open_folder(tmp_path) as fd:
        yield fd


def ensure(here: int, name: str, mode: int = 0o750, uid: int = OWN["uid"]) -> None:
    with files.ensure_folder(here, name, mode=mode, uid=uid, gid=OWN["gid"]):
        pass


def test_a_folder_is_made_and_mended(here: int, tmp_path: Path) -> None:
    for mode in (0o2750, 0o1730, 0o700, 0o1777):
        ensure(here, "a", mode)
        assert (tmp_path / "a").stat().st_mode & 0o7777 == mode


def test_a_link_is_no_folder(here: int, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o700)
    (tmp_path / "a").symlink_to("target")
    with pytest.raises(files.ForeignFolderError):
        ensure(here, "a", 0o777)
    assert (tmp_path / "target").stat().st_mode & 0o7777 == 0o700
    with pytest.raises(OSError, match="a"), files.open_folder(tmp_path / "a"):
        pass


def test_a_file_a_pipe_and_a_dangling_link_are_no_folder(here: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "pipe", "link"):
        with pytest.raises(files.ForeignFolderError):
            ensure(here, name)
    assert not (tmp_path / "nowhere").exists()


def test_somebody_elses_folder_is_not_taken(here: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", 12345, 12345)
    with pytest.raises(files.ForeignFolderError, match="somebody else"):
        ensure(here, "a", uid=12346)
    assert (tmp_path / "a").stat().st_uid == 12345


def test_a_folder_that_changes_under_our_hands(here: int, tmp_path: Path) -> None:
    """Somebody swaps the folder for a link all the time: what the link points to is never touched."""
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for make in (lambda path: path.mkdir(), lambda path: path.symlink_to("target")):
                with contextlib.suppress(OSError):
                    make(tmp_path / "x")
                    (tmp_path / "x").rename(tmp_path / "a")
                for name in ("a", "x"):
                    for remove in (Path.unlink, Path.rmdir):
                        with contextlib.suppress(OSError):
                            remove(tmp_path / name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(500):
            with contextlib.suppress(files.ForeignFolderError, FileNotFoundError):
                ensure(here, "a", 0o777, uid=12345)
    finally:
        stop.set()
        thread.join()
    assert (target.stat().st_uid, target.stat().st_mode & 0o7777) == (0, 0o700)


def test_a_file_is_written_whole(here: int, tmp_path: Path) -> None:
    assert files.write_file(here, "f", "one", mode=0o600, replace=False, **OWN)
    assert not files.write_file(here, "f", "two", mode=0o644, replace=False, **OWN)
    assert (tmp_path / "f").read_text() == "one"
    assert files.same_text(here, "f", "one")
    assert not files.same_text(here, "f", "on")
    assert files.write_file(here, "f", "two", mode=0o644, replace=True, **OWN)
    assert (tmp_path / "f").read_text() == "two"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_link_is_replaced_and_not_followed(here: int, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "f").symlink_to("target")
    assert not files.same_text(here, "f", "precious")
    assert not files.write_file(here, "f", "new", mode=0o644, replace=False, **OWN)
    assert files.write_file(here, "f", "new", mode=0o644, replace=True, **OWN)
    assert not (tmp_path / "f").is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_a_hard_link_is_replaced_and_its_file_left(here: int, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "target").chmod(0o600)
    (tmp_path / "f").hardlink_to(tmp_path / "target")
    files.write_file(here, "f", "new", mode=0o644, replace=True, **OWN)
    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o600


def test_a_folder_in_the_way_of_a_file(here: int, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(IllumiDeskError, match="in the way"):
        files.write_file(here, "f", "new", mode=0o644, replace=True, **OWN)
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_pipe_does_not_stop_us(here: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    assert not files.same_text(here, "f", "x")


def test_a_hostile_tree_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    tree = tmp_path / "-tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    with contextlib.chdir(tree):
        for _ in range(2000):
            Path("d").mkdir()
            os.chdir("d")
    files.remove_tree(tree)
    assert not tree.exists()
    assert (outside / "precious").exists()
    files.remove_tree(tree)


def test_a_tool_that_fails_is_an_error() -> None:
    with pytest.raises(IllumiDeskError, match=r"ls failed: .*/none"):
        files.run(["ls", "/none"])
    assert files.run(["sh", "-c", "echo ok; exit 3"], ok=(3,)) == "ok\n"


def test_an_entry_comes_and_goes(here: int, tmp_path: Path) -> None:
    ensure(here, "a", 0o2750)
    folder = tmp_path / "a"
    with files.open_folder(folder) as fd:
        if not acl.set_entry(fd, 12345, 5):
            pytest.skip("this file system keeps no access lists")
        acl.set_entry(fd, 12346, 0)
        assert acl.entries(fd) == {12345: 5, 12346: 0}
        assert folder.stat().st_mode & 0o7777 == 0o2750
        acl.set_entry(fd, 12345, 0)
        assert acl.entries(fd) == {12345: 0, 12346: 0}
        ensure(here, "a", 0o2750)
        assert acl.entries(fd) == {12345: 0, 12346: 0}
        for uid in (12345, 12346, 12347):
            acl.set_entry(fd, uid, None)
        assert acl.entries(fd) == {}
        assert "system.posix_acl_access" not in os.listxattr(fd)
        assert folder.stat().st_mode & 0o7777 == 0o2750


def test_an_entry_that_gives_more_than_the_group_has(here: int, tmp_path: Path) -> None:
    ensure(here, "a", 0o1730)
    with files.open_folder(tmp_path / "a") as fd:
        if not acl.set_entry(fd, 12345, 5):
            pytest.skip("this file system keeps no access lists")
        acl.set_entry(fd, 12345, None)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o1730
