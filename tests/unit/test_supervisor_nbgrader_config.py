"""`nbgrader quickstart COURSE` in the grader's home, with the configuration that the supervisor puts there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from illumidesk.paths import data


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, folder in (("grader", ".jupyter"), ("course", "intro101")):
        (tmp_path / folder).mkdir()
        text = data("config", "nbgrader", f"{name}_nbgrader_config.py").read_text()
        text = Template(text).substitute(course_id="intro101", home=tmp_path)
        (tmp_path / folder / "nbgrader_config.py").write_text(text)
    return tmp_path


def nbgrader(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=home,
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_quickstart_begins_a_course_once(home: Path) -> None:
    course = home / "intro101"
    (course / "gradebook.db").touch()  # as opening the formgrader makes it
    done = nbgrader(home, "quickstart", "intro101")
    assert done.returncode == 0, done.stderr
    assert (course / "source/ps1").is_dir()
    assert 'c.CourseDirectory.course_id = "intro101"' in (course / "nbgrader_config.py").read_text()
    assert (course / "gradebook.db").exists()
    done = nbgrader(home, "generate_assignment", "ps1")
    assert done.returncode == 0, done.stderr
    assert (course / "release/ps1/problem1.ipynb").is_file()
    # and never again without being told to
    (course / "mine").touch()
    assert nbgrader(home, "quickstart", "intro101").returncode != 0
    assert (course / "mine").exists()


def test_quickstart_keeps_a_file_that_a_teacher_changed(home: Path) -> None:
    file = home / "intro101/nbgrader_config.py"
    file.write_text(file.read_text() + "\nc.ExecutePreprocessor.timeout = 5\n")
    assert nbgrader(home, "quickstart", "intro101").returncode != 0
    assert "timeout = 5" in file.read_text()


def test_quickstart_of_another_course_leaves_this_one(home: Path) -> None:
    before = (home / "intro101/nbgrader_config.py").read_text()
    assert nbgrader(home, "quickstart", "other").returncode == 0
    assert (home / "intro101/nbgrader_config.py").read_text() == before
