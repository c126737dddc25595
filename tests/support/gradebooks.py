"""A course of a grader in a temporary home: the files that the supervisor writes, and real runs of nbgrader."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from string import Template
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.apps.nbgraderapp import NbGraderApp

from illumidesk.grader.course import Course, read_course
from illumidesk.paths import data

COURSE = "intro101"
#: Points of the notebook below: two tests and a text that is graded by hand.
POINTS = 3 + 2 + 5


class GraderHome:
    """A grader's home; `environment` is what its processes get."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.exchange = root / "exchange"
        self.course = self.home / COURSE
        machine = root / "machine"
        # Kernels' sockets need a short path
        runtime = tempfile.mkdtemp(prefix="kernels-")
        weakref.finalize(self, shutil.rmtree, runtime, ignore_errors=True)
        for folder in (self.home / ".jupyter", self.course, machine, self.exchange / COURSE):
            folder.mkdir(parents=True)
        for part in ("outbound", "inbound", "feedback"):
            (self.exchange / COURSE / part).mkdir()
            (self.exchange / COURSE / part).chmod(0o733 if part == "inbound" else 0o755)
        # As the supervisor makes it, but for the group
        (self.exchange / COURSE).chmod(0o2755)
        text = data("config", "nbgrader", "global_nbgrader_config.py").read_text()
        (machine / "nbgrader_config.py").write_text(text.replace("/srv/nbgrader/exchange", str(self.exchange)))
        for name, folder in (("grader", self.home / ".jupyter"), ("course", self.course)):
            text = data("config", "nbgrader", f"{name}_nbgrader_config.py").read_text()
            text = Template(text).substitute(course_id=COURSE, home=self.home)
            (folder / "nbgrader_config.py").write_text(text)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "NBGRADER"))} | {
            # nbgrader runs alembic by its name
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "JUPYTER_CONFIG_PATH": str(machine),
            "JUPYTER_RUNTIME_DIR": runtime,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Make this process one of the grader's."""
        for name in set(os.environ) - set(self.environment):
            patch.delenv(name)
        for name, value in self.environment.items():
            patch.setenv(name, value)
        patch.chdir(self.home)

    def read(self) -> Course:
        return read_course()

    def nbgrader(self, *arguments: str, check: bool = True, cwd: Path | None = None) -> str:
        """A run of nbgrader in the course's folder, in a process of its own; what it logged.

        A fork of this one, which has nbgrader imported: that takes most of the time of a short command.
        """
        output = self.home.parent / "output"
        child = multiprocessing.get_context("fork").Process(
            target=_nbgrader, args=(list(arguments), cwd or self.course, self.environment, output)
        )
        child.start()
        child.join()
        text = output.read_text()
        assert child.exitcode == 0 or not check, text
        return text

    def submit(self, student: str, assignment: str) -> None:
        """A student hands in through the exchange, now, and right."""
        folder = self.home.parent / "students" / student / COURSE / assignment
        folder.mkdir(parents=True)
        nbformat.write(
            solved(self.course / "release" / assignment / "problem.ipynb", "return a + b"), folder / "problem.ipynb"
        )
        self.nbgrader("submit", assignment, "--course", COURSE, "--student", student, cwd=folder.parent.parent)

    def author(self, assignment: str) -> None:
        """Write the assignment's source and generate it."""
        folder = self.course / "source" / assignment
        folder.mkdir(parents=True)
        nbformat.write(_source(), folder / "problem.ipynb")
        self.nbgrader("generate_assignment", assignment)

    def hand_in(self, student: str, assignment: str, timestamp: str, *, answer: str = "return a + b") -> None:
        """What collecting leaves of a submission: the student's notebook and the time of handing in."""
        folder = self.course / "submitted" / student / assignment
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(solved(self.course / "release" / assignment / "problem.ipynb", answer), folder / "problem.ipynb")
        (folder / "timestamp.txt").write_text(timestamp)


def _nbgrader(arguments: list[str], cwd: Path, environment: dict[str, str], output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = sys.stderr = open(file, "w", buffering=1)  # noqa: PTH123, SIM115 -- pytest has put its own there
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["nbgrader", *arguments]
    NbGraderApp.launch_instance(arguments)


def solved(path: Path, answer: str) -> Any:
    """The released notebook with a student's answers."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "add":
            cell.source = f"def add(a, b):\n    {answer}\n"
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "why":
            cell.source = "Because."
    return notebook


def _source() -> Any:
    def cell(make: Any, text: str, grade_id: str, points: int = 0, *, solution: bool = False) -> Any:
        marks = {"grade_id": grade_id, "grade": points > 0, "solution": solution, "task": False}
        marks |= {"locked": not solution, "schema_version": 3} | ({"points": points} if points else {})
        return make(text, metadata={"nbgrader": marks})

    notebook = new_notebook(
        cells=[
            cell(
                new_code_cell,
                "def add(a, b):\n    ### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION\n",
                "add",
                solution=True,
            ),
            cell(new_code_cell, "assert add(1, 2) == 3", "test-1", 3),
            cell(new_code_cell, "assert add(-1, 1) == 0", "test-2", 2),
            cell(new_markdown_cell, "Why?", "why", 5, solution=True),
        ]
    )
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook
