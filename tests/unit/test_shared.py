"""Links from homes to courses' shared folders."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from illumidesk.grader.shared import SharedFolders


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "shared/intro101").mkdir(parents=True)
    (tmp_path / "shared/intro101/slides.md").write_text("# Day 1")
    (tmp_path / "shared/not a course").mkdir()
    return tmp_path / "home"


@pytest.fixture
def folders(home: Path) -> SharedFolders:
    return SharedFolders(home, home.parent / "shared", logging.getLogger("test"))


def test_a_course_comes_and_goes(home: Path, folders: SharedFolders) -> None:
    folders.refresh()
    folders.refresh()
    assert [entry.name for entry in home.iterdir()] == ["intro101"]
    assert (home / "intro101/shared/slides.md").read_text() == "# Day 1"
    (home.parent / "shared/intro101").rename(home.parent / "shared/gone")
    folders.refresh()
    assert not os.path.lexists(home / "intro101")
    assert (home / "gone/shared/slides.md").exists()


def test_work_beside_the_link_stays(home: Path, folders: SharedFolders) -> None:
    folders.refresh()
    (home / "intro101/ps1").mkdir()
    (home.parent / "shared/intro101").rename(home.parent / "gone")
    folders.refresh()
    assert [entry.name for entry in (home / "intro101").iterdir()] == ["ps1"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling"])
def test_what_somebody_has_already_stays(
    home: Path, folders: SharedFolders, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    mine = home / "intro101/shared"
    mine.parent.mkdir()
    match kind:
        case "folder":
            mine.mkdir()
            (mine / "thesis.md").write_text("mine")
        case "file":
            mine.write_text("mine")
        case "link":
            mine.symlink_to(home)
        case "dangling":
            mine.symlink_to(home / "none")
    before = mine.lstat()
    folders.refresh()
    folders.refresh()
    assert mine.lstat() == before
    assert (home / "intro101/shared-folder/slides.md").read_text() == "# Day 1"
    (line,) = caplog.messages
    assert "something of your own and stays" in line
    assert str(home.parent / "shared/intro101") in line


def test_nothing_fits(home: Path, folders: SharedFolders, caplog: pytest.LogCaptureFixture) -> None:
    (home / "intro101").write_text("a file")
    folders.refresh()
    assert (home / "intro101").read_text() == "a file"
    assert "File exists" in caplog.text
    (home / "intro101").unlink()
    for name in ("shared", "shared-folder"):
        (home / "intro101" / name).mkdir(parents=True)
    folders.refresh()
    assert "are something of your own and stay" in caplog.text
